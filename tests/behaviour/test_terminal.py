"""`cospan run` on a real terminal: a bar, the table, what is next; plain text where the terminal can do no more."""

import re
import sys
from pathlib import Path

import pytest
from behaviour.command import TINY, TOY, environment
from terminals import STYLE, on_terminal, plain

_MOVES = re.compile(r"\x1b\[[0-9;?]*[A-Zhl]")
_REDS = {"31", "35", "91", "95"}


def run(tmp_path: Path, columns: int, workload: str = TOY, **more: str) -> str:
    arguments = ("run", workload, *TINY, "--output", "run")
    code, text = on_terminal(
        [sys.executable, "-m", "cospan.cli.main", *arguments],
        cwd=tmp_path,
        environment=environment(**{"TERM": "xterm-256color", "NO_COLOR": "", **more}),
        columns=columns,
        rows=24,
    )
    assert code == 0, text
    return text


def test_a_run_on_a_terminal_ends_with_its_table_and_what_is_next(tmp_path: Path) -> None:
    text = run(tmp_path, 80)
    styles = {code for style in STYLE.findall(text) for code in style[2:-1].split(";")}
    assert styles & {"36", "32"}, "the bar is cyan, and green when it is full"
    assert not styles & (_REDS | {"38"}), "red reads as failure, and so do rich's own colours of bars"
    shown = [line.rpartition("\r")[2] for line in _MOVES.sub("", plain(text)).splitlines()]
    assert [" ".join(line.split()) for line in shown[-3:-1]] == [
        "Next:",
        "cospan report run --output report.html # all of it on one page",
    ]
    assert re.fullmatch(rf"  cospan plot run --site \d --over 0 --workload {TOY}  # .*", shown[-1])
    assert [line for line in shown if re.match(r"site-\d .*[✓!] \d", line)]
    assert max(len(line) for line in shown if line.startswith("site-")) <= 80


@pytest.mark.parametrize("more", [{"TERM": "dumb"}, {"TERM": "dumb", "NO_COLOR": "1"}])
def test_a_terminal_that_can_do_no_more_gets_plain_text(more: dict[str, str], tmp_path: Path) -> None:
    text = run(tmp_path, 80, **more)
    assert "\x1b" not in text
    assert "✓" in text or "!" in text
    assert "Next:" in text


def test_without_colours_the_bar_still_moves(tmp_path: Path) -> None:
    text = run(tmp_path, 60, "toy_workload:leisurely", NO_COLOR="1")
    styles = {code for style in STYLE.findall(text) for code in style[2:-1].split(";")}
    assert styles <= {"0", "1", ""}, "weights are no colours"
    lines = [line for line in _MOVES.sub("", plain(text)).replace("\r", "\n").splitlines() if "rounds/s  " in line]
    assert lines, "it has shown numbers"
    assert max(map(len, lines)) <= 60
