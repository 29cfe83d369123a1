"""The HTTP proxy that gRPC would use by the environment, and whether it is to.

gRPC reads `grpc_proxy`, `https_proxy` and `http_proxy`, in this order and in lower case alone, and `no_grpc_proxy`
and `no_proxy`. It asks a proxy for 127.0.0.1, too. Here loopback and private addresses, and names that have no
others, are reached without one; `NO_PROXY` counts as well.
"""

import asyncio
import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cospan.wire.address import Address, is_loopback, parse_address

_READ = ("grpc_proxy", "https_proxy", "http_proxy")
_EXEMPTING = ("no_grpc_proxy", "no_proxy", "NO_GRPC_PROXY", "NO_PROXY")
_LOOK_UP_SECONDS = 5.0
_USER = re.compile(r"^((?:[A-Za-z][A-Za-z0-9+.-]*://)?).*@")
"""What stands before the host: the last @ ends it, whatever a password holds."""
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that the environment names.

    Attributes:
        variable: that names it.
        value: of the variable, without a user name and password.
        is_read: whether gRPC reads the variable; not where it is in upper case.
    """

    variable: str
    value: str
    is_read: bool

    def sentence(self, address: str) -> str:
        """What to know where the address was not reached."""
        host = parse_address(address, "coordinator").host
        if self.is_read:
            return (
                f"{self.variable} is {self.value}, and gRPC asks that proxy for {address}; if it is to be reached "
                f"directly, set no_proxy={host}"
            )
        return (
            f"{self.variable} is {self.value}, which gRPC does not read, so {address} was asked directly; if the "
            f"proxy is to be used, write {self.variable.lower()}"
        )


def named(environment: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy of the environment; one whose variable is in upper case is not read by gRPC."""
    for variable in (*_READ, *map(str.upper, _READ)):
        value = environment.get(variable, "")
        if value:
            return Proxy(variable, _USER.sub(r"\1", value), variable in _READ)
    return None


async def proxy_of(address: str, environment: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy of an address; None where it is to be reached without one. A name is looked up, for 5 s at most."""
    proxy, where = named(environment), parse_address(address, "coordinator")
    if proxy is None or where.is_local or is_exempt(where.host, environment):
        return None
    return None if are_private(await _addresses(where)) else proxy


async def _addresses(where: Address) -> list[str]:
    """The addresses of a host; none where it cannot be looked up, as where the proxy alone knows the name."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        looking = loop.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
        return [str(name[0]) for *_, name in await asyncio.wait_for(looking, _LOOK_UP_SECONDS)]
    return []


def are_private(hosts: Iterable[str]) -> bool:
    """Whether these addresses are some, and each is of the loopback, of a link, or of a private network."""
    found = [ipaddress.ip_address(host.partition("%")[0]) for host in hosts]
    return bool(found) and all(
        is_loopback(str(each))
        or each.is_link_local
        or any(each.version == network.version and each in network for network in _PRIVATE)
        for each in found
    )


def is_exempt(host: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `no_proxy`, in lower or upper case, has the host, a domain or network that it is in, or `*`."""
    listed = ",".join(environment.get(name, "") for name in _EXEMPTING)
    return any(_matches(host.lower().rstrip("."), each.strip().lower()) for each in listed.split(","))


def _matches(host: str, entry: str) -> bool:
    if entry in ("", "*"):
        return bool(entry)
    with contextlib.suppress(ValueError):
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
        address = ipaddress.ip_address(host.partition("%")[0])
        return address.version == network.version and address in network
    suffix = entry.lstrip("*").lstrip(".")
    return host == suffix or host.endswith(f".{suffix}")
