"""Serves `/metrics` and `/healthz` over HTTP, from threads of its own: a scrape never holds a round up.

Beyond loopback it is as guarded as the run: with certificates a peer must show one that may look on.
"""

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from cospan.server.binding import resolved
from cospan.wire.address import parse_host
from cospan.wire.errors import AdminRequiredError, InvalidValueError
from cospan.wire.identity import Right, of_certificate
from cospan.wire.tls import TlsFiles, TlsSource

log = logging.getLogger(__name__)

_PEER_SECONDS = 5.0
"""How long a peer may take for its handshake, to send its request, and to read a part of the answer."""
_AT_ONCE = 8
"""So many requests are served at a time; who comes then is turned away at once."""
_TEXT = "text/plain; charset=utf-8"


class MetricsServer:
    """A small HTTP server beside a coordinator or a relay.

    with MetricsServer(registry, healthy, host="127.0.0.1", port=9464) as server:
        print(server.address)
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        health: Callable[[], str],
        *,
        host: str,
        port: int,
        tls: TlsFiles | None = None,
    ) -> None:
        """Listens; nothing is answered before it is entered.

        Args:
            registry: the metrics.
            health: says what is wrong, in a few words; nothing where all is well. Called from other threads.
            host: address to listen on; of a name with several addresses the first.
            port: to listen on; 0 for any that is free.
            tls: certificate, key and authority: a peer must then show a certificate of an observer or an
                administrator. None for plain HTTP.

        Raises:
            InvalidValueError: the address is none, or cannot be bound; the text says why.
        """
        source = None if tls is None else TlsSource(tls)
        address = parse_host(host, port)
        try:
            place = resolved(address, "--metrics")[0]
            self._server = _Server(place.host, place.port, registry, health, source)
        except OSError as failure:
            raise InvalidValueError(
                f"cannot serve metrics on {address}: {failure.strerror or failure}; choose another address with "
                "--metrics"
            ) from failure
        self._host, self._scheme = host, "http" if tls is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)

    @property
    def address(self) -> str:
        """Where the metrics are, as a URL; the real port, where 0 was asked for."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self._scheme}://{host}:{self._server.server_address[1]}/metrics"

    def __enter__(self) -> "MetricsServer":
        self._thread.start()
        log.info("metrics are on %s", self.address)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    """Bounded: in threads, in seconds, in who may ask."""

    daemon_threads = True
    block_on_close = False  # a peer that reads slowly is not waited for
    request_queue_size = 16

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, health: Callable[[], str], tls: TlsSource | None
    ) -> None:
        self.registry, self.health, self._tls = registry, health, tls
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Takes a connection, if there is a place for it."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers one connection, and gives its place back."""
        try:
            request.settimeout(_PEER_SECONDS)
            if self._tls is not None:
                request = self._secured(self._tls, request)
            super().process_request_thread(request, client_address)
        except OSError as failure:
            log.info("a connection for metrics has failed: %s", failure)
            self.shutdown_request(request)
        finally:
            self._places.release()

    @staticmethod
    def _secured(source: TlsSource, request: socket.socket) -> ssl.SSLSocket:
        """The connection with TLS, by the certificate that is on disk now; in the thread of the connection."""
        source.refresh()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=source.material.authority.decode())
        context.load_cert_chain(source.files.certificate, source.files.key, password=b"")
        return context.wrap_socket(request, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that breaks off is no news; anything else is in the log."""
        log.info("a request for metrics has failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One request: HTTP/1.0, so one for each connection."""

    server: _Server
    server_version, sys_version = "cospan", ""
    timeout = _PEER_SECONDS

    def do_GET(self) -> None:  # the name is that of http.server
        """Answers `/metrics` and `/healthz`."""
        refusal = self._refusal()
        if refusal:
            self._answer(403, _TEXT, f"{refusal}\n".encode())
            return
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.server.registry))
            case "/healthz":
                problem = self.server.health()
                self._answer(503 if problem else 200, _TEXT, f"{problem or 'ok'}\n".encode())
            case _:
                self._answer(404, _TEXT, b"there are /metrics and /healthz\n")

    do_HEAD = do_GET  # noqa: N815

    def _refusal(self) -> str:
        """Why this peer is told nothing; nothing where it may look on."""
        if not isinstance(self.connection, ssl.SSLSocket):
            return ""
        shown: dict[str, Any] = dict(self.connection.getpeercert() or {})
        uris = [value for kind, value in shown.get("subjectAltName", ()) if kind == "URI"]
        try:
            of_certificate(uris, address=self.client_address[0]).require(Right.READ)
        except AdminRequiredError as refusal:
            return str(refusal)
        return ""

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing: every scrape would be a line."""
