"""The dashboard's HTTP application: page, event stream, login, and the check of every request."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cospan.dashboard.auth import COOKIE, HEADERS, DashboardAuth
from cospan.dashboard.broadcaster import MOST_BROWSERS, Broadcaster
from cospan.dashboard.page_files import MEDIA_TYPES, page_file
from cospan.server.net.acceptor import Connection

_MOST_FORM_BYTES = 4096
_WRONG_TOKEN = b'<p class="notice" role="alert">That is not the token.</p>'
_STREAM_HEADERS = {"X-Accel-Buffering": "no"}
"""Keeps a reverse proxy from buffering events."""
_OPEN = ("/login", "/style.css", "/icon.svg")
"""Paths that need no token."""

Connections = Callable[[tuple[str, int] | None], Connection | None]
"""Client → its open connection."""
Histories = Callable[[str], dict[str, Any] | None]
"""Agent id → the history of its numbers; None if nothing is known of it."""


def make_app(
    auth: DashboardAuth,
    broadcaster: Broadcaster,
    whole: Callable[[], bytes],
    histories: Histories,
    connections: Connections,
    *,
    secure: bool,
) -> ASGIApp:
    """The application.

    Args:
        auth: checks requests.
        broadcaster: sends events to browsers.
        whole: makes the first event of a browser.
        histories: finds the history of an agent.
        connections: finds the connection of a request, which is told when the request is answered.
        secure: whether it is served with TLS.
    """

    async def events(_request: Request) -> Response:
        if broadcaster.is_full:
            return _sentence(f"{MOST_BROWSERS} browsers show this dashboard already; close one of them", 503)

        async def stream() -> AsyncIterator[bytes]:
            async for message in broadcaster.follow(whole()):
                yield message

        return StreamingResponse(stream(), media_type="text/event-stream", headers=_STREAM_HEADERS)

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        content = page_file(name)
        if content is None:
            return _sentence(f"there is no {name} here; the page is at {auth.root}/", 404)
        return Response(content, media_type=MEDIA_TYPES[name.rpartition(".")[2]])

    routes = [
        Route("/", file, methods=["GET"]),
        Route("/events", events, methods=["GET"]),
        Route("/history", _history_answer(histories), methods=["GET"]),
        Route("/login", _login_answer(auth, secure=secure), methods=["GET", "POST"]),
        Route("/{name}", file, methods=["GET"]),
    ]
    return _Guard(Starlette(routes=routes), auth, connections)


def _history_answer(histories: Histories) -> Callable[[Request], Awaitable[Response]]:
    async def history(request: Request) -> Response:
        found = histories(request.query_params.get("id", ""))
        if found is None:
            return _sentence("nothing is known of such an agent yet; name one that has joined", 404)
        return JSONResponse(found)

    return history


def _login_answer(auth: DashboardAuth, *, secure: bool) -> Callable[[Request], Awaitable[Response]]:
    async def log_in(request: Request) -> Response:
        if auth.token is None:
            return RedirectResponse(f"{auth.root}/", status_code=303)
        if request.method != "POST":
            return _login_page()
        if auth.is_closed():
            return _sentence("too many wrong tokens; wait ten seconds and try again", 429)
        if not auth.is_token(await _token_of(request)):
            return _login_page(_WRONG_TOKEN, 403)
        answer = RedirectResponse(f"{auth.root}/", status_code=303)
        path = f"{auth.root}/"
        answer.set_cookie(
            COOKIE, auth.pass_for_browser(), path=path, httponly=True, samesite="strict", secure=secure
        )
        return answer

    return log_in


class _Guard:
    """Checks every request before the application, and adds the headers to every response."""

    def __init__(self, app: ASGIApp, auth: DashboardAuth, connections: Connections) -> None:
        self._app, self._auth, self._connections = app, auth, connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = self._auth.path_below_root(scope["path"])
        scope = {**scope, "path": path or scope["path"], "root_path": ""}
        answer = self._refusal(scope) or (self._app if path else self._to_the_page())
        connection = self._connections(scope.get("client"))
        if connection is not None:
            receive, send = _told_of(connection, scope, receive, send)
        await answer(scope, receive, _with_headers(send))

    def _to_the_page(self) -> Response:
        return RedirectResponse(f"{self._auth.root}/", status_code=308)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, auth = Headers(scope=scope), self._auth
        if not auth.knows_host(headers.get("host")):
            known = ", ".join(sorted(auth.hosts))
            return _sentence(
                f"this dashboard is not known by the name in the address; it is {known}: see --allowed-hosts", 421
            )
        cookie = Request(scope).cookies.get(COOKIE)
        if scope["path"] in _OPEN or auth.admits(headers.get("authorization"), cookie):
            return None
        if "text/html" in headers.get("accept", ""):
            return RedirectResponse(f"{auth.root}/login", status_code=303)
        return _sentence("send the token of --dashboard-token-file, as: Authorization: Bearer TOKEN", 401)


def _told_of(connection: Connection, scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Tells a connection when the whole request has arrived, and when the response has ended."""
    headers = Headers(scope=scope)
    if headers.get("transfer-encoding") is None and headers.get("content-length", "0") == "0":
        connection.request_came()

    async def receiving() -> Message:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            connection.request_came()
        return message

    async def sending(message: Message) -> None:
        await send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            connection.answer_ended()

    return receiving, sending


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return sending


async def _token_of(request: Request) -> str:
    """The field `token` of a small form; empty if it is missing."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_FORM_BYTES:
            return ""
    fields: dict[str, Any] = parse_qs(body.decode("utf-8", "replace"))
    return str(fields.get("token", [""])[0]).strip()


def _login_page(notice: bytes = b"", status: int = 200) -> Response:
    page = (page_file("login.html") or b"").replace(b"<!-- notice -->", notice)
    return Response(page, media_type=MEDIA_TYPES["html"], status_code=status)


def _sentence(text: str, status: int) -> Response:
    return PlainTextResponse(text + "\n", status_code=status)
