"""What an experiment tracker must do to be fed with a run, and the rule by which no step comes twice."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cospan.cli.interface.completion import TRACKERS
from cospan.cli.settings.extras import require
from cospan.cli.tracking.points import Point, RunFacts
from cospan.wire.errors import InvalidValueError

NAMES = TRACKERS
_AT_ONCE = 250
"""Points that are written in one call."""


class Sink(Protocol):
    """Where points go. Any call may raise any exception of the tracker's library; the next is then `open`."""

    name: str

    @property
    def place(self) -> str:
        """Where the run is found in it, in words."""
        ...

    def open(self) -> Mapping[str, int]:
        """Opens it, or opens it again after a failure; the last step that each series holds already."""
        ...

    def write(self, points: Sequence[Point]) -> None:
        """Writes points; they are stored when it returns."""
        ...

    def finish(self, document: Mapping[str, Any]) -> None:
        """Adds the run result: how the run ended."""
        ...

    def close(self) -> None:
        """Closes it; nothing is written any more."""
        ...


class Writer:
    """Writes to a sink what it does not hold yet: each series' steps only rise, also over restarts."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._last: dict[str, int] = {}

    def open(self) -> None:
        """Opens the sink and learns what it holds."""
        self._last = dict(self.sink.open())

    def last_step(self, series: str) -> int:
        """The last step of a series; −1 if it has none."""
        return self._last.get(series, -1)

    def write(self, points: Iterable[Point]) -> None:
        """Writes what is new in these points, whose steps rise."""
        batch: list[Point] = []
        for point in points:
            fresh = {name: value for name, value in point.values.items() if point.step > self.last_step(name)}
            if fresh:
                batch.append(Point(point.step, point.time, fresh))
            if len(batch) >= _AT_ONCE:
                self._write(batch)
                batch = []
        if batch:
            self._write(batch)

    def _write(self, batch: Sequence[Point]) -> None:
        self.sink.write(batch)
        for point in batch:
            self._last |= dict.fromkeys(point.values, point.step)


def make_sink(name: str, folder: Path, facts: RunFacts, output: Path | None = None) -> Sink:
    """The sink of a name.

    Args:
        name: one of `NAMES`.
        folder: of the run.
        facts: of the run.
        output: where event files go; None for the folder of the run. Not for MLflow.

    Raises:
        InvalidValueError: there is no such sink, or its package is not installed.
    """
    check_installed(name)
    if name == "tensorboard":
        from cospan.cli.tracking.tensorboard_sink import TensorBoardSink

        return TensorBoardSink(folder if output is None else output, facts, own=output is not None)
    from cospan.cli.tracking.mlflow_sink import MLflowSink

    return MLflowSink(folder, facts)


def check_installed(name: str) -> None:
    """Raises InvalidValueError unless there is such a tracker, and its package is installed."""
    if name not in NAMES:
        raise InvalidValueError(f"there is no tracker {name!r}; take one of {', '.join(NAMES)}")
    require(f"tracking with {name}", [name], name)


def names_in(folder: Path) -> list[str]:
    """The trackers that a run folder was tracked with: a resumed run continues them."""
    from cospan.cli.run_folder.layout import MLFLOW_RUN, TENSORBOARD

    marks = {"tensorboard": folder / TENSORBOARD, "mlflow": folder / MLFLOW_RUN}
    return [name for name in NAMES if marks[name].exists()]
