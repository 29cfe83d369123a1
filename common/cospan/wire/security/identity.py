"""Who speaks: the names in a certificate, and what each of them allows.

A certificate carries any number of these URIs among its subject alternative names; all others are passed over:

    cospan:agent:site-7            one agent
    cospan:agents:site-0..99       the agents site-0 to site-99, as for a group
    cospan:agents:*                every agent of the fleet, and the right to ask for a free site
    cospan:relay:site-0..99        a relay of these agents (or of `*`): it may bring them, and is none of them
    cospan:observer                reading: status, rounds, basis
    cospan:admin                   reading, and stopping the run
    cospan:coordinator             the server itself; as a client it may ask for its own health, and no more
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from cospan.core.specification import agent_id_problem
from cospan.wire.errors import AdminRequiredError, IdentityMismatchError, InvalidValueError
from cospan.wire.text import listed, printable

SCHEME = "cospan:"
ADMIN, OBSERVER, COORDINATOR = "cospan:admin", "cospan:observer", "cospan:coordinator"
ANY_AGENT = "cospan:agents:*"
_AGENT, _AGENTS, _RELAY = "cospan:agent:", "cospan:agents:", "cospan:relay:"
_ANY_RELAY = f"{_RELAY}*"
_RANGE = re.compile(r"(?P<prefix>.*?)(?P<first>0|[1-9][0-9]{0,8})\.\.(?P<last>0|[1-9][0-9]{0,8})")
_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>0|[1-9][0-9]{0,8})")
_SHOWN = 3


class Right(Enum):
    """What a call needs beside a certificate of the fleet's authority."""

    READ = "read"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class AgentRange:
    """The agents `<prefix><first>` to `<prefix><last>`, both included; numbers have no leading zeros."""

    prefix: str
    first: int
    last: int

    def __contains__(self, agent_id: object) -> bool:
        found = _NUMBERED.fullmatch(agent_id) if isinstance(agent_id, str) else None
        return (
            found is not None and found["prefix"] == self.prefix and self.first <= int(found["number"]) <= self.last
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """Who speaks, and what for.

    Attributes:
        name: for the log and for people: the names of the certificate, or the address where there is none.
        key: what limits count by: the names of the certificate, and also the host where the whole fleet shares it.
            Of an IPv6 host the network (/64), since one peer usually has all of its addresses.
        proven: whether the key belongs to one peer: to a certificate that is not the whole fleet's.
        agent_ids: the agents named one by one.
        ranges: the agents named by a range.
        any_agent: whether it speaks for every agent, and may ask for a free site.
        relayed: the agents that it may bring as their relay.
        any_relayed: whether these are all.
        rights: what else it may do.
    """

    name: str
    key: str
    proven: bool = False
    agent_ids: frozenset[str] = frozenset()
    ranges: tuple[AgentRange, ...] = ()
    any_agent: bool = False
    relayed: tuple[AgentRange, ...] = ()
    any_relayed: bool = False
    rights: frozenset[Right] = frozenset()

    def speaks_for(self, agent_id: str) -> bool:
        """Whether it may act as this agent."""
        return self.any_agent or agent_id in self.agent_ids or any(agent_id in span for span in self.ranges)

    def brings(self, agent_id: str) -> bool:
        """Whether it may join with this agent: as the agent, or as its relay."""
        return self.speaks_for(agent_id) or self.any_relayed or any(agent_id in span for span in self.relayed)

    def most_agents(self, fleet: int) -> int:
        """How many agents it may stand for in a fleet of this size."""
        if self.any_agent or self.any_relayed:
            return fleet
        spans = (*self.ranges, *self.relayed)
        return min(fleet, len(self.agent_ids) + sum(span.last - span.first + 1 for span in spans))

    def require_agents(self, agent_ids: Iterable[str], *, as_relay: bool = False) -> None:
        """Checks that a process may act as these agents; without any it asks for a free site.

        Args:
            agent_ids: the agents.
            as_relay: whether it is enough to be their relay, which may bring them and prove no keys for them.

        Raises:
            IdentityMismatchError: it may not.
        """
        named = tuple(agent_ids)
        if not named and not self.any_agent:
            raise IdentityMismatchError(
                f"the certificate is for {self.name}, and only one for {ANY_AGENT} may ask for a free site; "
                "say which agent it is with --id"
            )
        allows = self.brings if as_relay else self.speaks_for
        foreign = [agent for agent in named if not allows(agent)]
        if foreign:
            others = listed([repr(agent) for agent in foreign], _SHOWN)
            raise IdentityMismatchError(
                f"the certificate is for {self.name} and does not speak for {others}; "
                "use the certificate of that agent"
            )

    def require(self, right: Right) -> None:
        """Checks that the peer may do this.

        Raises:
            AdminRequiredError: it may not.
        """
        if right in self.rights:
            return
        needed = ADMIN if right is Right.STOP else f"{ADMIN} or {OBSERVER}"
        raise AdminRequiredError(f"this call needs a certificate for {needed}; this one is for {self.name}")


def of_certificate(uris: Iterable[str], *, address: str) -> Identity:
    """The identity that a verified certificate gives.

    Args:
        uris: the URIs among its subject alternative names; those that say nothing to Cospan are passed over.
        address: of the peer, as gRPC writes it.
    """
    ours = sorted({uri for uri in uris if uri.startswith(SCHEME)})
    agents, ranges, relayed, rights = set[str](), list[AgentRange](), list[AgentRange](), set[Right]()
    for uri in ours:
        if uri == ADMIN:
            rights |= {Right.READ, Right.STOP}
        elif uri == OBSERVER:
            rights.add(Right.READ)
        elif uri.startswith(_AGENT):
            agents.add(uri.removeprefix(_AGENT))
        elif uri.startswith(_AGENTS) and (span := _range(uri.removeprefix(_AGENTS))) is not None:
            ranges.append(span)
        elif uri.startswith(_RELAY) and (span := _range(uri.removeprefix(_RELAY))) is not None:
            relayed.append(span)
    name = listed(ours, _SHOWN)
    shared = ANY_AGENT in ours
    key = f"{' '.join(ours)} at {network_of(host_of(address))}" if shared or not ours else " ".join(ours)
    return Identity(
        name=printable(name) or "a peer of another fleet",
        key=key,
        proven=bool(ours) and not shared,
        agent_ids=frozenset(agents),
        ranges=tuple(ranges),
        any_agent=shared,
        relayed=tuple(relayed),
        any_relayed=_ANY_RELAY in ours,
        rights=frozenset(rights),
    )


def without_certificate(*, address: str) -> Identity:
    """A peer of a coordinator without TLS, which its address alone identifies.

    Everything is allowed, but for stopping the run from another machine.
    """
    host = host_of(address)
    rights = {Right.READ, Right.STOP} if _is_local(host) else {Right.READ}
    return Identity(
        name=f"a peer at {host} without a certificate",
        key=network_of(host),
        any_agent=True,
        rights=frozenset(rights),
    )


def with_malformed_certificate(*, address: str) -> Identity:
    """A peer whose certificate cannot be read: nothing is allowed."""
    host = host_of(address)
    return Identity(name=printable(f"a peer at {host} with a malformed certificate"), key=network_of(host))


def host_of(address: str) -> str:
    """The host in a peer's address as gRPC writes it: `ipv4:10.0.0.7:4242`, `ipv6:%5B::1%5D:4242`, `unix:…`."""
    kind, _, rest = unquote(address).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return "this machine" if kind == "unix" else address or "an unknown address"
    return rest.rpartition(":")[0].strip("[]")


def agents_uri(named: str) -> str:
    """The URI for a range of agents, as `site-0..99`, or for `*`, all of them.

    Raises:
        InvalidValueError: it is neither.
    """
    if named == "*":
        return ANY_AGENT
    span = _range(named)
    problem = None if span is None else agent_id_problem(f"{span.prefix}{span.last}")
    if span is None or problem is not None:
        raise InvalidValueError(
            f"{named!r} is no range of agents; say the first and the last number, as in site-0..99, or * for all"
        )
    return f"{_AGENTS}{named}"


def relay_uri(named: str) -> str:
    """The URI for a relay of a range of agents, as `site-0..99`, or of `*`, all of them.

    Raises:
        InvalidValueError: it is neither.
    """
    return f"{_RELAY}{agents_uri(named).removeprefix(_AGENTS)}"


def agent_uri(agent_id: str) -> str:
    """The URI for one agent.

    Raises:
        InvalidValueError: no agent can be called so.
    """
    problem = agent_id_problem(agent_id)
    if problem is not None:
        raise InvalidValueError(problem)
    return f"{_AGENT}{agent_id}"


def _range(named: str) -> AgentRange | None:
    found = _RANGE.fullmatch(named)
    if found is None or int(found["last"]) < int(found["first"]) or found["prefix"][-1:].isdigit():
        return None  # a digit before the number is a leading zero
    return AgentRange(found["prefix"], int(found["first"]), int(found["last"]))


def network_of(host: str) -> str:
    """The host, or the /64 network that its IPv6 address is of."""
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.is_loopback or address.ipv4_mapped is not None:
        return host
    return str(ipaddress.IPv6Network((address, 64), strict=False))


def _is_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "this machine"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
