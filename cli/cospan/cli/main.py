"""The entry point of `cospan`: the commands, and how an error ends one.

An error is one sentence on standard error and an exit code: 1 failed, 2 wrong usage, 75 interrupted, to be started
again. `--debug` shows the traceback.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` has put the working folder first on the path, where its files would stand in for libraries.
    sys.path.pop(0)

import copy
import functools
import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from cospan.cli.interface import commands
from cospan.cli.interface.help_pages import HelpCommand, HelpGroup, with_help_all
from cospan.cli.output.exit_codes import INTERRUPTED
from cospan.cli.processes.this_process import collect_nothing_yet, prepare_environment
from cospan.wire.console import drop_unwritable, open_standard_streams, say

_INTERRUPTED = 130
_GONE = "the working folder was deleted: change to a folder that exists"
_WORKING = ("run", "coordinator", "agent", "relay")
"""Commands that work for others or for long: what they print is never a reason to fail, and after a signal they may
be started again."""

app = typer.Typer(
    name="cospan",
    cls=HelpGroup,
    help="Cospan learns personal value functions for a whole fleet.",
    epilog=commands.epilog(None, "cospan run queues --agents 8"),
    no_args_is_help=False,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for _command, _example in commands.ALL:
    app.command(
        typer.main.get_command_name(_command.__name__),
        cls=HelpCommand,
        no_args_is_help=False,
        epilog=commands.epilog(_command, _example),
        rich_help_panel=commands.PANELS.get(_command, commands.OTHER_PANEL),
    )(with_help_all(_command))
for _group, _about, _group_example, _commands in commands.GROUPS:
    _below = typer.Typer(cls=HelpGroup, help=_about, epilog=f"Example: {_group_example}", no_args_is_help=False)
    for _name, _command, _example in _commands:
        _epilog = commands.epilog(_command, _example)
        _below.command(_name, cls=HelpCommand, no_args_is_help=False, epilog=_epilog)(with_help_all(_command))
    app.add_typer(_below, name=_group, rich_help_panel=commands.OTHER_PANEL)


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
    if arguments is None:
        arguments = sys.argv[1:]
        _leave_out_script_folder()
        if arguments[:1] and arguments[0] in _WORKING:
            collect_nothing_yet()
    prepare_environment(arguments)
    open_standard_streams()
    if arguments[:1] and arguments[0] in _WORKING:
        drop_unwritable()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.exit(_run(arguments))


def _leave_out_script_folder() -> None:
    """Takes the folder of the `cospan` script off the import path, on which child processes do not have it."""
    script = Path(sys.argv[0])
    if script.name == "cospan" and sys.path and sys.path[0] == str(script.resolve().parent):
        sys.path.pop(0)


def _run(arguments: list[str]) -> int:
    """The exit code of a command line."""
    debug = "--debug" in arguments
    _warn_of_variables(arguments)
    command = _command_line(arguments[0] if arguments else "")
    try:
        code = command.main(args=arguments, prog_name="cospan", standalone_mode=False)
        # What typer makes of a KeyboardInterrupt; from elsewhere this code does not come.
        return _interrupted(arguments) if code == _INTERRUPTED else code if isinstance(code, int) else 0
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(arguments)
    except Exception as failure:
        if debug:
            raise
        return _explained(failure)


@functools.cache
def _command_line(first: str) -> Any:
    """What typer makes of the command or group of this name; of all, where there is none.

    To make the options of all commands takes a sixth of the CPU time in which a short command starts and ends.
    """
    named = copy.copy(app)
    named.registered_commands = [each for each in app.registered_commands if each.name == first]
    named.registered_groups = [each for each in app.registered_groups if each.name == first]
    found = named.registered_commands or named.registered_groups
    return typer.main.get_command(named if found else app)


def _warn_of_variables(arguments: list[str]) -> None:
    """Warns of unknown variables; a child's parent has done so."""
    likely = any(name.upper().startswith("COSPAN_") for name in os.environ)
    if likely and arguments and not {"--follow-stdin", "--help", "-h", "--version"}.intersection(arguments):
        from cospan.cli.settings.layers import unknown_variables

        for sentence in unknown_variables(os.environ):
            say(f"cospan: warning: {sentence}")


def _interrupted(arguments: list[str]) -> int:
    """The exit code after a Ctrl-C that came before the command could take it."""
    return _fail("interrupted", INTERRUPTED if arguments and arguments[0] in _WORKING else 1)


def _explained(failure: Exception) -> int:
    """Says what went wrong in one sentence; the exit code."""
    from cospan.wire.errors import CospanError

    if isinstance(failure, CospanError):
        hint = f" ({_GONE})" if _is_working_folder_gone() else ""
        return _fail(f"{failure}{hint}", failure.exit_code)
    if isinstance(failure, FileNotFoundError) and _is_working_folder_gone():
        return _fail(_GONE, 1)
    if hasattr(failure, "format_message"):  # a usage error of typer, whichever click it is built upon
        context = getattr(failure, "ctx", None)
        path = context.command_path if context is not None else "cospan"
        return _fail(f"{failure.format_message().rstrip('.')}; see `{path} --help`", 2)
    return _fail(f"{type(failure).__name__}: {failure}; run again with --debug to see where", 1)


def _is_working_folder_gone() -> bool:
    try:
        Path.cwd()
    except OSError:
        return True
    return False


def _fail(sentence: str, exit_code: int) -> int:
    from cospan.wire.text import MAX_RECORD, printable

    line = printable(" ".join(sentence.split()), MAX_RECORD)
    typer.echo(f"cospan: {line}", err=True)
    return exit_code


if __name__ == "__main__":
    main()
