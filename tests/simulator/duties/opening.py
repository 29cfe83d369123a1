"""When a coordinator opens rounds, and for whom: after a restart it repeats what may have been announced before."""

import math
from collections.abc import Mapping, Sequence

from cospan.core.run_fields import Participation
from cospan.core.secure_sums.membership import Member
from cospan.core.specification import RunSpecification
from cospan.server.machine import events
from cospan.server.machine.state import CoordinatorState
from cospan.wire.messages import AgentPhase, BasisUpdate, RunPhase
from simulator.duties.secure_sums import cohort

RETURN_SECONDS = 18.0
"""For agents to come back after a restart; longer than a round here, so that it shows which of them is meant."""
START_SECONDS = 60.0
"""For the fleet to come at the start of a run."""
_ROUNDING_SECONDS = 1e-6


class Opening:
    """What one coordinator process knows at its start, and is told while it waits."""

    def __init__(self, stored: frozenset[str], now: float, offers: Mapping[str, tuple[Member, ...]]) -> None:
        """`stored` are the contributors of the last stored round; none in a new run.

        `offers` are the keys that sessions offer to this process, with secure sums.
        """
        self._stored, self._started, self._offers = stored, now, offers
        self._awaits_cohort = False
        self._newest_told = 0
        self._replays_until = 0
        self.has_opened = False

    def stepped(
        self,
        before: CoordinatorState,
        event: events.Event,
        state: CoordinatorState,
        commands: Sequence[events.Command],
        now: float,
    ) -> bool:
        """Holds a step against what has to be repeated; whether rounds may come to another result from now on."""
        if isinstance(event, events.JoinRequested) and before.phase is RunPhase.WAITING:
            self._hear(state, event)
        opens = any(
            isinstance(each, events.Broadcast) and isinstance(each.message, BasisUpdate) for each in commands
        )
        if any(isinstance(each, events.Note) and each.kind == "cohort-small" for each in commands):
            self._check_small(state)
            assert self.has_opened or self._stored, "a run begins, and its smallest cohort is not there"
            self._awaits_cohort, self._stored = True, frozenset()
            return True
        if opens and self._awaits_cohort:
            self._awaits_cohort, self.has_opened = False, True
            assert self._is_ready(state), "a run continues without its smallest cohort"
            self._check_round(state, replays=False)
            return True
        if opens and not self.has_opened:
            self.has_opened = True
            self._check_first(state, now)
            # Its bits are those that were announced if exactly these agents take part. Some may not have come back
            # in time; and with secure sums one whose process has joined with another agent as well has no vector
            # without it, so that what others were told cannot be summed again by anyone.
            return bool(self._stored) and frozenset(state.open_round.awaited) != self._stored
        if opens and state.round == before.round + 1:
            counted_all = set(before.open_round.counted) == self._stored
            left = not self._stored.isdisjoint(state.members.hosts)  # without any of them it opens for all at once
            again = before.open_round.replaying and state.round < self._replays_until and counted_all and left
            self._check_round(state, replays=again and self._is_of_cohort(state))
            if again and not self._is_of_cohort(state):
                return True
        elif opens and isinstance(event, events.GradientArrived):
            agents = event.upload.agent_ids or before.members.sessions[event.token].agent_ids
            mixed = not self._stored.isdisjoint(agents) and not self._stored.issuperset(agents)
            assert before.open_round.replaying, "a round opens again that was no replay"
            assert mixed, "a replay is given up that its agents can end"
            assert event.upload.round == before.round, "a replay is given up for a gradient of another round"
            assert not state.open_round.replaying, "a replay is given up, and begins again"
            return True
        elif opens:
            # A process that joins again with others beside its own cannot take part in a replay.
            hosts, hosted = state.members.hosts, before.members.hosts
            stay = [agent for agent in before.open_round.awaited if hosts.get(agent) == hosted[agent]]
            lost = not before.open_round.counted and not stay
            assert before.open_round.replaying, "a round opens again that was no replay"
            assert lost, "a replay is abandoned that has agents"
            assert state.members.hosts, "a replay is abandoned, and no agent is there"
            self._check_round(state, replays=self._is_complete(state))
        waiting = state.phase is RunPhase.WAITING
        assert not (waiting and self._is_ready(state)), "all who are needed are there, and no round opens"
        return False

    def _is_ready(self, state: CoordinatorState) -> bool:
        """Whether a round opens without more waiting."""
        spec, connected = state.specification, connected_agents(state)
        members = cohort(state, self._offers, connected) if spec.secure_sums else spec.min_cohort
        if not self._stored:
            waits_on = self._awaits_cohort or (spec.secure_sums and state.round > 0)
            return members >= spec.min_cohort and (waits_on or len(connected) >= spec.agents)
        return len(self._stored & connected) >= required_gradients(spec, len(self._stored))

    def _hear(self, state: CoordinatorState, event: events.JoinRequested) -> None:
        """An agent that returns says which round it knows; one that has lost its session may know any."""
        if self._stored.isdisjoint(event.join.agent_ids):
            return
        most = state.round + state.config.max_inflight_rounds
        told = event.join.resumption.last_round if event.join.resumption else most
        self._newest_told = max(self._newest_told, min(told, most))

    def _check_first(self, state: CoordinatorState, now: float) -> None:
        connected = connected_agents(state)
        if not self._stored:
            assert self._is_ready(state) or self._has_joined(state, now), "a run starts without its agents"
            self._check_round(state, replays=False)
            return
        waited = now - self._started >= RETURN_SECONDS - _ROUNDING_SECONDS
        assert self._is_ready(state) or (waited and connected), (
            "a run resumes without the contributors of its last round"
        )
        # Others may have been told of one round more, for which all contributors had sent their gradients.
        most = state.round + state.config.max_inflight_rounds
        self._replays_until = max(min(self._newest_told + 1, most), state.round + 1)
        self._check_round(state, replays=self._is_complete(state))

    def _has_joined(self, state: CoordinatorState, now: float) -> bool:
        """Whether all have joined when the time for that is over, though the stream of one may be broken just then.

        The first round awaits it as a later one would. The alternative is the end of a run whose fleet has come.
        """
        spec, late = state.specification, now - self._started >= START_SECONDS - _ROUNDING_SECONDS
        members = cohort(state, self._offers, connected_agents(state)) if spec.secure_sums else spec.min_cohort
        return late and len(state.members.hosts) >= spec.agents and members >= spec.min_cohort

    def _is_complete(self, state: CoordinatorState) -> bool:
        """Whether a round can be repeated: no agent is missing that took part in the last stored one."""
        full = state.specification.participation is Participation.ALL
        full = full and bool(self._stored) and self._stored <= connected_agents(state)
        return full and self._is_of_cohort(state)

    def _is_of_cohort(self, state: CoordinatorState) -> bool:
        """Whether those who repeat a round are enough for a secure sum; else it opens with all who are there."""
        spec = state.specification
        return not spec.secure_sums or cohort(state, self._offers, self._stored) >= spec.min_cohort

    def _check_round(self, state: CoordinatorState, *, replays: bool) -> None:
        assert state.open_round.replaying == replays, f"a round is {'not ' * replays}repeated after a restart"
        # One that departs after its gradient has counted may come back to the round that follows.
        there = frozenset(state.members.hosts)
        wanted = self._stored & there if replays else there
        if state.specification.secure_sums:  # of those, the processes that take part as a whole, and have a key
            sessions = [each for each in state.members.sessions.values() if each.token in self._offers]
            whole = (each.agent_ids for each in sessions if wanted.issuperset(each.agent_ids))
            wanted = frozenset(agent for agents in whole for agent in agents)
        assert frozenset(state.open_round.awaited) == wanted, "a round awaits all who take part in it"

    def _check_small(self, state: CoordinatorState) -> None:
        there = frozenset(state.members.hosts)
        small = cohort(state, self._offers, there) < state.specification.min_cohort
        assert small, "a run waits for a cohort that it has"


def connected_agents(state: CoordinatorState) -> frozenset[str]:
    """The agents whose streams are open."""
    sessions = state.members.sessions.values()
    return frozenset(
        agent for session in sessions if session.phase is AgentPhase.CONNECTED for agent in session.agent_ids
    )


def required_gradients(specification: RunSpecification, agents: int) -> int:
    """How many of these agents a round needs."""
    if specification.participation is Participation.ALL:
        return agents
    share = specification.quorum
    return min(agents, math.ceil(share * agents) if share < 1.0 else int(share))
