"""Accepts the connections of an HTTP listener, and bounds their number and the time of each."""

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from cospan.server.net.connection_slots import SlotHolder, admission
from cospan.server.net.log_throttle import LogThrottle
from cospan.wire.security.identity import network_of

log = logging.getLogger(__name__)

REQUEST_SECONDS = 10.0
"""A connection is closed unless TLS handshake, headers and body arrive within this time."""
UNREAD_SECONDS = 10.0
"""A connection is closed if its peer does not read for this time."""
_TLS_END_SECONDS = 2.0
_MOST_PER_SECOND = 1000.0
"""Limit on accepted connections, so that a flood leaves the processor to the coordinator."""
_BURST_SECONDS = 0.1
_BACKLOG = 512
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Connection(asyncio.Protocol):
    """One connection: relays between its transport and an HTTP protocol, and enforces the timeouts."""

    def __init__(
        self,
        client: tuple[str, int],
        make: Callable[["Connection"], asyncio.Protocol],
        forget: Callable[["Connection"], None],
    ) -> None:
        """Waits for a request; `make` creates the HTTP protocol, and `forget` is called at the end."""
        self._loop = asyncio.get_running_loop()
        self.slot = SlotHolder(network_of(client[0]), self._loop.time())
        self.client = client
        """Address and port of the peer."""
        self._forget = forget
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None
        self._kept, self._over = False, False
        self._late = self._loop.call_later(REQUEST_SECONDS, self.abort)
        self._unread: asyncio.TimerHandle | None = None
        self._inner = make(self)

    def open(self, accepted: socket.socket, tls: ssl.SSLContext | None) -> asyncio.Task[None]:
        """Takes over an accepted socket; the task ends with the TLS handshake."""
        self._opening = asyncio.create_task(self._open(accepted, tls))
        self._opening.add_done_callback(lambda _: self._opened(accepted))
        return self._opening

    async def _open(self, accepted: socket.socket, tls: ssl.SSLContext | None) -> None:
        bounds: dict[str, Any] = {}
        if tls is not None:
            bounds = {"ssl_handshake_timeout": REQUEST_SECONDS, "ssl_shutdown_timeout": _TLS_END_SECONDS}
        with contextlib.suppress(OSError):  # of the peer
            await self._loop.connect_accepted_socket(lambda: self, accepted, ssl=tls, **bounds)

    def _opened(self, accepted: socket.socket) -> None:
        if self._transport is None:
            accepted.close()
            self._end()

    # Calls of the HTTP server -----------------------------------------------------------------------------------

    def request_came(self) -> None:
        """A whole request has arrived."""
        self.slot.waiting = False
        self._late.cancel()

    def answer_ended(self) -> None:
        """The response is written; another request may arrive."""
        self._kept = True
        self._wait()

    def _wait(self) -> None:
        if self._over:
            return
        self.slot.waiting, self.slot.since = True, self._loop.time()
        self._late.cancel()
        self._late = self._loop.call_later(REQUEST_SECONDS, self.abort)

    def abort(self) -> None:
        """Closes the connection at once, also during the handshake."""
        self._end()
        if self._transport is not None:
            self._transport.abort()
        elif self._opening is not None:
            self._opening.cancel()

    def _end(self) -> None:
        self._over = True
        self._late.cancel()
        if self._unread is not None:
            self._unread.cancel()
        self._forget(self)

    # Calls of the transport --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._kept:
            self._kept = False
            self._wait()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer reads too slowly: limits the time until it reads again."""
        self._unread = self._loop.call_later(UNREAD_SECONDS, self.abort)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The peer reads again."""
        if self._unread is not None:
            self._unread.cancel()
        self._inner.resume_writing()


class Acceptor:
    """Accepts on one listening socket, from an event loop.

    asyncio's own server has no limit on connections, and logs a traceback for each one that it cannot accept
    because no file descriptor is left.
    """

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[Connection], asyncio.Protocol],
        *,
        name: str,
        most: int,
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
        no_files_seconds: float = 1.0,
    ) -> None:
        """Accepts nothing yet.

        Args:
            listening: listening socket; the caller closes it.
            make: creates the HTTP protocol of a connection.
            name: of the listener, for the log.
            most: limit on open connections.
            tls: gives the TLS context of a new connection; None for plain HTTP.
            no_files_seconds: pause before it accepts again if no file descriptor is left.
        """
        self._listening, self._make, self._name, self._most, self._tls = listening, make, name, most, tls
        self._no_files_seconds = no_files_seconds
        self._connections: dict[tuple[str, int], Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unnamed = itertools.count()
        self._throttle = LogThrottle()

    def connection(self, client: tuple[str, int] | None) -> Connection | None:
        """The open connection of this client."""
        return None if client is None else self._connections.get((client[0], client[1]))

    async def accept(self) -> None:
        """Accepts until it is cancelled."""
        loop = asyncio.get_running_loop()
        self._listening.setblocking(False)
        due = loop.time()
        while True:
            try:
                accepted, address = await loop.sock_accept(self._listening)
            except OSError as failure:
                await self._cannot_accept(failure)
                continue
            self._admit(accepted, address)
            # One turn of the loop at least for the other connections, and a limit on the cost of a flood.
            due = max(due + 1.0 / _MOST_PER_SECOND, loop.time() - _BURST_SECONDS)
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _cannot_accept(self, failure: OSError) -> None:
        if failure.errno not in _OUT_OF_RESOURCES:
            await asyncio.sleep(0.01)  # the peer has closed it before
            return
        self._warn("files", "%s: cannot accept connections: %s; see ulimit -n", failure.strerror or "")
        await asyncio.sleep(self._no_files_seconds)

    def _admit(self, accepted: socket.socket, address: Any) -> None:
        # A Unix socket gives no address; its peers are of this machine.
        client = (str(address[0]), int(address[1])) if isinstance(address, tuple) else ("", next(self._unnamed))
        peer = network_of(client[0])
        found = admission(
            (connection.slot for connection in self._connections.values()),
            peer,
            most=self._most,
            most_of_peer=self._most if _is_loopback(client[0]) else max(1, self._most // 2),
        )
        if not found.admitted:
            self._warn("full", "%s: every connection is busy; rejected one of %s", peer)
            accepted.close()
            return
        if found.leaves is not None:
            leaves = found.leaves
            self._warn("left", "%s: every connection is taken; closed an idle one of %s", leaves.peer)
            next(one for one in self._connections.values() if one.slot is leaves).abort()
        connection = Connection(client, self._make, self._forget)
        self._connections[client] = connection
        task = connection.open(accepted, self._tls())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget(self, connection: Connection) -> None:
        if self._connections.get(connection.client) is connection:
            del self._connections[connection.client]

    def close(self) -> None:
        """Closes every connection at once; the caller has cancelled `accept`, and closes the listening socket."""
        for connection in list(self._connections.values()):
            connection.abort()

    def _warn(self, kind: str, text: str, detail: str) -> None:
        """Logs a warning, at most once a second for each kind."""
        held_back = self._throttle.due(kind)
        if held_back is not None:
            more = f" ({held_back} more before)" if held_back else ""
            log.warning(text + more, self._name, detail)


def _is_loopback(host: str) -> bool:
    if not host:
        return True
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def bound_socket(host: str, port: int) -> socket.socket:
    """A listening socket; `host` is an address without brackets or a name, and port 0 any free port.

    Raises:
        OSError: the address cannot be bound.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except (OSError, OverflowError):
        listening.close()
        raise
    return listening
