"""Timeouts: when a session is dropped, how long a round stays open, and when waiting for agents ends.

A session is dropped after `session_timeout_seconds` without a message, or when the open round has waited
`round_timeout_seconds` for its gradient. The latter keeps one agent from delaying the others. If no agent at all
has sent a gradient by then, none is delayed: the environment itself is slow, as with a feed of hourly values. The
round then waits for its first gradient, and as long again for the rest. A round whose first gradient came in time
is limited by `round_timeout_seconds`. See docs/adr/0016.
"""

import math
from collections.abc import Iterable

from cospan.server.machine.closing import (
    finish,
    finish_all_rounds,
    has_all_rounds,
    quorum_deadline,
    reevaluate,
    start_if_ready,
)
from cospan.server.machine.collections.agent_set import EMPTY_SET
from cospan.server.machine.events import CloseStream, Command, Note, Tick
from cospan.server.machine.membership import remove
from cospan.server.machine.opening import connected_agents, has_cohort, start
from cospan.server.machine.sessions import Session
from cospan.server.machine.state import OVER, CoordinatorState, Outcome
from cospan.wire.errors import SessionUnknownError
from cospan.wire.messages import AgentPhase, FinishCause, RunPhase

_SLOWER = 10.0
"""If the pace of the fleet is known, a first gradient may take this multiple of the slowest one so far."""
_AFTER_THE_FIRST = 2.0
"""The other gradients may take this multiple of the time to the first one."""


def next_deadline(state: CoordinatorState) -> float | None:
    """The earliest time at which a `Tick` may change something; None once the run is over or draining."""
    if state.phase in OVER:
        return None
    sessions, current = state.members.sessions.values(), state.open_round
    silence, longest = _silence_timeout(state), round_timeout(state)
    deadlines = [session.last_seen + silence for session in sessions]
    if current.awaited and current.contributions:  # none of those awaited is due before that
        deadlines.append(state.phase_since + longest)
    else:
        deadlines += [_awaited_since(state, session) + longest for session in _awaited_sessions(state)]
    if state.phase is RunPhase.WAITING:
        deadlines.append(state.phase_since + _start_timeout(state))
    if state.members.deserted_since is not None:
        deadlines.append(state.members.deserted_since + state.specification.round_timeout_seconds)
    deadlines += [each for each in (_slow_note_due(state), quorum_deadline(state)) if each is not None]
    return min(deadlines, default=None)


def round_timeout(state: CoordinatorState) -> float:
    """Seconds after which the open round drops a session that is alive; `round_timeout_seconds` or more.

    Agents that return after a restart first learn again what they lost, so a replay waits for them as long as the
    restart waits for their return.
    """
    least = state.specification.round_timeout_seconds
    if state.open_round.replaying:
        least = max(least, state.config.return_seconds)
    most = state.config.first_gradient_timeout_seconds
    if most <= least:
        return least
    if state.open_round.contributions:
        first = state.open_round.first_gradient_seconds
        return least if first < least else _AFTER_THE_FIRST * min(first, most)
    slowest = state.history.slowest_first_gradient_seconds
    return min(max(least, _SLOWER * slowest), most) if slowest else most


def drop_overdue(state: CoordinatorState, now: float) -> Outcome:
    """Ends the sessions that have sent no message, or no gradient, for too long; each with its cause."""
    commands: tuple[Command, ...] = ()
    for token, cause in list(_overdue(state, now)):
        session = state.members.sessions[token]
        state, more = remove(state, token, cause, now)
        commands += more
        if session.phase is AgentPhase.CONNECTED:
            error = SessionUnknownError(f"the coordinator gave this process up: {cause}; join again")
            commands += (CloseStream(session.stream, error),)
    return state, commands


def on_tick_waiting(state: CoordinatorState, _event: Tick, now: float) -> Outcome:
    """Drops overdue sessions; starts the run, or ends it, if it has waited for agents long enough."""
    state, commands = drop_overdue(state, now)
    state, more = _on_start_timeout(state, now)
    return state, commands + more


def on_tick_running(state: CoordinatorState, _event: Tick, now: float) -> Outcome:
    """Drops overdue sessions, closes a round that has waited long enough, and ends a deserted run."""
    state, commands = drop_overdue(state, now)
    due = _slow_note_due(state)
    if due is not None and now >= due:
        commands += (_slow_note(state),)
        state = state.evolve(history=state.history.evolve(last_slow_round=state.round))
    current = state.open_round
    if current.contributions and now >= state.phase_since + round_timeout(state):
        # The agents still awaited joined during the round. They stay, but joins must not keep it open for ever.
        state = state.evolve(open_round=current.evolve(awaited=EMPTY_SET))
    state, more = reevaluate(state, now)
    commands += more
    deserted, longest = state.members.deserted_since, state.specification.round_timeout_seconds
    if deserted is not None and now >= deserted + longest:
        text = f"every agent is gone, and none came back within {longest:g} s"
        state, more = finish(state, FinishCause.NO_AGENTS, text, now)
        commands += more
    return state, commands


def _on_start_timeout(state: CoordinatorState, now: float) -> Outcome:
    state, commands = start_if_ready(state, now)
    longest = _start_timeout(state)
    if state.phase is not RunPhase.WAITING or now < state.phase_since + longest:
        return state, commands
    if has_all_rounds(state):
        return finish_all_rounds(state, now)
    spec, present = state.specification, len(state.members.hosts)
    if not has_cohort(state) and not state.durability.replay_agents:
        text = (
            f"fewer than min_cohort = {spec.min_cohort} processes were here for {longest:g} s, and of fewer no sum "
            "is formed"
        )
        cause = FinishCause.NO_AGENTS if state.history.started else FinishCause.NOT_STARTED
        return finish(state, cause, text, now)
    if present >= (spec.min_agents or spec.agents) and not state.durability.replay_agents:
        return start(state, now)
    if state.history.started:
        text = f"no agent came back within {longest:g} s after the restart"
        return finish(state, FinishCause.NO_AGENTS, text, now)
    wanted = f" of at least {spec.min_agents}" if spec.min_agents else f" of {spec.agents}"
    text = f"only {present}{wanted} agents joined within {longest:g} s"
    return finish(state, FinishCause.NOT_STARTED, text, now)


def _slow_note_due(state: CoordinatorState) -> float | None:
    """When to note that the open round has no gradient, and waits on; None if there is nothing to note."""
    current, limit = state.open_round, state.specification.round_timeout_seconds
    waits = state.phase is RunPhase.COLLECTING and bool(current.awaited) and not current.contributions
    if not waits or state.history.last_slow_round == state.round or round_timeout(state) <= limit:
        return None
    return state.phase_since + limit


def _slow_note(state: CoordinatorState) -> Note:
    text = (
        f"no agent has sent a gradient for {state.specification.round_timeout_seconds:g} s, and they are alive; "
        f"the round waits for the first one, {round_timeout(state):g} s at the most"
    )
    return Note("round-slow", state.round, tuple(sorted(state.open_round.awaited.names)), text)


def _silence_timeout(state: CoordinatorState) -> float:
    """Seconds without a message after which a session is dropped; after a restart agents have time to return."""
    timeout = state.specification.session_timeout_seconds
    returning = state.phase is RunPhase.WAITING and bool(state.durability.replay_agents)
    return max(timeout, state.config.return_seconds) if returning else timeout


def _start_timeout(state: CoordinatorState) -> float:
    """Longest wait for the fleet; after a restart, for more agents once one is back."""
    if state.specification.secure_sums and state.history.started and not state.durability.replay_agents:
        # A relay, which opens no rounds, waits without an end.
        return state.specification.round_timeout_seconds if state.config.start_seconds < math.inf else math.inf
    returning = bool(state.durability.replay_agents) and bool(connected_agents(state))
    return state.config.return_seconds if returning else state.config.start_seconds


def _overdue(state: CoordinatorState, now: float) -> Iterable[tuple[str, str]]:
    """The tokens of the sessions to drop, each with the cause.

    Times are compared as `next_deadline` adds them: by another rounding, a tick at the deadline would find none.
    """
    silence, longest = _silence_timeout(state), round_timeout(state)
    awaited = {session.token for session in _awaited_sessions(state)}
    for token, session in state.members.sessions.items():
        if now >= session.last_seen + silence:
            lost = session.phase is AgentPhase.LOST
            what = "its stream broke and did not come back" if lost else "it was silent"
            yield token, f"{what} for {silence:g} s"
        elif token in awaited and now >= _awaited_since(state, session) + longest:
            yield token, f"it sent no gradient for {longest:g} s"


def _awaited_sessions(state: CoordinatorState) -> Iterable[Session]:
    """The sessions whose gradients the open round lacks."""
    sessions, hosts = state.members.sessions, state.members.hosts
    return (sessions[token] for token in {hosts[agents[0]] for agents in state.open_round.awaited.blocks})


def _awaited_since(state: CoordinatorState, session: Session) -> float:
    """Since when the open round waits for a session: from its opening, or from the session's."""
    return max(state.phase_since, session.opened)
