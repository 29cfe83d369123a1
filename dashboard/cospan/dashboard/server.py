"""The dashboard of a coordinator in this process: a web server with a thread and an event loop of its own."""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import uvicorn

from cospan.dashboard.app import make_app
from cospan.dashboard.auth import DashboardAuth
from cospan.dashboard.broadcaster import Broadcaster, event
from cospan.dashboard.run_view import RunView
from cospan.server.admission.file_limits import dashboard_connections
from cospan.server.net.acceptor import Acceptor, Connection, bound_socket
from cospan.server.net.binding import resolved
from cospan.wire.address import parse_host
from cospan.wire.errors import InvalidValueError
from cospan.wire.security.tls import TlsFiles

log = logging.getLogger(__name__)

_FRAME_SECONDS = 0.25
_TLS_SECONDS = 10.0
_START_SECONDS = 10.0
_STOP_SECONDS = 2


class Dashboard:
    """Serves the page from `open` to `close`.

    At most four updates a second go to each browser; one that does not read is left behind. Nothing here waits for
    the coordinator, nor the coordinator for anything here, but for `close`, which takes two seconds at most.
    """

    def __init__(
        self, view: RunView, entrance: DashboardAuth, *, host: str, port: int, tls: TlsFiles | None = None
    ) -> None:
        self._view, self._host, self._port, self._tls = view, host, port, tls
        self._audience = Broadcaster()
        self._app = make_app(entrance, self._audience, self._whole, self._connection, secure=tls is not None)
        self._acceptor: Acceptor | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    @property
    def address(self) -> str:
        """Where a browser finds it; the real port, where 0 was asked for."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self._port}/"

    def open(self) -> None:
        """Listens.

        Raises:
            InvalidValueError: the address is none, or cannot be bound, as when the port is in use.
        """
        address = parse_host(self._host, self._port)
        place = resolved(address, "--dashboard")[0]
        try:
            listening = bound_socket(place.host, place.port)
        except OSError as failure:
            raise InvalidValueError(
                f"the dashboard cannot listen on {address}: {failure.strerror or failure}; choose another address "
                "with --dashboard"
            ) from failure
        self._port = listening.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="error",  # a warning for every request that is malformed
            access_log=False,
            server_header=False,
            proxy_headers=False,  # they would change what a connection is found by
            timeout_graceful_shutdown=_STOP_SECONDS,
            ssl_certfile=self._tls.certificate if self._tls else None,
            ssl_keyfile=self._tls.key if self._tls else None,
        )
        self._server = uvicorn.Server(config)
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._server, listening, started.set), name="dashboard", daemon=True
        )
        self._thread.start()
        started.wait(_START_SECONDS)

    def _run(self, server: uvicorn.Server, listening: socket.socket, started: Callable[[], object]) -> None:
        try:
            asyncio.run(self._serve(server, listening, started))
        except Exception:
            log.exception("the dashboard has failed; the run continues without it")
        finally:
            started()
            listening.close()

    async def _serve(self, server: uvicorn.Server, listening: socket.socket, started: Callable[[], object]) -> None:
        """Serves until `_publish` says that it is over; uvicorn speaks HTTP, and accepts nothing itself."""
        config = server.config
        config.load()

        def speaking(_: Connection) -> asyncio.Protocol:
            protocol: Any = config.http_protocol_class
            made: asyncio.Protocol = protocol(config=config, server_state=server.server_state, app_state={})
            return made

        self._acceptor = Acceptor(
            listening, speaking, name="dashboard", most=dashboard_connections(), tls=lambda: config.ssl
        )
        tasks = [asyncio.create_task(self._acceptor.accept()), asyncio.create_task(self._publish(server))]
        started()
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
        """Gathers what there is, and tells those who look, until the dashboard is to be closed."""
        loop = asyncio.get_running_loop()
        certificates_due = loop.time() + _TLS_SECONDS
        while not self._closing.is_set():
            self._update()
            if self._tls is not None and loop.time() >= certificates_due:
                certificates_due = loop.time() + _TLS_SECONDS
                _renew(server.config, self._tls)
            await asyncio.sleep(_FRAME_SECONDS)
        self._update()
        self._audience.publish(event("over", {}))
        self._audience.close()
        server.should_exit = True

    def _update(self) -> None:
        try:
            self._view.gather()
            if len(self._audience):
                self._audience.publish(event("frame", self._view.frame()))
        except Exception:
            log.exception("an update of the dashboard failed")

    def _whole(self) -> bytes:
        """For a browser that begins to look; those that look already are told what has changed first."""
        self._view.gather()
        changed = event("frame", self._view.frame())
        self._audience.publish(changed)
        return event("frame", self._view.whole())

    def close(self) -> None:
        """Sends the last state to everybody, and ends; blocks for two seconds or so at most."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS + 2.0)


def _renew(config: uvicorn.Config, tls: TlsFiles) -> None:
    """Takes up certificates that have been renewed on disk; those that cannot be used leave things as they are."""
    if config.ssl is None:
        return
    try:
        config.ssl.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as failure:
        log.warning("the dashboard goes on with its old certificate: %s", failure)
