"""Commands for studies: compare, reproduce, rank."""

from pathlib import Path
from typing import Annotated

import typer

from cospan.cli.interface import options as o
from cospan.cli.interface import setting_options as s
from cospan.cli.interface.completion import experiments
from cospan.cli.interface.setting_options import with_settings


@with_settings(s.RUN["agents"], s.RUN_ROUNDS, s.RUN["seed"], s.RUN["rank"], s.STEPS_PER_ROUND, s.PRESET)
def compare(
    given: o.Given,
    workload: o.Workload,
    *,
    seeds: Annotated[
        int,
        o.fleet_option("--seeds", "Number of runs, with seeds from --seed on.", "N", min=1, max=1000),
    ] = 5,
    output: o.OutputFolder = None,
    config: o.Config = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Compare the joint method with baselines on the same transitions: a table, plots and numbers."""
    from cospan.cli.lab.compare import compare_here

    raise typer.Exit(compare_here(workload, seeds, output, given, config, json=json, quiet=quiet))


def reproduce(
    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="EXPERIMENT", help="Its name.", show_default="a list of them", autocompletion=experiments
        ),
    ] = None,
    output: o.OutputFolder = None,
    pages: Annotated[
        Path | None,
        o.file_option(
            "--pages", "Also put the figures and the picture into the experiment's page in this folder.", "FOLDER"
        ),
    ] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Run for some seconds; shows only the sign of the effect.")
    ] = False,
    in_process: Annotated[bool, typer.Option("--in-process", help="Do not repeat runs over gRPC.")] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Run an experiment of docs/experiments: numbers, verdict and picture. Without a name, list the experiments."""
    from cospan.cli.lab.reproduce import reproduce_here

    flags = {"tiny": tiny, "in_process": in_process, "json": json, "quiet": quiet}
    raise typer.Exit(reproduce_here(experiment, output, pages, **flags))


@with_settings(s.RUN["agents"], s.RUN_ROUNDS, s.RUN["seed"], s.STEPS_PER_ROUND)
def export_logs(
    given: o.Given,
    workload: o.Workload,
    *,
    output: Annotated[Path, o.file_option("--output", "The folder to write to; new or empty.", "FOLDER")],
    form: Annotated[str, o.file_option("--format", "Format of the logs.", "parquet|csv")] = "parquet",
    config: o.Config = None,
    debug: o.Debug = False,
) -> None:
    """Write the chains of a workload as logs: a file for each site, and their mapping."""
    from cospan.cli.lab.export_logs import write_logs

    raise typer.Exit(write_logs(workload, output, given, config, form=form))


def suggest_features(
    *,
    log: Annotated[str, o.file_option("--log", "The log of one site.", "FILE")],
    reward: Annotated[
        str,
        typer.Option("--reward", help="A column, or a formula of columns, as '-cost'.", metavar="FORMULA"),
    ],
    time: Annotated[str | None, typer.Option("--time", help="The column of stamps.", metavar="COLUMN")] = None,
    step: Annotated[
        str | None,
        typer.Option(
            "--step",
            help="Between rows, as 15min; a number where the time is one.",
            metavar="STEP",
            show_default="that of the first rows",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            help="Columns of the observation, comma-separated.",
            metavar="NAMES",
            show_default="all but those of reward and time",
        ),
    ] = None,
    output: Annotated[
        Path | None, o.file_option("--output", "The mapping to write (TOML).", show_default="printed")
    ] = None,
    force: o.Force = False,
    debug: o.Debug = False,
) -> None:
    """Suggest features for a log, and show by held-out error whether finer ones pay.

    The first third of the rows learns and the second chooses; the last, which has no part in the choice, judges the
    chosen features and the coarsest ones once. Where it cannot tell them apart the coarsest are suggested.
    """
    from cospan.cli.lab.suggest import suggest_here

    raise typer.Exit(
        suggest_here(log, reward=reward, time=time, step=step, columns=columns, output=output, force=force)
    )


@with_settings(s.RANK_AGENTS, s.RANK_ROUNDS, s.RUN["seed"], s.STEPS_PER_ROUND)
def rank(
    given: o.Given,
    workload: o.Workload,
    *,
    share: Annotated[
        float,
        o.fleet_option("--share", "Share of the signal that the suggested rank holds, 0 to 1.", "X"),
    ] = 0.99,
    config: o.Config = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Estimate how many dimensions the value functions of a fleet share: a spectrum, a rank, its uncertainty."""
    from cospan.cli.lab.rank import rank_here

    raise typer.Exit(rank_here(workload, share, given, config, json=json, quiet=quiet))
