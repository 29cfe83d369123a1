"""Text of peers: whatever it is, what is shown is on one line, printable, bounded, and stays as it is."""

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cospan.cli.diagnostics.findings import bad, finding_lines
from cospan.cli.main import _fail
from cospan.cli.output.log_lines import JsonFormatter
from cospan.cli.output.progress import LinesView
from cospan.cli.output.table import table
from cospan.core.specification import unprintable_problem
from cospan.wire.text import (
    MAX_RECORD,
    and_more,
    counted,
    listed,
    printable,
    printable_lines,
    split_remedy,
)

HOSTILE = {
    "escape": "\x1b[2J\x1b]0;title\x07",
    "C1": "\x9b31m\x85",
    "DEL": "a\x7fb",
    "NUL": "a\0b",
    "lines": "a\nround 9: run-finished\r\n\u2028\u2029b",
    "bidirectional": "\u202egnp.exe\u2066\u200f",
    "invisible": "\ufeff\u200b\u00ad",
    "surrogate": "\ud800",
    "private": "\ue000\U000f0000",
    "tag": "\U000e0041",
}


@given(st.text() | st.text(st.sampled_from("\x1b\x9b\n\r\x00\x7f\u202e\u200f\ufeff\ud800 ab…")), st.integers(0, 40))
def test_what_is_shown_is_printable_bounded_and_stays_as_it_is(text: str, most: int) -> None:
    shown = printable(text, most)
    assert shown.isprintable()
    assert len(shown) <= most
    assert printable(shown, most) == shown
    if text.isprintable() and len(text) <= most:
        assert shown == text


@given(st.text(), st.integers(0, 60))
def test_lines_are_shown_as_lines(text: str, most: int) -> None:
    shown = printable_lines(text, most)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert len(shown) <= most
    assert printable_lines(shown, most) == shown


@pytest.mark.parametrize("name", HOSTILE)
def test_an_identifier_with_it_is_refused_by_its_code_point(name: str) -> None:
    problem = unprintable_problem("workload", f"rings{HOSTILE[name]}")
    assert problem is not None
    assert problem.isprintable()
    assert "U+" in problem


def test_text_of_any_language_is_left_alone() -> None:
    for text in ("microgrids", "für Ärzte", "日本　語", "שלום", "data set.py:make", "e\u0301", "🙂"):
        assert unprintable_problem("workload", text) is None
        assert printable(text).replace(" ", "") == text.replace(" ", "").replace("\u3000", "")


# Where it is shown ----------------------------------------------------------------------------------------------


def record(text: str, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, None)
    return logging.LogRecord("cospan", logging.ERROR, "", 0, "%s says", (text,), info)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_place_shows_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = HOSTILE[name]
    entry = JsonFormatter().format(record(text, ValueError(text)))
    assert entry.isprintable()
    loaded = json.loads(entry)
    assert loaded["message"].isprintable()
    assert all(line.isprintable() for line in loaded["exception"].split("\n"))
    lines = table(("agent", "note"), [("site-0", text)])
    lines += finding_lines([bad("coordinator", text, text)])
    LinesView().note(text)
    assert _fail(text, 1) == 1
    lines += capsys.readouterr().err.splitlines()
    assert len(lines) == 8
    assert all(line.isprintable() for line in lines), [ascii(line) for line in lines]


def test_a_record_is_bounded() -> None:
    try:
        raise ValueError("y" * 10**6)
    except ValueError:
        long = logging.LogRecord("cospan", logging.ERROR, "", 0, "x" * 10**6, (), sys.exc_info())
    assert len(JsonFormatter().format(long)) < 10 * MAX_RECORD


def test_listed_names_the_first_and_counts_the_others() -> None:
    assert listed([f"site-{index}" for index in range(7)]) == "site-0, site-1, site-2, site-3, site-4 and 2 more"
    assert listed(("a", "b", "c"), 2) == "a, b and 1 more"
    assert listed(("a", "b"), 2) == "a, b"
    assert listed([]) == ""


def test_and_more_counts_the_rows_that_are_not_shown() -> None:
    assert and_more(1025, 25) == ["… and 1,000 more"]
    assert and_more(25, 25) == []


def test_counted_knows_none_one_and_many() -> None:
    assert [counted(number, "row") for number in (0, 1, 2, 12)] == ["no row", "1 row", "2 rows", "12 rows"]


def test_split_remedy_takes_what_follows_the_last_semicolon() -> None:
    assert split_remedy("port 1 is taken; by another; choose one: --port") == (
        "port 1 is taken; by another",
        "choose one: --port",
    )
    assert split_remedy("nothing helps") == ("nothing helps", "")
