"""The pages of `--help` and `--help-all`: plain text that fits the terminal, in which nothing is cut off.

`--help` shows the options of `cospan.cli.interface.frequent_options`, `--help-all` every option by group. A command
that is not named there has few options, and both pages are the same.
"""

import inspect
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from cospan.cli.interface.setting_options import FILES
from cospan.cli.output.colours import coloured, is_coloured

_WIDEST, _NARROWEST = 100, 24
_INDENT = "  "
_WIDEST_HEAD = 26
"""Characters of an option's name and value beside its description; a longer one has a line of its own."""
_STACKED_BELOW = 60
"""On fewer columns descriptions are below the names."""
_OTHER = "Options"
_HELP, _HELP_ALL = ("-h, --help", "Show this page."), "Show every option."


@dataclass(frozen=True, slots=True)
class Item:
    """An option, an argument or a command.

    Attributes:
        head: its names, and what stands for its value.
        text: what it is, with its default.
        group: the heading it is shown under.
    """

    head: str
    text: str
    group: str = _OTHER


class HelpCommand(TyperCommand):
    """A command whose `--help` is a page of this module."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Reads the command line."""
        _spare_checks(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Writes the page of the options that are used most."""
        formatter.write(command_page(self, ctx, everything=False))


class HelpGroup(TyperGroup):
    """A group of commands whose `--help` is a page of this module."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Reads the command line."""
        _spare_checks(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Writes the page of the commands."""
        formatter.write(group_page(self, ctx))


def _spare_checks(parameters: Iterable[Any]) -> None:
    """Spares parameters the checks of typer where their value is text, a path that may be read, or not given.

    Typer makes a model of pydantic for every parameter before it looks at its value: a sixth of the CPU time in
    which an agent starts. No path of a command has further checks of typer.
    """
    for parameter in parameters:
        if "process_value" not in vars(parameter):
            parameter.process_value = partial(_processed, parameter, parameter.process_value)


def _processed(parameter: Any, checked: Callable[..., Any], context: typer.Context, value: Any) -> Any:
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if parameter.nargs != 1 or parameter.required or getattr(parameter, "multiple", False):
        return checked(context, value)
    if kind is Path and isinstance(value, str) and (not os.access(value, os.F_OK) or os.access(value, os.R_OK)):
        value = Path(value)
    elif not (value is None or (kind is str and isinstance(value, str)) or value is parameter.default):
        return checked(context, value)
    return value if parameter.callback is None else parameter.callback(context, parameter, value)


def with_help_all(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the option `--help-all`."""
    own = list(inspect.signature(command).parameters.values())
    option = inspect.Parameter(
        "help_all",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool, typer.Option("--help-all", help=_HELP_ALL, is_eager=True, callback=_show_all, hidden=True)
        ],
    )

    @wraps(command)
    def called(**values: Any) -> None:
        values.pop("help_all", None)
        command(**values)

    signature = inspect.Signature([*(each.replace(kind=option.kind) for each in own), option])
    called.__dict__["__signature__"] = signature
    called.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    return called


def _show_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        typer.echo(command_page(context.command, context, everything=True), nl=False)
        raise typer.Exit


# Pages ----------------------------------------------------------------------------------------------------------


def command_page(command: Any, context: typer.Context, *, everything: bool) -> str:
    """The page of a command.

    Args:
        command: what typer made of it.
        context: of its call.
        everything: whether all options are shown, by group; else those that are used most.
    """
    from cospan.cli.interface.frequent_options import FREQUENT

    path = context.command_path
    arguments, options = items_of(command.params)
    frequent = None if everything else FREQUENT.get(path.partition(" ")[2])
    lines = [*_opening(command.help or ""), *_usage(path, [argument.head for argument in arguments])]
    if arguments:
        lines += _section("Arguments", arguments)
    if frequent is None:
        for group, items in grouped(options):
            lines += _section(group, items)
        return _joined([*lines, *_closing(command.epilog or "")])
    by_name = {item.head.split()[0].removesuffix(","): item for item in options}
    shown = [by_name[f"--{name}"] for name in frequent]
    shown.append(Item("--help-all", f"Show all {len(options)} options by group, and the exit codes."))
    example, *_ = (command.epilog or "").split("\n\n")
    return _joined([*lines, *_section(_OTHER, shown), *_closing(example)])


def group_page(group: Any, context: typer.Context) -> str:
    """The page of a group of commands: each with the first clause of its help, under its heading."""
    lines = [*_opening(group.help or ""), *_usage(context.command_path, ["COMMAND"])]
    found: dict[str, list[Item]] = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            panel = getattr(command, "rich_help_panel", None)
            heading = panel if isinstance(panel, str) else "Commands"
            found.setdefault(heading, []).append(Item(name, _first_clause(command.help or "")))
    for heading, items in found.items():
        lines += _section(heading, items)
    _, options = items_of(each for each in group.params if "--show-completion" not in each.opts)
    names = ", ".join((*(option.head for option in options), _HELP[0]))
    return _joined([*lines, *_closing(f"{_OTHER}: {names}\n\n{group.epilog or ''}")])


def grouped(options: Sequence[Item]) -> list[tuple[str, list[Item]]]:
    """The options by group, in the order in which groups first occur; those without a group first, files last."""
    found: dict[str, list[Item]] = {_OTHER: []}
    for item in options:
        found.setdefault(item.group, []).append(item)
    found[FILES] = [*found.pop(FILES, []), Item(*_HELP)]
    return [(group, items) for group, items in found.items() if items]


def items_of(parameters: Iterable[Any]) -> tuple[list[Item], list[Item]]:
    """Arguments and options that are not hidden, in their order."""
    arguments, options = [], []
    for each in parameters:
        if each.hidden or "--help" in each.opts:
            continue
        if each.param_type_name == "argument":
            metavar = each.metavar or each.name.upper()
            bracketed = metavar if each.required or metavar.startswith("[") else f"[{metavar}]"
            arguments.append(Item(bracketed, _described(each)))
            continue
        names = ", ".join(each.opts)
        if each.secondary_opts:
            names += f", {', '.join(each.secondary_opts)}"
        value = "" if each.is_flag else f" {each.metavar or each.name.upper()}"
        group = getattr(each, "rich_help_panel", None)
        options.append(Item(names + value, _described(each), group if isinstance(group, str) else _OTHER))
    return arguments, options


def _described(parameter: Any) -> str:
    """The help of an option or argument, with its default."""
    text, unset, default = parameter.help or "", parameter.show_default, parameter.default
    if parameter.required:
        return text if parameter.param_type_name == "argument" else f"{text} [required]"
    if isinstance(unset, str) and unset:
        return text if unset == "none" or unset.startswith("no ") else f"{text} [default: {unset}]"
    is_plain = default is not None and default is not False and default != "" and not callable(default)
    return f"{text} [default: {default}]" if is_plain and unset else text


# Lines ----------------------------------------------------------------------------------------------------------


def _width() -> int:
    return max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns))


def _wrapped(text: str, *, first: str = "", indent: str = "") -> list[str]:
    """Lines of a text that break between words alone: an option's name is never cut."""
    return textwrap.wrap(
        " ".join(text.split()),
        _width(),
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _opening(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines += [*_wrapped(paragraph), ""]
    return lines


def _usage(path: str, arguments: Sequence[str]) -> list[str]:
    usage = " ".join((path, "[OPTIONS]", *arguments))
    first, *others = _wrapped(f"Usage: {usage}", indent=" " * len("Usage: "))
    return [f"{_title('Usage:')}{first.removeprefix('Usage:')}", *others]


def _section(title: str, items: Sequence[Item]) -> list[str]:
    stacked = _width() < _STACKED_BELOW
    column = min(max(len(item.head) for item in items), _WIDEST_HEAD)
    lines = ["", _title(f"{title}:")]
    for item in items:
        head = f"{_INDENT}{item.head}"
        if stacked or len(item.head) > column:
            indent = _INDENT * 3 if stacked else " " * (column + 2 * len(_INDENT))
            shown = _wrapped(item.head, first=_INDENT, indent=_INDENT * 2)
            lines += [*(_name(line) for line in shown), *_wrapped(item.text, first=indent, indent=indent)]
            continue
        blank = " " * (column + 2 * len(_INDENT))
        first, *others = _wrapped(item.text, first=blank, indent=blank) or [blank]
        lines += [f"{_name(head)}{first[len(head) :]}".rstrip(), *others]
    return lines


def _closing(text: str) -> list[str]:
    """The paragraphs below the options: each begins with a title and a colon."""
    lines = [""]
    for paragraph in filter(None, text.split("\n\n")):
        label, _, rest = paragraph.partition(": ")
        first, *others = _wrapped(f"{label}: {rest}", indent=_INDENT)
        lines += [f"{_title(f'{label}:')}{first.removeprefix(f'{label}:')}", *others]
    return lines


def _first_clause(text: str) -> str:
    """What comes before the first colon or the end of the first sentence: a list has one line for each command."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence, _, _ = paragraph.partition(". ")
    return sentence.partition(": ")[0].rstrip(".")


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _title(text: str) -> str:
    return coloured(text, "title") if _is_coloured() else text


def _name(text: str) -> str:
    """An option's name, without its indentation, in its colour."""
    bare = text.lstrip()
    return text[: len(text) - len(bare)] + coloured(bare, "name") if _is_coloured() else text


def _is_coloured() -> bool:
    return is_coloured(sys.stdout, os.environ)
