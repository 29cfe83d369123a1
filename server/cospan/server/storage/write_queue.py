"""Writes what the machine wants stored, in a thread of its own, in the order in which it was wanted."""

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
"""Rounds wait for so much of the time that the coordinator has been up: so one that is killed again and again loses
little each time and gets on, and one that is left alone writes seldom."""


@runtime_checkable
class RoundStore(Protocol):
    """Where a write_queue writes to."""

    def write(self, operations: list[Operation]) -> None:
        """Stores everything, or nothing. Raises RunFileError where that cannot be."""
        ...


class WriteQueue:
    """Collects what is to be stored, and writes it in one transaction: while the disk is busy, and a moment longer.

    What nobody waits for is written when several rounds have come together: a transaction costs more than what is
    in it. Its methods are called on the event loop's thread, where the events that follow arrive, too.
    """

    def __init__(
        self,
        store: RoundStore,
        handle: Callable[[RoundsStored | StoreFailed], None],
        *,
        together: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Writes to `store`.

        Args:
            store: where to.
            handle: is told what was stored, and what could not be.
            together: so many rounds that were told already, at most, wait for each other: for 2 % of the time since
                the write_queue was made, and for 250 ms at most.
            clock: the time, in seconds.
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
        """Takes an operation in; rounds are reported as `RoundsStored` when they are on the disk."""
        if self._failed:
            return
        self._waiting.append(operation)
        self._idle.clear()
        self._arrange()

    def _arrange(self) -> None:
        """Writes now, or in a moment."""
        if not self._may_wait():
            self._write()
        elif self._due is None:
            up = self._clock() - self._begun
            wait = min(_WAIT_SHARE * up, _LONGEST_WAIT_SECONDS)
            self._due = asyncio.get_running_loop().call_later(wait, self._write)

    def _may_wait(self) -> bool:
        """Whether nobody waits for any of it; mostly it is asked of one more."""
        if len(self._waiting) >= self._together:
            return False
        return all(isinstance(each, StoreRound) and each.announced for each in self._waiting)

    async def flush(self) -> None:
        """Waits until all that was taken in is on the disk, or cannot be put there."""
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
            # Nothing of what follows may be stored either: there would be a gap.
            self._failed = True
            self._idle.set()
            text = str(failure) if isinstance(failure, RunFileError) else f"the run cannot be stored: {failure!r}"
            self._handle(StoreFailed(text))
            return
        try:
            rounds = [operation.record for operation in batch if isinstance(operation, StoreRound)]
            if rounds:
                self._handle(RoundsStored(rounds))
        finally:  # whoever waits for the rest must not do so for ever
            if self._waiting:
                self._arrange()
            else:
                self._idle.set()
