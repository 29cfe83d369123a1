"""StreamCall to a call what its stream has queued, one message after another."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, runtime_checkable

from cospan.server.runtime.streams import Stream


@runtime_checkable
class StreamCall(Protocol):
    """The one method of a call's context that is needed."""

    def write(self, message: bytes, /) -> Coroutine[Any, Any, None]:
        """Hands a message to gRPC; done when it is on its way. Raises where the call is over."""
        ...


class StreamWriter:
    """Begins to write as soon as something is queued, in the caller's turn: a basis is on its way to all at once.

    There is no task: to wake one takes as long as to hand its message to gRPC. What `context.write` waits for are
    futures, as in every coroutine of asyncio; it goes on when they are done.
    """

    def __init__(self, stream: Stream, context: StreamCall) -> None:
        """StreamCall what is queued from now on, and what has been queued before."""
        self._stream, self._context = stream, context
        self._writing: Coroutine[Any, Any, None] | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the stream is closed and all is written that was to be; failed where a write has failed."""
        stream.on_change = self._reevaluate
        self._reevaluate()

    def stop(self) -> None:
        """StreamCall nothing more; what is on its way is left to the end of the call."""
        self._stream.on_change = None
        if not self.ended.cancel() and not self.ended.cancelled():
            self.ended.exception()  # whoever wanted to know it has asked

    def _reevaluate(self) -> None:
        """StreamCall the next message, unless one is on its way. An error overtakes what is queued."""
        stream = self._stream
        while self._writing is None and not self.ended.done():
            if stream.outbox and stream.error is None:
                self._writing = self._context.write(stream.outbox.popleft()[0])
                self._step()
            elif stream.closed:
                self.ended.set_result(None)
            else:
                return

    def _step(self) -> None:
        """Lets the write run to where it has to wait."""
        assert self._writing is not None
        try:
            awaited = self._writing.send(None)
        except StopIteration:
            self._writing = None
        except (Exception, asyncio.CancelledError) as failure:  # the call is over
            self._writing = None
            self._fail(failure)
        else:
            awaited.add_done_callback(self._resume)

    def _resume(self, _: "asyncio.Future[Any]") -> None:
        self._step()
        self._reevaluate()

    def _fail(self, failure: BaseException) -> None:
        if self.ended.done():
            return
        if isinstance(failure, asyncio.CancelledError):
            self.ended.cancel()
        else:
            self.ended.set_exception(failure)
        self._stream.close(None)
