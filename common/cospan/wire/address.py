"""Addresses as people write them: HOST:PORT, [IPV6]:PORT, a port alone, unix:PATH, @FILE. The one parser of them.

A name is not looked up here; which addresses it has is the business of those who listen or connect.
"""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from cospan.wire.errors import InvalidValueError

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 15051
"""Of a coordinator; below the ports that systems give to outgoing connections (Linux from 32768 on)."""
DEFAULT_COORDINATOR = f"{LOOPBACK}:{DEFAULT_PORT}"
FILE_PREFIX = "@"
"""What an address begins with that stands in a file, which is read again at each connection."""
MOST_PORT = 65535
_EXPECTED = "it must be HOST:PORT, as 127.0.0.1:15051, or unix:PATH"
_EXPECTED_LISTENING = "it must be HOST:PORT, or a port of 127.0.0.1"
_MOST_PATH = 107
"""Bytes of the path of a Unix socket: sun_path of Linux without its last zero."""
_UNIX = "unix:"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\s]*)")
_DIGITS = re.compile(r"[0-9]{1,9}")
_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_-]{1,63})*\.?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a program listens, or is reached.

    Attributes:
        host: an IPv4 or IPv6 address without brackets, or a name; of a Unix socket its path.
        port: 0 to 65535; 0 means any that is free, and is that of a Unix socket.
        is_unix: whether it is a Unix socket.
    """

    host: str
    port: int
    is_unix: bool = False

    def __str__(self) -> str:
        """As it is written, and as gRPC takes it."""
        if self.is_unix:
            return f"{_UNIX}{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether it is reached from this machine alone."""
        return self.is_unix or is_loopback(self.host)


def parse_address(text: str, what: str) -> Address:
    """An address to connect to.

    Args:
        text: HOST:PORT, [IPV6]:PORT or unix:PATH.
        what: whose it is, for the sentence of the error.

    Raises:
        InvalidValueError: it is none; the text says what is expected.
    """
    found = _parsed(text, what)
    if found.port == 0 and not found.is_unix:
        raise _wrong(what, text, "its port must be 1 to 65535")
    return found


def parse_source(text: str, what: str) -> Address | Path:
    """Where an address to connect to is found: the address itself, or the file of @FILE, which is not read here.

    Raises:
        InvalidValueError: it is neither.
    """
    if not text.startswith(FILE_PREFIX):
        return parse_address(text, what)
    path = text.removeprefix(FILE_PREFIX)
    if not path or "\0" in path:
        raise _wrong(what, text, "@ is followed by the name of a file that holds the address, as in @run/address")
    return Path(path)


def parse_listening(text: str, what: str) -> Address:
    """An address to listen on: HOST:PORT, [IPV6]:PORT, or a port alone, which is one of 127.0.0.1; 0 is any port.

    Raises:
        InvalidValueError: it is none; the text says what is expected.
    """
    if _DIGITS.fullmatch(text):
        return Address(LOOPBACK, _port(text, what, text))
    found = _parsed(text, what, _EXPECTED_LISTENING)
    if found.is_unix:
        raise _wrong(what, text, "a web server here listens on HOST:PORT, and not on a Unix socket")
    return found


def parse_host(host: str, port: int, what: str = "host") -> Address:
    """An address to listen on, of a host and a port.

    Args:
        host: an IPv4 address, an IPv6 address with or without brackets, a name, or unix:PATH, for which the port
            has no meaning.
        port: 0 to 65535; 0 means any that is free.
        what: whose the host is, for the sentence of the error.

    Raises:
        InvalidValueError: there is no such address; the text says what is expected.
    """
    if not 0 <= port <= MOST_PORT:
        raise InvalidValueError(f"port is {port}; it must be 0 to {MOST_PORT}")
    _refuse_url(host, what)
    if host.startswith(_UNIX):
        return _unix(host, what)
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in plain and not _is_ipv6(plain):
        name, _, said = plain.partition(":")
        expected = "it must be an address without a port"
        if _DIGITS.fullmatch(said):
            expected += f": say {name} here, and the port with --port {said}"
        raise _wrong(what, host, expected)
    return Address(_host(plain, what, host), port)


def is_loopback(host: str) -> bool:
    """Whether a host, with or without brackets, or unix:PATH, is reached from this machine alone."""
    if host.lower().rstrip(".") == "localhost" or host.startswith(_UNIX):
        return True
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _parsed(text: str, what: str, expected: str = _EXPECTED) -> Address:
    _refuse_url(text, what)
    if text.startswith(_UNIX):
        return _unix(text, what)
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or not port.startswith(":") or not _is_ipv6(host):
            raise _wrong(what, text, "an IPv6 address is written as [::1]:15051")
        return Address(host, _port(port[1:], what, text))
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise _wrong(what, text, expected)
    if ":" in host:
        raise _wrong(what, text, f"an IPv6 address is written in brackets, as [{host}]:{port} or [{text}]:15051")
    return Address(_host(host, what, text), _port(port, what, text))


def _refuse_url(text: str, what: str) -> None:
    url = _URL.match(text)
    if url is not None and url[1] != "unix":
        expected = f"as {url[2]}" if _NAME.match(url[2]) and ":" in url[2] else "as 127.0.0.1:15051"
        raise _wrong(what, text, f"that is a URL; write HOST:PORT, without {url[1]}://, {expected}")


def _unix(text: str, what: str) -> Address:
    path = text.removeprefix(_UNIX)
    path = path.removeprefix("//") if path.startswith("///") else path
    size = len(path.encode(errors="surrogateescape"))
    if not path or "\0" in path or size > _MOST_PATH:
        expected = f"a Unix socket is unix:PATH, with a path of 1 to {_MOST_PATH} bytes (here {size})"
        raise _wrong(what, text, expected)
    return Address(path, 0, is_unix=True)


def _host(host: str, what: str, text: str) -> str:
    if _is_ipv6(host):
        return host
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as failure:
            raise _wrong(what, text, f"{host} is no IPv4 address, which is written as 192.0.2.7") from failure
    if not _NAME.fullmatch(host):
        raise _wrong(what, text, f"{host!r} is neither a host name nor an IP address")
    return host


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _port(port: str, what: str, text: str) -> int:
    if not _DIGITS.fullmatch(port) or int(port) > MOST_PORT:
        raise _wrong(what, text, f"its port must be 0 to {MOST_PORT}")
    return int(port)


def _wrong(what: str, text: str, expected: str) -> InvalidValueError:
    return InvalidValueError(f"{what} is {text[:200]!r}; {expected}")
