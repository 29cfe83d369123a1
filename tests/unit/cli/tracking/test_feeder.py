"""Trackers beside a run: each step comes once, failures delay nothing, and what is lacking is said."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from runs import specification
from unit.cli.tracking.test_points import row

from cospan.cli.output.progress import View
from cospan.cli.run_folder.layout import RunFolder
from cospan.cli.run_folder.progress_log import RoundRow
from cospan.cli.tracking import feeder
from cospan.cli.tracking.feeder import Tracking, tracking_of
from cospan.cli.tracking.points import ALWAYS, Point
from cospan.cli.tracking.sink import NAMES, Writer, check_installed, make_sink, names_in
from cospan.wire.errors import InvalidValueError

SECONDS = 20.0


class FakeSink:
    """Keeps what it is given, and fails as often as it is told, each time after a part of the points."""

    name = place = "fake"

    def __init__(self, failures: int = 0) -> None:
        self.held: list[tuple[str, int]] = []
        self.failures, self.opened, self.finished, self.closed = failures, 0, 0, 0
        self.took = threading.Event()
        self.released = threading.Event()
        self.released.set()

    def open(self) -> Mapping[str, int]:
        self.opened += 1
        last: dict[str, int] = {}
        for series, step in self.held:
            last[series] = max(step, last.get(series, -1))
        return last

    def write(self, points: Sequence[Point]) -> None:
        assert self.released.wait(SECONDS)
        for place, point in enumerate(points):
            if self.failures and place == len(points) // 2:
                self.failures -= 1
                raise ConnectionError("no server")
            self.held += [(series, point.step) for series in point.values]
        self.took.set()

    def finish(self, document: Mapping[str, Any]) -> None:
        self.finished += 1

    def close(self) -> None:
        self.closed += 1

    def steps(self, series: str = ALWAYS) -> list[int]:
        return [step for name, step in self.held if name == series]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(feeder, "_MOST_SECONDS", 0.02)


def test_a_step_that_is_held_is_not_written_again() -> None:
    sink = FakeSink()
    sink.held = [("a", 2), ("b", 0)]
    writer = Writer(sink)
    writer.open()
    writer.write([Point(step, 0.0, {"a": 1.0, "b": 1.0}) for step in range(5)])
    writer.write([Point(4, 0.0, {"a": 1.0}), Point(5, 0.0, {"a": 1.0})])
    assert sink.steps("a") == [2, 3, 4, 5]
    assert sink.steps("b") == [0, 1, 2, 3, 4]


def test_a_run_is_fed_while_it_grows_and_completed_at_its_end() -> None:
    sink, rows, told = FakeSink(), [row(0)], []
    tracking = Tracking([sink], rows, told.append)
    assert sink.took.wait(SECONDS)
    assert sink.steps()[:1] == [0]
    rows += [row(number) for number in range(1, 400)]
    whole = [row(number, value_error=0.5) for number in range(400)]
    assert tracking.finish(whole, [], {"rounds": 400, "value_error": 0.5}) == []
    assert sink.steps() == list(range(400))
    assert sink.steps("error/value") == list(range(400))
    assert sink.steps("result/value_error") == [399]
    assert (sink.opened, sink.finished, sink.closed, told) == (1, 1, 1, [])


def test_a_resumed_run_continues_what_is_held() -> None:
    sink = FakeSink()
    Tracking([sink], [row(number) for number in range(10)], lambda _: None).finish(
        [row(number) for number in range(10)], [], {"rounds": 10}
    )
    rows = [row(number) for number in range(30)]
    assert Tracking([sink], rows, lambda _: None).finish(rows, [], {"rounds": 30}) == []
    assert sink.steps() == list(range(30))


def test_a_failure_is_told_once_and_made_good() -> None:
    sink, rows, told = FakeSink(failures=3), [row(number) for number in range(20)], []
    tracking = Tracking([sink], rows, told.append)
    assert sink.took.wait(SECONDS)
    assert tracking.finish(rows, [], {"rounds": 20}) == []
    assert sink.steps() == list(range(20)), "what was written before a failure is not written again"
    assert told == ["cospan: warning: fake cannot be written: no server; the run continues"]
    assert sink.opened == 4


def test_what_is_lacking_at_the_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[RoundRow] = [row(0)]
    failing = FakeSink(failures=10**9)
    lacking = Tracking([failing], rows, lambda _: None, run=Path("a b")).finish(rows, [], {"rounds": 1})
    assert lacking == ["fake lacks a part of the run: no server; add it with: cospan export 'a b' --to fake"]
    monkeypatch.setattr(feeder, "_END_SECONDS", 0.05)
    hanging = FakeSink()
    hanging.released.clear()
    lacking = Tracking([hanging], rows, lambda _: None, run=Path("run")).finish(rows, [], {"rounds": 1})
    assert lacking == [
        "fake has not taken everything within 0.05 s; add the rest with: cospan export run --to fake"
    ]
    hanging.released.set()


def test_a_slow_tracker_does_not_hold_up_another() -> None:
    slow, quick, rows = FakeSink(), FakeSink(), [row(0)]
    slow.released.clear()
    tracking = Tracking([slow, quick], rows, lambda _: None)
    assert quick.took.wait(SECONDS)
    assert not slow.took.is_set()
    slow.released.set()
    tracking.close()
    assert slow.steps() == quick.steps() == [0]
    assert slow.finished == 0, "a run that did not end has no result"


def test_a_tracker_that_there_is_not_or_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidValueError, match="there is no tracker 'wandb'; take one of tensorboard, mlflow"):
        check_installed("wandb")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in NAMES:
        with pytest.raises(
            InvalidValueError, match=rf"tracking with {name} needs {name}; pip install '\.\[{name}\]'"
        ):
            make_sink(name, tmp_path, None)  # type: ignore[arg-type]


def test_a_folder_tells_its_trackers(tmp_path: Path) -> None:
    assert names_in(tmp_path) == []
    (tmp_path / ".mlflow.json").touch()
    (tmp_path / "tensorboard").mkdir()
    assert names_in(tmp_path) == ["tensorboard", "mlflow"]


def test_a_resumed_run_does_without_a_tracker_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".mlflow.json").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    folder, spec = RunFolder(tmp_path), specification()
    tracking_of((), folder, spec, [], View()).close()
    said = capsys.readouterr().err
    assert "warning: tracking with mlflow needs mlflow" in said
    assert f"the run continues without it, and cospan export {tmp_path} --to mlflow adds it later" in said
    with pytest.raises(InvalidValueError, match="tracking with mlflow needs mlflow"):
        tracking_of(("mlflow",), folder, spec, [], View())
