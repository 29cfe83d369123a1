"""The coordinator as a pure state machine: `step(state, event, now) -> (state, commands)`.

    WAITING ── enough agents joined ──▶ COLLECTING ── all awaited gradients in ──▶ CLOSING ── basis computed ──▶
    COLLECTING (next round) … and from anywhere to FINISHED.

Nothing here knows of sockets, files, threads or a clock. An event that is not allowed raises a `RemoteError` for
the peer that caused it, and changes nothing. Liveness has one rule: whoever is awaited, or merely here, is given
up after `liveness_seconds` of silence, or when an open round has waited `round_seconds` for its gradient. No round
with a gradient stays open for longer than `round_seconds`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cospan.core.aggregation import Contribution
from cospan.core.specification import RunSpecification
from cospan.server.events import (
    BasisComputed,
    BasisFailed,
    Broadcast,
    CloseStream,
    Command,
    ComputeBasis,
    EndRun,
    Event,
    GradientArrived,
    HeartbeatArrived,
    JoinRequested,
    LeaveArrived,
    Note,
    ReportRound,
    Send,
    StopRequested,
    StreamClosed,
    Tick,
)
from cospan.server.membership import Outcome, admit, remove
from cospan.server.state import CoordinatorState, Session
from cospan.wire.errors import (
    InvalidMessageError,
    OutOfTurnError,
    SessionUnknownError,
)
from cospan.wire.messages import (
    AgentPhase,
    BasisUpdate,
    Disposition,
    Finish,
    FinishCause,
    GradientUpload,
    Receipt,
    RoundReport,
    RunPhase,
)


def initial_state(
    specification: RunSpecification,
    *,
    run_id: str,
    incarnation: int,
    start_seconds: float,
    now: float,
    sites: int | None = None,
) -> CoordinatorState:
    """A run that waits for its agents. `start_seconds` bounds that wait; `sites` is how many can be given out."""
    return CoordinatorState(
        specification=specification,
        run_id=run_id,
        incarnation=incarnation,
        basis=specification.initial_basis(),
        start_seconds=start_seconds,
        phase_since=now,
        sites=sites,
    )


def step(state: CoordinatorState, event: Event, now: float) -> Outcome:
    """The state after an event at time `now` (seconds, monotonic), and what is to be done.

    Raises:
        RemoteError: the event is not allowed; nothing has changed.
    """
    match event:
        case JoinRequested():
            return _on_join(state, event, now)
        case GradientArrived():
            return _on_gradient(state, event, now)
        case HeartbeatArrived(token=token):
            return _heard(state, token, now), ()
        case LeaveArrived():
            return _on_leave(state, event, now)
        case StreamClosed():
            return _on_stream_closed(state, event, now)
        case BasisComputed():
            return _on_basis(state, event, now)
        case BasisFailed():
            return _on_basis_failed(state, event, now)
        case Tick():
            return _on_tick(state, now)
        case StopRequested(message=message):
            return _finish(state, FinishCause.STOPPED, message, now)


def next_deadline(state: CoordinatorState) -> float | None:
    """The earliest time at which a `Tick` may change something; None when the run is over."""
    if state.phase is RunPhase.FINISHED:
        return None
    spec = state.specification
    deadlines = [session.last_seen + spec.liveness_seconds for session in state.sessions.values()]
    deadlines += [_waited_since(state, session) + spec.round_seconds for session in _awaited_sessions(state)]
    if state.awaited and state.contributions:
        deadlines.append(state.phase_since + spec.round_seconds)
    if state.phase is RunPhase.WAITING:
        deadlines.append(state.phase_since + state.start_seconds)
    if state.deserted_since is not None:
        deadlines.append(state.deserted_since + spec.round_seconds)
    return min(deadlines, default=None)


# Joining ----------------------------------------------------------------------------------------------------


def _on_join(state: CoordinatorState, event: JoinRequested, now: float) -> Outcome:
    state, commands = admit(state, event, now)
    state, more = _start_if_complete(state, now)
    commands += more
    # A lost group may come back smaller: nobody else may be awaited then.
    state, more = _close_if_complete(state)
    return state, commands + more


def _start_if_complete(state: CoordinatorState, now: float) -> Outcome:
    if state.phase is not RunPhase.WAITING or len(state.hosts) < state.specification.agents:
        return state, ()
    state = _open_round(state, now)
    started = Note("run-started", state.round, tuple(sorted(state.hosts)))
    return state, (Broadcast(BasisUpdate(state.stamp, state.basis)), started)


def _open_round(state: CoordinatorState, now: float) -> CoordinatorState:
    return replace(
        state,
        phase=RunPhase.COLLECTING,
        phase_since=now,
        awaited=frozenset(state.hosts),
        contributions={},
        counted=frozenset(),
        departed_in_round=(),
    )


# Gradients ---------------------------------------------------------------------------------------------------


def _on_gradient(state: CoordinatorState, event: GradientArrived, now: float) -> Outcome:
    session = _session(state, event.token)
    upload = event.upload
    agents = upload.agent_ids or session.agent_ids
    _check_gradient(state, session, upload, agents)
    disposition = _disposition(state, upload.round, agents)
    if disposition is not None:
        state = _heard(state, event.token, now)
        return state, (Send(event.token, Receipt(state.stamp, upload.round, disposition)),)
    overlap = state.counted.intersection(agents)
    if overlap:
        raise InvalidMessageError(
            f"the gradient of round {upload.round} sums over {sorted(overlap)[0]!r}, whose gradient has counted"
        )
    session = replace(session, last_seen=now)
    state = replace(
        state,
        sessions={**state.sessions, event.token: session},
        contributions={**state.contributions, agents: upload.contribution},
        counted=state.counted.union(agents),
        awaited=state.awaited.difference(agents),
    )
    return _close_if_complete(state)


def _session(state: CoordinatorState, token: str) -> Session:
    session = state.sessions.get(token)
    if session is None:
        raise SessionUnknownError(f"the session is not one of run {state.run_id} any more; join anew")
    return session


def _check_gradient(
    state: CoordinatorState, session: Session, upload: GradientUpload, agents: tuple[str, ...]
) -> None:
    if not set(agents) <= set(session.agent_ids):
        foreign = sorted(set(agents) - set(session.agent_ids))[0]
        raise InvalidMessageError(f"gradient.agent_ids names {foreign!r}, which this process does not host")
    if upload.contribution.weight != len(agents):
        raise InvalidMessageError(
            f"gradient.weight is {upload.contribution.weight:g}; the sum is over {len(agents)} agents"
        )
    if state.phase is RunPhase.WAITING or upload.round > state.round:
        raise OutOfTurnError(
            f"a gradient of round {upload.round} came while round {state.round} is "
            f"{'not open yet' if state.phase is RunPhase.WAITING else 'open'}; wait for its basis"
        )


def _disposition(state: CoordinatorState, round_number: int, agents: tuple[str, ...]) -> Disposition | None:
    """What becomes of a gradient that does not count; None for one that does."""
    if round_number == state.round and state.phase is RunPhase.COLLECTING:
        return Disposition.DUPLICATE if state.counted.issuperset(agents) else None
    counted = state.counted if round_number == state.round else state.counted_before
    recent = round_number >= state.round - 1
    return Disposition.DUPLICATE if recent and counted.issuperset(agents) else Disposition.LATE


def _close_if_complete(state: CoordinatorState) -> Outcome:
    if state.phase is not RunPhase.COLLECTING or state.awaited or not state.contributions:
        return state, ()
    ordered = _in_agent_order(state.contributions)
    command = ComputeBasis(state.round, state.basis, ordered, state.row_squares)
    return replace(state, phase=RunPhase.CLOSING), (command,)


def _in_agent_order(contributions: Mapping[tuple[str, ...], Contribution]) -> tuple[Contribution, ...]:
    """The one order in which a round is summed: so the result does not depend on who came first."""
    return tuple(contributions[agents] for agents in sorted(contributions))


def _on_basis(state: CoordinatorState, event: BasisComputed, now: float) -> Outcome:
    if state.phase is not RunPhase.CLOSING or event.round != state.round:
        return state, ()  # the run was stopped while the arithmetic went on
    seconds = now - state.phase_since
    closed, contributors, departed = state.round, len(state.counted), state.departed_in_round
    counts = {agent: state.rounds_counted.get(agent, 0) + 1 for agent in state.counted}
    state = replace(
        state,
        basis=event.move.basis,
        row_squares=event.move.row_squares,
        round=closed + 1,
        counted_before=state.counted,
        rounds_counted={**state.rounds_counted, **counts},
    )
    state = _open_round(state, now)
    last = state.round == state.specification.rounds
    report = RoundReport(
        stamp=state.stamp,
        closed_round=closed,
        seconds=seconds,
        contributors=contributors,
        departed_agent_ids=departed,
        basis_movement=event.move.movement,
        orthonormality_error=event.move.orthonormality_error,
        basis=event.move.basis,
        finished=last,
    )
    if last:
        text = f"all {state.round} rounds are done"
        state, commands = _finish(state, FinishCause.ROUNDS_REACHED, text, now)
        return state, (ReportRound(report), *commands)
    return state, (Broadcast(BasisUpdate(state.stamp, state.basis)), ReportRound(report))


def _on_basis_failed(state: CoordinatorState, event: BasisFailed, now: float) -> Outcome:
    if state.phase is not RunPhase.CLOSING or event.round != state.round:
        return state, ()  # the run was stopped while the arithmetic went on
    return _finish(state, FinishCause.STOPPED, event.message, now)


# Leaving ------------------------------------------------------------------------------------------------------


def _on_leave(state: CoordinatorState, event: LeaveArrived, now: float) -> Outcome:
    _session(state, event.token)
    if state.phase is RunPhase.FINISHED:
        return state, ()
    state, note = remove(state, event.token, f"it left: {event.cause or 'no cause given'}", now)
    if state.phase is RunPhase.COLLECTING and not state.sessions:
        state, commands = _finish(state, FinishCause.NO_AGENTS, "every agent has left", now)
        return state, (note, *commands)
    state, commands = _close_if_complete(state)
    return state, (note, *commands)


def _on_stream_closed(state: CoordinatorState, event: StreamClosed, now: float) -> Outcome:
    session = state.sessions.get(event.token)
    if session is None or session.stream != event.stream or state.phase is RunPhase.FINISHED:
        return state, ()
    state = state.with_session(replace(session, phase=AgentPhase.LOST, last_seen=now))
    return state, (Note("agent-lost", state.round, session.agent_ids, "its stream broke"),)


# Time -----------------------------------------------------------------------------------------------------------


def _heard(state: CoordinatorState, token: str, now: float) -> CoordinatorState:
    return state.with_session(replace(_session(state, token), last_seen=now))


def _on_tick(state: CoordinatorState, now: float) -> Outcome:
    if state.phase is RunPhase.FINISHED:
        return state, ()
    commands: tuple[Command, ...] = ()
    for token, cause in list(_overdue(state, now)):
        session = state.sessions[token]
        state, note = remove(state, token, cause, now)
        commands += (note,)
        if session.phase is AgentPhase.CONNECTED:
            given_up = SessionUnknownError(f"the coordinator gave this process up: {cause}; join anew")
            commands += (CloseStream(session.stream, given_up),)
    if state.contributions and now - state.phase_since >= state.specification.round_seconds:
        # Who is still awaited has joined in mid-round. It stays, but no row of joiners holds a round up for ever.
        state = replace(state, awaited=frozenset())
    state, more = _close_if_complete(state)
    commands += more
    state, more = _finish_if_hopeless(state, now)
    return state, commands + more


def _overdue(state: CoordinatorState, now: float) -> Iterable[tuple[str, str]]:
    """The sessions to give up, each with the cause."""
    spec = state.specification
    awaited = {session.token for session in _awaited_sessions(state)}
    for token, session in state.sessions.items():
        if now - session.last_seen >= spec.liveness_seconds:
            lost = session.phase is AgentPhase.LOST
            what = "its stream broke and did not come back" if lost else "it was silent"
            yield token, f"{what} for {spec.liveness_seconds:g} s"
        elif token in awaited and now - _waited_since(state, session) >= spec.round_seconds:
            yield token, f"it sent no gradient for {spec.round_seconds:g} s"


def _awaited_sessions(state: CoordinatorState) -> Iterable[Session]:
    """The sessions whose gradients the open round still lacks."""
    return (state.sessions[token] for token in {state.hosts[agent] for agent in state.awaited})


def _waited_since(state: CoordinatorState, session: Session) -> float:
    """Since when the open round waits for a session whose gradient it lacks."""
    return max(state.phase_since, session.opened)


def _finish_if_hopeless(state: CoordinatorState, now: float) -> Outcome:
    spec = state.specification
    if state.phase is RunPhase.WAITING and now - state.phase_since >= state.start_seconds:
        here = len(state.hosts)
        text = f"only {here} of {spec.agents} agents joined within {state.start_seconds:g} s"
        return _finish(state, FinishCause.NOT_STARTED, text, now)
    if state.deserted_since is not None and now - state.deserted_since >= spec.round_seconds:
        text = f"every agent is gone, and none came back within {spec.round_seconds:g} s"
        return _finish(state, FinishCause.NO_AGENTS, text, now)
    return state, ()


def _finish(state: CoordinatorState, cause: FinishCause, message: str, now: float) -> Outcome:
    if state.phase is RunPhase.FINISHED:
        return state, ()
    state = replace(
        state,
        phase=RunPhase.FINISHED,
        phase_since=now,
        finish_cause=cause,
        awaited=frozenset(),
        contributions={},
        counted=frozenset(),
        deserted_since=None,
    )
    finish = Finish(state.stamp, cause, message, state.basis)
    return state, (Broadcast(finish), Note("run-finished", state.round, (), message), EndRun(cause, message))
