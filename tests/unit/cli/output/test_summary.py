"""What a run says at its end, and on the way: tables, medians, result.json, rounds.csv, status."""

import asyncio
import csv
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cospan.cli.commands.agent import identity
from cospan.cli.commands.run import _results
from cospan.cli.commands.status import run_document, status_lines
from cospan.cli.output.plot import quartiles
from cospan.cli.output.progress import facts
from cospan.cli.output.summary import summary_lines
from cospan.cli.output.table import table
from cospan.cli.run_folder import progress_log
from cospan.cli.run_folder.layout import RunFolder
from cospan.cli.run_folder.progress_log import AgentProgress, Progress, RoundRow, RoundsFile, RunMonitor
from cospan.cli.run_folder.run_result import (
    AgentRow,
    DepartedAgent,
    RunOutcome,
    agent_row,
    read_outcome,
    result_document,
    with_medians,
)
from cospan.client.files.result_file import AgentResult
from cospan.client.placement import Host
from cospan.core.method import practical
from cospan.core.specification import RunSpecification, basis_digest
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import (
    AgentPhase,
    AgentReport,
    FinishCause,
    RoundReport,
    RunPhase,
    RunReport,
    Stamp,
)

SPEC = RunSpecification("toy", 3, 2, 3, 100, 7, replace(practical(5), head_radius=math.inf))
BASIS = np.eye(3)[:, :2]
OUTCOME = RunOutcome(
    specification=SPEC,
    run_id="abc",
    cause="rounds-reached",
    message="all 100 rounds are done",
    rounds=100,
    seconds=2.0,
    agents=2,
    agent_steps=1440,
    basis=BASIS,
    departures=(DepartedAgent("site-2", 88, "it was silent for 5 s"),),
    subspace_error=0.125,
)
AGENTS = (
    AgentRow("site-0", "a place with a long name", 1.5, 1.4, 0.1, 0.02, 0.04),
    AgentRow("site-1", "here", -2.0, -2.1, 0.3, 0.04, 0.04),
    AgentRow("site-2", "there"),
)

RESULT_KEYS = [
    "workload",
    "agents",
    "rounds",
    "seed",
    "feature_dim",
    "rank",
    "seconds",
    "rounds_per_second",
    "agent_steps",
    "basis_sha256",
    "subspace_error",
    "value_error",
    "gain_error",
    "baselines",
]
"""Of section 5 of the design: an interface."""


def test_the_document_has_the_keys_of_the_interface() -> None:
    document = result_document(OUTCOME, AGENTS)
    assert list(document)[: len(RESULT_KEYS)] == RESULT_KEYS
    assert document["agents"] == 2
    assert document["rounds_per_second"] == 50.0
    assert document["basis_sha256"] == basis_digest(BASIS)
    assert document["value_error"] == pytest.approx(0.03)
    assert document["gain_error"] == pytest.approx(0.2)
    assert document["baselines"] == {"independent": pytest.approx(0.04)}
    gone = {"agent_id": "site-2", "round": 88, "cause": "it was silent for 5 s", "asked": False}
    assert document["departures"] == [gone]
    assert [agent["ratio"] for agent in document["per_agent"]] == [0.5, 1.0, None]
    assert document["method"]["head_radius"] == "inf"
    json.dumps(document, allow_nan=False)


def test_what_a_coordinator_does_not_know_is_null() -> None:
    document = result_document(replace(OUTCOME, subspace_error=None, seconds=0.0, rounds=0))
    unknown = ("subspace_error", "value_error", "gain_error", "rounds_per_second")
    assert [document[key] for key in unknown] == [None] * 4
    assert document["baselines"] == {"independent": None}
    assert result_document(read_outcome(document, SPEC, BASIS)) == document


def test_agents_that_left_are_no_part_of_the_medians() -> None:
    agents = (*AGENTS[:2], replace(AGENTS[2], value_error=99.0, independent_error=99.0))
    assert result_document(OUTCOME, agents)["value_error"] == pytest.approx(0.03)


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


def test_a_table_never_cuts_numbers() -> None:
    lines = table(("a", "n"), [("x" * 30, "123456789")], numbers=(1,), width=10)
    assert lines[1].endswith("123456789")


def test_nothing_is_said_of_errors_that_nobody_knows() -> None:
    agents = (AgentRow("site-0", "", 1.0, 1.0),)
    outcome = replace(OUTCOME, departures=(), subspace_error=None)
    text = "\n".join(summary_lines(outcome, agents, result_document(outcome, agents), Path("x"), width=None))
    assert "the true values are not known" in text
    assert "note" not in text


# Agents' files ----------------------------------------------------------------------------------------------


def agent_result(
    rounds: list[int], joint: list[float], independent: list[list[float]], **values: Any
) -> AgentResult:
    arrays = {
        "agent_id": "site-0",
        "label": "here",
        "mean_reward": 1.0,
        "gain": [2.0],
        "gain_error": math.nan,
        "value_error": joint[-1] if joint else math.nan,
        "bounded_rounds": 0,
        "trace_round": np.array(rounds, dtype=np.int64),
        "trace_value_error": np.array(joint),
        "trace_independent_error": np.array(independent),
        **values,
    }
    return AgentResult({name: np.asarray(value) for name, value in arrays.items()})


def test_an_agents_row_has_the_best_of_its_own_steps_and_no_nan() -> None:
    row = agent_row(agent_result([0, 1], [0.5, 0.25], [[1.0, 2.0], [math.inf, 0.5]]))
    assert (row.value_error, row.independent_error, row.ratio, row.gain_error) == (0.25, 0.5, 0.5, None)
    assert agent_row(agent_result([0], [math.nan], [[]])).independent_error is None


def test_medians_by_round_take_each_agents_own_best() -> None:
    agents = (
        agent_result([0, 1, 2], [1.0, 0.5, math.nan], [[3.0, 1.0], [0.5, 2.0], [math.nan, math.inf]]),
        agent_result([1, 2], [0.3, 0.2], [[1.5, 2.5], [9.0, 0.4]]),
    )
    rows = with_medians([RoundRow(number, 0.1, 2, 0.5, 0.0) for number in range(4)], agents)
    assert [row.value_error for row in rows] == [1.0, 0.4, 0.2, None]
    assert [row.independent_error for row in rows] == [1.0, 1.0, 0.4, None]


def test_quartiles_by_round() -> None:
    band = quartiles(
        [np.array([0, 2]), np.array([2]), np.array([2])], [np.array([1.0, 1.0]), np.array([2.0]), np.array([3.0])]
    )
    assert band is not None
    assert band.rounds.tolist() == [0, 2]
    assert (band.low.tolist(), band.middle.tolist(), band.high.tolist()) == ([1.0, 1.5], [1.0, 2.0], [1.0, 2.5])
    assert quartiles([np.array([0])], [np.array([math.nan])]) is None
    assert quartiles([np.array([], dtype=int)], [np.array([])]) is None


# Rounds -----------------------------------------------------------------------------------------------------


def report(number: int, basis: np.ndarray | None = None) -> RoundReport:
    return RoundReport(Stamp("abc", 1, number + 1, number + 1), number, 0.5, 3, (), 0.25, 1e-16, basis)


def test_the_monitor_knows_where_the_run_stands() -> None:
    monitor = RunMonitor(agents=3, total=4, true_basis=np.eye(3)[:, 2:])
    assert facts(monitor.progress()) == ()
    monitor.add_round(report(0, BASIS))
    monitor.add_round(report(1))
    monitor.add_agent(AgentProgress("site-0", "", 2, 1.0, 0.5, None))
    monitor.add_agent(AgentProgress("site-1", "", 2, 1.0, 0.25, None))
    progress = monitor.progress()
    assert (progress.rounds, progress.rounds_per_second, progress.seconds_left) == (2, 2.0, 1.0)
    assert (progress.value_error, progress.independent_error) == (0.375, None)
    assert monitor.rows[0].subspace_error == pytest.approx(1.0)
    assert monitor.rows[1].subspace_error is None
    shown = "2.0 rounds/s|3 agents|basis moved 0.25|value error 0.375|ETA 0:01"
    assert facts(progress) == tuple(shown.split("|"))
    assert Progress(joined=0, agents=1, rounds=5, total=0, rounds_per_second=9.0).seconds_left is None


def test_an_agents_progress_survives_its_line() -> None:
    progress = AgentProgress("site-0", "here", 2, None, 0.5, 0.25)
    line = json.loads(json.dumps({"event": "progress", **progress.as_document()}))
    assert line["agent"] == "site-0"
    assert AgentProgress.of_document(line) == progress


def test_rounds_are_appended_while_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_log, "_FLUSH_SECONDS", 0.0)
    file = RoundsFile(tmp_path / "rounds.csv")

    async def write_some() -> None:
        loop, written, flush = asyncio.get_running_loop(), asyncio.Event(), file.flush

        def flush_and_tell() -> None:
            flush()
            loop.call_soon_threadsafe(written.set)

        patch.setattr(file, "flush", flush_and_tell)
        file.add(progress_log.row_of(report(0), 0.1 + 0.2))
        writing = asyncio.create_task(file.keep_writing())
        await asyncio.wait_for(written.wait(), 10.0)
        writing.cancel()

    with monkeypatch.context() as patch:
        asyncio.run(write_some())
    file.add(progress_log.row_of(report(1)))
    file.flush()
    with (tmp_path / "rounds.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == list(progress_log.COLUMNS)
    assert [row["round"] for row in rows] == ["0", "1"]
    assert float(rows[0]["subspace_error"]) == 0.1 + 0.2
    assert (rows[1]["subspace_error"], rows[1]["value_error"]) == ("", "")


# Status -----------------------------------------------------------------------------------------------------


NOW = 1_700_000_000.0


def clock(seconds_since_last_message: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(NOW - seconds_since_last_message))


def agent_report(number: int, **changes: Any) -> AgentReport:
    return replace(AgentReport(f"site-{number}", AgentPhase.CONNECTED, 0.1, False, 412, 0), **changes)


def run_report(phase: RunPhase, *agents: AgentReport, **changes: Any) -> RunReport:
    return replace(RunReport(Stamp("abc", 1, 412, 412), SPEC, phase, 3.1, agents, None, 25.3), **changes)


def test_status_names_who_is_waited_for_and_who_is_gone() -> None:
    gone = agent_report(2, phase=AgentPhase.GONE, gone_in_round=88, gone_cause="it left: no cause given")
    waiting = agent_report(1, awaited=True, seconds_since_last_message=3.1, reconnects=2)
    text = "\n".join(status_lines(run_report(RunPhase.COLLECTING, agent_report(0), waiting, gone), NOW))
    assert f"round 412, waiting 3.1 s for site-1 (last seen {clock(3.1)})" in text
    assert "25.3 rounds/s" in text
    assert "gone since round 88: it left: no cause given" in text


def test_status_says_who_was_an_outlier() -> None:
    waiting = agent_report(1, awaited=True, outlier_rounds=7)
    lines = status_lines(
        run_report(RunPhase.COLLECTING, agent_report(0), waiting, agent_report(2, outlier_rounds=1))
    )
    assert lines[-2].endswith("waited for; an outlier in 7 rounds")
    assert lines[-1].endswith("an outlier in 1 round")
    assert "outlier" not in lines[-3]


def test_status_and_summary_name_whose_heads_the_bound_has_cut(tmp_path: Path) -> None:
    report = run_report(RunPhase.COLLECTING, agent_report(0), agent_report(1, head_bounded=True))
    assert status_lines(report)[2].startswith("the head of site-1 reached head_radius = ")
    assert [row["head_bounded"] for row in run_document(report)["agents"]] == [False, True]
    agents = [AgentRow("site-0", "", bounded_rounds=0), AgentRow("site-1", "", bounded_rounds=3)]
    outcome = replace(OUTCOME, bounded=("site-7",))
    document = result_document(outcome, agents)
    assert document["bounded_agents"] == ["site-1", "site-7"]
    assert read_outcome(result_document(outcome), SPEC, BASIS).bounded == ("site-7",)
    (line,) = [line for line in summary_lines(outcome, agents, document, tmp_path, width=None) if "bounded" in line]
    assert line.startswith("bounded: the heads of site-1, site-7 reached head_radius = ")
    free = result_document(OUTCOME, agents[:1])
    assert not any("bounded" in line for line in summary_lines(OUTCOME, agents[:1], free, tmp_path, width=None))


def test_status_names_who_has_to_come_back() -> None:
    """After a restart of the coordinator, and where one is lost before the first round."""
    lost = agent_report(1, phase=AgentPhase.LOST, seconds_since_last_message=0.7)
    text = status_lines(run_report(RunPhase.WAITING, agent_report(0), lost), NOW)[1]
    assert f"to come back: 1 of 3 are here; not connected: site-1 (last seen {clock(0.7)})" in text


def test_status_names_only_the_first_of_many() -> None:
    many = [agent_report(number, awaited=True, seconds_since_last_message=float(number)) for number in range(9)]
    text = status_lines(run_report(RunPhase.COLLECTING, *many), NOW)[1]
    assert f"site-8 (last seen {clock(8.0)})" in text
    assert "and 4 more" in text
    assert "site-0" not in text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"phase": RunPhase.WAITING}, "waiting 3.1 s for agents to come back: 1 of 3 are here"),
        ({"phase": RunPhase.CLOSING}, "computing the new basis"),
        ({"phase": RunPhase.FINISHED, "finish_cause": FinishCause.NO_AGENTS}, "finished 3.1 s ago (no agents)"),
        ({"phase": RunPhase.COLLECTING}, "waiting 3.1 s for agents to join"),
    ],
)
def test_status_of_every_phase(changes: dict[str, Any], says: str) -> None:
    assert says in status_lines(replace(run_report(RunPhase.WAITING, agent_report(0)), **changes))[1]


# Names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent_id", "index", "name", "site"),
    [
        ("7", None, "site-7", 7),
        ("site-7", None, "site-7", 7),
        (None, 7, "site-7", 7),
        ("pump-a", 3, "pump-a", 3),
        ("pump3b12", None, "pump3b12", 12),
        ("7", 2, "site-7", 2),
    ],
)
def test_an_agents_name_and_its_site_follow_from_each_other(
    agent_id: str | None, index: int | None, name: str, site: int
) -> None:
    assert identity(agent_id, index) == (name, site)


def test_an_agent_without_a_site() -> None:
    assert identity(None, None) == (None, None), "the coordinator gives it one"
    with pytest.raises(InvalidValueError, match="'pump-a' does not end in a number"):
        identity("pump-a", None)


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


def test_status_of_thousands_shows_the_first_of_them() -> None:
    lines = status_lines(run_report(RunPhase.COLLECTING, *(agent_report(number) for number in range(1100))))
    assert lines[-1] == "… and 1,000 more"
    assert len(lines) < 110


def test_a_members_own_file_that_is_damaged_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path)
    folder.agents.mkdir()
    folder.agent("site-1").write_bytes(b"half of it")
    assert _results(folder, [Host("group-0..1", (0, 1), is_group=True)]) == {}
    assert "it is left out of the summary" in capsys.readouterr().err
