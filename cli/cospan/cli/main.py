"""The entry point of `cospan`: the commands, and how an error ends one.

An error is one sentence on standard error and an exit code: 1 failed, 2 wrong usage, 75 interrupted, to be started
again. `--debug` shows the traceback.
"""

import os
import sys
from typing import Annotated, NoReturn

import typer

from cospan.cli import commands
from cospan.cli.exit_codes import INTERRUPTED
from cospan.cli.process import prepare_environment

_INTERRUPTED = 130
_STARTED_AGAIN = ("run", "coordinator", "agent", "relay")

app = typer.Typer(
    name="cospan",
    help="Cospan learns personal value functions for a whole fleet.",
    epilog=commands.epilog(None, "cospan run queues --agents 8"),
    no_args_is_help=False,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for _command, _example in commands.ALL:
    app.command(
        no_args_is_help=False,
        epilog=commands.epilog(_command, _example),
        rich_help_panel=commands.PANELS.get(_command, commands.OTHER_PANEL),
    )(_command)
for _group, _about, _group_example, _commands in commands.GROUPS:
    _below = typer.Typer(name=_group, help=_about, epilog=f"Example: {_group_example}", no_args_is_help=False)
    for _name, _command, _example in _commands:
        _below.command(_name, no_args_is_help=False, epilog=commands.epilog(_command, _example))(_command)
    app.add_typer(_below, rich_help_panel=commands.OTHER_PANEL)


@app.callback(invoke_without_command=True)
def cospan(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Cospan learns personal value functions for a whole fleet: many agents, one shared subspace."""
    if version:
        import importlib.metadata

        typer.echo(f"cospan {importlib.metadata.version('cospan')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line, and ends the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    prepare_environment(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.exit(_run(arguments))


def _run(arguments: list[str]) -> int:
    """The exit code of a command line."""
    debug = "--debug" in arguments
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="cospan", standalone_mode=False)
        # What typer makes of a KeyboardInterrupt; from elsewhere this code does not come.
        return _interrupted(arguments) if code == _INTERRUPTED else code if isinstance(code, int) else 0
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(arguments)
    except Exception as failure:
        if debug:
            raise
        return _explained(failure)


def _interrupted(arguments: list[str]) -> int:
    """The exit code after a Ctrl-C that came before the command could take it."""
    return _fail("interrupted", INTERRUPTED if arguments and arguments[0] in _STARTED_AGAIN else 1)


def _explained(failure: Exception) -> int:
    """Says what went wrong in one sentence; the exit code."""
    from cospan.wire.errors import CospanError

    if isinstance(failure, CospanError):
        return _fail(str(failure), failure.exit_code)
    if hasattr(failure, "format_message"):  # a usage error of typer, whichever click it is built upon
        context = getattr(failure, "ctx", None)
        path = context.command_path if context is not None else "cospan"
        return _fail(f"{failure.format_message().rstrip('.')}; see `{path} --help`", 2)
    return _fail(f"{type(failure).__name__}: {failure}; run again with --debug to see where", 1)


def _fail(sentence: str, exit_code: int) -> int:
    line = " ".join(sentence.split())
    typer.echo(f"cospan: {line}", err=True)
    return exit_code


if __name__ == "__main__":
    main()
