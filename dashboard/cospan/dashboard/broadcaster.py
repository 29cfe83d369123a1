"""The browsers that look: how many there may be, and what each of them has not read yet."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

MOST_BROWSERS = 32
_MOST_UNREAD = 8
"""A browser that is so many updates behind begins anew, with the whole, when it reads again."""


class Broadcaster:
    """Queues of updates, one for each browser; all on one event loop."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[bytes | None]] = set()

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def is_full(self) -> bool:
        """Whether no further browser may look."""
        return len(self._queues) >= MOST_BROWSERS

    def publish(self, message: bytes) -> None:
        """Gives an update to everybody. Whoever has not read the last ones loses the connection, and comes back."""
        for queue in list(self._queues):
            if queue.full():
                self._drop(queue)
            else:
                queue.put_nowait(message)

    def close(self) -> None:
        """Ends everybody's stream, after what is still to be read."""
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
        """The updates of one browser, `first` before them, until it is dropped or all is over."""
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
