"""The summary at the end of a run."""

from dataclasses import replace
from pathlib import Path

from unit.cli.run_folder.test_run_result import AGENTS, OUTCOME

from cospan.cli.output.summary import summary_lines
from cospan.cli.run_folder.run_result import (
    AgentRow,
    DepartedAgent,
    result_document,
)


def lines_of(width: int | None) -> list[str]:
    return summary_lines(OUTCOME, AGENTS, result_document(OUTCOME, AGENTS), Path("runs/x"), width=width)


def test_the_summary_says_who_left_and_ends_with_the_folder() -> None:
    lines = lines_of(None)
    assert lines[0].split() == ["agent", "site", "mean", "reward", "joint", "independent", "ratio", "note"]
    assert " ".join(lines[1].split()) == "site-0 a place with a long name 1.500 0.02000 0.04000 0.5000"
    assert lines[3].split()[2:] == ["-", "-", "-", "-", "gone", "in", "round", "88"]
    assert "gone: site-2 in round 88 (it was silent for 5 s)" in lines
    assert "median value error: joint 0.03000, independent TD 0.04000, 0.75 times that" in lines
    assert lines[-1] == "runs/x"


def test_the_table_is_cut_to_a_narrow_terminal() -> None:
    assert max(map(len, lines_of(None)[:4])) > 80
    narrow = lines_of(72)[:4]
    assert max(map(len, narrow)) <= 72
    assert narrow[1].split()[-4:] == ["1.500", "0.02000", "0.04000", "0.5000"]
    assert "~" in narrow[1]


def test_nothing_is_said_of_errors_that_nobody_knows() -> None:
    agents = (AgentRow("site-0", "", 1.0, 1.0),)
    outcome = replace(OUTCOME, departures=(), subspace_error=None)
    text = "\n".join(summary_lines(outcome, agents, result_document(outcome, agents), Path("x"), width=None))
    assert "the true values are not known" in text
    assert "note" not in text


# Thousands of agents --------------------------------------------------------------------------------------------


def test_a_summary_of_thousands_shows_the_first_of_them() -> None:
    agents = [AgentRow(id=f"site-{index}", label="") for index in range(4321)]
    gone = tuple(DepartedAgent(row.id, 3, "it left: bye") for row in agents[:200])
    outcome = replace(OUTCOME, departures=gone)
    lines = summary_lines(outcome, agents, result_document(outcome, agents), Path("x"), width=80)
    assert len([line for line in lines if line.startswith("site-")]) == 100
    assert [line for line in lines if line.startswith("…")] == ["… and 4,221 more", "… and 100 more"]
    assert len([line for line in lines if line.startswith("gone: ")]) == 100


def test_a_summary_of_a_hundred_shows_all_of_them() -> None:
    agents = [AgentRow(id=f"site-{index}", label="") for index in range(100)]
    lines = summary_lines(OUTCOME, agents, result_document(OUTCOME, agents), Path("x"), width=80)
    assert len([line for line in lines if line.startswith("site-")]) == 100
    assert not [line for line in lines if line.startswith("…")]
