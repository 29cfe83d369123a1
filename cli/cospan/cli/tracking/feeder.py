"""Feeds trackers beside a run: each in a thread of its own, so that a slow or absent server delays no round."""

import logging
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cospan.cli.output.progress import View
from cospan.cli.run_folder.layout import RunFolder
from cospan.cli.run_folder.progress_log import RoundRow
from cospan.cli.tracking.points import ALWAYS, Point, RunFacts, point_of_result, points_of_agents, points_of_rows
from cospan.cli.tracking.sink import Sink, Writer, check_installed, make_sink, names_in
from cospan.client.files.agent_result import AgentResult
from cospan.core.specification import RunSpecification
from cospan.wire.errors import InvalidValueError

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_MOST_SECONDS = 60.0
"""Longest wait before a sink that has failed is opened again."""
_END_SECONDS = 30.0
"""For a sink to take what is left after the run."""


class _Feeder(threading.Thread):
    """Feeds one sink until it is told to stop."""

    def __init__(self, sink: Sink, rows: Sequence[RoundRow], tell: Callable[[str], None]) -> None:
        super().__init__(name=f"track-{sink.name}", daemon=True)  # a server that hangs must not keep the process
        self.sink, self.failure = sink, ""
        self._rows, self._tell = rows, tell
        self._stopping = threading.Event()
        self._end: tuple[Sequence[Point], Mapping[str, Any]] | None = None
        self._writer: Writer | None = None
        self._told = False

    def finish(self, points: Sequence[Point], document: Mapping[str, Any]) -> None:
        """Lets the thread write what is left, and end."""
        self._end = (points, document)
        self._stopping.set()

    def stop(self) -> None:
        """Lets the thread end."""
        self._stopping.set()

    def run(self) -> None:
        """Until it is told to stop, and once more."""
        wait = _POLL_SECONDS
        while True:
            stopping = self._stopping.wait(wait)
            try:
                over = self._feed()
                wait, self.failure = _POLL_SECONDS, ""
                if over:
                    break
            except Exception as failure:  # of the tracker's library, whatever it raises
                self._fail(failure)
                wait = min(2.0 * wait, _MOST_SECONDS)
            if stopping:
                break
        try:
            self.sink.close()
        except Exception as failure:
            log.warning("cannot close %s: %s", self.sink.name, failure)

    def _feed(self) -> bool:
        """Writes what has come; whether that was the end of the run."""
        if self._writer is None:
            writer = Writer(self.sink)
            writer.open()
            self._writer = writer
        rows = self._rows[: len(self._rows)]
        fresh = rows[_after(rows, self._writer.last_step(ALWAYS)) :]
        if self._end is None:
            self._writer.write(points_of_rows(fresh, time.time()))
            return False
        points, document = self._end
        self._writer.write(points)
        self.sink.finish(document)
        return True

    def _fail(self, failure: Exception) -> None:
        self.failure = " ".join(f"{failure}".split()) or type(failure).__name__
        self._writer = None
        log.warning("%s cannot be written: %s", self.sink.name, self.failure)
        if not self._told:
            self._told = True
            self._tell(f"cospan: warning: {self.sink.name} cannot be written: {self.failure}; the run continues")


def _after(rows: Sequence[RoundRow], last: int) -> int:
    """The place of the first row after a round; rows are in the order of their rounds, mostly without gaps."""
    place = min(len(rows), max(0, last + 1))
    while place > 0 and rows[place - 1].round > last:
        place -= 1
    while place < len(rows) and rows[place].round <= last:
        place += 1
    return place


class Tracking:
    """The trackers of one run."""

    def __init__(
        self, sinks: Iterable[Sink], rows: Sequence[RoundRow], tell: Callable[[str], None], *, run: Path = Path()
    ) -> None:
        """Begins to feed them.

        Args:
            sinks: of the run.
            rows: of its closed rounds, which grows.
            tell: shows a warning.
            run: its folder, for the remedy.
        """
        self._run = run
        self._feeders = [_Feeder(sink, rows, tell) for sink in sinks]
        for feeder in self._feeders:
            feeder.start()

    def finish(
        self, rows: Sequence[RoundRow], results: Iterable[AgentResult], document: Mapping[str, Any]
    ) -> list[str]:
        """Writes the end of the run; sentences on the trackers that lack a part of it.

        Args:
            rows: of all rounds, with medians over the agents.
            results: of the agents.
            document: the run result.
        """
        if not self._feeders:
            return []
        points = points_at_the_end(rows, results, document, time.time())
        for feeder in self._feeders:
            feeder.finish(points, document)
        return self._joined(_END_SECONDS)

    def close(self) -> None:
        """Ends the threads; what has come is written."""
        for feeder in self._feeders:
            feeder.stop()
        self._joined(_END_SECONDS)

    def _joined(self, seconds: float) -> list[str]:
        due = time.monotonic() + seconds
        lacking = []
        for feeder in self._feeders:
            feeder.join(max(0.0, due - time.monotonic()))
            name, again = feeder.sink.name, f"cospan export {shlex.quote(str(self._run))} --to {feeder.sink.name}"
            if feeder.is_alive():
                lacking.append(f"{name} has not taken everything within {seconds:g} s; add the rest with: {again}")
            elif feeder.failure:
                lacking.append(f"{name} lacks a part of the run: {feeder.failure}; add it with: {again}")
        return lacking


def points_at_the_end(
    rows: Sequence[RoundRow], results: Iterable[AgentResult], document: Mapping[str, Any], end: float
) -> list[Point]:
    """All points of a run that is over: its rounds, the agents' medians, and the numbers of its result."""
    return [
        *points_of_rows(rows, end),
        *points_of_agents(results, rows, end),
        point_of_result(document, end),
    ]


def tracking_of(
    names: Sequence[str], folder: RunFolder, specification: RunSpecification, rows: Sequence[RoundRow], view: View
) -> Tracking:
    """Begins to track a run.

    Args:
        names: of the trackers; empty for those, if installed, that the folder was tracked with before.
        folder: of the run.
        specification: of the run.
        rows: of its closed rounds, which grows.
        view: shows warnings.

    Raises:
        InvalidValueError: a tracker's package is not installed.
    """
    facts = RunFacts.of(folder.path.resolve().name, specification.as_dict())
    chosen = dict.fromkeys(names)
    for name in () if names else names_in(folder.path):
        try:
            check_installed(name)
        except InvalidValueError as failure:
            again = f"cospan export {shlex.quote(str(folder.path))} --to {name}"
            view.tell(f"cospan: warning: {failure}; the run continues without it, and {again} adds it later")
            continue
        chosen[name] = None
    return Tracking([make_sink(name, folder.path, facts) for name in chosen], rows, view.tell, run=folder.path)
