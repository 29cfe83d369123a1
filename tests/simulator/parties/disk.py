"""The store of a coordinator on a simulated disk, and the queue before it.

A write is a transaction: until it is committed a kill loses all of it, however much of it is on the disk (SQLite
undoes what is torn), and afterwards nothing of it. What waits in the queue is lost with the process.
"""

import random
from collections.abc import Callable

from runs import Disk

from cospan.server.machine.events import RoundsStored, StoreCommand, StoreFailed, StoreRound
from simulator.parties.processes import Process

_LONGEST_WAIT_SECONDS, _WAIT_SHARE = 0.25, 0.02
"""As in `cospan.server.storage.write_queue`."""


class SimulatedDisk:
    """The disk of a coordinator's machine; it outlives the processes that write to it."""

    def __init__(self, store: Disk, rng: random.Random, mean_seconds: float) -> None:
        self.store, self.mean_seconds = store, mean_seconds
        self.incarnation = 0
        self.slowness = 1.0
        self.full = False
        self.on_commit: Callable[[list[StoreCommand]], None] = lambda _: None
        self._rng = rng

    def begin(self) -> int:
        """A process takes the store over; its incarnation, which is stored at once."""
        self.incarnation += 1
        return self.incarnation

    def commit(self, operations: list[StoreCommand]) -> None:
        """All operations are on the disk."""
        self.store.write(operations)
        self.on_commit(operations)

    def seconds(self) -> tuple[float, float]:
        """Until a write is committed, and from then until its process is told."""
        total = self._rng.expovariate(1.0 / self.mean_seconds) * self.slowness
        share = self._rng.random()
        return total * share, total * (1.0 - share)


class SimulatedWriteQueue:
    """Writes in order, several operations together; the rules are those of `WriteQueue`."""

    def __init__(
        self,
        disk: SimulatedDisk,
        process: Process,
        handle: Callable[[RoundsStored | StoreFailed], None],
        together: int,
    ) -> None:
        self._disk, self._process, self._handle, self._together = disk, process, handle, together
        self._waiting: list[StoreCommand] = []
        self._begun = process.clock()
        self._writing = self._failed = self._is_due = False
        self._when_idle: Callable[[], None] | None = None
        self._steps = 0
        """Of all writes, that have happened or are due; a step that is due twice happens once."""
        self._hasten: Callable[[], None] = lambda: None
        self._slowness = 1.0
        """Of the write that is under way."""

    def add(self, operation: StoreCommand) -> None:
        """Queues an operation; durable rounds are reported as `RoundsStored`."""
        if not self._failed:
            self._waiting.append(operation)
            self._arrange()

    def flush(self, then: Callable[[], None]) -> None:
        """Writes what is left; `then` is called once nothing is, or the store has failed."""
        self._when_idle = then
        self._write()
        self._note_idle()

    def _arrange(self) -> None:
        announced = all(isinstance(each, StoreRound) and each.announced for each in self._waiting)
        if len(self._waiting) >= self._together or not announced:
            self._write()
        elif not self._is_due:
            self._is_due = True
            wait = min(_WAIT_SHARE * (self._process.clock() - self._begun), _LONGEST_WAIT_SECONDS)
            self._process.later(wait, self._write)

    def _write(self) -> None:
        self._is_due = False
        if self._writing or self._failed or not self._waiting:
            return
        self._writing = True
        batch, self._waiting = self._waiting, []
        commits, told = self._disk.seconds()
        full, self._slowness = self._disk.full, self._disk.slowness
        usually = told / self._slowness

        def commit() -> None:
            if self._process.alive and not full:  # the thread of the store writes also while the loop stands still
                self._disk.commit(batch)
            self._step_after(usually * self._slowness, self._process.later, lambda: self._written(batch, full=full))

        self._step_after(commits, self._process.timeline.after, commit)

    def _step_after(
        self, seconds: float, arrange: Callable[[float, Callable[[], None]], None], step: Callable[[], None]
    ) -> None:
        """Lets a step of the write happen after a time; sooner if the disk was slow, and is well again before."""
        timeline = self._process.timeline
        self._steps, due = self._steps + 1, timeline.now + seconds
        number = self._steps

        def once() -> None:
            if number == self._steps:
                self._steps += 1
                step()

        self._hasten = lambda: arrange(max(0.0, due - timeline.now) / self._slowness, once)
        arrange(seconds, once)

    def hasten(self) -> None:
        """The disk is well again, and the write that is under way takes no longer than others from now on."""
        if self._writing:
            self._hasten()
            self._slowness = 1.0

    def _written(self, batch: list[StoreCommand], *, full: bool) -> None:
        self._writing = False
        if full:
            self._failed = True
            self._handle(StoreFailed("the disk is full"))
        else:
            records = [operation.record for operation in batch if isinstance(operation, StoreRound)]
            if records:
                self._handle(RoundsStored(records))
            if self._waiting:
                self._arrange()
        self._note_idle()

    def _note_idle(self) -> None:
        idle = self._failed or not (self._waiting or self._writing)
        if idle and self._when_idle is not None:
            then, self._when_idle = self._when_idle, None
            then()
