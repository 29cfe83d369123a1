"""The server's part of the fast path (ADR 12): gradients that are counted together, and writes without a task.

`COSPAN_FAST_PATH=0` turns both off: each gradient is an event of its own, and a task per stream writes. The codec's
part is `cospan.wire.codec.fast_path`.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from cospan.server.machine.counting import is_batchable
from cospan.server.machine.events import Command, Event, GradientArrived, GradientsArrived
from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.machine_loop import MachineLoop
from cospan.server.runtime.streams import Stream, StreamCall
from cospan.wire.codec.fast_path import ENABLED
from cospan.wire.messages import GradientUpload


class GradientIntake:
    """Passes gradients to the machine; those of one round together, as their order means nothing.

    The machine gets them when all that it awaits are there, before any other event, and after `seconds` at the
    latest.
    """

    def __init__(self, loop: MachineLoop[CoordinatorState, Event, Command], seconds: float) -> None:
        self._loop, self._seconds, self._gathers = loop, seconds, "gather" in ENABLED
        self._gathered: dict[str, GradientUpload] = {}
        self._timer: asyncio.TimerHandle | None = None

    def take(self, token: str, upload: GradientUpload) -> None:
        """Lets a gradient arrive.

        Raises:
            RemoteError: the session must not send it now; nothing has changed.
        """
        state = self._loop.state
        if not self._gathers or token in self._gathered or not is_batchable(state, token, upload):
            self._loop.handle(*self.pending(), GradientArrived(token, upload))
            return
        self._gathered[token] = upload
        if len(self._gathered) == state.open_round.awaited.block_count:
            self._loop.handle(*self.pending())
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._on_timer)

    def pending(self) -> list[Event]:
        """The gradients that the machine has not seen, as one event; they must be handled before any other."""
        gathered, self._gathered = self._gathered, {}
        return [GradientsArrived(gathered)] if gathered else []

    def _on_timer(self) -> None:
        self._timer = None
        self._loop.handle(*self.pending())


class DirectWriter:
    """A `StreamWriter` that begins a write as soon as a message is queued, in the caller's turn.

    It has no task: waking one takes as long as handing its message to gRPC. `context.write` waits for asyncio's
    futures; the writer resumes it when they are done.
    """

    def __init__(self, stream: Stream, context: StreamCall) -> None:
        """Writes what is queued from now on, and what has been queued before."""
        self._stream, self._context = stream, context
        self._writing: Coroutine[Any, Any, None] | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the stream is closed and its messages are written; failed if a write has failed."""
        stream.on_change = self._write_next
        self._write_next()

    def stop(self) -> None:
        """Writes nothing more; a write that has begun is left to the end of the call."""
        self._stream.on_change = None
        if not self.ended.cancel() and not self.ended.cancelled():
            self.ended.exception()  # marks it as retrieved

    def _write_next(self) -> None:
        """Writes the next message, unless a write is under way. An error overtakes what is queued."""
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
        """Runs the write until it has to wait."""
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
        self._write_next()

    def _fail(self, failure: BaseException) -> None:
        if self.ended.done():
            return
        if isinstance(failure, asyncio.CancelledError):
            self.ended.cancel()
        else:
            self.ended.set_exception(failure)
        self._stream.close(None)
