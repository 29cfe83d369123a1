"""The streams of a process that agents join: what `cospan.server.rpc.service` does with their messages."""

from collections.abc import Callable, Collection, Mapping

from cospan.server.machine import events
from cospan.server.machine.sessions import Session
from cospan.wire.errors import CospanError, RemoteError
from cospan.wire.messages import (
    AgentMessage,
    AgentPhase,
    BasisUpdate,
    Drain,
    Finish,
    GradientUpload,
    Heartbeat,
    Join,
    Leave,
    Receipt,
    RoundDeclined,
    SumMembers,
    Welcome,
)
from simulator.duties.membership import check_refusal
from simulator.parties.network import Connection
from simulator.parties.processes import Process
from simulator.witness import Witness


class Listener:
    """The end of its connections that a coordinator has, or a relay."""

    def __init__(
        self,
        process: Process,
        witness: Witness,
        *,
        handle: Callable[[events.Event], None],
        take: Callable[[str, GradientUpload], None],
        sessions: Callable[[], Mapping[str, Session]],
        check_refused: Callable[[str, GradientUpload, RemoteError], None],
    ) -> None:
        """Events are handed to `handle`, gradients to `take`; both raise what is refused, which is then checked."""
        self.connections: dict[int, Connection] = {}
        self._process, self._witness = process, witness
        self._handle, self._take, self._sessions = handle, take, sessions
        self._check_refused = check_refused
        self._streams = 0
        self._closing: set[int] = set()
        """Streams that carry nothing more, and end when the commands of this moment are executed."""

    def next_stream(self) -> int:
        """The number of a new stream."""
        self._streams += 1
        return self._streams

    # What arrives --------------------------------------------------------------------------------------------

    def received(self, connection: Connection, message: AgentMessage) -> None:
        """A message of a stream; one that is refused ends it."""
        if connection.number in self._closing:
            return
        try:
            self._receive(connection, message)
        except RemoteError as refusal:
            check_refusal(self._sessions().values(), message, refusal)
            if isinstance(message, GradientUpload):
                self._check_refused(connection.token, message, refusal)
            self._witness.refused(refusal, lied=connection.lied)
            self._end_stream(connection, refusal)

    def _receive(self, connection: Connection, message: AgentMessage) -> None:
        match message:
            case Join():
                self.connections[connection.number] = connection
                token = f"token-{self._process.rng.getrandbits(64):x}"
                self._handle(events.JoinRequested(message, connection.number, token))
                # A relay welcomes it later, if at all; the end of its stream counts from now on.
                own = (each.token for each in self._sessions().values() if each.stream == connection.number)
                connection.token = next(own)
            case GradientUpload():
                self._take(connection.token, message)
            case Heartbeat():
                self._handle(events.HeartbeatArrived(connection.token))
            case RoundDeclined(round=number):
                self._handle(events.DeclineArrived(connection.token, number))
            case Leave(cause=cause, returning=returning):
                self._handle(events.LeaveArrived(connection.token, cause, returning))
                self._end_stream(connection, None)

    def broke(self, connection: Connection, error: CospanError) -> None:
        """A stream is over."""
        self.connections.pop(connection.number, None)
        if connection.token:
            self._closed(connection)

    def _end_stream(self, connection: Connection, error: CospanError | None) -> None:
        connection.close(1, error)
        if self.connections.pop(connection.number, None) is not None and connection.token:
            self._closed(connection)

    def _closed(self, connection: Connection) -> None:
        self._handle(events.StreamClosed(connection.token, connection.number))
        for session in self._sessions().values():
            lost = session.phase is AgentPhase.LOST
            assert not (lost and session.stream in self.connections), "a session is lost, and its stream is open"

    # What is sent --------------------------------------------------------------------------------------------

    def send(self, token: str, message: Welcome | Receipt | SumMembers) -> None:
        """To one session."""
        connection = self._open(self._sessions().get(token))
        if connection is not None:
            connection.token = token
            connection.send(1, message)

    def _open(self, session: Session | None) -> Connection | None:
        """The connection of a session, if messages are sent over it."""
        if session is None or session.stream in self._closing:
            return None
        return self.connections.get(session.stream)

    def broadcast(self, sessions: Collection[Session], message: BasisUpdate | Finish | Drain) -> None:
        """To several sessions; the last message ends their streams."""
        for session in sessions:
            connection = self._open(session)
            if connection is not None:
                connection.send(1, message)
                if not isinstance(message, BasisUpdate):
                    connection.close(1)

    def close_stream(self, number: int, error: RemoteError | None) -> None:
        """Ends a stream after the commands that are being executed."""
        if number in self.connections:
            self._closing.add(number)
            self._process.later(0.0, lambda: self._close_stream(number, error))

    def _close_stream(self, number: int, error: RemoteError | None) -> None:
        self._closing.discard(number)
        if number in self.connections:
            self._end_stream(self.connections[number], error)

    def ended(self, *, in_order: bool) -> None:
        """The process is gone: its connections are reset unless it ended in order, or its whole machine is gone."""
        for connection in list(self.connections.values()):
            if self._process.host_lost:
                connection.lose()
            elif in_order:
                connection.close(1)
            else:
                connection.reset()
