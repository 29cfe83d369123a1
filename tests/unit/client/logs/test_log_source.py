"""The steps of a log: rounds, cuts, the end, restarts, logs that grow, shrink or change."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cospan.client.logs.check import check_log
from cospan.client.logs.log_source import LogSource
from cospan.client.logs.mapping import LogMapping, mapping_of
from cospan.client.logs.tables.csv_file import CsvFile
from cospan.client.logs.tables.sites import Folder
from cospan.client.step_source import AT_END, SourceInterruptedError, StepSource
from cospan.wire.errors import WorkloadBehaviourError

HEADER = "at,x,r\n"


def mapping(**log: Any) -> LogMapping:
    return mapping_of(
        {
            "log": {"time": "at", "step": 1, "reward": "r", **log},
            "features": {"x": {"kind": "numeric", "range": [0, 100], "knots": 2}},
        }
    )


def write(path: Path, times: list[int], mode: str = "w") -> None:
    with path.open(mode, encoding="utf-8") as file:
        file.write((HEADER if mode == "w" else "") + "".join(f"{t},{t},{10 * t}\n" for t in times))


def source(path: Path, **more: Any) -> LogSource:
    return LogSource(mapping(), CsvFile(path), "site-7", **more)


def transitions(source: StepSource, rounds: int, steps: int) -> list[tuple[float, float, float]]:
    """(from, to, reward) of each transition of some rounds."""
    found = []
    for _ in range(rounds):
        played = source.advance(steps)
        assert played.features.shape == (steps + 1, 1)
        assert played.rewards.shape == (steps,)
        here = np.round(100 * played.features[:, 0]).tolist()
        is_transition = np.ones(steps, bool) if played.is_transition is None else played.is_transition
        found += [
            (here[slot], here[slot + 1], float(played.rewards[slot]))
            for slot in np.flatnonzero(is_transition).tolist()
        ]
    return found


def test_a_log_is_a_source_of_steps(tmp_path: Path) -> None:
    write(tmp_path / "log.csv", list(range(7)))
    log = source(tmp_path / "log.csv")
    assert isinstance(log, StepSource)
    assert log.saved() is None
    first = log.advance(3)
    assert first.is_transition is None, "without cuts it is as an environment"
    assert (log.steps, log.reward_sum, log.at_end) == (3, 30.0, False)
    assert log.take_warnings() == []
    assert log.advance(3).is_transition is None
    assert log.at_end
    ((kind, text),) = log.take_warnings()
    assert kind == AT_END
    assert "6 transitions" in text
    assert log.take_warnings() == []


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 24, 100])
def test_every_transition_comes_once_whatever_the_length_of_a_round(tmp_path: Path, steps: int) -> None:
    times = [0, 1, 2, 5, 6, 8, 10, 12, 13, 14, 15, 20, 22, 23, 30]
    write(tmp_path / "log.csv", times)
    known = [(t, t + 1, 10 * t) for t in times if t + 1 in times]
    log, report = source(tmp_path / "log.csv"), check_log(mapping(), CsvFile(tmp_path / "log.csv"))
    rounds = -(-report.slots // steps)
    assert transitions(log, rounds, steps) == known
    assert log.at_end
    assert report.transitions == log.steps == len(known)
    assert report.slots == len(known) + 3, "one slot for each cut between pieces; single rows are passed over"
    if rounds > 1:
        shorter = source(tmp_path / "log.csv")
        transitions(shorter, rounds - 1, steps)
        assert not shorter.at_end, "no round more than needed"


def test_at_its_end_it_gives_cuts_alone(tmp_path: Path) -> None:
    write(tmp_path / "log.csv", [0, 1, 2])
    log = source(tmp_path / "log.csv")
    assert transitions(log, 3, 4) == [(0, 1, 0), (1, 2, 10)]
    assert (log.steps, log.reward_sum) == (2, 10.0)


@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_restarted_agent_continues_with_the_next_slot(tmp_path: Path, before: int) -> None:
    write(tmp_path / "log.csv", [0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13])
    unbroken, log = source(tmp_path / "log.csv"), source(tmp_path / "log.csv")
    whole = transitions(unbroken, 6, 2)
    begun = transitions(log, before, 2)
    again = source(tmp_path / "log.csv")
    assert again.go_on(log.steps, log.reward_sum, log.saved()) == ""
    assert (again.steps, again.reward_sum) == (log.steps, log.reward_sum)
    assert begun + transitions(again, 6 - before, 2) == whole
    assert again.saved() == unbroken.saved(), "the digest does not depend on the restart"


def test_a_log_that_has_grown_continues_behind_its_old_end(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    write(path, [0, 1, 2])
    log = source(path)
    transitions(log, 2, 4)
    write(path, [3, 4], "a")
    again = source(path)
    again.go_on(log.steps, log.reward_sum, log.saved())
    assert transitions(again, 1, 4) == [(2, 3, 20), (3, 4, 30)]


@pytest.mark.parametrize(("times", "word"), [([0, 1], "has shrunk"), ([1, 2, 3, 4, 5], "has changed")])
def test_a_log_that_has_lost_or_changed_rows_is_refused(tmp_path: Path, times: list[int], word: str) -> None:
    path = tmp_path / "log.csv"
    write(path, [0, 1, 2, 3, 4])
    log = source(path)
    log.advance(4)
    write(path, times)
    with pytest.raises(WorkloadBehaviourError, match=word):
        source(path).go_on(log.steps, log.reward_sum, log.saved())
    with pytest.raises(WorkloadBehaviourError, match="count twice"):
        source(path).go_on(log.steps, log.reward_sum, None)


def test_a_log_without_any_transition_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "log.csv", [0, 2, 4])
    with pytest.raises(WorkloadBehaviourError, match="the log of site-7 ends here: it has no two rows"):
        source(tmp_path / "log.csv").advance(3)


def test_what_was_good_before_a_bad_row_has_been_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cospan.client.logs.tables.csv_file.BATCH_ROWS", 4)
    path = tmp_path / "log.csv"
    write(path, list(range(8)))
    with path.open("a", encoding="utf-8") as file:
        file.write("9,9\n")
    log = source(path)
    assert len(transitions(log, 2, 3)) == 6
    with pytest.raises(WorkloadBehaviourError, match="2 cells in row 9"):
        log.advance(3)
    assert log.steps == 6


class Growing:
    """Grows a log each time that it is looked at."""

    def __init__(self, *steps: Any) -> None:
        self.steps, self.looks = iter(steps), 0

    def wait(self, _seconds: float) -> bool:
        self.looks += 1
        step = next(self.steps, None)
        if step is None:
            return True
        step()
        return False


def following(table: Any, *steps: Any) -> LogSource:
    log = LogSource(mapping(), table, "site-7", follow=True)
    log._stopped = Growing(*steps)  # type: ignore[assignment]
    return log


def test_a_growing_log_is_followed_and_half_a_line_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    write(path, [0, 1, 2])

    def half() -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write("3,3,3")

    def other_half() -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write("0\n")

    log = following(CsvFile(path), half, other_half, lambda: write(path, [4, 5], "a"))
    assert transitions(log, 1, 2) == [(0, 1, 0), (1, 2, 10)]
    assert transitions(log, 1, 2) == [(2, 3, 20), (3, 4, 30)]
    assert not log.at_end
    with pytest.raises(SourceInterruptedError):
        log.advance(2)


def test_a_folder_is_followed_into_its_next_file(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", [0, 1, 2])
    log = following(Folder(tmp_path), lambda: write(tmp_path / "2.csv", [3, 4, 5]), lambda: None)
    assert transitions(log, 2, 2) == [(0, 1, 0), (1, 2, 10), (3, 4, 30)]


def test_a_log_that_shrinks_while_it_is_followed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    write(path, [0, 1, 2])
    log = following(CsvFile(path), lambda: write(path, [0]))
    with pytest.raises(WorkloadBehaviourError, match="has shrunk to"):
        log.advance(4)


def test_a_wait_is_interrupted_from_another_thread(tmp_path: Path) -> None:
    write(tmp_path / "log.csv", [0, 1, 2])
    log = source(tmp_path / "log.csv", follow=True, poll_seconds=60.0)
    caught: list[BaseException] = []

    def learn() -> None:
        try:
            log.advance(10)
        except SourceInterruptedError as failure:
            caught.append(failure)

    thread = threading.Thread(target=learn)
    thread.start()
    log.interrupt()
    thread.join(30.0)
    assert not thread.is_alive()
    assert "site-7 was stopped" in str(caught[0])
