"""Writes docs/reference/cli.md: every command with its options. With --check it reports whether that is current."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cospan.cli.interface.help_pages import grouped, items_of
from cospan.cli.main import app

PAGE = Path(__file__).resolve().parents[1] / "reference" / "cli.md"
_HEAD = """# Commands

Every command with every option. `make cli-reference` writes this page from the code; on the command
line, `--help` shows the options that are used most, and `--help-all` all of them.

Flags override `COSPAN_…` environment variables (`COSPAN_AGENTS` for `--agents`), which override
`cospan.toml`, which overrides the defaults.
"""


def page() -> str:
    """The page, in Markdown."""
    top = typer.main.get_command(app)
    return f"{_HEAD}{''.join(_sections(top, 'cospan', 1))}"


def _sections(group: Any, path: str, level: int) -> Iterator[str]:
    for name, command in group.commands.items():
        here = f"{path} {name}"
        if hasattr(command, "commands"):
            yield f"\n{'#' * (level + 1)} {here}\n\n{inspect.cleandoc(command.help)}\n"
            yield from _sections(command, here, level + 1)
        else:
            yield _section(command, here, level + 1)


def _section(command: Any, path: str, level: int) -> str:
    arguments, options = items_of(command.params)
    usage = " ".join((path, "[OPTIONS]", *(argument.head for argument in arguments)))
    example, codes = command.epilog.split("\n\n")
    lines = [
        f"\n{'#' * level} {path}\n",
        f"{inspect.cleandoc(command.help)}\n",
        f"```text\n{usage}\n```\n",
        f"{example.replace('Example: ', 'Example: `')}`\n",
    ]
    tables = [("Arguments", arguments)] if arguments else []
    for title, items in [*tables, *grouped(options)]:
        lines.append(f"| {title} | |\n|---|---|")
        lines += [f"| `{_cell(item.head)}` | {_cell(item.text)} |" for item in items]
        lines.append("")
    return "\n".join([*lines, f"{codes}.\n"])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def main() -> int:
    made = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made, encoding="utf-8")
    elif not PAGE.exists() or made != PAGE.read_text(encoding="utf-8"):
        sys.stderr.write("docs/reference/cli.md is not what the commands give: run 'make cli-reference'\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
