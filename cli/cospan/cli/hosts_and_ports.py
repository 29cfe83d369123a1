"""Addresses as people write them: HOST:PORT, a port alone, and whether other machines can reach it."""

import ipaddress

from cospan.wire.errors import InvalidValueError

_LOOPBACK = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_and_port(text: str, setting: str) -> tuple[str, int]:
    """Host, without brackets, and port of HOST:PORT; a port alone is one of the loopback.

    Raises:
        InvalidValueError: the port is too large; `setting` is whose it is.
    """
    host, _, port = text.rpartition(":")
    if int(port) > 65535:
        raise InvalidValueError(f"{setting} is {text!r}; its port must be 0 to 65535")
    return host.strip("[]") or _LOOPBACK, int(port)
