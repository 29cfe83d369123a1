"""Commands that look at runs: status, watch, doctor, runs, export, report."""

from pathlib import Path
from typing import Annotated

import typer

from cospan.cli.interface import options as o
from cospan.cli.interface import setting_options as s
from cospan.cli.interface.completion import run_folders
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
    logs: o.Logs = None,
    mapping: o.LogMapping = None,
    run_folder: Annotated[Path, o.file_option("--run-folder", "Folder of runs.", "FOLDER")] = Path("runs"),
    config: o.Config = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Find problems and their remedies: versions, ports, certificates, clocks, disk, the coordinator.

    With --logs and --mapping check these logs instead, before anything is learnt from them.
    """
    from cospan.cli.commands.doctor import examine

    raise typer.Exit(examine(given, config, run_folder, json=json, logs=logs, mapping=mapping))


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


def export(
    run_folder: o.RunFolder,
    output: Annotated[Path, o.file_option("--output", "The file to write (npz).")],
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
    force: o.Force = False,
    debug: o.Debug = False,
) -> None:
    """Write a basis of a stored run to an npz file: by default the last, with its specification."""
    from cospan.cli.commands.export import export_basis

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
