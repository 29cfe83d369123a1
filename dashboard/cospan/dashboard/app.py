"""The dashboard over HTTP: its page, its updates, and what every request must show before it gets either."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cospan.dashboard.auth import COOKIE, HEADERS, DashboardAuth
from cospan.dashboard.broadcaster import MOST_BROWSERS, Broadcaster
from cospan.dashboard.page_files import MEDIA_TYPES, page_file
from cospan.server.net.acceptor import Connection

_MOST_FORM_BYTES = 4096
_WRONG_TOKEN = b'<p class="notice" role="alert">That is not the token.</p>'
_STREAM_HEADERS = {"X-Accel-Buffering": "no"}
"""A reverse proxy would else keep events until a buffer is full."""
_OPEN = ("/login", "/style.css", "/icon.svg")
"""What is shown to those who have not shown the token yet."""


Connections = Callable[[tuple[str, int] | None], Connection | None]
"""Client → its open connection."""


def make_app(
    entrance: DashboardAuth,
    audience: Broadcaster,
    whole: Callable[[], bytes],
    connections: Connections,
    *,
    secure: bool,
) -> ASGIApp:
    """The application.

    Args:
        entrance: what a request must show.
        audience: who looks.
        whole: makes the event that a browser is sent first.
        connections: finds the connection that a request came over, which is told when it is answered.
        secure: whether it is served with TLS.
    """

    async def events(_request: Request) -> Response:
        if audience.is_full:
            return _sentence(f"{MOST_BROWSERS} browsers look already; close one of them", 503)

        async def stream() -> AsyncIterator[bytes]:
            async for message in audience.follow(whole()):
                yield message

        return StreamingResponse(stream(), media_type="text/event-stream", headers=_STREAM_HEADERS)

    async def log_in(request: Request) -> Response:
        if entrance.token is None:
            return RedirectResponse(f"{entrance.root}/", status_code=303)
        if request.method != "POST":
            return _login_page()
        if entrance.is_closed():
            return _sentence("too many wrong tokens were shown; wait ten seconds and try again", 429)
        if not entrance.is_token(await _token_of(request)):
            return _login_page(_WRONG_TOKEN, 403)
        answer = RedirectResponse(f"{entrance.root}/", status_code=303)
        path = f"{entrance.root}/"
        answer.set_cookie(
            COOKIE, entrance.pass_for_browser(), path=path, httponly=True, samesite="strict", secure=secure
        )
        return answer

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        content = page_file(name)
        if content is None:
            return _sentence(f"there is no {name} here; the page is at {entrance.root}/", 404)
        return Response(content, media_type=MEDIA_TYPES[name.rpartition(".")[2]])

    routes = [
        Route("/", file, methods=["GET"]),
        Route("/events", events, methods=["GET"]),
        Route("/login", log_in, methods=["GET", "POST"]),
        Route("/{name}", file, methods=["GET"]),
    ]
    return _Guard(Starlette(routes=routes), entrance, connections)


class _Guard:
    """Looks at every request before the application does, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, entrance: DashboardAuth, connections: Connections) -> None:
        self._app, self._entrance, self._connections = app, entrance, connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = self._entrance.path_below_root(scope["path"])
        scope = {**scope, "path": path or scope["path"], "root_path": ""}
        answer = self._refusal(scope) or (self._app if path else self._to_the_page())
        connection = self._connections(scope.get("client"))
        if connection is not None:
            receive, send = _told_of(connection, scope, receive, send)
        await answer(scope, receive, _with_headers(send))

    def _to_the_page(self) -> Response:
        return RedirectResponse(f"{self._entrance.root}/", status_code=308)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, entrance = Headers(scope=scope), self._entrance
        if not entrance.knows_host(headers.get("host")):
            known = ", ".join(sorted(entrance.hosts))
            return _sentence(
                f"this dashboard is not known by the name in the address; it is {known}: see --allowed-hosts", 421
            )
        cookie = Request(scope).cookies.get(COOKIE)
        if scope["path"] in _OPEN or entrance.admits(headers.get("authorization"), cookie):
            return None
        if "text/html" in headers.get("accept", ""):
            return RedirectResponse(f"{entrance.root}/login", status_code=303)
        return _sentence("show the token of --dashboard-token-file, as: Authorization: Bearer TOKEN", 401)


def _told_of(connection: Connection, scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """What tells a connection when the whole request is there, and when its answer has ended."""
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
    """The field `token` of a small form; empty where there is none."""
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
