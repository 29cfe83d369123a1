"""Commands of the development authority: certs init, issue, renew, show."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from cospan.cli.interface import options as o

Folder: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Folder of the authority and its certificates.")
]
Days: TypeAlias = Annotated[
    float | None, typer.Option("--days", help="Days of validity.", show_default="90, an authority 3650")
]


def certs_init(
    folder: Folder,
    name: Annotated[
        str, typer.Option("--name", help="Name of the authority.", metavar="TEXT")
    ] = "Cospan development CA",
    days: Days = None,
    debug: o.Debug = False,
) -> None:
    """Make a development authority: its certificate, and its key, which stays in the folder."""
    from cospan.cli.commands.certs import initialise

    raise typer.Exit(initialise(folder, name=name, days=days))


def certs_issue(
    folder: Folder,
    agent: Annotated[
        list[str] | None, typer.Option("--agent", help="For this agent; may be repeated.", metavar="ID")
    ] = None,
    agents: Annotated[
        list[str] | None,
        typer.Option("--agents", help="For a range of agents, as site-0..99; '*' for all.", metavar="FIRST..LAST"),
    ] = None,
    relay: Annotated[
        list[str] | None,
        typer.Option(
            "--relay",
            help="For a relay of a range of agents, towards its coordinator; '*' for all.",
            metavar="FIRST..LAST",
        ),
    ] = None,
    coordinator: Annotated[
        str | None,
        typer.Option(
            "--coordinator",
            help="For the coordinator, with its names and addresses.",
            metavar="HOST,...",
        ),
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="For an administrator, who may watch and stop a run.")
    ] = False,
    observer: Annotated[
        bool, typer.Option("--observer", help="For an observer, who may read status and rounds.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of its folder.", show_default="from its subject", metavar="NAME"),
    ] = None,
    days: Days = None,
    debug: o.Debug = False,
) -> None:
    """Issue a certificate: a folder with cert.pem, key.pem and ca.pem."""
    from cospan.cli.commands.certs import IssueOptions, issue

    whom = tuple(agent or ()), tuple(agents or ()), tuple(relay or ())
    chosen = IssueOptions(*whom, coordinator, admin, observer, name, days)
    raise typer.Exit(issue(folder, chosen))


def certs_renew(
    folder: Folder,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Names of the certificates' folders.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every certificate of the folder.")] = False,
    days: Annotated[
        float | None, typer.Option("--days", help="Days of validity.", show_default="as before")
    ] = None,
    debug: o.Debug = False,
) -> None:
    """Renew certificates for the same names; running coordinators and agents reload them."""
    from cospan.cli.commands.certs import renew

    raise typer.Exit(renew(folder, tuple(names or ()), every=every, days=days))


def certs_show(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="PEM files, or folders that hold them.")],
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Show names, validity and fingerprints of certificates."""
    from cospan.cli.commands.certs import show

    raise typer.Exit(show(tuple(paths), as_json=json))
