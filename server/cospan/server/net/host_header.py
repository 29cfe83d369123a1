"""The Host header of a request: whether it names this listener.

Another site's page can let its own name resolve to the loopback and then read what is served there (DNS rebinding);
its requests carry its name.
"""

from collections.abc import Collection, Iterable

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_ANYWHERE = frozenset({"0.0.0.0", "::"})


def host_part(header: str) -> str:
    """The name or address of HOST, HOST:PORT or [ADDRESS]:PORT, in lower case and without brackets."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


def names_of(host: str, others: Iterable[str] = ()) -> frozenset[str]:
    """The names of a listener: those of the loopback, its own address, and others."""
    names = {*LOOPBACK_NAMES, host.lower(), *(name.lower() for name in others)}
    return frozenset(names - _ANYWHERE)


def names_host(header: str | None, names: Collection[str]) -> bool:
    """Whether a Host header holds one of these names."""
    return header is not None and host_part(header) in names
