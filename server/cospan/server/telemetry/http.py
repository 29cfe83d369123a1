"""Serves `/metrics` and `/healthz` over HTTP from a thread of its own, so that a scrape never delays a round.

With TLS a client needs the certificate of an observer or an administrator.
"""

import asyncio
import contextlib
import logging
import ssl
import threading
from collections.abc import Callable, Collection
from dataclasses import replace

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from cospan.server.admission.file_limits import small_connections
from cospan.server.net.binding import cannot_listen, resolved
from cospan.server.net.http_server import Answer, PlainHttpServer, RefusedError, Request
from cospan.wire.address import parse_host
from cospan.wire.errors import AdminRequiredError, IdentityMismatchError
from cospan.wire.security.certificate import uris_of_der
from cospan.wire.security.identity import Right, of_certificate
from cospan.wire.security.tls import TlsFiles, TlsSource

log = logging.getLogger(__name__)


class MetricsServer(PlainHttpServer):
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
        names: Collection[str] | None = None,
    ) -> None:
        """Listens; requests are answered once it is entered.

        Args:
            registry: the metrics.
            health: gives the problem in a few words, empty if there is none; called from other threads.
            host: address, or a name, of whose addresses the first is used.
            port: TCP port; 0 for any free one.
            tls: certificate, key and authority for mutual TLS; None for plain HTTP.
            names: allowed Host names; None for any.

        Raises:
            InvalidValueError: the address is invalid, or cannot be bound.
        """
        contexts = None if tls is None else _Contexts(TlsSource(tls))
        self._registry, self._health = registry, health
        self._checking: asyncio.Future[str] | None = None
        address = parse_host(host, port)
        place, tls_context = resolved(address, "--metrics")[0], contexts or (lambda: None)
        most = small_connections()
        try:
            super().__init__(
                place.host, place.port, self._answer, name="metrics", most=most, names=names, tls=tls_context
            )
        except OSError as failure:
            raise cannot_listen(address, failure, "--metrics") from failure
        self._address = replace(address, port=self.port)
        self._scheme = "http" if tls is None else "https"

    @property
    def address(self) -> str:
        """URL of the metrics, with the actual port."""
        return f"{self._scheme}://{self._address}/metrics"

    def __enter__(self) -> "MetricsServer":
        super().__enter__()
        log.info("metrics are on %s", self.address)
        return self

    async def _answer(self, request: Request) -> Answer:
        """Answers `/metrics` and `/healthz`."""
        _check_observer(request)
        match request.path:
            case "/metrics":
                return Answer(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)
            case "/healthz":
                problem = await self._problem()
                return Answer(503 if problem else 200, f"{problem or 'ok'}\n".encode())
            case _:
                return Answer(404, b"there are /metrics and /healthz\n")

    async def _problem(self) -> str:
        """The result of the health check; requests during a check share its result, so one thread is enough."""
        if self._checking is None:
            loop = asyncio.get_running_loop()
            checking = self._checking = loop.create_future()
            # A daemon: it may wait for the event loop that ends this server, so the end must not wait for it.
            threading.Thread(target=self._check, args=(loop, checking), name="health", daemon=True).start()
        return await asyncio.shield(self._checking)

    def _check(self, loop: asyncio.AbstractEventLoop, checking: asyncio.Future[str]) -> None:
        try:
            problem = self._health()
        except Exception as failure:
            log.exception("the health check has failed")
            problem = f"the health check has failed: {failure}"
        with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(self._checked, checking, problem)

    def _checked(self, checking: asyncio.Future[str], problem: str) -> None:
        self._checking = None
        if not checking.done():
            checking.set_result(problem)


def _check_observer(request: Request) -> None:
    """Checks that the client may observe the run.

    Raises:
        RefusedError: its certificate is malformed, or of neither an observer nor an administrator.
    """
    if request.certificate is None:
        return
    try:
        of_certificate(uris_of_der(request.certificate), address=request.peer).require(Right.READ)
    except (AdminRequiredError, IdentityMismatchError) as refusal:
        raise RefusedError(403, str(refusal)) from refusal


class _Contexts:
    """The TLS context of new connections, with the newest certificate on disk."""

    def __init__(self, source: TlsSource) -> None:
        self._source, self._material = source, source.material
        self._context = _context_of(source)

    def __call__(self) -> ssl.SSLContext:
        self._source.refresh()
        if self._source.material is not self._material:
            try:
                self._context = _context_of(self._source)
            except (OSError, ssl.SSLError) as failure:
                log.warning("the metrics server keeps its former certificate: %s", failure)
            else:
                self._material = self._source.material
        return self._context


def _context_of(source: TlsSource) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=source.material.authority.decode())
    context.load_cert_chain(source.files.certificate, source.files.key, password=b"")
    return context
