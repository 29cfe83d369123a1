"""Commands that make files of a user's own: new, score."""

from pathlib import Path
from typing import Annotated

import typer

from cospan.cli.interface import options as o
from cospan.cli.interface.completion import WORKLOADS, one_of


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the fleet and its folder, for example cold-stores.")
    ],
    log: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="With --from csv: the log of a site.", show_default=False),
    ] = None,
    source: Annotated[
        str,
        o.file_option("--from", "Where its steps come from: simulator, or csv and the FILE of a log.", "SOURCE"),
    ] = "simulator",
    observation: o.Observation = None,
    reward: o.Reward = None,
    time: o.Time = None,
    debug: o.Debug = False,
) -> None:
    """Make a folder with a fleet that runs at once: environment, features, policy, test, compose file.

    From a log: its mapping, guessed from header and rows, with what is to be decided as remarks.
    """
    from cospan.cli.settings.log_options import columns_of
    from cospan.cli.tools.new_fleet import new_fleet

    columns = columns_of(None if log is None else str(log), None, observation, reward, time)
    raise typer.Exit(new_fleet(name, source=source, log=log, columns=columns))


def score(
    value: Annotated[
        Path, o.file_option("--value", "What an agent has learnt: agents/site-7.npz of a run, or a saved file.")
    ],
    observations: Annotated[
        Path | None,
        o.file_option(
            "--observations",
            "A CSV file with a header, or a .npy array; an observation in each row.",
            show_default="the rows of --log",
        ),
    ] = None,
    log: Annotated[
        str | None,
        o.file_option(
            "--log", "A site's log in place of --observations: a file, or a folder of its files.", "DATA"
        ),
    ] = None,
    mapping: o.LogMapping = None,
    columns: Annotated[
        str | None,
        o.file_option(
            "--columns",
            "The columns of an observation, in its order, separated by commas.",
            "NAMES",
            show_default="all",
        ),
    ] = None,
    workload: Annotated[
        str | None,
        o.fleet_option(
            "--workload",
            "Whose features it was learnt with: package.module:name.",
            "WORKLOAD",
            show_default="the built-in one that the file names",
            autocompletion=one_of(WORKLOADS),
        ),
    ] = None,
    coverage: Annotated[
        float,
        o.fleet_option("--coverage", "The probability that an interval holds the true number, 0 to 1.", "X"),
    ] = 0.9,
    output: Annotated[
        Path | None,
        o.file_option("--output", "The file to write, .csv or .parquet.", show_default="CSV on standard output"),
    ] = None,
    force: o.Force = False,
    debug: o.Debug = False,
) -> None:
    """Value each row of a file or log with what an agent has learnt: value, interval."""
    from cospan.cli.tools.score import ScoreOptions, score_file

    chosen = tuple(name.strip() for name in columns.split(",")) if columns else ()
    options = ScoreOptions(
        value, observations, chosen, workload, output, coverage, force=force, log=log, mapping=mapping
    )
    raise typer.Exit(score_file(options))
