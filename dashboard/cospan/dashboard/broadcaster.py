"""Sends events to browsers through one bounded queue each."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

MOST_BROWSERS = 32
_MOST_UNREAD = 8
"""A browser that is this many updates behind is disconnected, and starts again with the whole state."""


class Broadcaster:
    """Queues of updates, one for each browser; all on one event loop."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[bytes | None]] = set()

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def is_full(self) -> bool:
        """Whether the limit on browsers is reached."""
        return len(self._queues) >= MOST_BROWSERS

    def publish(self, message: bytes) -> None:
        """Queues an update for every browser; one whose queue is full is disconnected, and reconnects."""
        for queue in list(self._queues):
            if queue.full():
                self._drop(queue)
            else:
                queue.put_nowait(message)

    def close(self) -> None:
        """Ends every stream after its queued updates."""
        for queue in list(self._queues):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    def _drop(self, queue: asyncio.Queue[bytes | None]) -> None:
        self._queues.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)

    async def follow(self, first: bytes) -> AsyncIterator[bytes]:
        """`first` and then the updates of one browser, until it is dropped or `close` is called."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_UNREAD)
        self._queues.add(queue)
        try:
            yield first
            while (message := await queue.get()) is not None:
                yield message
        finally:
            self._queues.discard(queue)


def event(kind: str, values: Any) -> bytes:
    """One server-sent event."""
    data = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()
