"""The options that are settings as well: each has a key of cospan.toml and a `COSPAN_…` variable beside its flag.

Those of a run and of its method come from the table of their fields (`cospan.core.fields`). All default to None,
which means that the flag is not given: `cospan.cli.settings.layers` then looks at the environment and cospan.toml.
Numbers stay text: the settings read those of all layers, and say in the same words what is wrong with one.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property, wraps
from typing import Annotated, Any

import typer

from cospan.cli.interface.completion import one_of
from cospan.core.fields import FLEET, LIMITS, ROUNDS, RULE, settings
from cospan.core.method import DEFAULT_MIN_STEPS, PRESETS, Method
from cospan.core.run_fields import RunFields
from cospan.wire.address import DEFAULT_COORDINATOR, DEFAULT_PORT

ADDRESS = "Addresses"
TRUST = "Mutual TLS: all three, or none"
FILES = "Files and output"


@dataclass(frozen=True, eq=False)
class SettingOption:
    """An option of the command line that is a setting.

    Attributes:
        name: of the setting; with hyphens it is the flag.
        help: one sentence or two.
        group: the heading it is shown under.
        metavar: stands for its value; empty for a flag without a value.
        unset: what holds where no layer sets it, in words.
        negated: whether a flag without a value has a counterpart `--no-…`.
        values: what a shell completes to.
    """

    name: str
    help: str
    group: str
    metavar: str = ""
    unset: str = ""
    negated: bool = False
    values: tuple[str, ...] = ()

    @cached_property
    def parameter(self) -> inspect.Parameter:
        """The parameter of a command that typer makes the option from."""
        flag = f"--{self.name.replace('_', '-')}"
        option = typer.Option(
            f"{flag}/--no-{flag[2:]}" if self.negated else flag,
            help=self.help,
            show_default=self.unset or True,
            rich_help_panel=self.group,
            metavar=self.metavar or None,
            autocompletion=one_of(self.values) if self.values else None,
        )
        kind: Any = (str if self.metavar else bool) | None
        return inspect.Parameter(self.name, _KEYWORD, default=None, annotation=Annotated[kind, option])


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def with_settings(*options: SettingOption) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command options that are settings.

    The command's first parameter takes all that is given on the command line, by name; its further parameters are
    options of its own. `--help` shows those before the `*` above the settings of their group, and the others below.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command).parameters.values()

        @wraps(command)
        def called(context: typer.Context, **values: Any) -> None:
            given = {name: value for name, value in context.params.items() if value is not None}
            command(given, **{each.name: values[each.name] for each in own})

        first = [each for each in own if each.kind is not _KEYWORD]
        last = [each for each in own if each.kind is _KEYWORD]
        context = inspect.Parameter("context", _KEYWORD, annotation=typer.Context)
        shown = [context, *first, *(option.parameter for option in options), *last]
        signature = inspect.Signature([each.replace(kind=_KEYWORD) for each in shown])
        called.__dict__["__signature__"] = signature
        called.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        return called

    return decorate


def _of_table(kind: type[Any]) -> dict[str, SettingOption]:
    """The options of a dataclass's fields, by the names of their settings."""
    found = {}
    for name, field in settings(kind).items():
        if field.entry.group is not None:
            values = tuple(each.value for each in field.type) if issubclass(field.type, Enum) else ()
            found[name] = SettingOption(
                name, field.entry.help, field.entry.group, field.metavar, field.unset, values=values
            )
    return found


# The run and its method ---------------------------------------------------------------------------------------

RUN = _of_table(RunFields)
"""By the names of the settings."""
_CONSTANTS = _of_table(Method)
STEPS_PER_ROUND = _CONSTANTS.pop("steps_per_round")
PRESET = SettingOption(
    "preset",
    "Constants of the learning rule: practical learns a posterior under a prior that the fleet learns; "
    "full-history is least squares in the basis; compact keeps no d × d numbers; "
    "paper is Algorithm 1 and nothing else.",
    RULE,
    "NAME",
    "practical",
    values=tuple(sorted(PRESETS)),
)
LEARNING_RULE = (RUN["rank"], STEPS_PER_ROUND, PRESET, *_CONSTANTS.values())
WAITING = tuple(RUN[name] for name in ("quorum", "deadline_seconds", "max_staleness", "min_agents"))
SECURE_SUMS = (
    replace(
        RUN["secure_sums"],
        help="Mask uploads, so that the coordinator receives only sums over all agents; needs cospan[tls].",
        metavar="",
        negated=True,
    ),
    RUN["min_cohort"],
    SettingOption(
        "dp",
        "Differential privacy of every agent, as epsilon=8,delta=1e-5; needs --secure-sums and cospan[dp].",
        ROUNDS,
        "PROMISE",
        "off",
    ),
)
BETTER_POLICIES = tuple(
    RUN[name] for name in ("improve", "evaluation_rounds", "trial_rounds", "explore", "confidence")
)
TIMEOUTS = (RUN["session_timeout_seconds"], RUN["round_timeout_seconds"])
DEPLOY_TIMEOUTS = (TIMEOUTS[0], replace(TIMEOUTS[1], unset="300"))
RUN_AGENTS = replace(RUN["agents"], help="Number of agents, one for each site.")
RUN_ROUNDS = replace(RUN["rounds"], unset="300, or what --improve needs")
DEPLOY_AGENTS = replace(RUN["agents"], help="Number of agents, one for each site; required.", unset="")
DEPLOY_ROUNDS = replace(RUN["rounds"], unset="300")
RANK_AGENTS = replace(
    RUN["agents"], help="Number of agents that are simulated.", unset="all sites of the workload, else 40"
)
RANK_ROUNDS = replace(RUN["rounds"], help="Number of rounds that each of them is simulated.", unset="300")
RELAY_AGENTS = replace(
    RUN["agents"],
    help="Number of agents below the relay; it joins the run as soon as all are there.",
    unset="joins 2.5 s after the first",
)
BASELINE = SettingOption(
    "baseline",
    "Also learn TD alone (and LSTD alone) from the same transitions, for comparison.",
    RULE,
    unset="with it, groups without",
    negated=True,
)
MIN_STEPS_PER_ROUND = SettingOption(
    "min_steps_per_round",
    "Refuse a run with fewer steps per round: the fewer steps, the more each upload reveals.",
    RULE,
    "N",
    str(DEFAULT_MIN_STEPS),
)
REQUIRE_SECURE_SUMS = SettingOption(
    "require_secure_sums",
    "Refuse a run without secure sums, whose coordinator would see each upload.",
    RULE,
    unset="not required",
    negated=True,
)
MAX_EPSILON = SettingOption(
    "max_epsilon",
    "Refuse a run unless it has differential privacy with this ε or less.",
    RULE,
    "E",
    unset="not required",
)
SHARE_TD_ERROR = SettingOption(
    "share_td_error",
    "Send the size of the TD errors to the coordinator, for dashboards. Rewards are never sent.",
    RULE,
    unset="not sent",
    negated=True,
)

# The fleet ------------------------------------------------------------------------------------------------------

INDEX = SettingOption(
    "index", "Index of the agent's site in the workload.", FLEET, "N", "the digits that end the id"
)
IDS = SettingOption(
    "ids", "A group: the agents of these sites in one process, as 0-999 or 0-99,200-299.", FLEET, "RANGES"
)
SHARD = SettingOption(
    "shard",
    "Part K of N equal parts of the --agents sites, K from 0 on. K may be JOB_COMPLETION_INDEX, "
    "SLURM_ARRAY_TASK_ID, SWARM_TASK_SLOT or hostname, as the engine set them; auto takes the first that is set.",
    FLEET,
    "K/N",
)
SHARD_AGENTS = replace(RUN["agents"], help="Number of sites that --shard divides.", unset="needed with --shard")
PROCESSES = SettingOption(
    "processes", "Number of agent processes; each hosts a group of agents.", FLEET, "P", "one for each agent"
)
AGENT_RESTARTS = SettingOption(
    "agent_restarts",
    "How often to restart an agent process that a signal killed; it learns again what it lost.",
    FLEET,
    "N",
    "3",
)
MEMORY_GIB = SettingOption(
    "memory_gib",
    "Memory, in GiB, that a round may need in one agent process; a run that needs more is refused.",
    FLEET,
    "GIB",
    "4",
)

# Time limits ----------------------------------------------------------------------------------------------------

RUN_START = SettingOption(
    "start_seconds", "Longest time to wait for the fleet to start.", LIMITS, "S", "60, or 2 per agent"
)
COORDINATOR_START = replace(RUN_START, help="Longest time to wait for the first round's agents.", unset="600")
PROGRESS_TIMEOUT = SettingOption(
    "progress_timeout_seconds",
    "Longest time without progress before it gives up.",
    LIMITS,
    "S",
    "60, or 600 with --engine-patience",
)
ENGINE_PATIENCE = SettingOption(
    "engine_patience",
    "Wait for a coordinator that Kubernetes, Swarm or Slurm starts again elsewhere: 600 s, not 60.",
    LIMITS,
)

# Addresses ------------------------------------------------------------------------------------------------------

HOST = SettingOption("host", "IPv4 or IPv6 address, name, or unix:PATH to listen on.", ADDRESS, "TEXT", "127.0.0.1")
RUN_PORT = SettingOption("port", "Port of the coordinator on 127.0.0.1.", ADDRESS, "N", "any that is free")
PORT = SettingOption("port", "Port to listen on; 0 for any that is free.", ADDRESS, "N", str(DEFAULT_PORT))
INSECURE = SettingOption("insecure", "Listen without TLS on an address that other machines reach.", ADDRESS)
ADDRESS_FILE = SettingOption(
    "address_file",
    "Write the address here once it listens, for agents with --coordinator @FILE on other machines.",
    ADDRESS,
    "FILE",
    "none",
)
COORDINATOR = SettingOption(
    "coordinator",
    "Address of the coordinator, or @FILE for the address in a file, read at each connection.",
    ADDRESS,
    "HOST:PORT",
    DEFAULT_COORDINATOR,
)
ASK_COORDINATOR = replace(
    COORDINATOR,
    help="Also check whether this coordinator can be reached, trusted and understood.",
    unset="this machine only",
)
METRICS = SettingOption(
    "metrics",
    "Serve /metrics for Prometheus, and /healthz, here; a port alone is one of 127.0.0.1.",
    ADDRESS,
    "[HOST:]PORT",
    "no metrics",
)
TRACES = SettingOption(
    "traces",
    "Send a span of every round to OpenTelemetry, as its OTEL_ variables say.",
    ADDRESS,
    unset="where OTEL_TRACES_EXPORTER or an endpoint is set",
    negated=True,
)
DASHBOARD = (
    SettingOption(
        "dashboard",
        "Serve a page that shows the run, as on 127.0.0.1:8080; port 0 for any that is free.",
        ADDRESS,
        "HOST:PORT",
        "none",
    ),
    SettingOption(
        "dashboard_token_file",
        "File with the token that browsers must present; needed where other machines reach the page.",
        ADDRESS,
        "FILE",
        "no token",
    ),
    SettingOption(
        "dashboard_root_path",
        "Path under which a reverse proxy serves the page, for example /cospan.",
        ADDRESS,
        "PATH",
        "none: the page is at /",
    ),
)
ALLOWED_HOSTS = SettingOption(
    "allowed_hosts",
    "Further names to accept as Host of requests to dashboard and metrics, comma-separated.",
    ADDRESS,
    "NAMES",
    "this machine's loopback names and the own address",
)
UPSTREAM = SettingOption(
    "upstream", "Address of the coordinator, or of another relay; or @FILE, as of an agent.", ADDRESS, "HOST:PORT"
)
LEVEL = SettingOption(
    "level", "Number of levels below the coordinator; 2 for a relay behind a relay.", ADDRESS, "N", "1"
)

# Mutual TLS -----------------------------------------------------------------------------------------------------


def _tls(name: str, text: str, unset: str = "no TLS") -> SettingOption:
    return SettingOption(name, text, TRUST, "FILE", unset)


TLS = (
    _tls("tls_cert", "Own certificate (PEM); read again when it is renewed."),
    _tls("tls_key", "Its key (PEM)."),
    _tls("tls_ca", "Authority (PEM) whose certificates the other side must have."),
)
UPSTREAM_TLS = (
    _tls("upstream_tls_cert", "Certificate (PEM) that the coordinator is shown.", "that of --tls-cert"),
    _tls("upstream_tls_key", "Its key (PEM).", "that of --tls-key"),
    _tls("upstream_tls_ca", "Authority (PEM) whose certificate the coordinator must have.", "that of --tls-ca"),
)

# Files ----------------------------------------------------------------------------------------------------------

NEW_RUN = SettingOption("new_run", "Start a new run even if the newest in --runs-folder can be resumed.", FILES)
ONCE = SettingOption(
    "once", "If the folder's run is over, print that and exit with 0; neither start a new run nor fail.", FILES
)
CHECKPOINT_INTERVAL = SettingOption(
    "checkpoint_interval",
    "Number of rounds between bases that are kept for `cospan export`; the newest are kept as well.",
    FILES,
    "N",
    "100",
)
CHECKPOINT_SECONDS = SettingOption(
    "checkpoint_seconds",
    "Shortest time between writes of that file; 0 writes it at the end only.",
    FILES,
    "SECONDS",
    "5",
)
