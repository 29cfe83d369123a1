"""Who comes and who goes: the part of the coordinator's machine that knows sessions, names and sites."""

from dataclasses import replace

from cospan.core.specification import SITE_PREFIX
from cospan.server.machine.events import (
    CloseStream,
    Command,
    DropMember,
    JoinRequested,
    Note,
    Send,
    StoreMember,
    StoreSpecification,
)
from cospan.server.machine.roster import check_room, remembered
from cospan.server.machine.sessions import Departure, Seat, Session
from cospan.server.machine.state import CoordinatorState
from cospan.server.machine.transition import Outcome
from cospan.wire.errors import (
    AgentIdTakenError,
    DrainingError,
    FeatureMismatchError,
    InvalidMessageError,
    NoFreeSiteError,
    RunFinishedError,
    SessionUnknownError,
)
from cospan.wire.messages import AgentPhase, Join, RunPhase, Welcome
from cospan.wire.text import listed


def admit(state: CoordinatorState, event: JoinRequested, now: float) -> Outcome:
    """The state with the session that a join opens, or goes on with, and its welcome.

    Raises:
        RemoteError: the process cannot join; nothing has changed.
    """
    _check_joinable(state, event.join)
    event, site_index = _seated(state, event)
    state = _with_told(state, event.join)
    known = _session_to_resume(state, event.join)
    if known is not None:
        return _resume(state, known, event, now)
    check_room(state, event.join.agent_ids)
    state, before = _displace(state, event.join, now)
    if not state.specification.feature_fingerprint:
        fixed = replace(state.specification, feature_fingerprint=event.join.feature_fingerprint)
        state = replace(state, specification=fixed)
        before += (StoreSpecification(fixed),)
    return _open_session(state, event, site_index, now, before)


def remove(state: CoordinatorState, token: str, cause: str, now: float) -> Outcome:
    """The state without a session; its agents are gone."""
    session = state.sessions[token]
    gone = {
        agent: Departure(agent, state.round, cause, session.last_seen, session.reconnects)
        for agent in session.agent_ids
    }
    sessions = state.sessions.remove(token)
    state = replace(
        state,
        sessions=sessions,
        hosts=state.hosts.remove(*session.agent_ids),
        everybody=state.everybody.remove(session.agent_ids),
        awaited=state.awaited.remove(session.agent_ids),
        departures=state.departures.update(gone),
        departed_in_round=state.departed_in_round + session.agent_ids,
        deserted_since=None if sessions or state.phase is RunPhase.WAITING else now,
    )
    dropped = DropMember(token, tuple(gone.values()))
    return state, (dropped, Note("agent-gone", state.round, session.agent_ids, cause))


def with_saved(session: Session, saved_rounds: int) -> Session:
    """The session whose process has said that all rounds below this one are in its file."""
    if session.needs_from is None or saved_rounds <= session.needs_from:
        return session
    return replace(session, needs_from=saved_rounds)


def needed_from(state: CoordinatorState) -> int | None:
    """The oldest round whose basis some process may ask for again; None where no process keeps a file."""
    return min(
        (session.needs_from for session in state.sessions.values() if session.needs_from is not None), default=None
    )


def _seated(state: CoordinatorState, event: JoinRequested) -> tuple[JoinRequested, int | None]:
    """A join that brings no names, with that of the site that its holder gets; and the site's index."""
    join = event.join
    if join.agent_ids:
        return event, None
    index = _free_site(state, join.site_claim_id)
    return replace(event, join=replace(join, agent_ids=(f"{SITE_PREFIX}{index}",))), index


def _free_site(state: CoordinatorState, site_claim_id: str) -> int:
    """The site that the holder has or had, unless somebody else has it now; else the first that nobody has."""
    former = state.seats.get(site_claim_id)
    if former is not None:
        token = state.hosts.get(f"{SITE_PREFIX}{former.index}")
        if token is None or state.sessions[token].site_claim_id == site_claim_id:
            return former.index
    index = 0
    while f"{SITE_PREFIX}{index}" in state.hosts:
        index += 1
    if state.sites is not None and index >= state.sites:
        raise NoFreeSiteError(
            f"all {state.sites} sites of workload {state.specification.workload!r} have their agents; "
            "start fewer, or try again when one has left"
        )
    return index


def _seat_of(state: CoordinatorState, join: Join) -> tuple[str, int | None]:
    """Holder and site of a process that was given its site, was given up, and joins anew under its name."""
    for site_claim_id, seat in state.seats.items():
        if seat.instance_id == join.instance_id and join.agent_ids == (f"{SITE_PREFIX}{seat.index}",):
            return site_claim_id, seat.index
    return "", None


def _check_joinable(state: CoordinatorState, join: Join) -> None:
    spec = state.specification
    if state.phase is RunPhase.FINISHED:
        raise RunFinishedError(f"run {state.run_id} is over after {state.round} rounds; start a new one")
    if state.phase is RunPhase.DRAINING:
        raise DrainingError(f"the coordinator goes down ({state.suspended}) and comes back; try again then")
    if join.feature_dim != spec.feature_dim:
        raise FeatureMismatchError(
            f"the agent's features have dimension {join.feature_dim}, those of the run {spec.feature_dim}; "
            "use the feature map of the run"
        )
    if not join.feature_fingerprint:
        raise InvalidMessageError("join.feature_fingerprint is empty; name the feature map that all agents share")
    if spec.feature_fingerprint and join.feature_fingerprint != spec.feature_fingerprint:
        raise FeatureMismatchError(
            f"the agent's feature map is {join.feature_fingerprint!r}, that of the run "
            f"{spec.feature_fingerprint!r}; use the feature map of the run"
        )


def _session_to_resume(state: CoordinatorState, join: Join) -> Session | None:
    """The session that the join goes on with; None for a new one.

    A process that joins twice under one instance id has lost the first answer: that is one join.
    """
    if join.resumption is not None:
        session = state.sessions.get(join.resumption.session_token)
        if session is None or join.resumption.run_id != state.run_id:
            raise SessionUnknownError(f"the session is not one of run {state.run_id} any more; join anew")
        if session.instance_id != join.instance_id or session.agent_ids != join.agent_ids:
            raise SessionUnknownError("the session belongs to another process; join anew")
        return session
    for agent in join.agent_ids:
        token = state.hosts.get(agent)
        if token is not None:
            session = state.sessions[token]
            same = session.instance_id == join.instance_id and session.agent_ids == join.agent_ids
            return session if same else None
    return None


def _with_told(state: CoordinatorState, join: Join) -> CoordinatorState:
    """The state that knows what those who took part were told before a restart; who does not say, may know all."""
    if state.phase is not RunPhase.WAITING or state.expected.isdisjoint(join.agent_ids):
        return state
    told = join.resumption.last_round if join.resumption else state.round + state.most_ahead
    return replace(state, told=max(state.told, told))


def _resume(state: CoordinatorState, session: Session, event: JoinRequested, now: float) -> Outcome:
    superseded: tuple[Command, ...] = ()
    if session.phase is AgentPhase.CONNECTED:
        superseded = (CloseStream(session.stream, None),)
    session = replace(
        session,
        stream=event.stream,
        phase=AgentPhase.CONNECTED,
        last_seen=now,
        reconnects=session.reconnects + 1,
        needs_from=(session.needs_from or 0) if event.join.keeps_state else None,
    )
    state = state.with_session(session)
    back = Note("agent-back", state.round, session.agent_ids, "its stream is open again")
    return state, (*superseded, Send(session.token, welcome_of(state, session)), back)


def _displace(state: CoordinatorState, join: Join, now: float) -> tuple[CoordinatorState, tuple[Command, ...]]:
    """Ends the lost sessions whose agents come back in a new process; a live one keeps its agents."""
    tokens = {state.hosts[agent]: agent for agent in join.agent_ids if agent in state.hosts}
    for token, agent in tokens.items():
        session = state.sessions[token]
        # A holder has one process: its older one, of which only the end is missing, need not be waited for. And a
        # process that joins with other names than before, as a relay does, is done with what it was.
        same = session.instance_id == join.instance_id or (
            bool(join.site_claim_id) and session.site_claim_id == join.site_claim_id
        )
        if session.phase is AgentPhase.CONNECTED and not same:
            raise AgentIdTakenError(
                f"agent {agent!r} is hosted by another process that is connected; choose another id, or try "
                f"again {state.specification.session_timeout_seconds:g} s after that process has ended"
            )
    notes: tuple[Command, ...] = ()
    for token in tokens:
        session = state.sessions[token]
        left_out = sorted(set(session.agent_ids) - set(join.agent_ids))
        cause = f"its process joined anew without {listed(left_out, 3)}" if left_out else "it was started again"
        state, gone = remove(state, token, cause, now)
        if left_out:  # the others are there again at once
            gone = tuple(
                replace(each, agent_ids=tuple(left_out)) if isinstance(each, Note) else each for each in gone
            )
        notes += gone
        if session.phase is AgentPhase.CONNECTED:
            notes += (CloseStream(session.stream, SessionUnknownError("the agent was started again")),)
    return state, notes


def _open_session(
    state: CoordinatorState,
    event: JoinRequested,
    site_index: int | None,
    now: float,
    before: tuple[Command, ...],
) -> Outcome:
    agents, site_claim_id, seats = event.join.agent_ids, event.join.site_claim_id, state.seats
    if site_index is None:
        site_claim_id, site_index = _seat_of(state, event.join)
    else:
        # Put last anew: the oldest are forgotten first.
        seats = seats.remove(site_claim_id).set(site_claim_id, Seat(site_index, event.join.instance_id))
        seats = remembered(seats, state.specification)
    returning = [state.departures[agent] for agent in agents if agent in state.departures]
    session = Session(
        token=event.token,
        instance_id=event.join.instance_id,
        agent_ids=agents,
        stream=event.stream,
        phase=AgentPhase.CONNECTED,
        last_seen=now,
        opened=now,
        reconnects=max((gone.reconnects + 1 for gone in returning), default=0),
        site_claim_id=site_claim_id,
        site_index=site_index,
        needs_from=0 if event.join.keeps_state else None,
    )
    state = replace(
        state,
        sessions=state.sessions.set(session.token, session),
        hosts=state.hosts.update(dict.fromkeys(agents, session.token)),
        everybody=state.everybody.add(agents),
        seats=seats,
        awaited=state.awaited.add(agents) if _takes_part_at_once(state, agents) else state.awaited,
        departures=state.departures.remove(*agents),
        deserted_since=None,
    )
    joined = Note("agent-joined", state.round, agents)
    stored = StoreMember(session)
    return state, (*before, stored, Send(session.token, welcome_of(state, session)), joined)


def _takes_part_at_once(state: CoordinatorState, agents: tuple[str, ...]) -> bool:
    """Whether the open round waits for agents that join now.

    Where one of them has counted in it, in an earlier process, the sum over all of them would count that one twice.
    """
    allowed = not state.frozen or state.expected.issuperset(agents)
    return state.phase is RunPhase.COLLECTING and allowed and state.counted.isdisjoint(agents)


def welcome_of(state: CoordinatorState, session: Session) -> Welcome:
    """What a session is told that joins, or comes back."""
    running = state.phase in (RunPhase.COLLECTING, RunPhase.CLOSING)
    past = running and state.awaited.isdisjoint(session.agent_ids)
    return Welcome(
        stamp=state.stamp,
        session_token=session.token,
        specification=state.specification,
        basis=state.basis,
        first_round=state.round + (1 if past else 0),
        started=state.phase is not RunPhase.WAITING,
        agent_ids=session.agent_ids,
        site_index=session.site_index,
        coordinator_started=state.coordinator_started,
    )
