"""The queue of operations for the store; a thread of its own writes them in order."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from cospan.server.machine.events import RoundsStored, StoreFailed, StoreRound
from cospan.server.storage.writer import Operation
from cospan.wire.errors import RunFileError

_LONGEST_WAIT_SECONDS = 0.25
_WAIT_SHARE = 0.02
"""Rounds wait at most for this fraction of the coordinator's uptime: one that is killed often loses little, and one
that runs long writes seldom."""


@runtime_checkable
class RoundStore(Protocol):
    """The store of a write queue."""

    def write(self, operations: list[Operation]) -> None:
        """Stores all operations or none; raises RunFileError if it cannot."""
        ...


class WriteQueue:
    """Collects operations while the disk is busy, and a moment longer, and writes them in one transaction.

    A transaction costs more than its content, so announced rounds wait for each other. The methods are called on
    the event loop's thread, which also receives the events that follow.
    """

    def __init__(
        self,
        store: RoundStore,
        handle: Callable[[RoundsStored | StoreFailed], None],
        *,
        together: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Writes nothing yet.

        Args:
            store: written to.
            handle: receives the events.
            together: most announced rounds that wait for each other, for 2 % of the uptime and at most 250 ms.
            clock: gives the time, in seconds.
        """
        self._store, self._handle, self._together = store, handle, together
        self._waiting: list[Operation] = []
        self._clock, self._begun = clock, clock()
        self._writing: Future[None] | None = None
        self._failed = False
        self._due: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write_queue")

    def add(self, operation: Operation) -> None:
        """Queues an operation; durable rounds are reported as `RoundsStored`."""
        if self._failed:
            return
        self._waiting.append(operation)
        self._idle.clear()
        self._arrange()

    def _arrange(self) -> None:
        """Writes now, or schedules a write."""
        if not self._may_wait():
            self._write()
        elif self._due is None:
            up = self._clock() - self._begun
            wait = min(_WAIT_SHARE * up, _LONGEST_WAIT_SECONDS)
            self._due = asyncio.get_running_loop().call_later(wait, self._write)

    def _may_wait(self) -> bool:
        """Whether all queued operations are announced rounds, and fewer than `together`."""
        if len(self._waiting) >= self._together:
            return False
        return all(isinstance(each, StoreRound) and each.announced for each in self._waiting)

    async def flush(self) -> None:
        """Waits until every queued operation is durable, or the store has failed."""
        self._write()
        await self._idle.wait()

    async def close(self) -> None:
        """Writes what is left, and ends the thread."""
        await self.flush()
        self._thread.shutdown()

    def _write(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._writing is not None or self._failed or not self._waiting:
            return
        batch, self._waiting = self._waiting, []
        loop = asyncio.get_running_loop()
        self._writing = self._thread.submit(self._store.write, batch)
        self._writing.add_done_callback(lambda done: loop.call_soon_threadsafe(self._written, batch, done))

    def _written(self, batch: list[Operation], done: "Future[None]") -> None:
        self._writing = None
        failure = done.exception()
        if failure is not None:
            # No later operation may be stored: there would be a gap.
            self._failed = True
            self._idle.set()
            text = str(failure) if isinstance(failure, RunFileError) else f"the run cannot be stored: {failure!r}"
            self._handle(StoreFailed(text))
            return
        try:
            rounds = [operation.record for operation in batch if isinstance(operation, StoreRound)]
            if rounds:
                self._handle(RoundsStored(rounds))
        finally:  # `flush` must not wait forever
            if self._waiting:
                self._arrange()
            else:
                self._idle.set()
