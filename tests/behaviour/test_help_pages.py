"""`--help` and `--help-all` of every command on a real terminal: they fit, and nothing in them is cut off."""

import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from behaviour.command import environment
from terminals import STYLE, on_terminal, plain
from unit.cli.interface.test_help_pages import GROUPS, paths

from cospan.cli.main import app

_EVERY_PAGE = """
import sys
from cospan.cli import main
for line in sys.argv[1].split(","):
    for page in ("--help", "--help-all"):
        if page == "--help-all" and line in ("", "certs", "bench", "features", "deploy"):
            continue
        print(f"\\x1e{line}\\x1f{page}\\x1f", end="", flush=True)
        try:
            main.main([*line.split(), page])
        except SystemExit as end:
            assert end.code == 0, (line, page, end.code)
"""


def pages(tmp_path: Path, columns: int, rows: int, **more: str) -> dict[tuple[str, str], str]:
    """Every page, by command and option, as a terminal of that size gets it."""
    names = ",".join(" ".join(path) for path in paths())
    code, text = on_terminal(
        [sys.executable, "-c", _EVERY_PAGE, names],
        cwd=tmp_path,
        environment=environment(**{"TERM": "xterm-256color", "NO_COLOR": "", **more}),
        columns=columns,
        rows=rows,
    )
    assert code == 0, text[-2000:]
    found = {}
    for page in text.split("\x1e")[1:]:
        command, option, body = page.split("\x1f")
        found[command, option] = body
    return found


def test_every_help_fits_eighty_columns_and_forty_lines(tmp_path: Path) -> None:
    found = pages(tmp_path, 80, 40)
    assert len(found) == 2 * len(paths()) - len(GROUPS)
    for (command, option), body in found.items():
        lines = plain(body).splitlines()
        assert max(map(len, lines)) <= 80, (command, option)
        if option == "--help":
            assert len(lines) < 40, (command, len(lines), "with the prompt it is higher than the screen")
        assert STYLE.search(body), "headings stand out"


@pytest.mark.parametrize("columns", [60, 200])
def test_no_name_or_description_is_cut_at_any_width(columns: int, tmp_path: Path) -> None:
    top: Any = typer.main.get_command(app)
    for (command, option), body in pages(tmp_path, columns, 20).items():
        text = plain(body)
        assert max(map(len, text.splitlines())) <= columns, (command, option)
        found, words = top, " ".join(text.replace(",", "").split())
        for name in command.split():
            found = found.commands[name]
        shown = [each for each in found.params if not each.hidden and "--help" not in each.opts]
        for each in shown if option == "--help-all" else ():
            assert each.param_type_name == "argument" or each.opts[0] in words.split()
            assert " ".join(each.help.replace(",", "").split()) in words


def test_no_colours_where_nobody_wants_or_can_show_them(tmp_path: Path) -> None:
    for more in ({"TERM": "dumb"}, {"NO_COLOR": "1"}):
        found = pages(tmp_path, 80, 40, **more)
        assert not any("\x1b" in body for body in found.values()), more
