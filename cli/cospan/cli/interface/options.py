"""Every option of the command line once: its name, its help, and the group it is shown in.

Options default to None, which means "not said": `settings` then looks at the environment and at cospan.toml.
Numbers come as text: `settings` reads those of all layers, and says what is wrong with one in the same words.
"""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from cospan.cli.interface.completion import (
    AGGREGATIONS,
    CORRECTIONS,
    PRESETS,
    WORKLOADS,
    experiments,
    one_of,
    run_folders,
)
from cospan.core.method import DEFAULT_MIN_STEPS

_FLEET = "The fleet"
_RULE = "The learning rule"
_LIMITS = "Time limits, in seconds"
_ADDRESS = "Addresses"
_TRUST = "Mutual TLS: all three, or none"
_FILES = "Files and output"

# The fleet --------------------------------------------------------------------------------------------------

WorkloadArgument: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="WORKLOAD",
        help="A built-in workload (synthetic, queues, microgrids, acrobot), or your own as package.module:name.",
        autocompletion=one_of(WORKLOADS),
        show_default="that of --spec",
    ),
]
AgentWorkload: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="WORKLOAD",
        help="As the run's: a built-in workload, or package.module:name.",
        autocompletion=one_of(WORKLOADS),
    ),
]
ExperimentName: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="EXPERIMENT", help="Which one.", show_default="a list of them", autocompletion=experiments
    ),
]
Pages: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--pages",
        help="Also put the figures and the picture into the experiment's page in this folder.",
        rich_help_panel=_FILES,
        metavar="FOLDER",
    ),
]
Tiny: TypeAlias = Annotated[
    bool, typer.Option("--tiny", help="A version of some seconds, that shows the sign of the effect only.")
]
OnlyInProcess: TypeAlias = Annotated[
    bool, typer.Option("--in-process", help="Leave out the runs that are repeated over gRPC.")
]
WorkloadOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--workload",
        help="Fills in d, r, L and the fingerprint of the features.",
        rich_help_panel=_FLEET,
        autocompletion=one_of(WORKLOADS),
    ),
]
FeatureDim: TypeAlias = Annotated[
    str | None,
    typer.Option("--feature-dim", help="d, where no workload is named.", rich_help_panel=_FLEET, metavar="D"),
]
Fingerprint: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--fingerprint",
        help="Fingerprint of the feature map, where no workload is named.",
        show_default="that of the first agent",
        rich_help_panel=_FLEET,
    ),
]
Agents: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--agents",
        help="How many agents the first round waits for.",
        show_default="all sites of the workload, else 8",
        rich_help_panel=_FLEET,
        metavar="N",
    ),
]
RunRounds: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--rounds",
        help="How many rounds; 0 until Ctrl-C.",
        show_default="300",
        rich_help_panel=_FLEET,
        metavar="N",
    ),
]
CoordinatorRounds: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--rounds",
        help="How many rounds; 0 until stopped.",
        show_default="0",
        rich_help_panel=_FLEET,
        metavar="N",
    ),
]
Seed: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--seed",
        help="Of the first basis and of every site.",
        show_default="0",
        rich_help_panel=_FLEET,
        metavar="N",
    ),
]
AgentName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--id", help="The agent's name; a number N stands for site-N.", rich_help_panel=_FLEET, metavar="ID"
    ),
]
Index: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--index",
        help="Which site of the workload it is.",
        show_default="the digits that end the id",
        rich_help_panel=_FLEET,
        metavar="N",
    ),
]
Ids: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ids",
        help="A group: the agents of these sites in one process, as 0-999 or 0-99,200-299.",
        rich_help_panel=_FLEET,
        metavar="RANGES",
    ),
]
Processes: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--processes",
        help="So many processes, each a group of agents.",
        show_default="one for each agent",
        rich_help_panel=_FLEET,
        metavar="P",
    ),
]
Seeds: TypeAlias = Annotated[
    int,
    typer.Option(
        "--seeds",
        help="How many runs, with seeds from --seed on.",
        min=1,
        max=1000,
        rich_help_panel=_FLEET,
        metavar="N",
    ),
]
RankAgents: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--agents",
        help="How many agents are played.",
        show_default="all sites of the workload, else 40",
        rich_help_panel=_FLEET,
        metavar="N",
    ),
]
RankRounds: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--rounds",
        help="How many rounds each of them is played.",
        show_default="300",
        rich_help_panel=_FLEET,
        metavar="N",
    ),
]
Share: TypeAlias = Annotated[
    float,
    typer.Option(
        "--share",
        help="How much of the signal the suggested rank holds, 0 to 1.",
        rich_help_panel=_FLEET,
        metavar="X",
    ),
]
OfHost: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--sticky-site",
        help="Ask for a free site under this host's name: started again here, it gets the same one.",
        rich_help_panel=_FLEET,
    ),
]

# The learning rule ------------------------------------------------------------------------------------------

Rank: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--rank",
        help="r, dimensions of the shared subspace.",
        show_default="the workload's",
        rich_help_panel=_RULE,
        metavar="R",
    ),
]
StepsPerRound: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--steps-per-round",
        help="L, environment steps of an agent in a round.",
        show_default="the workload's",
        rich_help_panel=_RULE,
        metavar="L",
    ),
]
PresetName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="The constants below: paper is Algorithm 1 and nothing else; compact keeps no d × d numbers.",
        show_default="practical",
        rich_help_panel=_RULE,
        metavar="paper|practical|compact",
        autocompletion=one_of(PRESETS),
    ),
]
HeadUpdate: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--head-update",
        help="When an agent corrects its head: end-of-round, every-step, or by least-squares after each round, or "
        "so from its full-history.",
        show_default="the preset's",
        rich_help_panel=_RULE,
        metavar="WHEN",
        autocompletion=one_of(CORRECTIONS),
    ),
]


def _constant(name: str, text: str, metavar: str = "X") -> object:
    """The option of one constant of the learning rule."""
    return typer.Option(name, help=text, show_default="the preset's", rich_help_panel=_RULE, metavar=metavar)


HeadStep: TypeAlias = Annotated[str | None, _constant("--head-step", "β, step of the head.")]
GainStep: TypeAlias = Annotated[str | None, _constant("--gain-step", "γ, step of the gain estimate, at most 1.")]
HeadRadius: TypeAlias = Annotated[
    str | None,
    _constant("--head-radius", "U, radius of the ball that the head is projected onto; inf for no ball."),
]
BasisStep: TypeAlias = Annotated[
    str | None, _constant("--basis-step", "ζ, the coordinator's step; 0 freezes the basis.")
]
ImplicitHeadStep: TypeAlias = Annotated[
    str | None, _constant("--implicit-head-step", "Whether that step is β / (1 + β‖Bᵀφ‖²).", "true|false")
]
Preconditioned: TypeAlias = Annotated[
    str | None, _constant("--preconditioned", "By the heads' second moment, the step of the basis.", "true|false")
]
PreconditionerFloor: TypeAlias = Annotated[
    str | None, _constant("--preconditioner-floor", "ε of the preconditioner.")
]
DecayHorizon: TypeAlias = Annotated[
    str | None,
    _constant("--decay-horizon", "c of the steps' decay (c / (c + t))^p, in environment steps; 0 for none."),
]
DecayPower: TypeAlias = Annotated[str | None, _constant("--decay-power", "p of that decay, 0 to 1.")]
TraceDecay: TypeAlias = Annotated[
    str | None, _constant("--trace-decay", "λ of TD(λ) within a round, 0 or more and below 1.")
]
Forgetting: TypeAlias = Annotated[
    str | None, _constant("--forgetting", "c of least-squares heads: data of round k weigh about k^c.")
]
RowScaled: TypeAlias = Annotated[
    str | None,
    _constant("--row-scaled", "Whether the step of the basis is scaled for each feature.", "true|false"),
]
RewardScaled: TypeAlias = Annotated[
    str | None,
    _constant(
        "--reward-scaled",
        "Whether each agent learns and sends in its own units of reward and feature.",
        "true|false",
    ),
]
ExplainedPower: TypeAlias = Annotated[
    str | None,
    _constant("--explained-power", "p: agents count by the share of theirs that the basis explains, to the p."),
]
WarmUpRounds: TypeAlias = Annotated[
    str | None,
    _constant("--warm-up-rounds", "Rounds that go into a first basis (spectral warm start); 0 for none.", "N"),
]
AggregationPolicy: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--aggregation",
        help="What of a round's gradients moves the basis. All but the mean bound what a few agents can do to it.",
        show_default="mean",
        rich_help_panel=_RULE,
        metavar="mean|clipped|trimmed|geometric-median",
        autocompletion=one_of(AGGREGATIONS),
    ),
]
TrimmedShare: TypeAlias = Annotated[
    str | None, _constant("--trimmed-share", "Of trimmed: how much is left out on each side, below 0.5.")
]
ClipNorm: TypeAlias = Annotated[
    str | None,
    _constant("--clip-norm", "Of clipped: the longest that a gradient counts; 0 for the round's median."),
]
LargestTurn: TypeAlias = Annotated[
    str | None,
    _constant("--largest-turn", "Largest angle by which one round turns the basis, in degrees; 90: none.", "DEG"),
]
Baseline: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--baseline/--no-baseline",
        help="Independent TD beside it, learnt from the same transitions.",
        show_default="with it, groups without",
        rich_help_panel=_RULE,
    ),
]

MinStepsPerRound: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--min-steps-per-round",
        help="Refuse a run with fewer steps per round: the fewer steps, the more each upload shows.",
        show_default=str(DEFAULT_MIN_STEPS),
        rich_help_panel=_RULE,
        metavar="N",
    ),
]

ShareTdError: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--share-td-error/--no-share-td-error",
        help="Tells the coordinator the size of its TD errors, for dashboards. Rewards stay here all the same.",
        show_default="not told",
        rich_help_panel=_RULE,
    ),
]

# Whom a round waits for -----------------------------------------------------------------------------------

_ROUNDS = "Whom a round waits for"

Quorum: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--quorum",
        help="A round closes with so many gradients, or such a share below 1, once its deadline is over.",
        show_default="all that take part",
        rich_help_panel=_ROUNDS,
        metavar="N|SHARE",
    ),
]
DeadlineSeconds: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--deadline-seconds",
        help="With a quorum, how long a round waits for the others; 0 learns it from the fleet.",
        show_default="0",
        rich_help_panel=_ROUNDS,
        metavar="S",
    ),
]
MaxStaleness: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--max-staleness",
        help="With a quorum, how many rounds old a gradient may be and still count.",
        show_default="0",
        rich_help_panel=_ROUNDS,
        metavar="N",
    ),
]
MinAgents: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--min-agents",
        help="Begin with so many, when not all are there after --start-seconds.",
        show_default="all of them",
        rich_help_panel=_ROUNDS,
        metavar="N",
    ),
]

# Time limits ------------------------------------------------------------------------------------------------


def _limit(name: str, text: str, default: str) -> object:
    """The option of one time limit."""
    return typer.Option(name, help=text, show_default=default, rich_help_panel=_LIMITS, metavar="S")


LivenessSeconds: TypeAlias = Annotated[
    str | None, _limit("--session-timeout-seconds", "Silence after which an agent is given up.", "5")
]
RoundSeconds: TypeAlias = Annotated[
    str | None,
    _limit(
        "--round-timeout-seconds", "Longest time a round waits for a live agent, once others have answered.", "60"
    ),
]
RunStartSeconds: TypeAlias = Annotated[
    str | None, _limit("--start-seconds", "The longest to wait for the fleet to start.", "60, or 2 per agent")
]
CoordinatorStartSeconds: TypeAlias = Annotated[
    str | None, _limit("--start-seconds", "The longest to wait for the first round's agents.", "600")
]
ProgressTimeout: TypeAlias = Annotated[
    str | None, _limit("--progress-timeout-seconds", "Longest time without progress before it gives up.", "60")
]

# Addresses --------------------------------------------------------------------------------------------------

Host: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--host",
        help="IPv4 or IPv6 address, name, or unix:PATH to listen on.",
        show_default="127.0.0.1",
        rich_help_panel=_ADDRESS,
    ),
]
RunPort: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--port",
        help="Port of the coordinator on 127.0.0.1.",
        show_default="any that is free",
        rich_help_panel=_ADDRESS,
        metavar="N",
    ),
]
CoordinatorPort: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--port",
        help="Port to listen on; 0 for any that is free.",
        show_default="50051",
        rich_help_panel=_ADDRESS,
        metavar="N",
    ),
]
Insecure: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--insecure",
        help="Listen without TLS on an address that other machines reach.",
        rich_help_panel=_ADDRESS,
    ),
]
AskCoordinator: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--coordinator",
        help="Also look whether this coordinator can be reached, trusted and understood.",
        show_default="looks at this machine alone",
        rich_help_panel=_ADDRESS,
        metavar="HOST:PORT",
    ),
]
DoctorFolder: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--run-folder", help="Where runs are kept, or are to be.", rich_help_panel=_FILES, metavar="FOLDER"
    ),
]
WatchEvery: TypeAlias = Annotated[
    float,
    typer.Option(
        "--every", help="How often to look.", min=0.1, max=3600.0, rich_help_panel=_FILES, metavar="SECONDS"
    ),
]
Metrics: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        help="Serve /metrics for Prometheus, and /healthz, here; a port alone is one of 127.0.0.1.",
        show_default="no metrics",
        rich_help_panel=_ADDRESS,
        metavar="[HOST:]PORT",
    ),
]
Traces: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--traces/--no-traces",
        help="Send a span of every round to OpenTelemetry, as its OTEL_ variables say.",
        show_default="where OTEL_TRACES_EXPORTER or an endpoint is set",
        rich_help_panel=_ADDRESS,
    ),
]
CoordinatorAddress: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--coordinator",
        help="Where the coordinator listens.",
        show_default="127.0.0.1:50051",
        rich_help_panel=_ADDRESS,
        metavar="HOST:PORT",
    ),
]

Dashboard: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--dashboard",
        help="Serve a page that shows the run, as on 127.0.0.1:8080; port 0 for any that is free.",
        show_default="none",
        rich_help_panel=_ADDRESS,
        metavar="HOST:PORT",
    ),
]
DashboardTokenFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--dashboard-token-file",
        help="A file with the token that browsers must show; needed where other machines reach the page.",
        show_default="no token",
        rich_help_panel=_ADDRESS,
        metavar="FILE",
    ),
]
DashboardRootPath: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--dashboard-root-path",
        help="Path under which a reverse proxy serves the page, for example /cospan.",
        show_default="none: the page is at /",
        rich_help_panel=_ADDRESS,
        metavar="PATH",
    ),
]
AllowedHosts: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--allowed-hosts",
        help="Further names to accept as Host of requests to dashboard and metrics, comma-separated.",
        show_default="this machine's loopback names and the own address",
        rich_help_panel=_ADDRESS,
        metavar="NAMES",
    ),
]
Upstream: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--upstream",
        help="Where the coordinator, or another relay, listens.",
        rich_help_panel=_ADDRESS,
        metavar="HOST:PORT",
    ),
]
Level: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--level",
        help="How many levels it is below the coordinator; 2 for a relay behind a relay.",
        show_default="1",
        rich_help_panel=_ADDRESS,
        metavar="N",
    ),
]
RelayAgents: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--agents",
        help="Number of its agents: with so many it joins the run at once.",
        show_default="joins 2.5 s after the first has come",
        metavar="N",
    ),
]


def _tls(name: str, text: str) -> object:
    """The option of one of the three files of TLS."""
    return typer.Option(name, help=text, show_default="no TLS", rich_help_panel=_TRUST, metavar="FILE")


def _tls_above(name: str, text: str) -> object:
    """The option of one of the three files of TLS between a relay and its coordinator."""
    same = name.replace("--upstream-", "that of --")
    return typer.Option(name, help=text, show_default=same, rich_help_panel=_TRUST, metavar="FILE")


TlsCert: TypeAlias = Annotated[
    str | None, _tls("--tls-cert", "Own certificate (PEM); read again when it is renewed.")
]
TlsKey: TypeAlias = Annotated[str | None, _tls("--tls-key", "Its key (PEM).")]
TlsCa: TypeAlias = Annotated[
    str | None, _tls("--tls-ca", "Authority (PEM) whose certificates the other side must have.")
]
UpstreamTlsCert: TypeAlias = Annotated[
    str | None, _tls_above("--upstream-tls-cert", "Certificate (PEM) that the coordinator is shown.")
]
UpstreamTlsKey: TypeAlias = Annotated[str | None, _tls_above("--upstream-tls-key", "Its key (PEM).")]
UpstreamTlsCa: TypeAlias = Annotated[
    str | None, _tls_above("--upstream-tls-ca", "Authority (PEM) whose certificate the coordinator must have.")
]
StopCause: TypeAlias = Annotated[
    str, typer.Option("--cause", help="Why, in one sentence: every agent is told.", metavar="TEXT")
]
CertsFolder: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Where the authority and its certificates are.")
]
CertsNames: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Which certificates, by their folders' names.")
]
CertsPaths: TypeAlias = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="PEM files, or folders that hold them.")
]
CaName: TypeAlias = Annotated[str, typer.Option("--name", help="What the authority is called.", metavar="TEXT")]
Days: TypeAlias = Annotated[
    float | None, typer.Option("--days", help="How long it is valid.", show_default="90, an authority 3650")
]
RenewDays: TypeAlias = Annotated[
    float | None, typer.Option("--days", help="How long it is valid.", show_default="as long as before")
]
CertsAgent: TypeAlias = Annotated[
    list[str] | None, typer.Option("--agent", help="For this agent; can be said again.", metavar="ID")
]
CertsAgents: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--agents", help="For a range of agents, as site-0..99; '*' for all.", metavar="FIRST..LAST"),
]
CertsCoordinator: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--coordinator",
        help="For the coordinator, by the names and addresses it is reached at.",
        metavar="HOST,...",
    ),
]
CertsAdmin: TypeAlias = Annotated[
    bool, typer.Option("--admin", help="For an administrator: to look on, and to stop a run.")
]
CertsObserver: TypeAlias = Annotated[bool, typer.Option("--observer", help="For an onlooker: status and rounds.")]
CertsName: TypeAlias = Annotated[
    str | None,
    typer.Option("--name", help="What its folder is called.", show_default="whom it is for", metavar="NAME"),
]
CertsAll: TypeAlias = Annotated[bool, typer.Option("--all", help="Every certificate of the folder.")]

# Files and output -------------------------------------------------------------------------------------------

OutputFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--output",
        help="The run folder; it must not exist, or be empty.",
        show_default="runs/<time>-<workload>",
        rich_help_panel=_FILES,
        metavar="FOLDER",
    ),
]
RunFolderOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--run-folder",
        help="Where to keep the run: to go on with where it holds one, else it must not exist, or be empty.",
        rich_help_panel=_FILES,
        metavar="FOLDER",
        autocompletion=run_folders,
    ),
]
RunsFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--runs-folder",
        help="Where to make a folder for each run; goes on with the newest (`latest`) where that is not over.",
        rich_help_panel=_FILES,
        metavar="FOLDER",
    ),
]
NewRun: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--new-run",
        help="Begin a new run, even where the newest in --runs-folder can go on.",
        rich_help_panel=_FILES,
    ),
]
Once: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--once",
        help="Where the folder's run is over, say so and exit with 0: neither begin a new run nor fail.",
        rich_help_panel=_FILES,
    ),
]
KeepEvery: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--checkpoint-interval",
        help="Of how many rounds one basis is kept for good, for `cospan export`; the newest are kept as well.",
        show_default="100",
        rich_help_panel=_FILES,
        metavar="N",
    ),
]
OutputFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--output",
        help="Where to keep what is learnt (npz); in a folder, under the agent's name; a group needs a folder. "
        "One of the same run and agent is gone on from.",
        rich_help_panel=_FILES,
        metavar="FILE",
    ),
]
AgentRestarts: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--agent-restarts",
        help="How often to restart an agent process that a signal killed; it learns again what it lost.",
        show_default="3",
        rich_help_panel=_FLEET,
        metavar="N",
    ),
]
MemoryGib: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--memory-gib",
        help="Memory, in GiB, that a round may need in one agent process; a run that needs more is refused.",
        show_default="4",
        rich_help_panel=_FLEET,
        metavar="GIB",
    ),
]
CheckpointSeconds: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--checkpoint-seconds",
        help="How often that file is written, at most; 0 means at the end alone.",
        show_default="5",
        rich_help_panel=_FILES,
        metavar="SECONDS",
    ),
]
Resume: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Another file of --output, of the same run and agent, to go on from.",
        rich_help_panel=_FILES,
        metavar="FILE",
    ),
]
FolderOfRuns: TypeAlias = Annotated[
    Path | None,
    typer.Argument(
        metavar="FOLDER",
        help="A folder of runs, or that of one run.",
        show_default="runs",
        autocompletion=run_folders,
    ),
]
RunToExport: TypeAlias = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run's folder.", autocompletion=run_folders)
]
ExportRound: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--round",
        help="The basis after so many rounds; 0 is the first. `cospan runs RUN` tells which were kept.",
        min=0,
        show_default="the last",
        rich_help_panel=_FILES,
        metavar="N",
    ),
]
BasisFile: TypeAlias = Annotated[
    Path, typer.Option("--output", help="The file to write (npz).", rich_help_panel=_FILES, metavar="FILE")
]
ReportFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--output",
        help="The HTML file to write.",
        show_default="it is served on this machine instead",
        rich_help_panel=_FILES,
        metavar="FILE",
    ),
]
Serve: TypeAlias = Annotated[
    bool, typer.Option("--serve", help="Serve it on 127.0.0.1 as well, until Ctrl-C.", rich_help_panel=_FILES)
]
RunToReport: TypeAlias = RunToExport
Force: TypeAlias = Annotated[
    bool, typer.Option("--force", help="Write over a file that is there.", rich_help_panel=_FILES)
]
SpecFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--spec",
        help="Run again what a spec.toml says; other flags override it.",
        rich_help_panel=_FILES,
        metavar="FILE",
    ),
]
Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Settings below the environment (COSPAN_AGENTS=…) and above the defaults.",
        show_default="cospan.toml, where there is one",
        rich_help_panel=_FILES,
        metavar="FILE",
    ),
]
InProcess: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--in-process", help="No processes and no network; the same basis, bit for bit.", rich_help_panel=_FILES
    ),
]
ResumeRun: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Resume the run of this folder, for example runs/latest, with the bits of an uninterrupted run.",
        rich_help_panel=_FILES,
        metavar="RUN",
    ),
]
BenchAgents: TypeAlias = Annotated[
    int, typer.Option("--agents", help="How many agents.", min=1, max=4096, metavar="N")
]
BenchFeatureDim: TypeAlias = Annotated[
    int, typer.Option("--feature-dim", help="d: rows of what they send.", min=1, metavar="D")
]
BenchRank: TypeAlias = Annotated[int, typer.Option("--rank", help="r: its columns.", min=1, metavar="R")]
Sweep: TypeAlias = Annotated[
    bool, typer.Option("--sweep", help="1 to 1024 agents, 20 × 3 to 65,536 × 32, instead of one case.")
]
BenchShapes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--shape", help="d and r; may be said again.", show_default="a list of them", metavar="DxR"),
]
BenchFleets: TypeAlias = Annotated[
    list[int] | None,
    typer.Option(
        "--agents", help="How many agents; may be said again.", min=2, max=64, show_default="2, 8", metavar="N"
    ),
]
BenchEnvironment: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--environment", help="The virtual environment that the peers are installed in.", metavar="FOLDER"
    ),
]
BenchValueError: TypeAlias = Annotated[
    float, typer.Option("--value-error", help="The value error to be reached.", min=0.0, metavar="ERROR")
]
BenchMostRounds: TypeAlias = Annotated[
    int, typer.Option("--rounds", help="Within so many rounds.", min=1, metavar="ROUNDS")
]
BenchSeries: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--series",
        help="What grows: streams, groups or numbers; may be said again.",
        show_default="all three",
        metavar="SERIES",
    ),
]
BenchGroup: TypeAlias = Annotated[
    int, typer.Option("--group", help="How many agents share a stream.", min=2, max=10_000, metavar="N")
]
BenchFleetSize: TypeAlias = Annotated[
    int, typer.Option("--agents", help="How many agents.", min=1, max=100_000, metavar="N")
]
BenchProcesses: TypeAlias = Annotated[
    int, typer.Option("--processes", help="In so many processes, each a group.", min=1, max=64, metavar="P")
]
BenchFleetRounds: TypeAlias = Annotated[
    int, typer.Option("--rounds", help="How many rounds.", min=2, metavar="ROUNDS")
]
BenchTurns: TypeAlias = Annotated[
    int, typer.Option("--turns", help="How often each way is measured.", min=1, metavar="TURNS")
]
BenchSeconds: TypeAlias = Annotated[
    float, typer.Option("--seconds", help="How long each case is measured.", min=0.0, metavar="SECONDS")
]
BenchOutput: TypeAlias = Annotated[
    Path | None,
    typer.Option("--output", help="Also write the numbers here (JSON).", rich_help_panel=_FILES, metavar="FILE"),
]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Data as JSON on standard output.", rich_help_panel=_FILES)
]
AllowLosses: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-losses",
        help="Exit with 0, not 3, where the run ends with fewer agents than it began with.",
        rich_help_panel=_FLEET,
    ),
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", help="No progress.", rich_help_panel=_FILES)]
Debug: TypeAlias = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_FILES)
]
Reopen: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--reopen",
        help="Started by `cospan run`: also a run that is over is resumed.",
        hidden=True,
    ),
]
FollowStdin: TypeAlias = Annotated[
    bool,
    typer.Option("--follow-stdin", help="Started by `cospan run`: stop when standard input ends.", hidden=True),
]
