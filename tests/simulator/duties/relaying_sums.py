"""What a relay owes with secure sums: the members that it joins with, whom it welcomes, and void rounds.

The members of a round do not change while it is open, so a relay joins with new ones at any time. A member that has
departed after its vector was counted stays until that round is over.
"""

from collections.abc import Sequence

import numpy as np

from cospan.core.secure_sums.membership import Member
from cospan.relay.events import Command, DeclineUp, Event, HostAgents, RoundOpened, Welcomed
from cospan.relay.state import RelayState
from cospan.server.machine import events
from cospan.server.machine.state import OVER, CoordinatorState
from cospan.wire.messages import BasisUpdate, RunPhase, Welcome

GATHERS_SECONDS, GATHERS_FIRST_SECONDS = 0.05, 2.5
"""From the first agent that is new: more may follow, and after a restart all of them do."""
ROUNDING_SECONDS = 1e-6


class RelayingSums:
    """The members of one relay process, and what it was told of them."""

    def __init__(self, expected: int) -> None:
        """`expected` agents are all that there are at first."""
        self._expected = expected
        self._members: frozenset[Member] = frozenset()
        self._confirmed: frozenset[Member] = frozenset()
        self._changed_at: float | None = None

    def stepped(
        self, before: RelayState, event: Event, state: RelayState, commands: Sequence[Command], now: float
    ) -> None:
        """Holds a step against what the relay owes."""
        if isinstance(event, Welcomed):
            known = frozenset(event.welcome.agent_ids)
            self._confirmed = frozenset(each for each in self._members if known.issuperset(each.agent_ids))
        if state.fleet.phase in OVER:
            return
        self._check_welcomes(state, commands)
        if isinstance(event, RoundOpened) and before.fleet.members.sessions:
            self._check_opened(before.fleet, event, state.fleet, commands)
        self._check_void(before.fleet, event, state.fleet, commands)
        self._check_members(state.fleet, event, commands, now)

    def _check_welcomes(self, state: RelayState, commands: Sequence[Command]) -> None:
        offers = state.fleet.members.offers
        for command in commands:
            if isinstance(command, events.Send) and isinstance(command.message, Welcome):
                known = self._confirmed.issuperset(offers[command.token].members)
                assert known, "a relay welcomes a member whose key its coordinator does not know"

    # Rounds --------------------------------------------------------------------------------------------------

    def _check_opened(
        self, before: CoordinatorState, event: RoundOpened, fleet: CoordinatorState, commands: Sequence[Command]
    ) -> None:
        above, current = event.epoch, fleet.open_round
        assert above is not None, "a round of secure sums has members"
        told = [each.message for each in commands if isinstance(each, events.Broadcast)]
        if _is_open(before, event):
            assert not told, "a relay announces a round that is open already"
            assert list(current.counted) == list(before.open_round.counted), "a relay forgets vectors of a round"
            return
        assert len(told) == 1, "a round of a relay is announced once"
        assert isinstance(told[0], BasisUpdate), "a round of a relay is announced with its basis"
        assert np.array_equal(told[0].basis, event.basis), "a relay announces the coordinator's basis"
        assert told[0].epoch_id == above.membership.epoch_id, "a relay announces the coordinator's epoch"
        named = frozenset(above.membership.members)
        taking = {token: each for token, each in fleet.members.offers.items() if named.issuperset(each.members)}
        is_whole = sum(len(each.members) for each in taking.values()) >= max(1, above.own)
        assert is_whole != bool(current.void_cause), (
            "a round is void at a relay where a member is gone, and only there"
        )
        wanted = {agent for token in taking for agent in fleet.members.sessions[token].agent_ids}
        assert not is_whole or set(current.awaited) == wanted, "a relay awaits all its members"

    def _check_void(
        self, before: CoordinatorState, event: Event, fleet: CoordinatorState, commands: Sequence[Command]
    ) -> None:
        """It says once that no sum comes: with a word, or by a join without a member."""
        declines = sum(isinstance(each, DeclineUp) for each in commands)
        joins = sum(isinstance(each, HostAgents) for each in commands)
        assert not (declines and joins), "a relay declines a round, and joins again, which says so as well"
        if fleet.phase is not RunPhase.CLOSING or not fleet.open_round.void_cause:
            return
        is_new = isinstance(event, RoundOpened) or before.phase is not RunPhase.CLOSING
        assert declines + joins == 1 or not is_new, "a relay does not say that its round is void"

    # Whom it joins for ---------------------------------------------------------------------------------------

    def _check_members(
        self, fleet: CoordinatorState, event: Event, commands: Sequence[Command], now: float
    ) -> None:
        hosts, counted = fleet.members.hosts, set(fleet.open_round.counted)
        here = {member for offer in fleet.members.offers.values() for member in offer.members}
        gone = (each for each in self._members if not any(agent in hosts for agent in each.agent_ids))
        wanted = frozenset(here.union(each for each in gone if counted.issuperset(each.agent_ids)))
        asked = [each for each in commands if isinstance(each, HostAgents)]
        if wanted == self._members:
            assert not asked, "a relay joins again, and has the same members"
            self._changed_at = None
            return
        names, former = _agents_of(wanted), _agents_of(self._members)
        fewer = set(names) < set(former)
        complete = not former and len(names) >= self._expected
        void = bool(fleet.open_round.void_cause)
        since = now if self._changed_at is None else self._changed_at
        gathers = GATHERS_SECONDS if former else GATHERS_FIRST_SECONDS
        if not asked:
            assert not fewer, "a relay joins at once without a member that is gone"
            assert not complete, "a relay joins at once with all its members"
            assert not void, "a relay joins at once where its round is void"
            overdue = isinstance(event, events.Tick) and now - since >= gathers + ROUNDING_SECONDS
            assert not overdue, "a relay keeps its new members waiting"
            self._changed_at = since
            return
        (joins,) = asked
        assert joins.offer is not None, "a relay joins with members"
        assert (frozenset(joins.offer.members), joins.agent_ids) == (wanted, names), (
            "a relay joins with its members"
        )
        gathered = now - since >= gathers - ROUNDING_SECONDS
        assert fewer or complete or void or gathered, "a relay joins before others had time to come"
        self._members, self._changed_at = wanted, None
        self._confirmed &= wanted


def _agents_of(members: frozenset[Member]) -> tuple[str, ...]:
    return tuple(sorted(agent for member in members for agent in member.agent_ids))


def _is_open(fleet: CoordinatorState, event: RoundOpened) -> bool:
    """Whether the agents have been asked for the vectors of this round, in its epoch and at its basis."""
    current = fleet.open_round
    assert event.epoch is not None
    if fleet.phase is not RunPhase.COLLECTING or current.epoch is None or current.void_cause:
        return False
    same = fleet.round == event.round and current.epoch.id == event.epoch.membership.epoch_id
    return same and bool(current.awaited) and np.array_equal(fleet.basis, event.basis)
