"""A small HTTP server in a thread of its own: one request per connection."""

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from cospan.server.net.acceptor import Acceptor, Connection, bound_socket
from cospan.server.net.host_header import names_host
from cospan.server.net.log_throttle import LogThrottle

log = logging.getLogger(__name__)

_MOST_HEAD_BYTES = 8192
_UNREAD_BODY_SECONDS = 1.0
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """A request.

    Attributes:
        method: GET or HEAD; also POST where the server takes bodies.
        path: without the query.
        peer: address of the client.
        certificate: of the client, in DER; None without TLS.
        headers: of the request, with names in lower case; of several with one name the last.
        body: of a POST.
    """

    method: str
    path: str
    peer: str = ""
    certificate: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    body: bytes
    kind: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """A request is rejected; `answer` says why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.answer = Answer(status, f"{sentence}\n".encode())


def read_head(head: bytes, names: Collection[str] | None, *, most_body: int = 0) -> Request:
    """Parses a request line and headers.

    Args:
        head: bytes up to the empty line.
        names: allowed Host names; None for any. HTTP/1.0 may omit the header, but browsers never do.
        most_body: bytes that the body of a POST may have; 0 where POST is not allowed.

    Raises:
        RefusedError: it is malformed, has another method, names another host, or its body is too large.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    if version not in ("HTTP/1.0", "HTTP/1.1") or not target or not target.isprintable():
        raise RefusedError(400, "this is not an HTTP/1.1 request")
    fields = [line.partition(":") for line in lines]
    hosts = [value.strip() for name, found, value in fields if found and name.lower() == "host"]
    if len(hosts) > 1 or (not hosts and version == "HTTP/1.1"):
        raise RefusedError(400, "an HTTP/1.1 request has exactly one Host header")
    if names is not None and hosts and not names_host(hosts[0], names):
        known = ", ".join(sorted(names))
        raise RefusedError(421, f"this server is not known by that name; it is {known}: see --allowed-hosts")
    if method not in ("GET", "HEAD") and not (most_body and method == "POST"):
        raise RefusedError(501, "use GET or POST" if most_body else "use GET or HEAD")
    headers = {name.strip().lower(): value.strip() for name, found, value in fields if found}
    request = Request(method, target.partition("?")[0], headers=headers)
    body_bytes(request, most_body)
    return request


def body_bytes(request: Request, most: int) -> int:
    """How many bytes the body of a request has.

    Raises:
        RefusedError: it does not say so, or they are more than `most`.
    """
    length = request.headers.get("content-length")
    if request.method != "POST":
        return 0
    if "transfer-encoding" in request.headers or length is None:
        raise RefusedError(411, "send the length of the body as Content-Length")
    if not length.isascii() or not length.isdigit():
        raise RefusedError(400, "Content-Length must be a number")
    if int(length[:20]) > most:
        raise RefusedError(413, f"the body of a request may have {most:,} bytes; send fewer steps at once")
    return int(length)


def written(answer: Answer, *, head_only: bool = False) -> bytes:
    """The bytes of a response."""
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
    """Reads one request of a connection, answers it, and closes the connection."""

    def __init__(self, connection: Connection, server: "PlainHttpServer") -> None:
        self._connection, self._server = connection, server
        self._transport: asyncio.Transport | None = None
        self._head, self._body = bytearray(), bytearray()
        self._request: Request | None = None
        """Whose body is awaited."""
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._answering is not None:  # a second request, or a body that was refused, is ignored
            return
        if self._request is None:
            self._head += data
            head, found, rest = bytes(self._head).partition(b"\r\n\r\n")
            if not found and len(self._head) <= _MOST_HEAD_BYTES:
                return
            try:
                self._request = self._head_of(head if found else None)
            except RefusedError as refusal:
                self._begin(Request("GET", "/"), refusal)
                return
            data = rest
            if not rest and self._request.headers.get("expect", "").lower() == "100-continue":
                assert self._transport is not None
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body += data
        length = body_bytes(self._request, self._server.most_body)
        if len(self._body) >= length:
            self._begin(replace(self._request, body=bytes(self._body[:length])))

    def _head_of(self, head: bytes | None) -> Request:
        if head is None or len(head) > _MOST_HEAD_BYTES:
            raise RefusedError(431, f"the headers of a request may have {_MOST_HEAD_BYTES} bytes")
        return read_head(head, self._server.names, most_body=self._server.most_body)

    def _begin(self, request: Request, refusal: RefusedError | None = None) -> None:
        self._connection.request_came()
        self._answering = asyncio.create_task(self._answer(request, refusal))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering is not None:
            self._answering.cancel()

    async def _answer(self, request: Request, refusal: RefusedError | None) -> None:
        assert self._transport is not None
        unread = refusal is not None and self._server.most_body > 0
        try:
            if refusal is not None:
                raise refusal
            secured = self._transport.get_extra_info("ssl_object")
            shown = None if secured is None else secured.getpeercert(binary_form=True) or b""
            answer = await self._server.answers(
                replace(request, peer=self._connection.client[0], certificate=shown)
            )
        except RefusedError as refused:
            answer = refused.answer
        except Exception:
            answer = Answer(500, b"the server failed; see its log\n")
            self._server.failed()
        self._transport.write(written(answer, head_only=request.method == "HEAD"))
        self._connection.answer_ended()
        if unread:
            # With a part of the body unread the connection would be reset, and the answer with it.
            await asyncio.sleep(_UNREAD_BODY_SECONDS)
        self._transport.close()


class ServerThread:
    """Runs a listener in a thread and an event loop of its own."""

    def __init__(
        self, listening: socket.socket, serve: Callable[[], Coroutine[Any, Any, None]], *, name: str
    ) -> None:
        """`serve` sets `started`, serves until the end, and does not close `listening`."""
        self.started = threading.Event()
        self._listening, self._serve, self._name = listening, serve, name
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread, and waits until it serves."""
        self._thread.start()
        self.started.wait(_START_SECONDS)

    def join(self, seconds: float) -> None:
        """Waits at most this time for the end of the thread."""
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            log.exception("the %s server has failed; the run continues without it", self._name)
        finally:
            self._listening.close()
            self.started.set()


class PlainHttpServer:
    """A context manager that serves HTTP."""

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
        most_body: int = 0,
        listening: socket.socket | None = None,
    ) -> None:
        """Listens; requests are answered once it is entered.

        Args:
            host: address without brackets.
            port: TCP port; 0 for any free one.
            answers: called on this server's event loop; must not block for long.
            name: of the server, for the log and its thread.
            most: limit on open connections.
            names: allowed Host names; None for any.
            tls: gives the TLS context of a new connection; None for plain HTTP.
            most_body: bytes that the body of a POST may have; 0 where POST is not allowed.
            listening: a socket to take in place of host and port, as a Unix socket.

        Raises:
            OSError: the address cannot be bound.
        """
        self.answers, self.names, self.most_body = answers, names, most_body
        self._name, self._most, self._tls = name, most, tls
        self._listening = bound_socket(host, port) if listening is None else listening
        self.port: int = port if self._listening.family == socket.AF_UNIX else self._listening.getsockname()[1]
        """The actual port."""
        self._throttle = LogThrottle()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: asyncio.Task[None] | None = None
        self._thread = ServerThread(self._listening, self._serve, name=name)

    def __enter__(self) -> "PlainHttpServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._serving is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join(_STOP_SECONDS)

    def failed(self) -> None:
        """Logs the current exception, at most once a second."""
        held_back = self._throttle.due("failed")
        if held_back is not None:
            log.exception("%s: a response failed (%d more before)", self._name, held_back)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        acceptor = Acceptor(
            self._listening, lambda one: _OneRequest(one, self), name=self._name, most=self._most, tls=self._tls
        )
        self._serving = asyncio.create_task(acceptor.accept())
        self._thread.started.set()
        try:
            await self._serving
        except asyncio.CancelledError:
            pass
        finally:
            acceptor.close()
            await asyncio.sleep(0)  # the sockets are closed by the loop
