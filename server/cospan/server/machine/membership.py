"""Joining and leaving: sessions, agent ids, sites, and how many agents a run may remember.

A peer may join under one new name after another, and each name is remembered, reported and stored. So their number
is limited, far above what a fleet of the specification's size needs.
"""

from dataclasses import replace

from cospan.core.secure_sums.layout import layout_of
from cospan.core.specification import SITE_PREFIX, RunSpecification
from cospan.server.machine import events
from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.server.machine.secure_sums.epochs import Offer, offer_of
from cospan.server.machine.secure_sums.succession import with_successor
from cospan.server.machine.sessions import Departure, Session, SiteClaim
from cospan.server.machine.state import CoordinatorState, Outcome
from cospan.wire.errors import (
    AgentIdTakenError,
    DrainingError,
    FeatureMismatchError,
    InvalidMessageError,
    NoFreeSiteError,
    RunFinishedError,
    SessionUnknownError,
    TooManyAgentsError,
)
from cospan.wire.limits import most_known_agents
from cospan.wire.messages import AgentPhase, Join, RunPhase, Welcome
from cospan.wire.text import listed


def admit(state: CoordinatorState, event: events.JoinRequested, now: float) -> Outcome:
    """Opens a session for the joining process, or resumes its session, and welcomes it.

    Raises:
        RemoteError: the process cannot join; nothing has changed.
    """
    _check_joinable(state, event.join)
    event, site_index = _assign_site(state, event)
    offer = offer_of(event.join) if state.specification.secure_sums else None
    state = _update_last_announced(state, event.join)
    known = _resumable_session(state, event.join, offer)
    if known is not None:
        _check_keys(state, offer, known)
        return _resume_session(_with_offer(state, known.token, offer), known, event, now)
    _check_capacity(state, event.join.agent_ids)
    former = state
    state, before = _displace(state, event.join, now)
    _check_keys(state, offer, None)  # a relay brings its members again
    if not state.specification.feature_fingerprint:
        fixed = replace(state.specification, feature_fingerprint=event.join.feature_fingerprint)
        state = state.evolve(specification=fixed)
        before += (events.StoreSpecification(fixed),)
    return _open_session(state, event, site_index, now, (former, before))


def remove(state: CoordinatorState, token: str, cause: str, now: float) -> Outcome:
    """Ends a session; its agents depart, and are not awaited any more."""
    members, session = state.members, state.members.sessions[token]
    departures = {
        agent: Departure(agent, state.round, cause, session.last_seen, session.reconnects)
        for agent in session.agent_ids
    }
    sessions, offer = members.sessions.remove(token), members.offers.get(token)
    state = state.evolve(
        members=members.evolve(
            sessions=sessions,
            offers=members.offers if offer is None else members.offers.remove(token),
            keys=members.keys if offer is None else members.keys.remove(*offer.keys),
            hosts=members.hosts.remove(*session.agent_ids),
            present=members.present.remove(session.agent_ids),
            departures=members.departures.update(departures),
            deserted_since=None if sessions or state.phase is RunPhase.WAITING else now,
        ),
        open_round=state.open_round.evolve(
            awaited=state.open_round.awaited.remove(session.agent_ids),
            departed=state.open_round.departed + session.agent_ids,
        ),
    )
    dropped = events.DropMember(token, tuple(departures.values()))
    return state, (dropped, events.Note("agent-gone", state.round, session.agent_ids, cause))


def with_saved_rounds(session: Session, saved_rounds: int) -> Session:
    """The session after its process has reported that its file holds all rounds below `saved_rounds`."""
    if session.needs_from is None or saved_rounds <= session.needs_from:
        return session
    return replace(session, needs_from=saved_rounds)


def needed_from(state: CoordinatorState) -> int | None:
    """The oldest round whose basis a process may ask for again; None if no process keeps a file."""
    sessions = state.members.sessions.values()
    return min((session.needs_from for session in sessions if session.needs_from is not None), default=None)


def welcome_of(state: CoordinatorState, session: Session) -> Welcome:
    """The welcome of a session that joins or comes back."""
    running = state.phase in (RunPhase.COLLECTING, RunPhase.CLOSING)
    past = running and state.open_round.awaited.isdisjoint(session.agent_ids)
    epoch = state.open_round.epoch
    takes_part = epoch is not None and session.token in epoch.tokens
    return Welcome(
        stamp=state.stamp,
        session_token=session.token,
        specification=state.specification,
        basis=state.basis,
        head_covariance=state.head_covariance,
        first_round=state.round + (1 if past else 0),
        started=state.phase is not RunPhase.WAITING,
        agent_ids=session.agent_ids,
        site_index=session.site_index,
        coordinator_started=state.config.coordinator_started,
        membership=epoch.named_to(session.token, state.stamp) if epoch is not None and takes_part else None,
    )


# Who may join ---------------------------------------------------------------------------------------------------


def _check_joinable(state: CoordinatorState, join: Join) -> None:
    spec = state.specification
    if state.phase is RunPhase.FINISHED:
        raise RunFinishedError(f"run {state.config.run_id} is over after {state.round} rounds; start a new one")
    if isinstance(state.end, events.Suspend):
        raise DrainingError(f"the coordinator goes down ({state.end.message}) and comes back; try again then")
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


def _check_capacity(state: CoordinatorState, agent_ids: tuple[str, ...]) -> None:
    """Raises TooManyAgentsError if the run would remember too many agents with these."""
    hosts, departures = state.members.hosts, state.members.departures
    new = sum(1 for agent in agent_ids if agent not in hosts and agent not in departures)
    known, most = len(hosts) + len(departures), most_known_agents(state.specification.agents)
    if new and known + new > most:
        raise TooManyAgentsError(
            f"this run has had {known} agents, and with {new} more it would be above {most}; use names that it "
            "knows, or begin a run of more agents"
        )
    if not state.specification.secure_sums:
        return
    together = len(hosts) + sum(1 for agent in agent_ids if agent not in hosts)
    capacity = layout_of(state.specification, 0).capacity
    if together > capacity:
        raise TooManyAgentsError(
            f"a secure sum of this run has room for {capacity} agents, and with these there would be {together}; "
            "begin a run of more agents"
        )


def _check_keys(state: CoordinatorState, offer: Offer | None, known: Session | None) -> None:
    """Raises InvalidMessageError if another session has offered one of the keys."""
    if offer is None:
        return
    for key in offer.keys:
        token = state.members.keys.get(key)
        if token is not None and (known is None or token != known.token):
            raise InvalidMessageError("join.sum_members has a key of another session; each process makes its own")


def _with_offer(state: CoordinatorState, token: str, offer: Offer | None) -> CoordinatorState:
    """The state with what a session offers."""
    members = state.members
    if offer is None or members.offers.get(token) == offer:
        return state
    keys = members.keys.update(dict.fromkeys(offer.keys, token))
    return state.evolve(members=members.evolve(offers=members.offers.set(token, offer), keys=keys))


def _resumable_session(state: CoordinatorState, join: Join, offer: Offer | None) -> Session | None:
    """The session that the join resumes; None if it needs a new one.

    A process that joins twice under one instance id has not received the first answer: that is one join. With
    another key it is another member of secure sums, and so another session. So is a relay that has left after a sum
    over some of these agents, and whose leave was lost: it has no sum over the others alone.
    """
    members = state.members
    if join.resumption is not None:
        session = members.sessions.get(join.resumption.session_token)
        if session is None or join.resumption.run_id != state.config.run_id:
            raise SessionUnknownError(f"the session is not one of run {state.config.run_id} any more; join again")
        if session.instance_id != join.instance_id or session.agent_ids != join.agent_ids:
            raise SessionUnknownError("the session belongs to another process; join again")
        if not _has_same_keys(state, session.token, offer):
            raise SessionUnknownError("the session belongs to a process with another key; join again")
        return session
    for agent in join.agent_ids:
        token = members.hosts.get(agent)
        if token is not None:
            session = members.sessions[token]
            same = session.instance_id == join.instance_id and session.agent_ids == join.agent_ids
            one_join = same and _has_same_keys(state, token, offer) and not _has_counted_in_part(state, session)
            return session if one_join else None
    return None


def _has_counted_in_part(state: CoordinatorState, session: Session) -> bool:
    """Whether some agents of a session have counted in the open round, and it awaits others of them."""
    current, agents = state.open_round, session.agent_ids
    return not current.awaited.isdisjoint(agents) and not current.counted.isdisjoint(agents)


def _has_same_keys(state: CoordinatorState, token: str, offer: Offer | None) -> bool:
    """Whether a session has offered these keys, or none since the coordinator was started."""
    before = state.members.offers.get(token)
    return offer is None or before is None or before.members == offer.members


def _update_last_announced(state: CoordinatorState, join: Join) -> CoordinatorState:
    """The state that knows which rounds were announced to a returning agent; all of them if it does not say."""
    durability = state.durability
    if state.phase is not RunPhase.WAITING or durability.replay_agents.isdisjoint(join.agent_ids):
        return state
    newest = state.round + state.config.max_inflight_rounds
    known = join.resumption.last_round if join.resumption else newest
    newest_known = max(durability.last_announced_round, known)
    return state.evolve(durability=durability.evolve(last_announced_round=newest_known))


# Sites ----------------------------------------------------------------------------------------------------------


def _assign_site(state: CoordinatorState, event: events.JoinRequested) -> tuple[events.JoinRequested, int | None]:
    """A join without agent ids gets that of the site assigned to its claim; and the site's index."""
    join = event.join
    if join.agent_ids:
        return event, None
    index = _site_for(state, join.site_claim_id)
    return replace(event, join=replace(join, agent_ids=(f"{SITE_PREFIX}{index}",))), index


def _site_for(state: CoordinatorState, site_claim_id: str) -> int:
    """The claim's former site, unless another claim has it now; else the first free one."""
    members = state.members
    former = members.site_claims.get(site_claim_id)
    if former is not None:
        token = members.hosts.get(f"{SITE_PREFIX}{former.index}")
        if token is None or members.sessions[token].site_claim_id == site_claim_id:
            return former.index
    index = 0
    while f"{SITE_PREFIX}{index}" in members.hosts:
        index += 1
    limit = state.config.site_limit
    if limit is not None and index >= limit:
        raise NoFreeSiteError(
            f"all {limit} sites of workload {state.specification.workload!r} have their agents; "
            "start fewer, or try again when one has left"
        )
    return index


def _former_claim(state: CoordinatorState, join: Join) -> tuple[str, int | None]:
    """Claim and site of a process that was assigned its site, was dropped, and joins again under its agent id."""
    for site_claim_id, claim in state.members.site_claims.items():
        if claim.instance_id == join.instance_id and join.agent_ids == (f"{SITE_PREFIX}{claim.index}",):
            return site_claim_id, claim.index
    return "", None


def _with_claim(
    claims: PersistentMap[str, SiteClaim], site_claim_id: str, claim: SiteClaim, specification: RunSpecification
) -> PersistentMap[str, SiteClaim]:
    """The claims with one added as the newest; the oldest beyond the limit are dropped."""
    claims = claims.remove(site_claim_id).set(site_claim_id, claim)
    surplus = max(0, len(claims) - most_known_agents(specification.agents))
    return claims.remove(*list(claims)[:surplus]) if surplus else claims


# Sessions -------------------------------------------------------------------------------------------------------


def _resume_session(state: CoordinatorState, session: Session, event: events.JoinRequested, now: float) -> Outcome:
    superseded: tuple[events.Command, ...] = ()
    if session.phase is AgentPhase.CONNECTED:
        superseded = (events.CloseStream(session.stream, None),)
    session = replace(
        session,
        stream=event.stream,
        phase=AgentPhase.CONNECTED,
        last_seen=now,
        reconnects=session.reconnects + 1,
        needs_from=(session.needs_from or 0) if event.join.keeps_state else None,
    )
    state = state.with_session(session)
    back = events.Note("agent-back", state.round, session.agent_ids, "its stream is open again")
    return state, (*superseded, events.Send(session.token, welcome_of(state, session)), back)


def _displace(state: CoordinatorState, join: Join, now: float) -> Outcome:
    """Ends the lost sessions whose agents come back in a new process; a connected one keeps its agents."""
    members = state.members
    tokens = {members.hosts[agent]: agent for agent in join.agent_ids if agent in members.hosts}
    for token, agent in tokens.items():
        session = members.sessions[token]
        # A claim has one process: only the end of its older one is missing, and need not be waited for. And a
        # process that joins with other agents than before, as a relay does, gives up its former session.
        same = session.instance_id == join.instance_id or (
            bool(join.site_claim_id) and session.site_claim_id == join.site_claim_id
        )
        if session.phase is AgentPhase.CONNECTED and not same:
            raise AgentIdTakenError(
                f"agent {agent!r} is hosted by another process that is connected; choose another id, or try "
                f"again {state.specification.session_timeout_seconds:g} s after that process has ended"
            )
    commands: tuple[events.Command, ...] = ()
    for token in tokens:
        session = state.members.sessions[token]
        left_out = sorted(set(session.agent_ids) - set(join.agent_ids))
        cause = f"its process joined again without {listed(left_out, 3)}" if left_out else "it was started again"
        state, more = remove(state, token, cause, now)
        if left_out:  # the other agents are present again at once
            more = tuple(
                replace(each, agent_ids=tuple(left_out)) if isinstance(each, events.Note) else each for each in more
            )
        commands += more
        if session.phase is AgentPhase.CONNECTED:
            commands += (events.CloseStream(session.stream, SessionUnknownError("the agent was started again")),)
    return state, commands


def _open_session(
    state: CoordinatorState,
    event: events.JoinRequested,
    site_index: int | None,
    now: float,
    displaced: tuple[CoordinatorState, tuple[events.Command, ...]],
) -> Outcome:
    """Opens a session; `displaced` is the state before others were displaced for it, and the commands of that."""
    earlier, before = displaced
    join, members, current = event.join, state.members, state.open_round
    agents, site_claim_id, claims = join.agent_ids, join.site_claim_id, members.site_claims
    if site_index is None:
        site_claim_id, site_index = _former_claim(state, join)
    else:
        claim = SiteClaim(site_index, join.instance_id)
        claims = _with_claim(claims, site_claim_id, claim, state.specification)
    former = [members.departures[agent] for agent in agents if agent in members.departures]
    session = Session(
        token=event.token,
        instance_id=join.instance_id,
        agent_ids=agents,
        stream=event.stream,
        phase=AgentPhase.CONNECTED,
        last_seen=now,
        opened=now,
        reconnects=max((departure.reconnects + 1 for departure in former), default=0),
        site_claim_id=site_claim_id,
        site_index=site_index,
        needs_from=0 if join.keeps_state else None,
    )
    if _joins_open_round(state, agents):
        current = current.evolve(awaited=current.awaited.add(agents))
    members = members.evolve(
        sessions=members.sessions.set(session.token, session),
        hosts=members.hosts.update(dict.fromkeys(agents, session.token)),
        present=members.present.add(agents),
        departures=members.departures.remove(*agents),
        site_claims=claims,
        deserted_since=None,
    )
    offer = offer_of(join) if state.specification.secure_sums else None
    state = _with_offer(state.evolve(members=members, open_round=current), session.token, offer)
    state = with_successor(state, earlier, session.token)
    welcome = events.Send(session.token, welcome_of(state, session))
    return state, (*before, events.StoreMember(session), welcome, events.Note("agent-joined", state.round, agents))


def _joins_open_round(state: CoordinatorState, agents: tuple[str, ...]) -> bool:
    """Whether the open round waits for agents that join now.

    If one of them was counted in it, in an earlier process, the sum over all of them would count that one twice.
    With secure sums the members of an open round are fixed.
    """
    if state.specification.secure_sums:
        return False
    current = state.open_round
    allowed = not current.replaying or state.durability.replay_agents.issuperset(agents)
    return state.phase is RunPhase.COLLECTING and allowed and current.counted.isdisjoint(agents)
