"""The dashboard of a coordinator in this process: a web server in a thread of its own."""

import asyncio
import logging
import socket
import ssl
import threading
from dataclasses import replace
from typing import Any

import uvicorn

from cospan.dashboard.app import make_app
from cospan.dashboard.auth import DashboardAuth
from cospan.dashboard.broadcaster import Broadcaster, event
from cospan.dashboard.run_view import RunView
from cospan.server.admission.file_limits import dashboard_connections
from cospan.server.net.acceptor import Acceptor, Connection, bound_socket
from cospan.server.net.binding import cannot_listen, resolved
from cospan.server.net.http_server import ServerThread
from cospan.wire.address import parse_host
from cospan.wire.security.tls import TlsFiles

log = logging.getLogger(__name__)

_FRAME_SECONDS = 0.25
_TLS_SECONDS = 10.0
_STOP_SECONDS = 2


class Dashboard:
    """Serves the page from `open` to `close`.

    Each browser receives at most four updates a second; one that does not read is disconnected. Only `close` blocks
    the coordinator, for about two seconds at most.
    """

    def __init__(
        self, view: RunView, auth: DashboardAuth, *, host: str, port: int, tls: TlsFiles | None = None
    ) -> None:
        self._view, self._address, self._tls = view, parse_host(host, port), tls
        self._broadcaster = Broadcaster()
        self._app = make_app(
            auth, self._broadcaster, self._whole, view.history, self._connection, secure=tls is not None
        )
        self._acceptor: Acceptor | None = None
        self._thread: ServerThread | None = None
        self._closing = threading.Event()

    @property
    def address(self) -> str:
        """URL of the page, with the actual port."""
        return f"{'https' if self._tls else 'http'}://{self._address}/"

    def open(self) -> None:
        """Listens.

        Raises:
            InvalidValueError: the address cannot be bound, as when the port is in use.
        """
        place = resolved(self._address, "--dashboard")[0]
        try:
            listening = bound_socket(place.host, place.port)
        except OSError as failure:
            raise cannot_listen(self._address, failure, "--dashboard") from failure
        self._address = replace(self._address, port=listening.getsockname()[1])
        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="error",  # it would warn of every malformed request
            access_log=False,
            server_header=False,
            proxy_headers=False,  # they would change the address by which `_connection` finds a connection
            timeout_graceful_shutdown=_STOP_SECONDS,
            ssl_certfile=self._tls.certificate if self._tls else None,
            ssl_keyfile=self._tls.key if self._tls else None,
        )
        self._thread = ServerThread(
            listening, lambda: self._serve(uvicorn.Server(config), listening), name="dashboard"
        )
        self._thread.start()

    async def _serve(self, server: uvicorn.Server, listening: socket.socket) -> None:
        """Serves until `_publish` ends it; uvicorn handles HTTP, and `Acceptor` the connections."""
        assert self._thread is not None
        config = server.config
        config.load()

        def http_protocol(_: Connection) -> asyncio.Protocol:
            protocol: Any = config.http_protocol_class
            made: asyncio.Protocol = protocol(config=config, server_state=server.server_state, app_state={})
            return made

        self._acceptor = Acceptor(
            listening, http_protocol, name="dashboard", most=dashboard_connections(), tls=lambda: config.ssl
        )
        tasks = [asyncio.create_task(self._acceptor.accept()), asyncio.create_task(self._publish(server))]
        self._thread.started.set()
        try:
            await server.serve(sockets=[])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._acceptor.close()

    def _connection(self, client: tuple[str, int] | None) -> Connection | None:
        return None if self._acceptor is None else self._acceptor.connection(client)

    async def _publish(self, server: uvicorn.Server) -> None:
        """Updates the view and sends frames to the browsers, until `close` is called."""
        loop = asyncio.get_running_loop()
        certificates_due = loop.time() + _TLS_SECONDS
        while not self._closing.is_set():
            self._update()
            if self._tls is not None and loop.time() >= certificates_due:
                certificates_due = loop.time() + _TLS_SECONDS
                _renew(server.config, self._tls)
            await asyncio.sleep(_FRAME_SECONDS)
        self._update()
        self._broadcaster.publish(event("over", {}))
        self._broadcaster.close()
        server.should_exit = True

    def _update(self) -> None:
        try:
            self._view.gather()
            if len(self._broadcaster):
                self._broadcaster.publish(event("frame", self._view.frame()))
        except Exception:
            log.exception("an update of the dashboard failed")

    def _whole(self) -> bytes:
        """The first event of a new browser; the others first receive what has changed."""
        self._view.gather()
        changed = event("frame", self._view.frame())
        self._broadcaster.publish(changed)
        return event("frame", self._view.whole())

    def close(self) -> None:
        """Sends the last state to every browser, and ends; blocks for about two seconds at most."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS + 2.0)


def _renew(config: uvicorn.Config, tls: TlsFiles) -> None:
    """Loads the certificate from disk again; keeps the old one if the new one cannot be used."""
    if config.ssl is None:
        return
    try:
        config.ssl.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as failure:
        log.warning("the dashboard keeps its old certificate: %s", failure)
