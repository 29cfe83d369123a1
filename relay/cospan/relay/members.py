"""Secure sums through a relay: the members are its agents' processes, and the relay is none.

Keys, proofs and the members of an epoch pass through unchanged, so each process below checks them and masks its
vector as it would at the coordinator. The relay adds masked words modulo 2^64, in which order and grouping do not
matter: the sum has the bits of one without relays. See docs/adr/0040.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.secure_sums.fixed_point import added
from cospan.core.secure_sums.membership import Member
from cospan.relay.events import EpochAbove
from cospan.server.machine.collections.agent_set import AgentSet
from cospan.server.machine.secure_sums.epochs import Epoch, Offer, Offers
from cospan.server.machine.state import CoordinatorState
from cospan.wire.messages import MaskedVector

_DEPARTED = "a member below the relay has departed before the round was opened"


@dataclass(frozen=True, eq=False, slots=True)
class Offered:
    """What the relay offers for the processes below it.

    Attributes:
        offer: their members by ascending key, with the proofs.
        seen: the sessions' offers that it was made of; None where it also has members whose sessions are over.
        members: those of the offer.
    """

    offer: Offer = field(default_factory=lambda: Offer(()))
    seen: Offers | None = None
    members: frozenset[Member] = frozenset()

    @property
    def agent_ids(self) -> tuple[str, ...]:
        """The agents of all members, sorted."""
        return tuple(sorted(agent for member in self.offer.members for agent in member.agent_ids))


def offered_below(fleet: CoordinatorState, last: Offered) -> Offered:
    """The members that the relay is to join with.

    A process that departed after its vector had been counted is in the sum, and so stays until that is over.

    Args:
        fleet: the agents, and their open round.
        last: what the relay has last joined with.
    """
    offers, hosts = fleet.members.offers, fleet.members.hosts
    if last.seen is offers:
        return last
    counted = fleet.open_round.counted
    staying = [
        member
        for member in last.offer.members
        if counted.covers(member.agent_ids) and not any(agent in hosts for agent in member.agent_ids)
    ]
    members = [member for offer in offers.values() for member in offer.members]
    proofs = {key: proof for offer in offers.values() for key, proof in offer.key_proofs.items()}
    known = last.offer.key_proofs
    proofs |= {member.public_key: known[member.public_key] for member in staying if member.public_key in known}
    ordered = tuple(sorted((*members, *staying), key=_key_of))
    if ordered == last.offer.members and proofs == last.offer.key_proofs:
        return replace(last, seen=None if staying else offers)
    return Offered(Offer(ordered, proofs), None if staying else offers, frozenset(ordered))


def _key_of(member: Member) -> bytes:
    return member.public_key


def with_epoch_below(fleet: CoordinatorState, above: EpochAbove, before: Epoch | None) -> CoordinatorState:
    """The fleet whose open round awaits the vectors of the sessions that are in an epoch.

    A session is in it with all of its members, or not at all. If a member that the relay has joined with has no
    session any more, the round is void from its start.

    Args:
        fleet: with a round that was just opened.
        above: the epoch, as the coordinator has named it.
        before: that of the round before, whose sessions were told its members; None without one.
    """
    members, current = fleet.members, fleet.open_round
    if before is not None and before.membership is above.membership and before.offers is members.offers:
        epoch = replace(before, untold=frozenset(), told_proofs=above.key_proofs)
    else:
        named = set(above.membership.members)
        taking = {token: offer for token, offer in members.offers.items() if named.issuperset(offer.members)}
        tokens = frozenset(taking)
        is_same = before is not None and before.id == above.membership.epoch_id
        epoch = Epoch(
            membership=above.membership,
            tokens=tokens,
            untold=tokens - before.tokens if before is not None and is_same else tokens,
            awaited=AgentSet(members.sessions[token].agent_ids for token in taking),
            offers=members.offers,
            of_agents=members.present,
            told_proofs=above.key_proofs,
        )
    here = sum(len(epoch.offers[token].members) for token in epoch.tokens)
    cause = "" if here >= above.own and here else _DEPARTED
    return fleet.evolve(open_round=current.evolve(epoch=epoch, awaited=epoch.awaited, void_cause=cause))


def is_open_already(fleet: CoordinatorState, number: int, above: EpochAbove) -> bool:
    """Whether the agents were asked for the vectors of this round in this epoch, and it is not void."""
    current = fleet.open_round
    return (
        current.epoch is not None
        and bool(current.awaited)
        and not current.void_cause
        and fleet.round == number
        and current.epoch.id == above.membership.epoch_id
    )


def partial_sum(contributions: Sequence[Contribution | MaskedVector]) -> MaskedVector | None:
    """The sum modulo 2^64 of masked vectors of one epoch; None where they are none."""
    vectors = [each for each in contributions if isinstance(each, MaskedVector)]
    if not vectors:
        return None
    words = added(each.words for each in vectors)
    return MaskedVector(words, vectors[0].epoch_id, sum(each.weight for each in vectors))
