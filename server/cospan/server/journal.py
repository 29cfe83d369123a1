"""Writes what the machine wants stored, in a thread of its own, in the order in which it was wanted."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from cospan.server.events import RoundStored, StoreFailed, StoreRound
from cospan.server.store import Operation
from cospan.wire.errors import RunFileError


@runtime_checkable
class Stores(Protocol):
    """Where a journal writes to."""

    def write(self, operations: list[Operation]) -> None:
        """Stores everything, or nothing. Raises RunFileError where that cannot be."""
        ...


class Journal:
    """Collects what is to be stored while the disk is busy, and writes it in one transaction when that is done.

    Its methods are called on the event loop's thread, where the events that follow arrive, too.
    """

    def __init__(self, store: Stores, handle: Callable[[RoundStored | StoreFailed], None]) -> None:
        self._store, self._handle = store, handle
        self._waiting: list[Operation] = []
        self._writing: Future[None] | None = None
        self._failed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    def add(self, operation: Operation) -> None:
        """Takes an operation in; a round is reported as `RoundStored` when it is on the disk."""
        self._waiting.append(operation)
        self._write()

    async def flush(self) -> None:
        """Waits until all that was taken in is on the disk, or cannot be put there."""
        await self._idle.wait()

    async def close(self) -> None:
        """Writes what is left, and ends the thread."""
        await self.flush()
        self._thread.shutdown()

    def _write(self) -> None:
        if self._writing is not None or self._failed or not self._waiting:
            return
        batch, self._waiting = self._waiting, []
        self._idle.clear()
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
            for operation in batch:
                if isinstance(operation, StoreRound):
                    report = operation.record.report
                    self._handle(RoundStored(report.closed_round, report))
        finally:  # whoever waits for the rest must not do so for ever
            self._write()
            if self._writing is None:
                self._idle.set()
