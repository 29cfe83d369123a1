"""Commands that look at runs: status, watch, doctor, runs, export, report, plot, value, policy."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from cospan.cli.interface import options as o
from cospan.cli.interface import setting_options as s
from cospan.cli.interface.completion import TRACKERS, WORKLOADS, one_of, run_folders
from cospan.cli.interface.setting_options import with_settings


@with_settings(s.COORDINATOR, *s.TLS)
def status(given: o.Given, *, config: o.Config = None, json: o.Json = False, debug: o.Debug = False) -> None:
    """Show the status of a running coordinator."""
    from cospan.cli.commands.status import show_status

    raise typer.Exit(show_status(given, config, json=json))


@with_settings(s.COORDINATOR, s.PROGRESS_TIMEOUT, *s.TLS)
def watch(
    given: o.Given,
    *,
    every: Annotated[float, o.file_option("--every", "Interval of queries.", "SECONDS", min=0.1, max=3600.0)] = 1.0,
    config: o.Config = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Watch a run until it is over: awaited agents, speed, movement of the basis."""
    from cospan.cli.commands.watch import watch_here

    raise typer.Exit(watch_here(given, config, every=every, json=json))


@with_settings(s.ASK_COORDINATOR, s.HOST, s.PORT, s.METRICS, *s.TLS)
def doctor(
    given: o.Given,
    *,
    logs: Annotated[
        str | None,
        o.file_option(
            "--logs",
            "Check these logs, and nothing else: a folder with a file or folder for each site, or a pattern.",
            "DATA",
            show_default="those that the mapping names",
        ),
    ] = None,
    mapping: o.LogMapping = None,
    observation: o.Observation = None,
    reward: o.Reward = None,
    time: o.Time = None,
    run_folder: Annotated[Path, o.file_option("--run-folder", "Folder of runs.", "FOLDER")] = Path("runs"),
    workload: Annotated[
        str | None,
        o.fleet_option(
            "--workload",
            "Also check this workload: environment, features, policy, seeds.",
            "WORKLOAD",
            autocompletion=one_of(WORKLOADS),
        ),
    ] = None,
    sites: Annotated[
        int | None,
        o.fleet_option("--sites", "Sites of it to check.", "N", min=1, show_default="3"),
    ] = None,
    steps: Annotated[
        int | None,
        o.fleet_option("--steps", "Steps of each of them.", "N", min=2, show_default="1000"),
    ] = None,
    config: o.Config = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Find problems and their remedies: versions, ports, certificates, clocks, disk, coordinator, workload.

    With --logs and --mapping check these logs instead, before anything is learnt from them.
    """
    from cospan.cli.commands.doctor import LogsToCheck, examine
    from cospan.cli.diagnostics.workload import WorkloadToCheck
    from cospan.cli.settings.log_options import columns_of
    from cospan.wire.errors import InvalidValueError

    if workload is None and (sites is not None or steps is not None):
        raise InvalidValueError("--sites and --steps are of a workload's check; name it with --workload")
    asked = None if workload is None else WorkloadToCheck(workload, sites, steps)
    columns = columns_of(logs, mapping, observation, reward, time)
    checked = LogsToCheck(logs, mapping, columns) if logs is not None or mapping is not None else None
    code = examine(given, config, run_folder, json=json, workload=asked, logs=checked)
    raise typer.Exit(code)


def runs(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="A folder of runs, or that of one run.",
            show_default="runs",
            autocompletion=run_folders,
        ),
    ] = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """List the runs of a folder: state, rounds, and stored bases."""
    from cospan.cli.commands.runs import list_runs

    raise typer.Exit(list_runs(folder, json=json))


WorkloadOfRun: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--workload",
        help="The run's workload, as package.module:name; needed where it is your own.",
        metavar="WORKLOAD",
    ),
]


def export(
    run_folder: o.RunFolder,
    output: Annotated[
        Path | None,
        o.file_option("--output", "The file to write (npz), or the folder of event files.", show_default=False),
    ] = None,
    to: Annotated[
        str | None,
        o.file_option(
            "--to",
            "Write the run's rounds and result to this tracker instead: tensorboard or mlflow.",
            "NAME",
            autocompletion=one_of(TRACKERS),
        ),
    ] = None,
    round_number: Annotated[
        int | None,
        o.file_option(
            "--round",
            "The basis after this many rounds; 0 is the first. `cospan runs RUN` lists those that were kept.",
            "N",
            min=0,
            show_default="the last",
        ),
    ] = None,
    policy: Annotated[
        bool, o.file_option("--policy", "Write the policy that the agent of --site holds instead of a basis.", None)
    ] = False,
    site: Annotated[
        str | None,
        typer.Option("--site", help="With --policy: index of the site, or its agent's name.", metavar="SITE"),
    ] = None,
    workload: WorkloadOfRun = None,
    force: o.Force = False,
    debug: o.Debug = False,
) -> None:
    """Write a basis or a policy to a file, or a run to a tracker.

    The basis is that of the last round, or of --round. A policy is that of a run with --improve.
    """
    from cospan.cli.commands.export import export_basis, folder_of
    from cospan.wire.errors import InvalidValueError

    if policy != (site is not None):
        raise InvalidValueError("--policy and --site belong together: name the agent whose policy is to be written")
    if policy and (to is not None or round_number is not None):
        raise InvalidValueError("--policy writes what an agent holds in the end; leave out --to and --round")
    if to is not None:
        from cospan.cli.tracking.afterwards import export_to

        if round_number is not None or force:
            raise InvalidValueError("--to writes all rounds that the tracker lacks; leave out --round and --force")
        raise typer.Exit(export_to(to, folder_of(run_folder), output))
    if output is None:
        raise InvalidValueError("there is no file to write; name one with --output, or a tracker with --to")
    if policy:
        from cospan.cli.values.policy import export_policy

        assert site is not None
        raise typer.Exit(export_policy(run_folder, site, output, workload=workload, force=force))
    raise typer.Exit(export_basis(run_folder, output, round_number=round_number, force=force))


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="The run's folder, and that of another run to draw beside it.",
            autocompletion=run_folders,
        ),
    ],
    output: Annotated[
        Path | None,
        o.file_option("--output", "The HTML file to write.", show_default="served on this machine instead"),
    ] = None,
    serve: Annotated[bool, o.file_option("--serve", "Serve it on 127.0.0.1 as well, until Ctrl-C.", None)] = False,
    force: o.Force = False,
    debug: o.Debug = False,
) -> None:
    """Make a report of a finished run, or of two: one HTML file, or a page served on this machine."""
    from cospan.cli.commands.report import report_run

    raise typer.Exit(report_run(runs, output, serve=serve, force=force))


OneSite: TypeAlias = Annotated[
    str, typer.Option("--site", help="Index of the site, or its agent's name.", metavar="SITE")
]
StepsToSee: TypeAlias = Annotated[
    int,
    typer.Option(
        "--steps", help="Steps that are simulated to see where the site goes.", min=1, max=1_000_000, metavar="N"
    ),
]
Coverage: TypeAlias = Annotated[
    float,
    typer.Option("--coverage", help="Of intervals, above 0 and below 1.", min=0.01, max=0.999, metavar="X"),
]


def plot(
    run_folder: o.RunFolder,
    site: Annotated[
        list[str],
        typer.Option("--site", help="Index of the site, or its agent's name; may be repeated.", metavar="SITE"),
    ],
    over: Annotated[
        str,
        typer.Option(
            "--over",
            help="One or two coordinates of an observation, by name or index, as hour,charge.",
            show_default="says which there are",
            metavar="NAME[,NAME]",
        ),
    ] = "",
    at: Annotated[
        str,
        typer.Option(
            "--at",
            help="Numbers to hold other coordinates at, as charge=0.5.",
            show_default="a typical visited observation",
            metavar="NAME=X,...",
        ),
    ] = "",
    workload: WorkloadOfRun = None,
    steps: StepsToSee = 1000,
    coverage: Coverage = 0.9,
    output: Annotated[
        Path | None,
        o.file_option(
            "--output", "The picture to write: png, svg or pdf.", show_default="a png in the run's folder"
        ),
    ] = None,
    force: o.Force = False,
    debug: o.Debug = False,
) -> None:
    """Draw what a site has learnt: its values over one or two coordinates of an observation."""
    from cospan.cli.values.plot import PlotOptions, plot_value

    chosen = PlotOptions(tuple(site), over, at, workload, steps, coverage, output, force)
    raise typer.Exit(plot_value(run_folder, chosen))


def value(
    run_folder: o.RunFolder,
    site: OneSite,
    at: Annotated[
        str,
        typer.Option(
            "--at",
            help="The state, as hour=7,charge=0.6; what it leaves open is that of a typical visited state.",
            show_default="says what an observation has",
            metavar="NAME=X,...",
        ),
    ] = "",
    than: Annotated[
        str,
        typer.Option(
            "--than",
            help="What differs in the state that it is compared with, as charge=0.5.",
            metavar="NAME=X,...",
        ),
    ] = "",
    workload: WorkloadOfRun = None,
    steps: StepsToSee = 1000,
    coverage: Coverage = 0.9,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Tell how much more one state is worth than another: at one site of a run, and how sure that is."""
    from cospan.cli.values.worth import ValueOptions, tell_value

    chosen = ValueOptions(site, at, than, workload, steps, coverage, json)
    raise typer.Exit(tell_value(run_folder, chosen))


def policy(
    run_folder: o.RunFolder,
    site: OneSite,
    at: Annotated[
        str,
        typer.Option(
            "--at",
            help="An observation, as hour=7,charge=0.6; what it leaves open is that of a typical visited one.",
            show_default="tells which policy is held, and why",
            metavar="NAME=X,...",
        ),
    ] = "",
    workload: WorkloadOfRun = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Tell which policy an agent holds: in a run with --improve, why, and what it does at one observation."""
    from cospan.cli.values.policy import PolicyOptions, tell_policy

    raise typer.Exit(tell_policy(run_folder, PolicyOptions(site, at, workload, json)))
