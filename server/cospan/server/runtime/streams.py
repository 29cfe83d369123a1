"""The open streams of agents: queued messages, and how each stream ends."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cospan.server.machine.sessions import Session
from cospan.wire.codec.basis_bytes import serialise_basis_update
from cospan.wire.codec.messages import encode_coordinator_message
from cospan.wire.errors import OutOfTurnError, RemoteError
from cospan.wire.messages import BasisUpdate, CoordinatorMessage, Disposition, Drain, Finish, Receipt

_OUTBOX_LENGTH = 64
"""Limit on messages queued for a peer that does not read; only responses to its own messages can reach it."""


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
    on_change: Callable[[], None] | None = None
    """Called when a message is queued, and when the stream is closed."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the stream is closed."""

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
        if self.on_change is not None:
            self.on_change()

    def close(self, error: RemoteError | None) -> None:
        """Ends the stream with an error, or without one after its queued messages."""
        if not self.closed:
            self.closed, self.error = True, error
            self.ended.set()
            if self.on_change is not None:
                self.on_change()


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
        if isinstance(message, BasisUpdate):
            encoded = serialise_basis_update(message)
        else:
            encoded = encode_coordinator_message(message).SerializeToString()
        for session in sessions:
            stream = self._streams.get(session.stream)
            if stream is None:
                continue
            self.sent_bytes += len(encoded)
            stream.put(encoded, is_basis=is_basis)
            if not is_basis:
                stream.close(None)
