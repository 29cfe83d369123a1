"""The addresses to listen on, and the operating system's error for one that cannot be bound.

gRPC binds those of a name's addresses that it can, and reports neither the others nor the cause. So each address is
first bound here by a socket that is closed again.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from cospan.wire.address import Address
from cospan.wire.errors import InvalidValueError

_PORT_ATTEMPTS = 32
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""Errors of an address that this machine lacks, as ::1 without IPv6."""


def resolved(address: Address, option: str) -> tuple[Address, ...]:
    """The addresses of a host that this machine can listen on, IPv4 first; a Unix socket as it is. Blocks.

    Args:
        address: its host may be a name with several addresses.
        option: command-line option that sets it, for the error message.

    Raises:
        InvalidValueError: the name has no address, or none of this machine.
    """
    if address.is_unix:
        return (address,)
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as failure:
        raise InvalidValueError(
            f"cannot listen on {address}: {address.host} cannot be resolved ({failure.strerror or failure}); "
            f"choose another address with {option}"
        ) from failure
    internet = (socket.AF_INET, socket.AF_INET6)
    hosts = dict.fromkeys((_host(family, *name), family) for family, _, _, _, name in found if family in internet)
    ours: list[Address] = []
    absent: OSError | None = None
    for host, family in sorted(hosts, key=lambda each: each[1] != socket.AF_INET):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((host, 0))
            ours.append(Address(host, address.port))
        except OSError as failure:
            if failure.errno not in _NOT_HERE:
                raise cannot_listen(Address(host, address.port), failure, option) from failure
            absent = failure
    if not ours:
        raise cannot_listen(address, absent or OSError(errno.EADDRNOTAVAIL, "it has no address"), option)
    return tuple(ours)


def _host(family: int, host: object, _port: object, _flow: object = 0, scope: object = 0) -> str:
    """The address; a link-local one with its scope."""
    scoped = family == socket.AF_INET6 and bool(scope) and "%" not in str(host)
    return f"{host}%{scope}" if scoped else str(host)


def in_use(failure: BaseException) -> bool:
    """Whether another program has the address that `free` has not given: it may be given up soon."""
    cause = failure.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE


def free(addresses: Sequence[Address], option: str) -> tuple[Address, ...]:
    """The addresses, each of which can be bound; port 0 becomes a port that is free in all of them.

    Raises:
        InvalidValueError: one cannot be bound; the message is the operating system's.
    """
    if len(addresses) == 1 or addresses[0].port:
        for address in addresses:
            _try(address, option)
        return tuple(addresses)  # the port of one alone is chosen when it is bound
    for _ in range(_PORT_ATTEMPTS):
        with contextlib.ExitStack() as held:
            port, taken = 0, list[Address]()
            with contextlib.suppress(OSError):
                for address in addresses:
                    probe = held.enter_context(_bound(Address(address.host, port)))
                    port = probe.getsockname()[1]
                    taken.append(Address(address.host, port))
            if len(taken) == len(addresses):
                return tuple(taken)
    raise InvalidValueError(
        f"cannot listen on {' and '.join(map(str, addresses))}: no port is free in all of them; choose one with "
        f"{option}"
    )


def _try(address: Address, option: str) -> None:
    try:
        if address.is_unix:
            _try_path(address.host)
        else:
            _bound(address).close()
    except OSError as failure:
        raise cannot_listen(address, failure, option) from failure


def _bound(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        name = socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)[0][4]
        probe.bind(name)
    except BaseException:
        probe.close()
        raise
    return probe


def _try_path(path: str) -> None:
    """The socket file of an ended process does not count; gRPC replaces it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if os.path.lexists(path):
            if not Path(path).is_socket():
                raise FileExistsError(errno.EEXIST, "a file is there that is no socket")
            probe.settimeout(1.0)
            if probe.connect_ex(path) == 0:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            return
        probe.bind(path)
    Path(path).unlink()


def unix_socket(path: str) -> socket.socket:
    """A listening Unix socket that this user alone can connect to; the file of an ended process is replaced.

    Raises:
        OSError: it cannot be bound, or a program listens there.
    """
    _try_path(path)
    if os.path.lexists(path):
        Path(path).unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        Path(path).chmod(0o600)  # no peer connects before it listens
        listening.listen()
    except OSError:
        listening.close()
        raise
    return listening


def cannot_listen(address: Address, failure: OSError, option: str) -> InvalidValueError:
    """The operating system's error, with a remedy that names `option`."""
    why = failure.strerror or str(failure)
    remedies = {
        errno.EADDRINUSE: f"end the program that listens there, or choose another port with {option}",
        errno.EACCES: f"choose a port above 1023 with {option}",
        errno.EADDRNOTAVAIL: f"name an address of this machine with {option}",
    }
    remedy = remedies.get(failure.errno or 0, f"choose another address with {option}")
    if address.is_unix:
        remedy = f"choose another path with {option}"
    return InvalidValueError(f"cannot listen on {address}: {why}; {remedy}")
