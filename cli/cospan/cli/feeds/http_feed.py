"""Steps over HTTP, on the loopback or a Unix socket: `POST /steps`. The answer comes when they are durable.

A page of a browser on this machine can send a POST to the loopback, but only with the content types of forms, which
are refused here; so is a name that its site lets resolve to the loopback.
"""

import asyncio
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from cospan.cli.feeds.refusals import Refusals
from cospan.client.feeds.errors import BacklogError, FeedClosedError
from cospan.client.feeds.feed import Feed
from cospan.client.feeds.step_messages import MOST_BYTES, Told, tell, tell_document
from cospan.dashboard.auth import read_token
from cospan.server.net.binding import cannot_listen, resolved, unix_socket
from cospan.server.net.host_header import names_of
from cospan.server.net.http_server import Answer, PlainHttpServer, RefusedError, Request
from cospan.wire.address import Address

JSON = "application/json"
_LINES = ("application/x-ndjson", "application/jsonl")
_CONNECTIONS = 32
_NONE: Mapping[str, str] = {}
_RETRY = {"Retry-After": "5"}


class HttpFeed:
    """Listens until the end of the context."""

    def __init__(
        self, address: Address, token_file: Path | None, feed: Feed, report: Callable[[str], None]
    ) -> None:
        """Listens; requests are answered once it is entered.

        Args:
            address: to listen on.
            token_file: with the token that senders present; None without one.
            feed: of the agent.
            report: is told of steps that are refused.

        Raises:
            InvalidValueError: the address cannot be bound, or there is no token in the file.
        """
        self._token = None if token_file is None else read_token(token_file)
        self._feed, self._refusals = feed, Refusals(report, feed.name)
        place = resolved(address, "--feed")[0]
        try:
            self._server = PlainHttpServer(
                place.host,
                place.port,
                self._answer,
                name="feed",
                most=_CONNECTIONS,
                names=None if place.is_unix or self._token is not None else names_of(place.host),
                most_body=MOST_BYTES,
                listening=unix_socket(place.host) if place.is_unix else None,
            )
        except OSError as failure:
            raise cannot_listen(address, failure, "--feed") from failure
        shown = address if address.is_unix else f"http://{replace(address, port=self._server.port)}"
        self._where = f"{shown}{'' if address.is_unix else '/steps'}"
        self._path = Path(address.host) if address.is_unix else None

    def __enter__(self) -> str:
        self._server.__enter__()
        return self._where

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()
        self._refusals.end()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def _answer(self, request: Request) -> Answer:
        self._check(request)
        if request.method != "POST":
            if request.path == "/":
                return _json(200, self._status())
            raise RefusedError(404, "POST steps to /steps; GET / says where the feed stands")
        if request.path != "/steps":
            raise RefusedError(404, "POST steps to /steps")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (JSON, *_LINES):
            raise RefusedError(415, f"send steps with Content-Type {JSON}, or one in a line with {_LINES[0]}")
        try:
            told = await asyncio.to_thread(self._tell, request.body, kind)
        except FeedClosedError as failure:
            return _json(410, {"error": str(failure)})
        except BacklogError as failure:
            self._refusals.say(str(failure))
            return _json(507, {"error": str(failure)}, _RETRY)
        return _answer_of(told)

    def _tell(self, body: bytes, kind: str) -> Told:
        told = tell_document(self._feed, body) if kind == JSON else tell(self._feed, body.split(b"\n"))
        self._refusals.look(told, "line {line} of a request")
        return told

    def _check(self, request: Request) -> None:
        if self._token is None:
            return
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        alike = hmac.compare_digest(_digest(shown.strip()), _digest(self._token))
        if scheme.lower() != "bearer" or not alike:
            raise RefusedError(401, "send the token of --feed-secret-file, as Authorization: Bearer TOKEN")

    def _status(self) -> dict[str, object]:
        status = self._feed.status()
        return {
            "agent": self._feed.name,
            "newest": status.newest,
            "held": status.held,
            "accepted": status.accepted,
            "repeated": status.repeated,
            "refused": status.refused,
            "silent_seconds": round(status.silent_seconds, 3),
        }


def _answer_of(told: Told) -> Answer:
    """200 if all steps are kept, 503 if some may be sent again later, 422 if some are wrong."""
    if told.full:
        return _json(503, told.as_document(), _RETRY)
    return _json(422 if told.refusals else 200, told.as_document())


def _json(status: int, document: dict[str, object], headers: Mapping[str, str] = _NONE) -> Answer:
    return Answer(status, f"{json.dumps(document)}\n".encode(), JSON, headers)


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogateescape")).digest()
