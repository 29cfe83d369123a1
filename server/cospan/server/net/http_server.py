"""A small HTTP server in a thread of its own: one request a connection, answered in one go."""

import asyncio
import contextlib
import logging
import ssl
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from cospan.server.net.acceptor import Acceptor, Connection, bound_socket
from cospan.server.net.host_header import names_host
from cospan.server.net.log_throttle import LogThrottle

log = logging.getLogger(__name__)

_MOST_HEAD_BYTES = 8192
_STOP_SECONDS = 5.0
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Attributes:
        method: GET or HEAD.
        path: without the query.
        peer: the address of the other side.
        certificate: what it has shown, in DER; None without TLS.
    """

    method: str
    path: str
    peer: str = ""
    certificate: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered."""

    status: int
    body: bytes
    kind: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """A request that is not answered as it asks; `answer` says why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.answer = Answer(status, f"{sentence}\n".encode())


def read_head(head: bytes, names: Collection[str] | None) -> Request:
    """The request that its first lines make.

    Args:
        head: as it came, up to the empty line.
        names: by which the server may be called; None for any. HTTP/1.0 may leave the name out: browsers never do.

    Raises:
        RefusedError: it is malformed, no GET or HEAD, or for a server of another name.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    if version not in ("HTTP/1.0", "HTTP/1.1") or not target or not target.isprintable():
        raise RefusedError(400, "this is no request of HTTP/1.1")
    fields = [line.partition(":") for line in lines]
    hosts = [value.strip() for name, found, value in fields if found and name.lower() == "host"]
    if len(hosts) > 1 or (not hosts and version == "HTTP/1.1"):
        raise RefusedError(400, "a request of HTTP/1.1 has one Host header")
    if names is not None and hosts and not names_host(hosts[0], names):
        known = ", ".join(sorted(names))
        raise RefusedError(421, f"this server is not known by that name; it is {known}: see --allowed-hosts")
    if method not in ("GET", "HEAD"):
        raise RefusedError(501, "there are GET and HEAD")
    return Request(method, target.partition("?")[0])


def written(answer: Answer, *, head_only: bool = False) -> bytes:
    """The answer as it is sent."""
    headers = {
        "Content-Type": answer.kind,
        "Content-Length": str(len(answer.body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **answer.headers,
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if head_only else answer.body)


Answers = Callable[[Request], Awaitable[Answer]]


class _OneRequest(asyncio.Protocol):
    """Reads one request of a connection, and closes it once that is answered."""

    def __init__(self, connection: Connection, server: "PlainHttpServer") -> None:
        self._connection, self._server = connection, server
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._answering is not None:  # a body, or a second request: nobody asked for it
            return
        self._head += data
        head, found, _ = bytes(self._head).partition(b"\r\n\r\n")
        if not found and len(self._head) <= _MOST_HEAD_BYTES:
            return
        self._connection.request_came()
        self._answering = asyncio.create_task(self._answer(head if found else None))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering is not None:
            self._answering.cancel()

    async def _answer(self, head: bytes | None) -> None:
        assert self._transport is not None
        method = "GET"
        try:
            if head is None or len(head) > _MOST_HEAD_BYTES:
                raise RefusedError(431, f"a request has {_MOST_HEAD_BYTES} bytes of headers at most")
            request = read_head(head, self._server.names)
            method = request.method
            secured = self._transport.get_extra_info("ssl_object")
            shown = None if secured is None else secured.getpeercert(binary_form=True) or b""
            answer = await self._server.answers(
                Request(method, request.path, peer=self._connection.client[0], certificate=shown)
            )
        except RefusedError as refusal:
            answer = refusal.answer
        except Exception:
            answer = Answer(500, b"this has failed; see the log\n")
            self._server.failed()
        self._transport.write(written(answer, head_only=method == "HEAD"))
        self._connection.answer_ended()
        self._transport.close()


class PlainHttpServer:
    """Serves from entering to leaving, from a thread and an event loop of its own."""

    def __init__(
        self,
        host: str,
        port: int,
        answers: Answers,
        *,
        name: str,
        most: int,
        names: Collection[str] | None,
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
    ) -> None:
        """Listens; nothing is answered before it is entered.

        Args:
            host: address to listen on, without brackets.
            port: to listen on; 0 for any that is free.
            answers: called on the loop of this server, and must not block it for long.
            name: of the server, for the log and its thread.
            most: how many connections may be open.
            names: by which it may be called; None for any.
            tls: what new connections are to be secured with; None for plain HTTP.

        Raises:
            OSError: the address cannot be bound.
        """
        self.answers, self.names = answers, names
        self._name, self._most, self._tls = name, most, tls
        self._listening = bound_socket(host, port)
        self.port: int = self._listening.getsockname()[1]
        """The real port, where 0 was asked for."""
        self._sparing = LogThrottle()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> "PlainHttpServer":
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._serving is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join(_STOP_SECONDS)

    def failed(self) -> None:
        """Logs the exception that is handled, once a second at most."""
        held_back = self._sparing.due("failed")
        if held_back is not None:
            log.exception("%s: an answer has failed (%d more before)", self._name, held_back)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            log.exception("%s has failed; the run continues without it", self._name)
        finally:
            self._listening.close()
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        acceptor = Acceptor(
            self._listening, lambda one: _OneRequest(one, self), name=self._name, most=self._most, tls=self._tls
        )
        self._serving = asyncio.create_task(acceptor.accept())
        self._started.set()
        try:
            await self._serving
        except asyncio.CancelledError:
            pass
        finally:
            acceptor.close()
            await asyncio.sleep(0)  # the sockets are closed by the loop
