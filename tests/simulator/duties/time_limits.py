"""How long a coordinator waits: for a message of a session, for a gradient, and beyond a quorum.

The limits are those of docs/simulator.md. Everything is measured by the coordinator's own clock, and from what it
was told: when a session was heard, when a round was opened, and when its first gradient came.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from runs import SESSION_TIMEOUT

from cospan.core.run_fields import Participation
from cospan.server.machine import events, next_deadline
from cospan.server.machine.state import CoordinatorState
from cospan.wire.messages import AgentPhase, BasisUpdate, RunPhase
from simulator.duties.opening import RETURN_SECONDS, START_SECONDS, required_gradients

ROUND_TIMEOUT, FIRST_GRADIENT_SECONDS = 15.0, 30.0
_HEARD_WITHIN_SECONDS = 0.01
"""Messages closer together than this may count as one."""
_ROUNDING_SECONDS = 1e-6


@dataclass
class _Pace:
    """Smoothed time to a quorum, as RFC 6298."""

    mean: float | None = None
    deviation: float = 0.0

    def note(self, seconds: float) -> None:
        if self.mean is None:
            self.mean, self.deviation = seconds, seconds / 2.0
            return
        self.deviation = 0.75 * self.deviation + 0.25 * abs(seconds - self.mean)
        self.mean = 0.875 * self.mean + 0.125 * seconds

    @property
    def deadline(self) -> float:
        if self.mean is None:
            return ROUND_TIMEOUT
        return min(ROUND_TIMEOUT, max(self.mean + 4.0 * self.deviation, 2.0 * self.mean))


@dataclass
class TimeLimits:
    """The times of one coordinator process."""

    started: float
    heard: dict[str, float] = field(default_factory=dict)
    joined: dict[str, float] = field(default_factory=dict)
    opened: float = 0.0
    first_gradient: float | None = None
    quorum_after: float | None = None
    pace: _Pace = field(default_factory=_Pace)
    slowest_first: float = 0.0

    def stepped(
        self,
        before: CoordinatorState,
        event: events.Event,
        state: CoordinatorState,
        commands: Sequence[events.Command],
        now: float,
    ) -> None:
        """Holds a step against the limits."""
        self._hear(before, event, state, now)
        if isinstance(event, events.Tick):
            self._check_ended(before, state, commands, now)
            self._check_dropped(before, commands, now)
        opens = any(
            isinstance(each, events.Broadcast) and isinstance(each.message, BasisUpdate) for each in commands
        )
        if opens and state.round == before.round:  # a replay that is given up for a gradient counts that as well
            self._open(now)
        held = state.open_round.contributions
        if held and held is not before.open_round.contributions and state.round == before.round:
            self._note_gradients(before, state, now)
            self._check_first(state)
        if any(isinstance(each, events.ComputeBasis) for each in commands):
            self._check_closed(before, state, now)
        if opens and state.round > before.round:
            if self.quorum_after is not None:
                self.pace.note(self.quorum_after)
            self._open(now)
        if any(isinstance(each, events.Note) and each.kind == "cohort-small" for each in commands):
            self.opened = now  # the limit of a session is shorter from now on: the next tick drops those beyond it
        if isinstance(event, events.Tick) and self.opened < now:
            self.kept_time(state, now)
            due = next_deadline(state)
            assert due is None or due > now, "a tick leaves nothing that is due"

    def _open(self, now: float) -> None:
        self.opened, self.first_gradient, self.quorum_after = now, None, None

    def _hear(self, before: CoordinatorState, event: events.Event, state: CoordinatorState, now: float) -> None:
        match event:
            case events.JoinRequested():
                for token in state.members.sessions.keys() - before.members.sessions.keys():
                    self.heard[token] = self.joined[token] = now
                for token, session in state.members.sessions.items():
                    if session.stream == event.stream:
                        self.heard[token] = now
            case (
                events.GradientArrived(token=token)
                | events.HeartbeatArrived(token=token)
                | events.DeclineArrived(token=token)
            ):
                self.heard[token] = now
            case events.GradientsArrived(uploads=uploads):
                self.heard |= dict.fromkeys(uploads, now)
            case events.StreamClosed(token=token, stream=stream):
                session = before.members.sessions.get(token)
                if session is not None and session.stream == stream:
                    self.heard[token] = now
            case _:
                pass

    def _note_gradients(self, before: CoordinatorState, state: CoordinatorState, now: float) -> None:
        earlier = before.open_round.contributions
        held = state.open_round.contributions
        if not any(held.get(first) is contribution for first, contribution in earlier.items()):
            self.first_gradient = now - self.opened
            self.slowest_first = max(self.slowest_first, self.first_gradient)
        if state.specification.participation is Participation.QUORUM and self.quorum_after is None:
            agents = len(set(before.open_round.awaited) | set(before.open_round.counted))
            if len(state.open_round.counted) >= required_gradients(state.specification, agents):
                self.quorum_after = now - self.opened

    def _check_first(self, state: CoordinatorState) -> None:
        """The limits follow from how long the first gradients took."""
        assert self.first_gradient is not None
        away = abs(state.open_round.first_gradient_seconds - self.first_gradient)
        assert away <= _ROUNDING_SECONDS, "the time of a round's first gradient is another"
        away = abs(state.history.slowest_first_gradient_seconds - self.slowest_first)
        assert away <= _ROUNDING_SECONDS, "the slowest first gradient is another"

    def is_over(self, state: CoordinatorState, now: float) -> bool:
        """Whether the open round has a gradient, and its time is over: it waits for none of the others any more."""
        current = state.open_round
        held = bool(current.awaited) and bool(current.contributions)
        return held and now - self.opened >= self.round_limit(state) - _ROUNDING_SECONDS

    # Limits --------------------------------------------------------------------------------------------------

    def _silence(self, state: CoordinatorState) -> float:
        """Of a session; after a restart agents have time to come back."""
        returning = state.phase is RunPhase.WAITING and state.round > 0
        if state.specification.secure_sums:  # a cohort that has become too small waits as well
            returning = returning and bool(state.durability.replay_agents)
        return max(SESSION_TIMEOUT, RETURN_SECONDS) if returning else SESSION_TIMEOUT

    def round_limit(self, state: CoordinatorState) -> float:
        """How long the open round waits for an agent that is alive; in a replay longer."""
        least = max(ROUND_TIMEOUT, RETURN_SECONDS) if state.open_round.replaying else ROUND_TIMEOUT
        if self.first_gradient is None:
            slowest = self.slowest_first
            known = max(least, 10.0 * slowest) if slowest else FIRST_GRADIENT_SECONDS
            return min(known, FIRST_GRADIENT_SECONDS)
        if self.first_gradient < least:
            return least
        return 2.0 * min(self.first_gradient, FIRST_GRADIENT_SECONDS)

    def _deadline(self, state: CoordinatorState) -> float:
        """Of a quorum, from the opening of the round."""
        given = state.specification.deadline_seconds
        return given if given else self.pace.deadline

    def _silent_for(self, token: str, now: float) -> float:
        return now - self.heard.get(token, self.started)

    def _awaited_for(self, token: str, now: float) -> float:
        return now - max(self.opened, self.joined.get(token, self.started))

    def _check_ended(
        self, before: CoordinatorState, state: CoordinatorState, commands: Sequence[events.Command], now: float
    ) -> None:
        """No run ends for want of agents before its time, nor waits for longer."""
        if before.phase is not RunPhase.WAITING:
            return
        if before.specification.secure_sums and (before.round or self.opened):
            return  # then it may wait again, for a cohort
        there = any(each.phase is AgentPhase.CONNECTED for each in state.members.sessions.values())
        late = now - self.started - (RETURN_SECONDS if before.round and there else START_SECONDS)
        ends = any(isinstance(each, events.EndRun) for each in commands)
        all_done = 0 < state.specification.rounds <= state.round
        assert not ends or all_done or late >= -_ROUNDING_SECONDS, "a run ends before its fleet had time to come"
        assert state.phase is not RunPhase.WAITING or late <= _ROUNDING_SECONDS, (
            "a run waits too long for its fleet"
        )

    def _check_dropped(self, before: CoordinatorState, commands: Sequence[events.Command], now: float) -> None:
        """No session is given up before its time."""
        for command in commands:
            if isinstance(command, events.DropMember):
                token = command.token
                agents = before.members.sessions[token].agent_ids
                silence = self._silence(before) - _HEARD_WITHIN_SECONDS - _ROUNDING_SECONDS
                silent = self._silent_for(token, now) >= silence
                late = self._awaited_for(token, now) >= self.round_limit(before) - _ROUNDING_SECONDS
                awaited = not before.open_round.awaited.isdisjoint(agents)
                assert silent or (awaited and late), "a session is dropped before its time"

    def _check_closed(self, before: CoordinatorState, state: CoordinatorState, now: float) -> None:
        """No round is closed without an agent that is there, before its time."""
        hosts, hosted = state.members.hosts, before.members.hosts
        # Who joins again during the round, as a part of a group that has counted, is not awaited any more.
        there = {agent for agent in before.open_round.awaited if agent in hosts and hosts[agent] == hosted[agent]}
        absent = there - set(state.open_round.counted)
        after = now - self.opened + _ROUNDING_SECONDS
        if not absent or after >= self.round_limit(before):
            return
        assert state.specification.participation is Participation.QUORUM, "a round closes without an awaited agent"
        enough = required_gradients(state.specification, len(there | set(state.open_round.counted)))
        assert len(state.open_round.counted) >= enough, "a round closes without its quorum"
        assert after >= self._deadline(state), "a round closes before its quorum's deadline"

    def kept_time(self, state: CoordinatorState, now: float) -> None:
        """A coordinator that did not stand still has looked at its clock: nothing is overdue."""
        if state.phase not in (RunPhase.WAITING, RunPhase.COLLECTING, RunPhase.CLOSING) or now <= self.opened:
            return
        silence = self._silence(state) + _HEARD_WITHIN_SECONDS + _ROUNDING_SECONDS
        for token in state.members.sessions:
            assert self._silent_for(token, now) <= silence, "a silent session is not dropped"
        current = state.open_round
        if state.phase is not RunPhase.COLLECTING:
            return
        longest = self.round_limit(state) + _ROUNDING_SECONDS
        tokens = {state.members.hosts[agent] for agent in current.awaited}
        assert all(self._awaited_for(token, now) <= longest for token in tokens), "an agent is awaited for too long"
        open_for = now - self.opened - _ROUNDING_SECONDS
        assert not (current.awaited and current.contributions and open_for > longest), "a round stays open too long"
        quorum = state.specification.participation is Participation.QUORUM
        enough = required_gradients(state.specification, len(current.awaited) + len(current.counted))
        if quorum and current.contributions and current.awaited and len(current.counted) >= enough:
            assert open_for <= self._deadline(state), "a quorum waits beyond its deadline"
