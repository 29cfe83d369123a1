"""Who may see the dashboard: by address, by the Host that a request names, and off the loopback by a token."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cospan.server.net.host_header import names_host
from cospan.wire.errors import InvalidValueError
from cospan.wire.files.safe_files import read_text

COOKIE = "cospan-dashboard"
_SHORTEST_TOKEN = 16
_LONGEST_TOKEN = 512
_WRONG_TOKENS = 10
_WRONG_SECONDS = 10.0

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer."""


@dataclass
class DashboardAuth:
    """What a request must show.

    Attributes:
        hosts: names, without a port, that a request's Host header may have: another one is a page of somebody
            else's whose name was made to point here (DNS rebinding).
        token: what must be shown; None where the dashboard is on the loopback and none was asked for.
        root: the path below which a reverse proxy shows the dashboard, as /cospan; empty where it is at the top.
    """

    hosts: frozenset[str]
    token: str | None = None
    root: str = ""
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _wrong: list[float] = field(default_factory=list)

    def knows_host(self, header: str | None) -> bool:
        """Whether the Host header names this dashboard."""
        return names_host(header, self.hosts)

    def path_below_root(self, path: str) -> str | None:
        """The path as it is without the proxy; None for the root itself without its slash.

        A proxy may have taken the root away already, or not: both are understood.
        """
        if self.root and path == self.root:
            return None
        below = path.startswith(f"{self.root}/")
        return path[len(self.root) :] if below else path

    def admits(self, authorization: str | None, cookie: str | None) -> bool:
        """Whether a request shows the token, or the cookie that was given for it. Compared in constant time."""
        if self.token is None:
            return True
        if cookie is not None and hmac.compare_digest(cookie.encode(), self.pass_for_browser().encode()):
            return True
        scheme, _, shown = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(shown.strip())

    def is_token(self, shown: str) -> bool:
        """Whether this is the token. Digests are compared, so not even its length shows; wrong ones are counted."""
        assert self.token is not None
        if self.is_closed():
            return False
        alike = hmac.compare_digest(_digest(shown), _digest(self.token))
        if not alike:
            self._wrong.append(time.monotonic())
        return alike

    def is_closed(self) -> bool:
        """Whether so many wrong tokens were shown of late that none is looked at for some seconds."""
        since = time.monotonic() - _WRONG_SECONDS
        self._wrong = [moment for moment in self._wrong if moment > since]
        return len(self._wrong) >= _WRONG_TOKENS

    def pass_for_browser(self) -> str:
        """The cookie of a browser that has shown the token; of no use once this process has ended."""
        return hmac.new(self._key, (self.token or "").encode(), "sha256").hexdigest()


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
        InvalidValueError: it cannot be read, or holds no token.
    """
    try:
        text = read_text(path).strip()
    except (OSError, UnicodeDecodeError) as failure:
        raise InvalidValueError(f"cannot read the dashboard's token from {path}: {failure}") from failure
    in_bounds = _SHORTEST_TOKEN <= len(text) <= _LONGEST_TOKEN
    if not (in_bounds and text.isascii() and text.isprintable() and " " not in text):
        raise InvalidValueError(
            f"{path} holds no token; write {_SHORTEST_TOKEN} to {_LONGEST_TOKEN} letters and digits into it, on "
            "one line, as from: openssl rand -hex 32"
        )
    return text


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
