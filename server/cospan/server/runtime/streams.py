"""The open streams of a server of agents: what waits to be written to each, and how it is to end."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from cospan.server.machine.sessions import Session
from cospan.wire.codec.messages import encode_coordinator_message
from cospan.wire.errors import OutOfTurnError, RemoteError
from cospan.wire.messages import BasisUpdate, CoordinatorMessage, Disposition, Drain, Finish, Receipt

_OUTBOX_LENGTH = 64
"""The largest number of messages that wait for a peer that does not read; only answers to its own can reach it."""


@runtime_checkable
class StreamCall(Protocol):
    """The one method of a call's context that a writer needs."""

    def write(self, message: bytes, /) -> Awaitable[None]:
        """Hands a message to gRPC; returns when the next one may follow. Raises if the call is over."""
        ...


@dataclass(slots=True)
class Stream:
    """One open stream: what waits to be written, and how it is to end."""

    number: int
    token: str | None = None
    outbox: deque[tuple[bytes, bool]] = field(default_factory=deque)
    """Encoded messages, each with whether it is a basis."""
    closed: bool = False
    """No message is added any more; the stream ends when the outbox is empty."""
    error: RemoteError | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is closed."""
    _changed: asyncio.Future[None] | None = None
    """What `write_to` waits for; an asyncio.Event costs twice as much."""

    def put(self, encoded: bytes, *, is_basis: bool) -> None:
        """Queues a message. Of several bases that a slow reader has not taken, only the newest is kept."""
        if self.closed:
            return
        if is_basis and self.outbox and self.outbox[-1][1]:
            self.outbox.pop()
        if len(self.outbox) >= _OUTBOX_LENGTH:
            self.close(OutOfTurnError(f"{_OUTBOX_LENGTH} messages wait to be read; read them before sending more"))
            return
        self.outbox.append((encoded, is_basis))
        self._wake()

    def close(self, error: RemoteError | None) -> None:
        """Ends the stream, after what is queued where there is no error."""
        if not self.closed:
            self.closed, self.error = True, error
            self.ended.set()
            self._wake()

    async def write_to(self, call: StreamCall) -> None:
        """Writes what is queued, in order, until the stream is closed. An error overtakes what is queued.

        What `call.write` raises if the call is over ends it.
        """
        while True:
            while self.outbox and self.error is None:
                await call.write(self.outbox.popleft()[0])
            if self.closed:
                return
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)


class Streams:
    """All streams of one server, by number; on one event loop, without locks."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        """Of all messages that were queued."""
        self.receipts = dict.fromkeys(Disposition, 0)
        """How many gradients did not count, by why."""
        self._streams: dict[int, Stream] = {}
        self._next = 0

    def __len__(self) -> int:
        """How many are open."""
        return len(self._streams)

    def open(self) -> Stream:
        """A new stream, not yet bound to a session."""
        self._next += 1
        stream = Stream(self._next)
        self._streams[stream.number] = stream
        return stream

    def forget(self, stream: Stream) -> None:
        """The stream has ended; nothing can be written to it."""
        stream.close(None)
        self._streams.pop(stream.number, None)

    def close(self, number: int, error: RemoteError | None) -> None:
        """Ends a stream, if it is still there."""
        if number in self._streams:
            self._streams[number].close(error)

    def send(self, session: Session | None, message: CoordinatorMessage) -> None:
        """Sends to one session; a session without a stream gets the newest state when it comes back."""
        if isinstance(message, Receipt):
            self.receipts[message.disposition] += 1
        stream = self._streams.get(session.stream) if session else None
        if session is not None and stream is not None:
            stream.token = session.token
            encoded = encode_coordinator_message(message).SerializeToString()
            self.sent_bytes += len(encoded)
            stream.put(encoded, is_basis=False)

    def broadcast(self, sessions: Iterable[Session], message: BasisUpdate | Finish | Drain) -> None:
        """Serialises once; the same bytes go to every stream, which ends with what is not a basis."""
        last = not isinstance(message, BasisUpdate)
        encoded = encode_coordinator_message(message).SerializeToString()
        for session in sessions:
            stream = self._streams.get(session.stream)
            if stream is None:
                continue
            self.sent_bytes += len(encoded)
            stream.put(encoded, is_basis=not last)
            if last:
                stream.close(None)
