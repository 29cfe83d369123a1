"""Commands that make files of a user's own: new."""

from typing import Annotated

import typer

from cospan.cli.interface import options as o


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the fleet and its folder, for example cold-stores.")
    ],
    source: Annotated[
        str, o.file_option("--from", "Where its steps come from: simulator.", "SOURCE")
    ] = "simulator",
    debug: o.Debug = False,
) -> None:
    """Make a folder with a fleet that runs at once: environment, features, policy, test, compose file."""
    from cospan.cli.tools.new_fleet import new_fleet

    raise typer.Exit(new_fleet(name, source=source))
