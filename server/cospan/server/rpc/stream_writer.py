"""Writes to a call what its stream has queued, one message after another."""

import asyncio

from cospan.server.runtime.fast_path import DirectWriter
from cospan.server.runtime.streams import Stream, StreamCall
from cospan.wire.codec.fast_path import ENABLED


class StreamWriter:
    """A task that writes what is queued until the stream is closed. An error overtakes what is queued."""

    def __init__(self, stream: Stream, context: StreamCall) -> None:
        """Writes what is queued from now on, and what has been queued before."""
        self._stream, self._context = stream, context
        self._changed = asyncio.Event()
        stream.on_change = self._changed.set
        self.ended = asyncio.create_task(self._write())
        """Done when the stream is closed and its messages are written; failed if a write has failed."""
        self.ended.add_done_callback(self._on_end)

    def stop(self) -> None:
        """Writes nothing more."""
        self._stream.on_change = None
        self.ended.cancel()

    async def _write(self) -> None:
        stream = self._stream
        while True:
            self._changed.clear()
            while stream.outbox and stream.error is None:
                await self._context.write(stream.outbox.popleft()[0])
            if stream.closed:
                return
            await self._changed.wait()

    def _on_end(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            task.exception()  # marks it as retrieved
        self._stream.close(None)


def stream_writer(stream: Stream, context: StreamCall) -> StreamWriter | DirectWriter:
    """A writer for one call."""
    return (DirectWriter if "write" in ENABLED else StreamWriter)(stream, context)
