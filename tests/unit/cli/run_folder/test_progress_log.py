"""The progress of a run and its file of rounds."""

import asyncio
import csv
import json
from pathlib import Path

import numpy as np
import pytest

from cospan.cli.output.progress import facts
from cospan.cli.run_folder import progress_log
from cospan.cli.run_folder.progress_log import AgentProgress, Progress, RoundsFile, RunMonitor
from cospan.wire.messages import (
    RoundReport,
    Stamp,
)

BASIS = np.eye(3)[:, :2]


def report(number: int, basis: np.ndarray | None = None) -> RoundReport:
    return RoundReport(Stamp("abc", 1, number + 1, number + 1), number, 0.5, 3, (), 0.25, 1e-16, basis)


def test_the_monitor_knows_where_the_run_stands() -> None:
    monitor = RunMonitor(agents=3, total=4, true_basis=np.eye(3)[:, 2:])
    assert facts(monitor.progress()) == ()
    monitor.add_round(report(0, BASIS))
    monitor.add_round(report(1))
    monitor.add_agent(AgentProgress("site-0", "", 2, 1.0, 0.5, 0.75, None))
    monitor.add_agent(AgentProgress("site-1", "", 2, 1.0, 0.25, 0.25, None))
    progress = monitor.progress()
    assert (progress.rounds, progress.rounds_per_second, progress.seconds_left) == (2, 2.0, 1.0)
    assert (progress.value_error, progress.td_alone_error) == (0.375, None)
    assert monitor.rows[0].subspace_error == pytest.approx(1.0)
    assert monitor.rows[1].subspace_error is None
    shown = "2.0 rounds/s|3 agents|basis moved 0.25|value error 0.375|LSTD alone 0.5|ETA 0:01"
    assert facts(progress) == tuple(shown.split("|"))
    assert Progress(joined=0, agents=1, rounds=5, total=0, rounds_per_second=9.0).seconds_left is None


def test_an_agents_progress_survives_its_line() -> None:
    progress = AgentProgress("site-0", "here", 2, None, 0.5, 0.375, 0.25)
    line = json.loads(json.dumps({"event": "progress", **progress.as_document()}))
    assert line["agent"] == "site-0"
    assert AgentProgress.of_document(line) == progress


def test_rounds_are_appended_while_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RoundsFile(tmp_path / "rounds.csv")

    async def write_some() -> None:
        loop, written, flush = asyncio.get_running_loop(), asyncio.Event(), file.flush

        def flush_and_tell() -> None:
            flush()
            loop.call_soon_threadsafe(written.set)

        patch.setattr(file, "flush", flush_and_tell)
        file.add(progress_log.row_of(report(0), 0.1 + 0.2))
        writing = asyncio.create_task(file.keep_writing(0.0))
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


def test_rounds_that_nobody_was_told_of_come_from_the_store() -> None:
    monitor = RunMonitor(agents=1, total=0, true_basis=None)
    monitor.add_missing([report(0)])
    monitor.add_round(report(1))
    monitor.add_missing([report(0), report(1), report(2)])
    assert [row.round for row in monitor.rows] == [0, 1, 2]
