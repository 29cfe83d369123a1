"""Opening rounds: the first one, the next one, and after a restart the one that has to be repeated.

A round is stored before it is announced, or while the next one is in progress if a restart would give the same
bits: with full participation, and the contributors of the round before, who are stored and connected. Up to
`cospan.wire.limits.rounds_ahead` rounds run ahead of the disk that way. After a restart only those contributors
take part in the rounds that may have been announced: these rounds are *replayed*. With a quorum every round is
stored before it is announced.
"""

from cospan.core.run_fields import Participation
from cospan.server.machine.collections.agent_set import Block
from cospan.server.machine.events import Broadcast, Command, Note, Send
from cospan.server.machine.quorum import required_gradients
from cospan.server.machine.secure_sums.epochs import Epoch, formed
from cospan.server.machine.sessions import Session
from cospan.server.machine.state import CoordinatorState, OpenRound, Outcome
from cospan.wire.messages import AgentPhase, BasisUpdate, RunPhase

_EMPTY_ROUND = OpenRound()


def start(state: CoordinatorState, now: float) -> Outcome:
    """Opens a round with the agents that are present, and announces it."""
    kind = "run-resumed" if state.history.started else "run-started"
    agents = state.durability.replay_agents
    # Only rounds of full participation are announced before they are stored, so only they have to be repeated.
    repeats = state.specification.participation is Participation.ALL
    replays = repeats and bool(agents) and agents <= connected_agents(state)
    state = begin_round(state, now)
    if replays:
        # Every contributor is back and sends the same gradient again: the round comes to the same bits.
        # All of them contributed to the round before the newest that was announced, so each knows that one. The
        # newest may be known to a late process alone: its session is not stored, so it cannot say what it knows.
        newest = min(state.durability.last_announced_round + 1, state.round + state.config.max_inflight_rounds)
        durability = state.durability.evolve(replay_until=max(newest, state.round + 1))
        state = restrict_to_replay(state.evolve(durability=durability))
    else:
        state = state.evolve(durability=state.durability.evolve(replay_agents=frozenset()))
    state = with_epoch(state, None)
    if state.phase is RunPhase.WAITING:  # too few for a sum; maybe enough with those who would not repeat the round
        return start(state, now) if replays else (state, announcement(state))
    state = state.evolve(history=state.history.evolve(started=True))
    started = Note(kind, state.round, tuple(sorted(state.members.hosts)))
    return state, (*announcement(state), started)


def announcement(state: CoordinatorState) -> tuple[Command, ...]:
    """Tells every session of the open round: its basis, and the head covariance where there is one.

    With secure sums the members of a new epoch are told of it first.
    """
    epoch = state.open_round.epoch
    if state.phase is RunPhase.WAITING:
        text = (
            f"fewer than {state.specification.min_cohort} processes are here, and of fewer no sum is formed "
            "(min_cohort); the run waits for more"
        )
        return (Note("cohort-small", state.round, tuple(sorted(state.members.hosts)), text),)
    if epoch is None:
        return (Broadcast(BasisUpdate(state.stamp, state.basis, state.head_covariance)),)
    told = tuple(Send(token, epoch.named_to(token, state.stamp)) for token in sorted(epoch.untold))
    return (*told, Broadcast(BasisUpdate(state.stamp, state.basis, state.head_covariance, epoch.id)))


def with_epoch(state: CoordinatorState, before: Epoch | None) -> CoordinatorState:
    """The state whose open round has its epoch, if the run has secure sums; WAITING if it would be too small.

    Args:
        state: whose round was just opened.
        before: the epoch of the round before, which continues if nothing has changed.
    """
    if not state.specification.secure_sums:
        return state
    current, members = state.open_round, state.members
    epoch = formed(state.config.run_id, current.awaited, members.offers, members.hosts, before)
    if len(epoch.membership.members) < state.specification.min_cohort:
        return state.evolve(
            phase=RunPhase.WAITING,
            open_round=_EMPTY_ROUND,
            members=members.evolve(deserted_since=None),
            durability=state.durability.evolve(replay_agents=frozenset()),
        )
    return state.evolve(open_round=current.evolve(epoch=epoch, awaited=epoch.awaited))


def has_cohort(state: CoordinatorState) -> bool:
    """Whether enough processes are connected for a sum; always without secure sums, whose `min_cohort` is 0."""
    sessions, offers = state.members.sessions, state.members.offers
    connected = sum(len(offer.members) for token, offer in offers.items() if is_connected(sessions[token]))
    return connected >= state.specification.min_cohort


def begin_round(state: CoordinatorState, now: float) -> CoordinatorState:
    """The state with an open round that awaits every agent that is present."""
    opened = _EMPTY_ROUND.evolve(awaited=state.members.present)
    return state.evolve(phase=RunPhase.COLLECTING, phase_since=now, open_round=opened)


def restrict_to_replay(state: CoordinatorState) -> CoordinatorState:
    """The state whose open round only `replay_agents` take part in."""
    current = state.open_round
    others = tuple(current.awaited.names - state.durability.replay_agents)
    return state.evolve(open_round=current.evolve(replaying=True, awaited=current.awaited.remove(others)))


def connected_agents(state: CoordinatorState) -> frozenset[str]:
    """The agents whose streams are open."""
    sessions = (each for each in state.members.sessions.values() if is_connected(each))
    return frozenset(agent for session in sessions for agent in session.agent_ids)


def is_connected(session: Session) -> bool:
    """Whether the session's stream is open."""
    return session.phase is AgentPhase.CONNECTED


def are_connected(state: CoordinatorState, agents: Block) -> bool:
    """Whether the streams of all these agents are open."""
    sessions, hosts = state.members.sessions, state.members.hosts
    first = sessions.get(hosts.get(agents[0], ""))
    if first is not None and first.agent_ids is agents:  # as in nearly every case; its agents need no look-up
        return is_connected(first)
    found = (sessions.get(hosts.get(agent, "")) for agent in agents)
    return all(session is not None and is_connected(session) for session in found)


def fleet_is_ready(state: CoordinatorState, now: float) -> bool:
    """Whether enough agents are connected to begin; after a restart, enough of the last round's contributors."""
    # Called at every join: cheap tests first, because most of the time the answer is no.
    agents = state.durability.replay_agents
    if not agents:
        if state.history.started and state.specification.secure_sums:
            return has_cohort(state)
        enough = state.specification.agents
        there = len(state.members.hosts) >= enough and len(connected_agents(state)) >= enough
        return there and has_cohort(state)
    late = now >= state.phase_since + state.config.return_seconds
    back = sum(are_connected(state, (agent,)) for agent in agents)
    return back >= required_gradients(state.specification, len(agents)) or (late and bool(connected_agents(state)))
