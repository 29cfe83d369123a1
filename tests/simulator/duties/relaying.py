"""What a relay owes its agents and its coordinator: whom it joins for and when, what it announces, and its sums."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from runs import SESSION_TIMEOUT

from cospan.relay.events import Command, Event, HostAgents, RoundOpened, SumUp, Welcomed
from cospan.relay.machine import next_deadline
from cospan.relay.state import RelayState
from cospan.server.machine import events
from cospan.server.machine.state import OVER
from cospan.wire.messages import AgentPhase, BasisUpdate, Finish, Receipt, RunPhase, Welcome
from simulator.duties.relaying_sums import (
    GATHERS_FIRST_SECONDS,
    GATHERS_SECONDS,
    ROUNDING_SECONDS,
    RelayingSums,
)
from simulator.duties.time_limits import ROUND_TIMEOUT

_LONGEST_ROUND_SECONDS = 0.9 * ROUND_TIMEOUT
"""Its own stragglers end before it becomes one."""


class Relaying:
    """What one relay process was told, and has told."""

    def __init__(self, expected: int) -> None:
        """`expected` agents are all that there are at first."""
        self._expected = expected
        self._sums = RelayingSums(expected)
        self._names: tuple[str, ...] = ()
        self._changed_at: float | None = None
        self._round = 0
        self._opened = 0.0
        self._lost: dict[str, float] = {}
        self._counted: Counter[str] = Counter()
        """How often agents have been in a sum."""

    def stepped(
        self, before: RelayState, event: Event, state: RelayState, commands: Sequence[Command], now: float
    ) -> None:
        """Holds a step against what the relay owes."""
        if before.fleet.phase in OVER:
            assert not any(isinstance(each, HostAgents | SumUp) for each in commands), (
                "a relay that is over does more"
            )
            return
        match event:
            case Welcomed(welcome=welcome) if before.fleet.phase is RunPhase.WAITING:
                self._begin(welcome.stamp.round, now)
            case RoundOpened(round=number) if before.fleet.members.sessions:
                if number > self._round:
                    self._counted.update(before.fleet.open_round.counted)
                self._begin(number, now)
                if not state.specification.secure_sums:
                    self._check_opened(event, state, commands)
            case events.StreamClosed(token=token):
                self._lost.setdefault(token, now)
            case _:
                pass
        self._check_lost(state, event, now)
        self._check_told(state, commands)
        self._check_sums(before, state, commands, now)
        if state.fleet.phase not in OVER:
            assert state.fleet.round == self._round, "a relay is at the round that it has opened"
            counted = state.fleet.history.rounds_counted
            assert all(counted.get(agent, 0) == self._counted[agent] for agent in state.fleet.members.hosts), (
                "a relay says how often its agents have counted"
            )
        if isinstance(event, events.Tick):
            due = next_deadline(state)
            assert due is None or due > now, "a tick of a relay leaves nothing that is due"
        if state.specification.secure_sums:
            self._sums.stepped(before, event, state, commands, now)
        elif state.fleet.phase not in OVER:
            self._check_hosting(state, event, commands, now)

    def _begin(self, number: int, now: float) -> None:
        """A coordinator that went back has lost the rounds between, and with them what has counted in these."""
        if number < self._round:
            self._counted = Counter({agent: min(count, number) for agent, count in self._counted.items()})
        self._round, self._opened = number, now

    def _check_opened(self, event: RoundOpened, state: RelayState, commands: Sequence[Command]) -> None:
        told = [each.message for each in commands if isinstance(each, events.Broadcast)]
        assert len(told) == 1, "a round of a relay is announced once"
        assert isinstance(told[0], BasisUpdate), "a round of a relay is announced with its basis"
        assert np.array_equal(told[0].basis, event.basis), "a relay announces the coordinator's basis"
        assert set(state.fleet.open_round.awaited) == set(state.fleet.members.hosts), (
            "a relay awaits all its agents"
        )

    def _check_lost(self, state: RelayState, event: Event, now: float) -> None:
        sessions = state.fleet.members.sessions
        self._lost = {
            token: since
            for token, since in self._lost.items()
            if token in sessions and sessions[token].phase is AgentPhase.LOST
        }
        if isinstance(event, events.Tick):
            silent = max((now - since for since in self._lost.values()), default=0.0)
            assert silent <= SESSION_TIMEOUT + ROUNDING_SECONDS, "a relay keeps a session that is lost"

    def _check_told(self, state: RelayState, commands: Sequence[Command]) -> None:
        for command in commands:
            if isinstance(command, events.Send | events.Broadcast):
                message = command.message
                if isinstance(message, Welcome | Receipt | BasisUpdate):
                    assert message.stamp.round == self._round, (
                        "a relay's messages are of the round that it has opened"
                    )
                elif isinstance(message, Finish):
                    assert message.stamp.round >= self._round, "a run ends after the rounds of its relays"
        waits = state.fleet.phase is RunPhase.COLLECTING
        held = state.fleet.open_round.awaited or state.fleet.open_round.counted
        assert held or not waits, "a round of a relay waits for no agent"

    # Sums ----------------------------------------------------------------------------------------------------

    def _check_sums(self, before: RelayState, state: RelayState, commands: Sequence[Command], now: float) -> None:
        current = state.fleet.open_round
        for command in commands:
            if isinstance(command, SumUp):
                assert command.round == self._round, "a relay sums up the round that it has opened"
                deserted = (
                    state.fleet.phase is RunPhase.WAITING
                )  # the last agent has left with its gradient counted
                names = command.agent_ids == tuple(sorted(current.counted))
                assert names or deserted, "a sum names the agents that are in it"
                weight = sum(each.weight for each in command.contributions)
                assert weight == len(command.agent_ids), "a sum has one gradient of each agent"
                hosts, hosted = state.fleet.members.hosts, before.fleet.members.hosts
                # Who joins again, as a part of a group that has counted, is not awaited any more.
                there = {each for each in before.fleet.open_round.awaited if hosts.get(each) == hosted[each]}
                late = now - self._opened >= _LONGEST_ROUND_SECONDS - ROUNDING_SECONDS
                assert late or deserted or there <= set(current.counted), "a sum lacks an agent before its time"
        open_still = state.fleet.phase is RunPhase.COLLECTING and bool(current.counted)
        assert current.awaited or not open_still, "a sum waits, and all gradients are in"

    # Whom it joins for ---------------------------------------------------------------------------------------

    def _check_hosting(self, state: RelayState, event: Event, commands: Sequence[Command], now: float) -> None:
        hosted = set(state.fleet.members.hosts) | set(state.fleet.open_round.counted)
        if state.fleet.phase is RunPhase.CLOSING:
            hosted &= set(self._names)
        wanted = tuple(sorted(hosted))
        asked = [each.agent_ids for each in commands if isinstance(each, HostAgents)]
        if wanted == self._names:
            assert not asked, "a relay joins again, and has the same agents"
            self._changed_at = None
            return
        departs = set(wanted) < set(self._names)
        complete = not self._names and len(wanted) >= self._expected
        since = now if self._changed_at is None else self._changed_at
        gathers = GATHERS_SECONDS if self._names else GATHERS_FIRST_SECONDS
        if not asked:
            assert not departs, "a relay joins at once without an agent that is gone"
            assert not complete, "a relay joins at once with all its agents"
            overdue = isinstance(event, events.Tick) and now - since >= gathers + ROUNDING_SECONDS
            assert not overdue, "a relay keeps its new agents waiting"
            self._changed_at = since
            return
        assert asked == [wanted], "a relay joins with the agents that it hosts"
        gathered = now - since >= gathers - ROUNDING_SECONDS
        assert departs or complete or gathered, "a relay joins before others had time to come"
        self._names, self._changed_at = wanted, None
