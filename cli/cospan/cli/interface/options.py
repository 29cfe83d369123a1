"""Arguments and options of several commands that are not settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from cospan.cli.interface.completion import WORKLOADS, one_of, run_folders
from cospan.cli.interface.setting_options import FILES
from cospan.core.fields import FLEET

Given: TypeAlias = Mapping[str, Any]
"""Values of the command line, by name."""


def file_option(name: str, text: str, metavar: str | None = "FILE", **more: Any) -> Any:
    """An option among files and output."""
    return typer.Option(name, help=text, rich_help_panel=FILES, metavar=metavar, **more)


def fleet_option(name: str, text: str, metavar: str | None, **more: Any) -> Any:
    """An option among those of the fleet."""
    return typer.Option(name, help=text, rich_help_panel=FLEET, metavar=metavar, **more)


def _workload(**more: Any) -> Any:
    """The argument that names a workload."""
    return typer.Argument(
        metavar="WORKLOAD",
        help="A built-in workload (synthetic, queues, microgrids, acrobot), or your own as package.module:name.",
        autocompletion=one_of(WORKLOADS),
        **more,
    )


Workload: TypeAlias = Annotated[str, _workload()]
WorkloadOrSpec: TypeAlias = Annotated[str | None, _workload(show_default="that of --spec")]
OutputFolder: TypeAlias = Annotated[
    Path | None,
    file_option(
        "--output",
        "The run folder; it must be empty or not exist.",
        "FOLDER",
        show_default="runs/<time>-<workload>",
    ),
]
RunFolder: TypeAlias = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run's folder.", autocompletion=run_folders)
]
Logs: TypeAlias = Annotated[
    str | None,
    file_option("--logs", "Learn from logs: a folder with a file or folder for each site, or a pattern.", "DATA"),
]
LogMapping: TypeAlias = Annotated[
    Path | None,
    file_option("--mapping", "Which columns of the logs are observation, reward and time (TOML).", "FILE"),
]
Observation: TypeAlias = Annotated[
    str | None,
    file_option(
        "--observation",
        "Without a mapping: the columns of the observation, comma-separated.",
        "NAMES",
        show_default="all but those of reward and time",
    ),
]
Reward: TypeAlias = Annotated[
    str | None,
    file_option(
        "--reward",
        "Without a mapping: a column, or a formula of columns, as '-cost'.",
        "FORMULA",
        show_default="a column that is called so",
    ),
]
Time: TypeAlias = Annotated[
    str | None,
    file_option("--time", "Without a mapping: the column of stamps.", "COLUMN", show_default="the first of stamps"),
]
Follow: TypeAlias = Annotated[
    bool, file_option("--follow", "Wait for logs to grow at their end, until the run is over.", None)
]
FEED = "Feed of a control loop"
"""The panel of its options."""


def _feed_option(name: str, text: str, metavar: str | None, **more: Any) -> Any:
    return typer.Option(name, help=text, rich_help_panel=FEED, metavar=metavar, **more)


FeedSource: TypeAlias = Annotated[
    str | None,
    _feed_option(
        "--feed",
        "Take steps as JSON: from standard input (-), http://HOST:PORT, unix:PATH, or mqtt://HOST/TOPIC.",
        "SOURCE",
    ),
]
FeedSecret: TypeAlias = Annotated[
    Path | None,
    _feed_option("--feed-secret-file", "File with the token of HTTP senders, or the password of MQTT.", "FILE"),
]
FeedLimit: TypeAlias = Annotated[
    int, _feed_option("--feed-limit", "Steps that are held until they are learnt and stored.", "N", min=1)
]
FeedStep: TypeAlias = Annotated[
    str | None,
    _feed_option(
        "--feed-step", "Time between two steps, as 15min; others are gaps.", "TIME", show_default="the mapping's"
    ),
]
RewardAt: TypeAlias = Annotated[
    str | None,
    _feed_option(
        "--reward-at",
        "Whether a reward is of the step that begins in its observation (row) or that ends there (next-row).",
        "row|next-row",
        show_default="the mapping's, or row",
    ),
]
RewardDelay: TypeAlias = Annotated[
    int, _feed_option("--reward-delay", "How many later steps a reward may come after its own.", "N", min=0)
]
Spec: TypeAlias = Annotated[
    Path | None, file_option("--spec", "Run again what a spec.toml describes; other flags override it.")
]
Config: TypeAlias = Annotated[
    Path | None,
    file_option(
        "--config",
        "Settings below the environment (COSPAN_AGENTS=…) and above the defaults.",
        show_default="cospan.toml, if it exists",
    ),
]
Force: TypeAlias = Annotated[bool, file_option("--force", "Overwrite an existing file.", None)]
Json: TypeAlias = Annotated[bool, file_option("--json", "Print JSON to standard output.", None)]
Quiet: TypeAlias = Annotated[bool, file_option("--quiet", "Do not show progress.", None)]
Debug: TypeAlias = Annotated[bool, file_option("--debug", "Show the traceback of an error.", None)]
FollowStdin: TypeAlias = Annotated[
    bool,
    typer.Option("--follow-stdin", help="Started by `cospan run`: stop when standard input ends.", hidden=True),
]
