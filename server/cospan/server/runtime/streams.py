"""The open streams of agents: queued messages, and how each stream ends."""

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
"""Limit on messages queued for a peer that does not read; only responses to its own messages can reach it."""


@runtime_checkable
class StreamCall(Protocol):
    """The one method of a call's context that a writer needs."""

    def write(self, message: bytes, /) -> Awaitable[None]:
        """Hands a message to gRPC; returns when the next one may follow. Raises if the call is over."""
        ...


@dataclass(slots=True)
class Stream:
    """One open stream."""

    number: int
    token: str | None = None
    outbox: deque[tuple[bytes, bool]] = field(default_factory=deque)
    """Encoded messages, each with whether it is a basis."""
    closed: bool = False
    """Whether the stream ends once the outbox is empty; no message is added any more."""
    error: RemoteError | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the stream is closed."""
    _changed: asyncio.Future[None] | None = None
    """What `write_to` waits for; an asyncio.Event costs twice as much."""

    def put(self, encoded: bytes, *, is_basis: bool) -> None:
        """Queues a message; of several bases in a row that a slow peer has not read, only the newest is kept."""
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
        """Ends the stream with an error, or without one after its queued messages."""
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
    """All streams of one server, by number; used on one event loop, without locks."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        """Total size of all queued messages."""
        self.receipts = dict.fromkeys(Disposition, 0)
        """Number of gradients that did not count, by disposition."""
        self._streams: dict[int, Stream] = {}
        self._next = 0

    def __len__(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    def open(self) -> Stream:
        """A new stream, not yet bound to a session."""
        self._next += 1
        stream = Stream(self._next)
        self._streams[stream.number] = stream
        return stream

    def forget(self, stream: Stream) -> None:
        """Removes a stream that has ended."""
        stream.close(None)
        self._streams.pop(stream.number, None)

    def close(self, number: int, error: RemoteError | None) -> None:
        """Ends a stream if it is open."""
        if number in self._streams:
            self._streams[number].close(error)

    def send(self, session: Session | None, message: CoordinatorMessage) -> None:
        """Sends to one session; one without a stream receives the newest state when it reconnects."""
        if isinstance(message, Receipt):
            self.receipts[message.disposition] += 1
        stream = self._streams.get(session.stream) if session else None
        if session is not None and stream is not None:
            stream.token = session.token
            encoded = encode_coordinator_message(message).SerializeToString()
            self.sent_bytes += len(encoded)
            stream.put(encoded, is_basis=False)

    def broadcast(self, sessions: Iterable[Session], message: BasisUpdate | Finish | Drain) -> None:
        """Sends the same bytes to every session; a message other than a basis ends its stream."""
        is_basis = isinstance(message, BasisUpdate)
        encoded = encode_coordinator_message(message).SerializeToString()
        for session in sessions:
            stream = self._streams.get(session.stream)
            if stream is None:
                continue
            self.sent_bytes += len(encoded)
            stream.put(encoded, is_basis=is_basis)
            if not is_basis:
                stream.close(None)
