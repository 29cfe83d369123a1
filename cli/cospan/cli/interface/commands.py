"""The commands' signatures. What they do is imported when they run, so that `cospan --help` is quick."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from cospan.cli.interface import options as o


def _given(context: typer.Context) -> dict[str, Any]:
    """The options that were said on the command line, by name."""
    return {name: value for name, value in context.params.items() if value is not None}


def run(
    context: typer.Context,
    workload: o.WorkloadArgument = None,
    agents: o.Agents = None,
    processes: o.Processes = None,
    rounds: o.RunRounds = None,
    seed: o.Seed = None,
    rank: o.Rank = None,
    steps_per_round: o.StepsPerRound = None,
    preset: o.PresetName = None,
    head_update: o.HeadUpdate = None,
    head_step: o.HeadStep = None,
    gain_step: o.GainStep = None,
    head_radius: o.HeadRadius = None,
    basis_step: o.BasisStep = None,
    implicit_head_step: o.ImplicitHeadStep = None,
    preconditioned: o.Preconditioned = None,
    preconditioner_floor: o.PreconditionerFloor = None,
    decay_horizon: o.DecayHorizon = None,
    decay_power: o.DecayPower = None,
    trace_decay: o.TraceDecay = None,
    forgetting: o.Forgetting = None,
    row_scaled: o.RowScaled = None,
    reward_scaled: o.RewardScaled = None,
    explained_power: o.ExplainedPower = None,
    warm_up_rounds: o.WarmUpRounds = None,
    aggregation: o.AggregationPolicy = None,
    trimmed_share: o.TrimmedShare = None,
    clip_norm: o.ClipNorm = None,
    largest_turn: o.LargestTurn = None,
    baseline: o.Baseline = None,
    min_steps_per_round: o.MinStepsPerRound = None,
    agent_restarts: o.AgentRestarts = None,
    memory_gib: o.MemoryGib = None,
    quorum: o.Quorum = None,
    deadline_seconds: o.DeadlineSeconds = None,
    max_staleness: o.MaxStaleness = None,
    min_agents: o.MinAgents = None,
    session_timeout_seconds: o.LivenessSeconds = None,
    round_timeout_seconds: o.RoundSeconds = None,
    start_seconds: o.RunStartSeconds = None,
    port: o.RunPort = None,
    dashboard: o.Dashboard = None,
    dashboard_token_file: o.DashboardTokenFile = None,
    dashboard_root_path: o.DashboardRootPath = None,
    allowed_hosts: o.AllowedHosts = None,
    in_process: o.InProcess = False,
    allow_losses: o.AllowLosses = False,
    output: o.OutputFolder = None,
    resume: o.ResumeRun = None,
    checkpoint_interval: o.KeepEvery = None,
    spec: o.SpecFile = None,
    config: o.Config = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """One coordinator and N agent processes on this machine: a live run, a summary, a run folder."""
    from cospan.cli.commands.run import RunOptions, run_here

    chosen = RunOptions(
        workload,
        spec,
        output,
        resume=resume,
        in_process=in_process,
        json=json,
        quiet=quiet,
        debug=debug,
        allow_losses=allow_losses,
    )
    raise typer.Exit(run_here(chosen, _given(context), config))


def coordinator(
    context: typer.Context,
    workload: o.WorkloadOption = None,
    feature_dim: o.FeatureDim = None,
    fingerprint: o.Fingerprint = None,
    agents: o.Agents = None,
    rounds: o.CoordinatorRounds = None,
    seed: o.Seed = None,
    rank: o.Rank = None,
    steps_per_round: o.StepsPerRound = None,
    preset: o.PresetName = None,
    head_update: o.HeadUpdate = None,
    head_step: o.HeadStep = None,
    gain_step: o.GainStep = None,
    head_radius: o.HeadRadius = None,
    basis_step: o.BasisStep = None,
    implicit_head_step: o.ImplicitHeadStep = None,
    preconditioned: o.Preconditioned = None,
    preconditioner_floor: o.PreconditionerFloor = None,
    decay_horizon: o.DecayHorizon = None,
    decay_power: o.DecayPower = None,
    trace_decay: o.TraceDecay = None,
    forgetting: o.Forgetting = None,
    row_scaled: o.RowScaled = None,
    reward_scaled: o.RewardScaled = None,
    explained_power: o.ExplainedPower = None,
    warm_up_rounds: o.WarmUpRounds = None,
    aggregation: o.AggregationPolicy = None,
    trimmed_share: o.TrimmedShare = None,
    clip_norm: o.ClipNorm = None,
    largest_turn: o.LargestTurn = None,
    quorum: o.Quorum = None,
    deadline_seconds: o.DeadlineSeconds = None,
    max_staleness: o.MaxStaleness = None,
    min_agents: o.MinAgents = None,
    session_timeout_seconds: o.LivenessSeconds = None,
    round_timeout_seconds: o.RoundSeconds = None,
    start_seconds: o.CoordinatorStartSeconds = None,
    host: o.Host = None,
    port: o.CoordinatorPort = None,
    insecure: o.Insecure = None,
    dashboard: o.Dashboard = None,
    dashboard_token_file: o.DashboardTokenFile = None,
    dashboard_root_path: o.DashboardRootPath = None,
    allowed_hosts: o.AllowedHosts = None,
    metrics: o.Metrics = None,
    traces: o.Traces = None,
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    tls_ca: o.TlsCa = None,
    run_folder: o.RunFolderOption = None,
    runs_folder: o.RunsFolder = None,
    new_run: o.NewRun = None,
    once: o.Once = None,
    checkpoint_interval: o.KeepEvery = None,
    spec: o.SpecFile = None,
    config: o.Config = None,
    json: o.Json = False,
    debug: o.Debug = False,
    follow_stdin: o.FollowStdin = False,
    reopen: o.Reopen = False,
) -> None:
    """The server alone: it waits for agents, averages their gradients, and gives out the basis."""
    from cospan.cli.commands.coordinator import CoordinatorOptions, serve_here

    chosen = CoordinatorOptions(
        workload, spec, run_folder, runs_folder, json=json, follow_stdin=follow_stdin, reopen=reopen
    )
    raise typer.Exit(serve_here(chosen, _given(context), config))


def agent(
    context: typer.Context,
    workload: o.AgentWorkload,
    agent_id: o.AgentName = None,
    index: o.Index = None,
    ids: o.Ids = None,
    sticky_site: o.OfHost = False,
    coordinator: o.CoordinatorAddress = None,
    progress_timeout_seconds: o.ProgressTimeout = None,
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    tls_ca: o.TlsCa = None,
    baseline: o.Baseline = None,
    share_td_error: o.ShareTdError = None,
    min_steps_per_round: o.MinStepsPerRound = None,
    output: o.OutputFile = None,
    memory_gib: o.MemoryGib = None,
    checkpoint_seconds: o.CheckpointSeconds = None,
    resume: o.Resume = None,
    config: o.Config = None,
    json: o.Json = False,
    debug: o.Debug = False,
    follow_stdin: o.FollowStdin = False,
) -> None:
    """One agent: it learns the value function of its own site until the run is over.

    Without --id and --index the coordinator gives it a site that is free. With --ids it is a group of agents.
    """
    from cospan.cli.commands.agent import AgentOptions, take_part

    chosen = AgentOptions(workload, agent_id, sticky_site, output, resume, json=json, follow_stdin=follow_stdin)
    raise typer.Exit(take_part(chosen, _given(context), config))


def relay(
    context: typer.Context,
    upstream: o.Upstream = None,
    level: o.Level = None,
    agents: o.RelayAgents = None,
    host: o.Host = None,
    port: o.CoordinatorPort = None,
    insecure: o.Insecure = None,
    metrics: o.Metrics = None,
    allowed_hosts: o.AllowedHosts = None,
    progress_timeout_seconds: o.ProgressTimeout = None,
    min_steps_per_round: o.MinStepsPerRound = None,
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    tls_ca: o.TlsCa = None,
    upstream_tls_cert: o.UpstreamTlsCert = None,
    upstream_tls_key: o.UpstreamTlsKey = None,
    upstream_tls_ca: o.UpstreamTlsCa = None,
    config: o.Config = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """A level between agents and coordinator: agents join it, and it sends the exact sum of what they send."""
    from cospan.cli.commands.relay import relay_here

    raise typer.Exit(relay_here(_given(context), config, json=json))


def compare(
    context: typer.Context,
    workload: o.WorkloadArgument = None,
    agents: o.Agents = None,
    rounds: o.RunRounds = None,
    seed: o.Seed = None,
    seeds: o.Seeds = 5,
    rank: o.Rank = None,
    steps_per_round: o.StepsPerRound = None,
    preset: o.PresetName = None,
    output: o.OutputFolder = None,
    config: o.Config = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """The joint method and its rivals over the same transitions: a table, plots, and their numbers."""
    from cospan.cli.lab.compare import CompareOptions, compare_here

    chosen = CompareOptions(workload, seeds, output, json=json, quiet=quiet)
    raise typer.Exit(compare_here(chosen, _given(context), config))


def reproduce(
    experiment: o.ExperimentName = None,
    output: o.OutputFolder = None,
    pages: o.Pages = None,
    tiny: o.Tiny = False,
    in_process: o.OnlyInProcess = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """An experiment of docs/experiments: its numbers, verdict and picture. Without a name: the list of them."""
    from cospan.cli.lab.reproduce import ReproduceOptions, reproduce_here

    chosen = ReproduceOptions(experiment, output, pages, tiny, in_process, json=json, quiet=quiet)
    raise typer.Exit(reproduce_here(chosen))


def rank(
    context: typer.Context,
    workload: o.WorkloadArgument = None,
    agents: o.RankAgents = None,
    rounds: o.RankRounds = None,
    seed: o.Seed = None,
    steps_per_round: o.StepsPerRound = None,
    share: o.Share = 0.99,
    config: o.Config = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """How many dimensions the value functions of a fleet share: the spectrum, a rank, and how sure it is."""
    from cospan.cli.lab.rank import RankOptions, rank_here

    chosen = RankOptions(workload, share, json=json, quiet=quiet)
    raise typer.Exit(rank_here(chosen, _given(context), config))


def status(
    context: typer.Context,
    coordinator: o.CoordinatorAddress = None,
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    tls_ca: o.TlsCa = None,
    config: o.Config = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """What a running coordinator is doing, in plain words."""
    from cospan.cli.commands.status import show_status

    raise typer.Exit(show_status(_given(context), config, json=json))


def watch(
    context: typer.Context,
    coordinator: o.CoordinatorAddress = None,
    every: o.WatchEvery = 1.0,
    progress_timeout_seconds: o.ProgressTimeout = None,
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    tls_ca: o.TlsCa = None,
    config: o.Config = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """A run as it goes, until it is over or Ctrl-C: who is waited for, how quick it is, how the basis moves."""
    from cospan.cli.commands.watch import watch_here

    raise typer.Exit(watch_here(_given(context), config, every=every, json=json))


def doctor(
    context: typer.Context,
    coordinator: o.AskCoordinator = None,
    host: o.Host = None,
    port: o.CoordinatorPort = None,
    metrics: o.Metrics = None,
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    tls_ca: o.TlsCa = None,
    run_folder: o.DoctorFolder = Path("runs"),
    config: o.Config = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """What does not work, and what to do about it: versions, ports, certificates, clocks, disk, the coordinator."""
    from cospan.cli.commands.doctor import DoctorOptions, examine

    asked = coordinator is not None or "COSPAN_COORDINATOR" in os.environ
    raise typer.Exit(examine(DoctorOptions(asked, run_folder, json=json), _given(context), config))


def stop(
    context: typer.Context,
    coordinator: o.CoordinatorAddress = None,
    cause: o.StopCause = "",
    tls_cert: o.TlsCert = None,
    tls_key: o.TlsKey = None,
    tls_ca: o.TlsCa = None,
    config: o.Config = None,
    debug: o.Debug = False,
) -> None:
    """Ends a run in order: everybody is told, and what was learnt stays."""
    from cospan.cli.commands.stop import stop_run_there

    raise typer.Exit(stop_run_there(_given(context), config, cause=cause))


def certs_init(
    folder: o.CertsFolder, name: o.CaName = "Cospan development CA", days: o.Days = None, debug: o.Debug = False
) -> None:
    """A development authority: its certificate, and its key, which never leaves the folder."""
    from cospan.cli.commands.certs import initialise

    raise typer.Exit(initialise(folder, name=name, days=days))


def certs_issue(
    folder: o.CertsFolder,
    agent: o.CertsAgent = None,
    agents: o.CertsAgents = None,
    coordinator: o.CertsCoordinator = None,
    admin: o.CertsAdmin = False,
    observer: o.CertsObserver = False,
    name: o.CertsName = None,
    days: o.Days = None,
    debug: o.Debug = False,
) -> None:
    """A certificate for one end: a folder with cert.pem, key.pem and ca.pem."""
    from cospan.cli.commands.certs import IssueOptions, issue

    chosen = IssueOptions(tuple(agent or ()), tuple(agents or ()), coordinator, admin, observer, name, days)
    raise typer.Exit(issue(folder, chosen))


def certs_renew(
    folder: o.CertsFolder,
    names: o.CertsNames = None,
    every: o.CertsAll = False,
    days: o.RenewDays = None,
    debug: o.Debug = False,
) -> None:
    """Issues certificates again, for the same names: running coordinators and agents take them up."""
    from cospan.cli.commands.certs import renew

    raise typer.Exit(renew(folder, tuple(names or ()), every=every, days=days))


def certs_show(paths: o.CertsPaths, json: o.Json = False, debug: o.Debug = False) -> None:
    """Whom certificates are for, until when, and their fingerprints."""
    from cospan.cli.commands.certs import show

    raise typer.Exit(show(tuple(paths), as_json=json))


def runs(
    folder: o.FolderOfRuns = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """The runs of a folder: what became of each, how far it came, and which of its bases were kept."""
    from cospan.cli.commands.runs import list_runs

    raise typer.Exit(list_runs(folder, json=json))


def export(
    run_folder: o.RunToExport,
    output: o.BasisFile,
    round_number: o.ExportRound = None,
    force: o.Force = False,
    debug: o.Debug = False,
) -> None:
    """A basis of a stored run, the last or one that was kept, as an npz file that says what it is of."""
    from cospan.cli.commands.export import export_basis

    raise typer.Exit(export_basis(run_folder, output, round_number=round_number, force=force))


def report(
    run_folder: o.RunToReport,
    output: o.ReportFile = None,
    serve: o.Serve = False,
    force: o.Force = False,
    debug: o.Debug = False,
) -> None:
    """The dashboard of a finished run: one HTML file that opens anywhere, or a page served on this machine."""
    from cospan.cli.commands.report import report_run

    raise typer.Exit(report_run(run_folder, output, serve=serve, force=force))


def bench_rounds(
    agents: o.BenchAgents = 8,
    feature_dim: o.BenchFeatureDim = 20,
    rank: o.BenchRank = 3,
    sweep: o.Sweep = False,
    seconds: o.BenchSeconds = 10.0,
    output: o.BenchOutput = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Rounds per second of the coordinator, with its store, against the bare ceiling of gRPC and numpy."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_rounds(chosen, agents, feature_dim, rank, sweep=sweep))


def bench_orthonormalise(
    shape: o.BenchShapes = None,
    seconds: o.BenchSeconds = 2.0,
    output: o.BenchOutput = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Time of the QR step by shape, in copies of its matrix, and against numpy's own."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_orthonormalise(chosen, bench.shapes_of(shape or ())))


def bench_learner(
    seconds: o.BenchSeconds = 0.5,
    output: o.BenchOutput = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Transitions per second of one agent on one core, against plain numpy written straight."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_learner(chosen))


def bench_encodings(
    shape: o.BenchShapes = None,
    seconds: o.BenchSeconds = 0.2,
    output: o.BenchOutput = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Bytes of an upload, and what it costs to make and to read: dense, factored, float64, float32, groups."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_encodings(chosen, bench.shapes_of(shape or ())))


def bench_peers(
    agents: o.BenchFleets = None,
    feature_dim: o.BenchFeatureDim = 256,
    rank: o.BenchRank = 16,
    environment: o.BenchEnvironment = Path(".venv-peers"),
    seconds: o.BenchSeconds = 20.0,
    output: o.BenchOutput = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Rounds per second beside Flower, Ray and MPI at the same job; what is not installed is left out."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_peers(chosen, agents or (), feature_dim, rank, environment))


def bench_cost_growth(
    series: o.BenchSeries = None,
    seconds: o.BenchSeconds = 3.0,
    output: o.BenchOutput = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """How time and memory of the coordinator grow with agents, groups and d · r: fitted exponents."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_cost_growth(chosen, series or ()))


def bench_agent_start(
    workload: o.WorkloadArgument = "queues",
    turns: o.BenchTurns = 11,
    output: o.BenchOutput = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """CPU seconds of `cospan agent` from its start to its first gradient."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(0.0, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_agent_start(chosen, workload or "queues", turns))


def bench_groups(
    agents: o.BenchAgents = 1000,
    group: o.BenchGroup = 1000,
    feature_dim: o.BenchFeatureDim = 20,
    rank: o.BenchRank = 3,
    seconds: o.BenchSeconds = 10.0,
    output: o.BenchOutput = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Updates of agents a second: in groups against one stream for each agent, in turns."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_groups(chosen, agents, group, feature_dim, rank))


def bench_fleet(
    workload: o.WorkloadArgument = "synthetic",
    agents: o.BenchFleetSize = 10_000,
    processes: o.BenchProcesses = 2,
    rounds: o.BenchFleetRounds = 100,
    output: o.BenchOutput = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Rounds per second of a whole fleet on this machine, and the memory of all its processes."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(0.0, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_fleet(chosen, workload or "synthetic", agents, processes, rounds))


def bench_time_to_accuracy(
    workload: o.WorkloadArgument = "queues",
    agents: o.BenchAgents = 8,
    value_error: o.BenchValueError = 0.005,
    rounds: o.BenchMostRounds = 1000,
    turns: o.BenchTurns = 5,
    output: o.BenchOutput = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Seconds of `cospan run` to a value error, against the same run in one process."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(0.0, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_time_to_accuracy(chosen, workload or "queues", agents, value_error, rounds, turns))


ALL: tuple[tuple[Callable[..., None], str], ...] = (
    (run, "cospan run queues --agents 8 --rounds 300"),
    (coordinator, "cospan coordinator --workload queues --agents 8 --rounds 300"),
    (agent, "cospan agent queues --id site-7 --coordinator 127.0.0.1:50051 --output site-7.npz"),
    (relay, "cospan relay --upstream coordinator.example:50051 --agents 100 --port 50052"),
    (compare, "cospan compare queues --agents 40 --rounds 500 --seeds 5"),
    (reproduce, "cospan reproduce linear-speedup"),
    (rank, "cospan rank queues --agents 40 --rounds 300"),
    (status, "cospan status --coordinator 127.0.0.1:50051"),
    (watch, "cospan watch --coordinator 127.0.0.1:50051"),
    (doctor, "cospan doctor --coordinator 127.0.0.1:50051"),
    (stop, "cospan stop --coordinator 127.0.0.1:50051 --cause 'the plant is shut down'"),
    (runs, "cospan runs"),
    (export, "cospan export runs/latest --round 100 --output basis.npz"),
    (report, "cospan report runs/latest --output report.html"),
)
"""Every command with its example."""

_FLEETS, _LOOKING, _STUDIES, OTHER_PANEL = "Fleets", "Looking at runs", "Studies", "Files and tools"
PANELS: dict[Callable[..., None], str] = {
    **dict.fromkeys((run, coordinator, agent, relay, stop), _FLEETS),
    **dict.fromkeys((status, watch, report, runs, doctor), _LOOKING),
    **dict.fromkeys((compare, reproduce, rank), _STUDIES),
}
"""Under which heading `cospan --help` lists a command."""
_DONE = "0 all rounds are done, or `cospan stop` ended the run"
_INTERRUPTED = "75 stopped by a signal (Ctrl-C, SIGTERM) before the end; it can be resumed"
_EXIT_CODES = {
    watch: "0 the run is over, or Ctrl-C; 1 nobody answers; 2 wrong usage",
    doctor: "0 no problem; 1 a problem was found; 2 wrong usage",
    coordinator: f"{_DONE}; 1 the run failed; 2 wrong usage; {_INTERRUPTED}",
    run: f"{_DONE}; 1 failed; 2 wrong usage; 3 ended with fewer agents than it began with; {_INTERRUPTED}",
    agent: "0 the run is over; 1 failed; 2 wrong usage; 75 stopped by a signal before the run was over",
    relay: "0 the run is over; 1 failed; 2 wrong usage; 75 stopped by a signal before the run was over",
}


def epilog(command: Callable[..., None] | None, example: str) -> str:
    """What stands below the options of a command: an example, and its exit codes."""
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
    ("encodings", bench_encodings, "cospan bench encodings --shape 1024x16"),
    ("peers", bench_peers, "cospan bench peers --agents 8 --output peers.json"),
    ("cost-growth", bench_cost_growth, "cospan bench cost-growth --series streams --output growth.json"),
    ("agent-start", bench_agent_start, "cospan bench agent-start queues --json"),
    ("groups", bench_groups, "cospan bench groups --agents 1000 --group 1000 --json"),
    ("fleet", bench_fleet, "cospan bench fleet synthetic --agents 10000 --processes 2"),
    ("time-to-accuracy", bench_time_to_accuracy, "cospan bench time-to-accuracy queues --value-error 0.005"),
)

GROUPS = (
    (
        "certs",
        "A development certificate authority, and certificates for mutual TLS.",
        "cospan certs init certs",
        _CERTS,
    ),
    (
        "bench",
        "Benchmarks: each measures its subject and a yardstick in turns, in one run.",
        "cospan bench rounds --agents 8 --json",
        _BENCH,
    ),
)
"""Commands that have commands below them: name, what they are for, an example, and those."""
