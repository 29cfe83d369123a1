"""Every command with its example, its heading in `cospan --help` and its exit codes.

What a command does is imported when it runs, so that `cospan --help` is quick.
"""

from collections.abc import Callable

from cospan.cli.deploy.commands import (
    deploy_compose,
    deploy_kubernetes,
    deploy_slurm,
    deploy_swarm,
    deploy_systemd,
)
from cospan.cli.interface.bench_commands import (
    bench_agent_start,
    bench_cost_growth,
    bench_encodings,
    bench_fleet,
    bench_groups,
    bench_learner,
    bench_logs,
    bench_orthonormalise,
    bench_peers,
    bench_rounds,
    bench_time_to_accuracy,
)
from cospan.cli.interface.certs_commands import certs_init, certs_issue, certs_renew, certs_show
from cospan.cli.interface.fleet_commands import agent, coordinator, relay, run, stop
from cospan.cli.interface.lab_commands import compare, export_logs, rank, reproduce, suggest_features
from cospan.cli.interface.tool_commands import new, score
from cospan.cli.interface.viewing_commands import (
    doctor,
    export,
    plot,
    policy,
    report,
    runs,
    status,
    value,
    watch,
)

ALL: tuple[tuple[Callable[..., None], str], ...] = (
    (new, "cospan new cold-stores"),
    (run, "cospan run queues --agents 8 --rounds 300"),
    (coordinator, "cospan coordinator --workload queues --agents 8 --rounds 300"),
    (agent, "cospan agent queues --id site-7 --coordinator 127.0.0.1:15051 --output site-7.npz"),
    (relay, "cospan relay --upstream coordinator.example:15051 --agents 100 --port 15052"),
    (compare, "cospan compare queues --agents 40 --rounds 500 --seeds 5"),
    (reproduce, "cospan reproduce linear-speedup"),
    (rank, "cospan rank queues --agents 40 --rounds 300"),
    (status, "cospan status --coordinator 127.0.0.1:15051"),
    (watch, "cospan watch --coordinator 127.0.0.1:15051"),
    (doctor, "cospan doctor --coordinator 127.0.0.1:15051"),
    (stop, "cospan stop --coordinator 127.0.0.1:15051 --cause 'the plant is shut down'"),
    (runs, "cospan runs"),
    (export_logs, "cospan export-logs microgrids --rounds 30 --output logs"),
    (export, "cospan export runs/latest --round 100 --output basis.npz"),
    (score, "cospan score --value runs/latest/agents/site-7.npz --observations hours.csv --output values.csv"),
    (report, "cospan report runs/latest --output report.html"),
    (plot, "cospan plot runs/latest --site 7 --over hour,charge"),
    (value, "cospan value runs/latest --site 7 --at hour=7,charge=0.6 --than charge=0.5"),
    (policy, "cospan policy runs/latest --site 7 --at hour=7,charge=0.6"),
)
"""Every command with its example."""

_FLEETS, _MONITORING, _STUDIES, OTHER_PANEL = "Fleets", "Monitoring", "Studies", "Files and tools"
PANELS: dict[Callable[..., None], str] = {
    **dict.fromkeys((new, run, coordinator, agent, relay, stop), _FLEETS),
    **dict.fromkeys((status, watch, report, plot, value, policy, runs, doctor), _MONITORING),
    **dict.fromkeys((compare, reproduce, rank), _STUDIES),
}
"""The heading of each command in `cospan --help`."""
_DONE = "0 all rounds are done, or `cospan stop` ended the run"
_INTERRUPTED = "75 stopped by a signal (Ctrl-C, SIGTERM) before the end; it can be resumed"
_EXIT_CODES = {
    watch: "0 the run is over, or Ctrl-C; 1 no answer; 2 wrong usage",
    doctor: "0 no problem; 1 a problem was found; 2 wrong usage",
    coordinator: f"{_DONE}; 1 the run failed; 2 wrong usage; {_INTERRUPTED}",
    run: f"{_DONE}; 1 failed; 2 wrong usage; 3 ended with fewer agents than it began with; {_INTERRUPTED}",
    agent: "0 the run is over; 1 failed; 2 wrong usage; 75 stopped by a signal before the run was over",
    relay: "0 the run is over; 1 failed; 2 wrong usage; 75 stopped by a signal before the run was over",
}


def epilog(command: Callable[..., None] | None, example: str) -> str:
    """The text below the options of a command: an example and exit codes."""
    codes = "0 done; 1 failed; 2 wrong usage"
    if command is not None:
        codes = _EXIT_CODES.get(command, codes)
    return f"Example: {example}\n\nExit codes: {codes}"


_CERTS: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("init", certs_init, "cospan certs init certs"),
    ("issue", certs_issue, "cospan certs issue certs --agent site-7"),
    ("renew", certs_renew, "cospan certs renew certs site-7"),
    ("show", certs_show, "cospan certs show certs"),
)
_BENCH: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("rounds", bench_rounds, "cospan bench rounds --agents 32 --feature-dim 1024 --rank 16 --json"),
    ("orthonormalise", bench_orthonormalise, "cospan bench orthonormalise --shape 65536x32"),
    ("learner", bench_learner, "cospan bench learner --output learner.json"),
    ("logs", bench_logs, "cospan bench logs --rows 200000 --json"),
    ("encodings", bench_encodings, "cospan bench encodings --shape 1024x16"),
    ("peers", bench_peers, "cospan bench peers --agents 8 --output peers.json"),
    ("cost-growth", bench_cost_growth, "cospan bench cost-growth --series streams --output growth.json"),
    ("agent-start", bench_agent_start, "cospan bench agent-start queues --json"),
    ("groups", bench_groups, "cospan bench groups --agents 1000 --group 1000 --json"),
    ("fleet", bench_fleet, "cospan bench fleet synthetic --agents 10000 --processes 2"),
    ("time-to-accuracy", bench_time_to_accuracy, "cospan bench time-to-accuracy queues --value-error 0.005"),
)

_DEPLOY: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("kubernetes", deploy_kubernetes, "cospan deploy kubernetes queues --agents 1000 --groups 8 --output fleet"),
    ("swarm", deploy_swarm, "cospan deploy swarm queues --agents 100 --groups 8 --output fleet"),
    ("compose", deploy_compose, "cospan deploy compose queues --agents 100 --groups 4 --output fleet"),
    ("slurm", deploy_slurm, "cospan deploy slurm queues --agents 1000 --groups 8 --output fleet"),
    ("systemd", deploy_systemd, "cospan deploy systemd queues --agents 100 --groups 4 --output fleet"),
)
_FEATURES: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("suggest", suggest_features, "cospan features suggest --log site-7.csv --time stamp --reward=-cost"),
)

GROUPS = (
    (
        "features",
        "Features for logs.",
        "cospan features suggest --log site-7.csv --time stamp --reward=-cost",
        _FEATURES,
    ),
    (
        "deploy",
        "Files with which an engine runs a fleet: review them, commit them, apply them.",
        "cospan deploy kubernetes queues --agents 1000 --groups 8 --output fleet",
        _DEPLOY,
    ),
    (
        "certs",
        "Development certificates for mutual TLS.",
        "cospan certs init certs",
        _CERTS,
    ),
    (
        "bench",
        "Benchmarks: each measures its subject and a reference in turns, in one run.",
        "cospan bench rounds --agents 8 --json",
        _BENCH,
    ),
)
"""Groups of commands: name, help, example, commands."""
