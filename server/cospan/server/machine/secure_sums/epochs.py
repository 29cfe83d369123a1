"""Epochs: what sessions offer, and the membership that the offers make."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cospan.core.secure_sums.graph import neighbours_of
from cospan.core.secure_sums.membership import Member, Membership
from cospan.server.machine.collections.agent_set import AgentSet
from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.wire.errors import InvalidMessageError
from cospan.wire.messages import Join, Stamp, SumMembers
from cospan.wire.secure_sums.proof import KeyProof


@dataclass(frozen=True, slots=True)
class Offer:
    """What a session brings to secure sums.

    Attributes:
        members: the process, or those below a relay; their agents are all of the session's.
        key_proofs: public key → proof; empty without TLS.
    """

    members: tuple[Member, ...]
    key_proofs: Mapping[bytes, KeyProof] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Of the members."""
        return tuple(member.public_key for member in self.members)


Offers = PersistentMap[str, Offer]
"""Token of a session → what it offers."""


@dataclass(frozen=True, eq=False, slots=True)
class Epoch:
    """The sessions whose vectors have one sum, from one round on.

    Attributes:
        membership: their members.
        tokens: of the sessions.
        untold: those that have not been told the members when a round opens.
        awaited: the agents of these sessions.
        offers: what it was formed from.
        of_agents: the agents that it was formed for; some may have no session that has offered a key.
        told_proofs: at a relay the proofs of keys that it was told; None where they are those of the offers.
    """

    membership: Membership
    tokens: frozenset[str]
    untold: frozenset[str]
    awaited: AgentSet
    offers: Offers
    of_agents: AgentSet
    told_proofs: Mapping[bytes, KeyProof] | None = None

    @property
    def id(self) -> bytes:
        """32 bytes."""
        return self.membership.epoch_id

    def named_to(self, token: str, stamp: Stamp) -> SumMembers:
        """The members as one of its sessions is told them, with the proofs of its neighbours."""
        members = self.membership.members
        proofs: dict[bytes, KeyProof] = {}
        known = self.told_proofs
        if known is None:
            known = {key: proof for each in self.tokens for key, proof in self.offers[each].key_proofs.items()}
        if known:
            own = set(self.offers[token].keys)
            for place, member in enumerate(members):
                if member.public_key in own:
                    for neighbour in neighbours_of(self.id, len(members), place):
                        key = members[neighbour].public_key
                        proofs |= {key: known[key]} if key in known else {}
        return SumMembers(stamp, members, proofs)


def formed(run_id: str, agents: AgentSet, offers: Offers, hosts: Mapping[str, str], before: Epoch | None) -> Epoch:
    """The epoch of a round: of the agents' sessions, those that offer keys and take part as a whole.

    Args:
        run_id: of the run.
        agents: that take part, in blocks as of their sessions.
        offers: of the sessions.
        hosts: agent id → token.
        before: the epoch of the round before, whose sessions were told its members; None without one.
    """
    if before is not None and before.of_agents is agents and before.offers is offers:
        return replace(before, untold=frozenset()) if before.untold else before
    named = {hosts[block[0]]: block for block in agents.blocks}
    taking = {
        token: block
        for token, block in named.items()
        if token in offers and sum(len(member.agent_ids) for member in offers[token].members) == len(block)
    }
    awaited = agents if len(taking) == agents.block_count else AgentSet(taking.values())
    membership = Membership.of(run_id, [member for token in taking for member in offers[token].members])
    tokens = frozenset(taking)
    is_same = before is not None and before.id == membership.epoch_id
    untold = tokens - before.tokens if before is not None and is_same else tokens
    return Epoch(membership, tokens, untold, awaited, offers, agents)


def with_session(epoch: Epoch, former: str, token: str, offer: Offer) -> Epoch:
    """The epoch in which a session has the place of a former one, all of whose members it brings.

    Args:
        epoch: of the open round.
        former: token of the session that was in it.
        token: of the session that takes its place, and was told nothing yet.
        offer: of that session.
    """
    return replace(epoch, tokens=epoch.tokens - {former} | {token}, offers=epoch.offers.set(token, offer))


def offer_of(join: Join) -> Offer:
    """What a joining process offers; its agents are known.

    Raises:
        InvalidMessageError: it offers no key, or its members do not have each agent of the session once.
    """
    members = join.sum_members
    if not members:
        raise InvalidMessageError(
            "join.sum_members is empty, and this run has secure sums; use a version of Cospan that knows them"
        )
    if len(members) == 1 and not members[0].agent_ids:
        members = (Member(members[0].public_key, join.agent_ids),)
    named = [agent for member in members for agent in member.agent_ids]
    if sorted(named) != list(join.agent_ids) or not all(member.agent_ids for member in members):
        raise InvalidMessageError("join.sum_members must have every agent of join.agent_ids once, and no other")
    if len({member.public_key for member in members}) < len(members):
        raise InvalidMessageError("join.sum_members has one key twice")
    return Offer(members, join.key_proofs)
