"""The summary at the end of a run."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from unit.cli.run_folder.test_run_result import AGENTS, OUTCOME

from cospan.cli.output.summary import next_commands, show_summary, summary_lines
from cospan.cli.run_folder.run_result import (
    AgentRow,
    DepartedAgent,
    result_document,
)
from cospan.core.quality.fleet_errors import SiteErrors


def lines_of(width: int | None) -> list[str]:
    return summary_lines(OUTCOME, AGENTS, result_document(OUTCOME, AGENTS), Path("runs/x"), width=width)


def test_the_summary_says_who_left_and_ends_with_the_folder() -> None:
    lines = lines_of(None)
    assert " ".join(lines[0].split()) == "agent site mean reward joint LSTD alone TD alone ratio shared note"
    assert " ".join(lines[1].split()) == "site-1 here -2.000 0.04000 0.02500 0.04000 ! 1.600 0.25"
    assert " ".join(lines[2].split()) == "site-0 a place with a long name 1.500 0.02000 - 0.04000 ✓ 0.5000 -"
    assert lines[3].split()[2:] == ["-", "-", "-", "-", "-", "-", "gone", "in", "round", "88"]
    assert "gone: site-2 in round 88 (it was silent for 5 s)" in lines
    assert (
        "median value error: joint 0.03000, LSTD alone 0.02500, TD alone 0.04000; 1.20 times the best alone"
        in lines
    )
    assert "! 1 of 2 sites worse than the best alone: site-1 (1.60)" in lines
    assert "the shared basis holds 75.0 % of the variance of the true values (median site)" in lines
    assert not [line for line in lines if "subspace error" in line], "an angle of 90 degrees may cost nothing"
    expected = "median shared weight: 0.25 (0 is own data alone, 1 the fleet's answer); rank in use: 1 of 2"
    assert expected in lines
    assert lines[-1] == "runs/x"


def test_the_summary_and_the_result_count_void_rounds() -> None:
    document = result_document(replace(OUTCOME, void_rounds=2))
    assert document["void_rounds"] == 2
    (line,) = [
        each
        for each in summary_lines(replace(OUTCOME, void_rounds=2), [], document, Path("run"), width=None)
        if " rounds, 2 void in " in each
    ]
    assert "void" not in "".join(lines_of(None))
    assert line.endswith("agents finished; basis " + document["basis_sha256"][:16])


def test_the_table_is_cut_to_a_narrow_terminal() -> None:
    assert max(map(len, lines_of(None)[:4])) > 80
    narrow = lines_of(78)[:4]
    assert max(map(len, narrow)) <= 78
    assert narrow[2].split()[-6:] == ["0.02000", "-", "0.04000", "✓", "0.5000", "-"]
    assert "~" in narrow[2]
    assert "note" not in narrow[0]


def test_the_worst_sites_come_first_and_those_of_unknown_ratio_last_in_their_own_order() -> None:
    rows = {"a": None, "b": 0.5, "c": 3.0, "d": None, "e": 1.0}
    agents = [
        AgentRow(name, "", value_error=error, lstd_alone_error=1.0, td_alone_error=2.0)
        for name, error in rows.items()
    ]
    outcome = replace(OUTCOME, departures=())
    document = result_document(outcome, agents)
    lines = summary_lines(outcome, agents, document, Path("x"), width=None)
    assert [line.split()[0] for line in lines[1:6]] == ["c", "e", "b", "a", "d"]
    assert "! 1 of 3 sites worse than the best alone: c (3.00)" in lines
    assert [each["id"] for each in document["per_agent"]] == list(rows), "as they were given"


def test_without_lstd_alone_the_joint_method_is_compared_with_td_alone() -> None:
    agents = (AgentRow("site-0", "", 1.0, 1.0, 0.1, 0.02, None, 0.04),)
    outcome = replace(OUTCOME, departures=())
    lines = summary_lines(outcome, agents, result_document(outcome, agents), Path("x"), width=None)
    assert "median value error: joint 0.02000, TD alone 0.04000; 0.50 times that" in lines


def test_a_mean_reward_has_its_interval_where_that_is_known() -> None:
    halves = (None, 0.0123, 0.1, 45.6, 1234.5)
    agents = [AgentRow(f"site-{index}", "", -2.5, mean_reward_half_width=half) for index, half in enumerate(halves)]
    outcome = replace(OUTCOME, departures=())
    lines = summary_lines(outcome, agents, result_document(outcome, agents), Path("x"), width=None)
    shown = [line.split("  ")[-6].strip() for line in (re.sub(" {2,}", "  ", line) for line in lines[1:6])]
    assert shown == ["-2.500", "-2.500 ± 0.012", "-2.500 ± 0.1", "-2.500 ± 46", "-2.500 ± 1234"]


def test_nothing_is_said_of_errors_that_nobody_knows() -> None:
    agents = (AgentRow("site-0", "", 1.0, 1.0),)
    outcome = replace(OUTCOME, departures=(), subspace_error=None, rank_in_use=None)
    text = "\n".join(summary_lines(outcome, agents, result_document(outcome, agents), Path("x"), width=None))
    assert "the true values are not known" in text
    assert "note" not in text
    assert "the best alone" not in text
    assert "holds" not in text
    assert "shared weight:" not in text
    assert "rank in use" not in text


def test_all_sites_better_is_said_as_such_and_no_share_is_rounded_up_to_all() -> None:
    agents = [AgentRow("a", "", 1.0, 1.0, None, 0.01, 0.02, 0.04, held_share=0.99996)]
    outcome = replace(OUTCOME, departures=())
    lines = summary_lines(outcome, agents, result_document(outcome, agents), Path("x"), width=None)
    assert "✓ 1 of 1 sites better than the best alone" in lines
    assert "the shared basis holds more than 99.9 % of the variance of the true values (median site)" in lines


class Stream(io.StringIO):
    """Standard output with an encoding, on a terminal or not."""

    def __init__(self, encoding: str, *, is_terminal: bool) -> None:
        super().__init__()
        self._encoding, self._is_terminal = encoding, is_terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize(
    ("encoding", "is_terminal", "variables", "expected"),
    [
        (
            "utf-8",
            True,
            {"TERM": "xterm"},
            "\x1b[1mratio\x1b[0m\n\x1b[33m! 1.600\x1b[0m 0.2\n\x1b[32m✓ 0.5000\x1b[0m\n"
            "\x1b[1mNext:\x1b[0m\n  more  \x1b[2m# of it\x1b[0m\n",
        ),
        (
            "utf-8",
            True,
            {"TERM": "xterm", "NO_COLOR": "1"},
            "ratio\n! 1.600 0.2\n✓ 0.5000\nNext:\n  more  # of it\n",
        ),
        ("utf-8", True, {"TERM": "dumb"}, "ratio\n! 1.600 0.2\n✓ 0.5000\nNext:\n  more  # of it\n"),
        ("ascii", False, {"TERM": "xterm"}, "ratio\n! 1.600 0.2\n+ 0.5000\n"),
    ],
)
def test_colours_repeat_the_signs_and_are_left_out_where_they_cannot_be_shown(
    encoding: str, is_terminal: bool, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Stream(encoding, is_terminal=is_terminal)
    monkeypatch.setattr("sys.stdout", stream)
    show_summary(["ratio", "! 1.600 0.2", "✓ 0.5000"], [("more", "of it")])
    assert stream.getvalue() == expected


def test_a_label_cannot_colour_or_move_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream("utf-8", is_terminal=True)
    monkeypatch.setattr("sys.stdout", stream)
    show_summary(["head", "a \x1b[2Jsite"])
    assert "\x1b[2J" not in stream.getvalue()


def test_what_follows_names_the_newest_run_by_its_link(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    run.mkdir()
    report, plot = next_commands(run, "queues", AGENTS)
    assert report == (f"cospan report '{run}' --output report.html", "all of it on one page")
    assert plot[0] == f"cospan plot '{run}' --site 1 --over 0", "the site that the table begins with"
    (tmp_path / "latest").symlink_to(run.name)
    plot = next_commands(run, "my_fleet:tanks", AGENTS)[1]
    assert plot[0] == f"cospan plot {tmp_path / 'latest'} --site 1 --over 0 --workload my_fleet:tanks"


def test_sentences_are_folded_between_words_and_neither_table_nor_folder_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Stream("utf-8", is_terminal=True)
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("NO_COLOR", "1")
    lines = ["a long row of a table", "", "a long sentence below it", "a long path to the folder"]
    show_summary(lines, width=14)
    assert stream.getvalue().splitlines() == [*lines[:2], "a long", "  sentence", "  below it", lines[3]]


def test_errors_on_held_out_data_stand_in_for_the_truth_and_say_what_cannot_be_told_apart() -> None:
    sure = SiteErrors(0.03, 0.005, 0.09, 0.98, 0.06, 0.01, 10, 0.4)
    unsure = SiteErrors(-0.01, 0.02, 0.01, 1.07, 0.02, 0.02, 10, 0.5)
    agents = [
        AgentRow(
            "site-0", "a", 1.0, held_out=sure, held_out_steps=(500, 400), feature_gaps={"hour": 0.2}, is_tested=True
        ),
        AgentRow("site-1", "b", 1.0, held_out=unsure, held_out_steps=(500, 400)),
        AgentRow("site-2", "c", 1.0, is_tested=True),
    ]
    outcome = replace(OUTCOME, departures=(), subspace_error=None, rank_in_use=None)
    document = result_document(outcome, agents)
    lines = [
        re.sub(" {2,}", "  ", line) for line in summary_lines(outcome, agents, document, Path("x"), width=None)
    ]
    assert lines[0] == "agent  site  mean reward  joint  LSTD alone  mean only  ratio  shared"
    assert lines[1:4] == [
        "site-1  b  1.000  <0.04  <0.05  1.070  ~  -",
        "site-0  a  1.000  0.03  0.09  0.980  ✓ 0.333  -",
        "site-2  c  1.000  -  -  -  -  -",
    ]
    text = "\n".join(lines)
    assert (
        "held-out error, mean of 2 sites: joint 0.01 ± 0.01, LSTD alone 0.05, TD alone 0.4500, mean only 1.02"
        in text
    )
    assert (
        "joint is better than LSTD alone by 0.04 ± 0.01; better at 1 of 2 sites, worse at 0, not told apart at 1"
        in text
    )
    assert "learnt from 500 steps, measured with the 400 after them; more data would help (errors within" in text
    assert text.count("more features would help at 1 of 2 tested sites") == 1, "of a large group not all are"
    tested = [replace(agent, is_tested=True) for agent in agents]
    document = result_document(outcome, tested)
    text = "\n".join(summary_lines(outcome, tested, document, Path("x"), width=None))
    assert text.count("more features would help at 1 sites") == 1
    assert document["held_out"]["ratio"] == pytest.approx(0.2)
    assert document["per_agent"][1]["held_out"]["ratio"] is None
    assert document["per_agent"][0]["feature_gaps"] == {"hour": 0.2}
    assert json.loads(json.dumps(document, allow_nan=False))["sites_lacking_features"] == 1


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
