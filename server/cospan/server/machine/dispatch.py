"""The coordinator as a pure state machine: `step(state, event, now) -> (state, commands)`.

    WAITING ── enough agents joined ──▶ COLLECTING ── all awaited gradients in ──▶ CLOSING ── basis computed ──▶
    COLLECTING (next round) … and from anywhere to FINISHED, or to DRAINING: the run goes on after a restart, which
    begins in WAITING.

Nothing here knows of sockets, files, threads or a clock. An event that is not allowed raises a `RemoteError` for
the peer that caused it, and changes nothing. Liveness has one rule: whoever is awaited, or merely here, is given
up after `session_timeout_seconds` of silence, or when an open round has waited `round_timeout_seconds` for its
gradient; longer where no agent has sent one by then (`cospan.server.machine.round_timeout`). No round whose first
gradient came within `round_timeout_seconds` stays open for longer than that.
"""

from collections.abc import Iterable
from dataclasses import replace

from cospan.core.specification import RunSpecification
from cospan.server.machine import rounds
from cospan.server.machine.collections.agent_set import NOBODY, AgentSet
from cospan.server.machine.collections.participation_counts import ParticipationCounts
from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.server.machine.events import (
    BasisComputed,
    BasisFailed,
    Broadcast,
    CloseStream,
    Command,
    DrainRequested,
    Event,
    GradientArrived,
    GradientsArrived,
    HeartbeatArrived,
    JoinRequested,
    LeaveArrived,
    Note,
    RoundsStored,
    StopRequested,
    StoreFailed,
    StreamClosed,
    Suspend,
    Tick,
)
from cospan.server.machine.membership import admit, remove, with_saved
from cospan.server.machine.round_timeout import is_slow, longest_round, slow_at
from cospan.server.machine.sessions import Session
from cospan.server.machine.snapshot import SavedRun
from cospan.server.machine.state import CoordinatorState
from cospan.server.machine.transition import Outcome, session_of
from cospan.wire.errors import SessionUnknownError
from cospan.wire.limits import rounds_ahead
from cospan.wire.messages import AgentPhase, Drain, FinishCause, RunPhase

_OVER = (RunPhase.FINISHED, RunPhase.DRAINING)
_AFTER_FAILURE_SECONDS = 5.0
"""Agents are asked to come back after so long, when the coordinator has to go down."""


def initial_state(
    specification: RunSpecification,
    *,
    run_id: str,
    incarnation: int,
    start_seconds: float,
    now: float,
    sites: int | None = None,
    silent_seconds: float = 0.0,
) -> CoordinatorState:
    """A run that waits for its agents.

    `start_seconds` bounds that wait, `silent_seconds` that for the first gradient of a round
    (`cospan.server.machine.round_timeout`); `sites` is how many can be given out.
    """
    return CoordinatorState(
        specification=specification,
        run_id=run_id,
        incarnation=incarnation,
        basis=specification.initial_basis(),
        start_seconds=start_seconds,
        phase_since=now,
        most_ahead=rounds_ahead(specification.feature_dim, specification.rank),
        sites=sites,
        silent_seconds=silent_seconds,
    )


def restored_state(
    saved: SavedRun,
    *,
    incarnation: int,
    start_seconds: float,
    return_seconds: float,
    now: float,
    sites: int | None = None,
) -> CoordinatorState:
    """A run that goes on where it was stored, and waits for its agents to come back.

    The open round has to come to the same bits as before, if any agent knows what it came to: so it waits for the
    contributors of the round before, for `return_seconds`, and for nobody else (see
    `cospan.server.machine.rounds`).
    """
    state = initial_state(
        saved.specification,
        run_id=saved.run_id,
        incarnation=incarnation,
        start_seconds=start_seconds,
        now=now,
        sites=sites,
    )
    # How far their files have come is not stored: until they come back nothing is dropped that they may need.
    sessions = {
        session.token: replace(session, last_seen=now, opened=now, needs_from=0) for session in saved.sessions
    }
    return replace(
        state,
        basis=state.basis if saved.basis is None else saved.basis,
        row_squares=saved.row_squares,
        round=saved.round,
        durable_round=saved.round,
        started=saved.round > 0,
        sessions=PersistentMap(sessions),
        hosts=PersistentMap({agent: token for token, session in sessions.items() for agent in session.agent_ids}),
        everybody=AgentSet(session.agent_ids for session in saved.sessions),
        seats=PersistentMap(saved.seats),
        departures=PersistentMap({departure.agent_id: departure for departure in saved.departures}),
        accepted={number: AgentSet.of_names(names) for number, names in saved.accepted.items()},
        last_contributors=AgentSet.of_names(saved.last_contributors),
        expected=saved.last_contributors,
        rounds_counted=ParticipationCounts(saved.rounds_counted, saved.last_rounds),
        return_seconds=return_seconds,
    )


def step(state: CoordinatorState, event: Event, now: float) -> Outcome:
    """The state after an event at time `now` (seconds, monotonic), and what is to be done.

    Raises:
        RemoteError: the event is not allowed; nothing has changed.
    """
    match event:
        case GradientArrived():
            return rounds.on_gradient(state, event, now)
        case GradientsArrived(uploads=uploads):
            return rounds.on_plain_gradients(state, uploads, now)
        case BasisComputed():
            return rounds.on_basis(state, event, now)
        case RoundsStored():
            return rounds.on_stored(state, event, now)
        case HeartbeatArrived(token=token, saved_rounds=saved):
            return state.with_session(with_saved(session_of(state, token), saved).heard(now)), ()
        case JoinRequested():
            return _on_join(state, event, now)
        case LeaveArrived():
            return _on_leave(state, event, now)
        case StreamClosed():
            return _on_stream_closed(state, event, now)
        case Tick():
            return _on_tick(state, now)
        case _:
            return _on_going_down(state, event, now)


def _on_going_down(
    state: CoordinatorState, event: BasisFailed | StoreFailed | DrainRequested | StopRequested, now: float
) -> Outcome:
    match event:
        case BasisFailed(round=number, message=message):
            if state.phase is not RunPhase.CLOSING or number != state.round:
                return state, ()  # the run was stopped while the arithmetic went on
            return rounds.finish(state, FinishCause.FAILED, message, now)
        case StoreFailed(message=message):
            return _suspend(state, message, _AFTER_FAILURE_SECONDS, now, failed=True)
        case DrainRequested(message=message, resume_after_seconds=seconds):
            return _suspend(state, message, seconds, now, failed=False)
        case StopRequested(message=message):
            return rounds.finish(state, FinishCause.STOPPED, message, now)


def _suspend(state: CoordinatorState, message: str, seconds: float, now: float, *, failed: bool) -> Outcome:
    """Goes down in a way from which the run goes on: agents keep what is not durable, and come back."""
    if state.phase in _OVER:
        return state, ()
    state = replace(
        state,
        phase=RunPhase.DRAINING,
        phase_since=now,
        suspended=message,
        awaited=NOBODY,
        computed=None,
        frozen=False,
        deserted_since=None,
    )
    note = Note("run-suspended", state.round, (), message)
    return state, (Broadcast(Drain(state.stamp, seconds)), note, Suspend(message, failed))


def next_deadline(state: CoordinatorState) -> float | None:
    """The earliest time at which a `Tick` may change something; None when the run is over."""
    if state.phase in _OVER:
        return None
    spec = state.specification
    silence = _longest_silence(state)
    deadlines = [session.last_seen + silence for session in state.sessions.values()]
    longest = longest_round(state)
    deadlines += [_waited_since(state, session) + longest for session in _awaited_sessions(state)]
    if state.awaited and state.contributions:
        deadlines.append(state.phase_since + longest)
    slow = slow_at(state)
    if slow is not None:
        deadlines.append(slow)
    until = rounds.stragglers_wait_until(state)
    if until is not None:
        deadlines.append(until)
    if state.phase is RunPhase.WAITING:
        deadlines.append(state.phase_since + _longest_start(state))
    if state.deserted_since is not None:
        deadlines.append(state.deserted_since + spec.round_timeout_seconds)
    return min(deadlines, default=None)


# Joining ----------------------------------------------------------------------------------------------------


def _on_join(state: CoordinatorState, event: JoinRequested, now: float) -> Outcome:
    state, commands = admit(state, event, now)
    state, more = rounds.start_if_complete(state, now)
    commands += more
    # A lost group may come back smaller, or as others: nobody else may be awaited then.
    state, more = _reevaluate(state, now)
    return state, commands + more


# Leaving ------------------------------------------------------------------------------------------------------


def _on_leave(state: CoordinatorState, event: LeaveArrived, now: float) -> Outcome:
    session_of(state, event.token)
    if state.phase in _OVER:
        return state, ()
    state, commands = remove(state, event.token, f"it left: {event.cause or 'no cause given'}", now)
    if state.phase is RunPhase.COLLECTING and not state.sessions and not event.returning:
        state, more = rounds.finish(state, FinishCause.NO_AGENTS, "every agent has left", now)
        return state, commands + more
    state, more = _reevaluate(state, now)
    return state, commands + more


def _reevaluate(state: CoordinatorState, now: float) -> Outcome:
    """After somebody went: the round may be complete without it, or have nobody left who may take part."""
    abandoned = state.frozen and not state.awaited and not state.contributions
    return rounds.start(state, now) if abandoned and state.sessions else rounds.close_if_complete(state, now)


def _on_stream_closed(state: CoordinatorState, event: StreamClosed, now: float) -> Outcome:
    session = state.sessions.get(event.token)
    if session is None or session.stream != event.stream or state.phase in _OVER:
        return state, ()
    state = state.with_session(replace(session, phase=AgentPhase.LOST, last_seen=now))
    return state, (Note("agent-lost", state.round, session.agent_ids, "its stream broke"),)


# Time -----------------------------------------------------------------------------------------------------------


def _on_tick(state: CoordinatorState, now: float) -> Outcome:
    if state.phase in _OVER:
        return state, ()
    state, commands = give_up_overdue(state, now)
    if is_slow(state, now):
        commands += (_slow(state),)
        state = replace(state, slow_round=state.round)
    if state.contributions and now - state.phase_since >= longest_round(state):
        # Who is still awaited has joined in mid-round. It stays, but no row of joiners holds a round up for ever.
        state = replace(state, awaited=NOBODY)
    state, more = _reevaluate(state, now)
    commands += more
    state, more = _finish_waiting(state, now)
    return state, commands + more


def _slow(state: CoordinatorState) -> Note:
    text = (
        f"no agent has sent a gradient for {state.specification.round_timeout_seconds:g} s, and they are alive; "
        "the round "
        f"waits for the first one, {longest_round(state):g} s at the most"
    )
    return Note("round-slow", state.round, tuple(sorted(state.awaited.names)), text)


def give_up_overdue(state: CoordinatorState, now: float) -> Outcome:
    """Gives up the sessions from which nothing was heard for too long, or no gradient; each with its cause."""
    commands: tuple[Command, ...] = ()
    for token, cause in list(_overdue(state, now)):
        session = state.sessions[token]
        state, more = remove(state, token, cause, now)
        commands += more
        if session.phase is AgentPhase.CONNECTED:
            given_up = SessionUnknownError(f"the coordinator gave this process up: {cause}; join anew")
            commands += (CloseStream(session.stream, given_up),)
    return state, commands


def _longest_silence(state: CoordinatorState) -> float:
    """After so many seconds without a sign of life a session is given up; after a restart all come back first."""
    liveness = state.specification.session_timeout_seconds
    returning = state.phase is RunPhase.WAITING and bool(state.expected)
    return max(liveness, state.return_seconds) if returning else liveness


def _overdue(state: CoordinatorState, now: float) -> Iterable[tuple[str, str]]:
    """The sessions to give up, each with the cause."""
    longest = longest_round(state)
    silence = _longest_silence(state)
    awaited = {session.token for session in _awaited_sessions(state)}
    for token, session in state.sessions.items():
        if now - session.last_seen >= silence:
            lost = session.phase is AgentPhase.LOST
            what = "its stream broke and did not come back" if lost else "it was silent"
            yield token, f"{what} for {silence:g} s"
        elif token in awaited and now - _waited_since(state, session) >= longest:
            yield token, f"it sent no gradient for {longest:g} s"


def _awaited_sessions(state: CoordinatorState) -> Iterable[Session]:
    """The sessions whose gradients the open round still lacks."""
    return (state.sessions[token] for token in {state.hosts[agents[0]] for agents in state.awaited.blocks})


def _waited_since(state: CoordinatorState, session: Session) -> float:
    """Since when the open round waits for a session whose gradient it lacks."""
    return max(state.phase_since, session.opened)


def _longest_start(state: CoordinatorState) -> float:
    """The longest time to wait for the fleet: to be complete, or after a restart for whoever comes back."""
    returning = bool(state.expected) and bool(rounds.connected(state))
    return state.return_seconds if returning else state.start_seconds


def _finish_waiting(state: CoordinatorState, now: float) -> Outcome:
    """What follows when a wait is over without what was waited for."""
    spec = state.specification
    if state.phase is RunPhase.WAITING:
        return _on_late_fleet(state, now)
    if state.deserted_since is not None and now - state.deserted_since >= spec.round_timeout_seconds:
        text = f"every agent is gone, and none came back within {spec.round_timeout_seconds:g} s"
        return rounds.finish(state, FinishCause.NO_AGENTS, text, now)
    return state, ()


def _on_late_fleet(state: CoordinatorState, now: float) -> Outcome:
    state, commands = rounds.start_if_complete(state, now)
    if state.phase is not RunPhase.WAITING or now - state.phase_since < state.start_seconds:
        return state, commands
    spec, here = state.specification, len(state.hosts)
    if here >= (spec.min_agents or spec.agents) and not state.expected:
        return rounds.start(state, now)
    if state.started:
        text = f"no agent came back within {state.start_seconds:g} s after the restart"
        return rounds.finish(state, FinishCause.NO_AGENTS, text, now)
    least = f" of at least {spec.min_agents}" if spec.min_agents else ""
    text = f"only {here}{least or f' of {spec.agents}'} agents joined within {state.start_seconds:g} s"
    return rounds.finish(state, FinishCause.NOT_STARTED, text, now)
