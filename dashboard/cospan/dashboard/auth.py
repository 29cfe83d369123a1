"""Authentication of the dashboard's requests: by their Host header, and beyond the loopback by a token."""

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
"""Headers of every response."""


@dataclass
class DashboardAuth:
    """Checks requests.

    Attributes:
        hosts: allowed names of a request's Host header, without a port; any other is another site's page whose name
            resolves to this address (DNS rebinding).
        token: required of every request; None for no token, on the loopback.
        root: path under which a reverse proxy serves the dashboard, as /cospan; empty for the root.
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
        """The path without the root, which a proxy may have removed; None for the root without its slash."""
        if self.root and path == self.root:
            return None
        below = path.startswith(f"{self.root}/")
        return path[len(self.root) :] if below else path

    def admits(self, authorization: str | None, cookie: str | None) -> bool:
        """Whether a request has the token, or the cookie of a login. Compares in constant time."""
        if self.token is None:
            return True
        if cookie is not None and hmac.compare_digest(cookie.encode(), self.pass_for_browser().encode()):
            return True
        scheme, _, shown = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(shown.strip())

    def is_token(self, shown: str) -> bool:
        """Whether this is the token; compares digests, which hide its length, and counts wrong tokens."""
        assert self.token is not None
        if self.is_closed():
            return False
        alike = hmac.compare_digest(_digest(shown), _digest(self.token))
        if not alike:
            self._wrong.append(time.monotonic())
        return alike

    def is_closed(self) -> bool:
        """Whether logins are blocked for some seconds, after too many wrong tokens."""
        since = time.monotonic() - _WRONG_SECONDS
        self._wrong = [moment for moment in self._wrong if moment > since]
        return len(self._wrong) >= _WRONG_TOKENS

    def pass_for_browser(self) -> str:
        """The cookie of a browser that has logged in; invalid once this process has ended."""
        return hmac.new(self._key, (self.token or "").encode(), "sha256").hexdigest()


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
        InvalidValueError: it cannot be read, or holds no valid token.
    """
    try:
        text = read_text(path).strip()
    except (OSError, UnicodeDecodeError) as failure:
        raise InvalidValueError(f"cannot read the token from {path}: {failure}") from failure
    in_bounds = _SHORTEST_TOKEN <= len(text) <= _LONGEST_TOKEN
    if not (in_bounds and text.isascii() and text.isprintable() and " " not in text):
        raise InvalidValueError(
            f"{path} holds no token; write {_SHORTEST_TOKEN} to {_LONGEST_TOKEN} letters and digits into it, on "
            "one line, as from: openssl rand -hex 32"
        )
    return text


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
