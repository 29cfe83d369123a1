"""A relay as a pure state machine: `step(state, event, now) -> (state, commands)`.

    WAITING ── the coordinator opens a round ──▶ COLLECTING ── all awaited gradients in ──▶ CLOSING: the sum goes up
       ▲                                          │   ▲                                       │
       └───────── its last agent is gone ─────────┘   └── the coordinator opens the next one ─┘

To its agents a relay is a coordinator: the same functions decide who may join, which gradients count, and which
sessions are dropped (`membership`, `counting`, `closing` and `timeouts` of `cospan.server.machine`). But it
computes no basis and stores nothing. Its messages carry the coordinator's stamp, so an agent keeps a gradient until
the round is durable at the coordinator.

The coordinator must know which agents the relay hosts before any of them is welcomed. When they change, the relay
joins again under its instance id: with all that are present while a round collects; without the departed ones while
the sum of a round is on its way. A new agent is then awaited in the same round at both ends, or at neither.

With secure sums (`cospan.relay.members`) the members of a round are fixed when it opens, so agents are added at any
time, and are in the next round. A round that lacks a member's vector is void: the relay declines it, or joins again
without that member, which comes to the same.
"""

import math
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from cospan.core.run_fields import Participation
from cospan.core.specification import RunSpecification
from cospan.relay.events import (
    Command,
    DeclineUp,
    Event,
    HostAgents,
    Refused,
    RoundOpened,
    RunFinished,
    SumUp,
    Welcomed,
)
from cospan.relay.members import is_open_already, offered_below, with_epoch_below
from cospan.relay.restarts import streams_to_close, without_first_round
from cospan.relay.state import RelayState
from cospan.server import machine as coordinator
from cospan.server.machine import events
from cospan.server.machine.closing import close_if_complete, finish
from cospan.server.machine.collections.agent_set import EMPTY_SET, AgentSet
from cospan.server.machine.collections.participation_counts import ParticipationCounts
from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.server.machine.membership import admit, remove, welcome_of
from cospan.server.machine.opening import announcement, begin_round
from cospan.server.machine.sessions import Session
from cospan.server.machine.state import OVER, CoordinatorConfig, CoordinatorState, OpenRound
from cospan.wire import errors
from cospan.wire.messages import AgentPhase, BasisUpdate, Finish, Receipt, RunPhase, SumMembers, Welcome

Outcome: TypeAlias = tuple[RelayState, tuple[Command, ...]]
_Mixed: TypeAlias = tuple[RelayState, tuple[events.Command | Command, ...]]

_TIMEOUT_SHARE_PER_LEVEL = 0.1
"""Share of `round_timeout_seconds` by which a relay drops a straggler before it is dropped for it itself."""
MOST_LEVELS = 5
GATHER_SECONDS = 0.05
"""The relay joins for all agents that arrive within this time of the first."""
_FIRST_GATHER_SECONDS = 2.5
"""The same before the relay has joined: after a restart its agents come back within two seconds."""
_RESUME_SECONDS = 1.0
_REGROUPED = "a member whose vector had come was started again with other agents"


def check_relayable(specification: RunSpecification) -> None:
    """Checks that a sum can stand for the gradients of this run's agents.

    Raises:
        InvalidValueError: it cannot.
    """
    if specification.method.warm_up_rounds:
        raise errors.InvalidValueError(
            f"warm_up_rounds is {specification.method.warm_up_rounds}; a warm-up's estimates are each agent's own "
            "and have no sum, so let the agents of this run join its coordinator"
        )
    if specification.participation is not Participation.ALL:
        raise errors.InvalidValueError(
            "the run's participation is quorum; behind a relay one straggler would keep all of its agents out of "
            "the round, so let the agents of this run join its coordinator"
        )
    if specification.is_private:
        raise errors.InvalidValueError(
            "the run has differential privacy, whose noise is shared out over the members of a sum; let the agents "
            "of this run join its coordinator"
        )


def initial_state(specification: RunSpecification, *, gather_agents: int, level: int, now: float) -> RelayState:
    """A relay without agents, which knows nothing but the specification of the run.

    `level` is 1 for a relay that joins the coordinator itself, 2 for one behind such a relay, and so on.
    """
    config = CoordinatorConfig(run_id="", incarnation=0, start_seconds=math.inf)
    fleet = coordinator.initial_state(_with_earlier_timeout(specification, level), config, now)
    return RelayState(fleet, specification, gather_agents, level)


def _with_earlier_timeout(specification: RunSpecification, level: int) -> RunSpecification:
    """The specification by which the relay waits; its agents receive the run's own."""
    return replace(
        specification,
        round_timeout_seconds=(1.0 - _TIMEOUT_SHARE_PER_LEVEL * level) * specification.round_timeout_seconds,
    )


def next_deadline(state: RelayState) -> float | None:
    """The earliest time at which a `Tick` may change something; None when the run is over."""
    deadline = coordinator.next_deadline(state.fleet)
    if deadline is None or state.asking_at is None:
        return deadline
    return min(deadline, state.asking_at)


def step(state: RelayState, event: Event, now: float) -> Outcome:
    """The state after an event at time `now` (seconds, monotonic), and the commands for the shell.

    Raises:
        RemoteError: the event is not allowed; nothing has changed.
    """
    if state.fleet.phase in OVER and isinstance(event, Welcomed | Refused | RoundOpened | RunFinished):
        return state, ()
    after, commands = _dispatch(state, event, now)
    told = _with_stamps(after, commands)
    after = _without_deserted_round(after)
    unwelcomed = after.unwelcomed.intersection(after.fleet.members.sessions)
    after = replace(after, unwelcomed=unwelcomed) if unwelcomed != after.unwelcomed else after
    same = after.fleet.members.hosts is state.fleet.members.hosts and after.fleet.phase is state.fleet.phase
    if same and state.asking_at is None and not isinstance(event, RoundOpened):
        return after, told  # as after nearly every gradient: no agent has joined or departed
    after, asked = _update_hosting(after, now)
    if any(isinstance(each, HostAgents) for each in asked):
        told = tuple(each for each in told if not isinstance(each, DeclineUp))  # the join says so, and says more
    return after, told + asked


def _dispatch(state: RelayState, event: Event, now: float) -> _Mixed:
    match event:
        case Welcomed(welcome=welcome):
            return _on_welcomed(state, welcome)
        case Refused(error=error):
            return _on_refused(state, error, now)
        case RoundOpened():
            return _on_opened(state, event, now)
        case RunFinished():
            return _on_finished(state, event, now)
        case events.JoinRequested():
            return _on_join(state, event, now)
        case events.GradientArrived():
            return _on_gradient(state, event, now)
        case events.LeaveArrived(token=token, cause=cause):
            state.fleet.session(token)
            return _remove(state, token, f"it left: {cause or 'no cause given'}", now)
        case events.Tick():
            return _on_tick(state, now)
        case events.HeartbeatArrived() | events.StreamClosed() | events.DeclineArrived():
            fleet, commands = coordinator.step(state.fleet, event, now)
            return replace(state, fleet=fleet), commands
        case events.DrainRequested(message=message) | events.StopRequested(message=message):
            return _on_going_down(state, message, now)
        case _:  # its engine hands over single gradients, and it computes and stores nothing
            raise AssertionError(f"a relay has no {type(event).__name__}")


# Events of the coordinator ------------------------------------------------------------------------------------


def _on_welcomed(state: RelayState, welcome: Welcome) -> _Mixed:
    stamp, away = welcome.stamp, streams_to_close(state, welcome)
    fleet = without_first_round(state.fleet, welcome)
    shortened = _with_earlier_timeout(welcome.specification, state.level)
    config = fleet.config.evolve(
        run_id=stamp.run_id, incarnation=stamp.incarnation, coordinator_started=welcome.coordinator_started
    )
    fleet = fleet.evolve(config=config, specification=shortened)
    if fleet.phase is RunPhase.WAITING:
        fleet = _at_round(fleet, stamp.round, welcome, started=stamp.round > 0)
    confirmed = frozenset(welcome.agent_ids).intersection(state.names)
    state = replace(
        state,
        fleet=fleet,
        specification=welcome.specification,
        confirmed=confirmed,
        durable_round=stamp.durable_round,
    )
    ready = [token for token in sorted(state.unwelcomed) if _may_welcome(state, token)]
    state = replace(state, unwelcomed=state.unwelcomed.difference(ready))
    told = (events.Send(token, welcome_of(fleet, fleet.members.sessions[token])) for token in ready)
    return state, (*away, *told)


def _at_round(
    fleet: CoordinatorState, number: int, announced: Welcome | RoundOpened | Finish, *, started: bool
) -> CoordinatorState:
    """The fleet at the coordinator's round; for the fleet every earlier round is durable."""
    return fleet.evolve(
        round=number,
        basis=announced.basis,
        head_covariance=announced.head_covariance,
        durability=fleet.durability.evolve(durable_round=number),
        history=fleet.history.evolve(started=started, rounds_counted=_counts_below(fleet, number)),
    )


def _counts_below(fleet: CoordinatorState, number: int) -> ParticipationCounts:
    """How often agents have counted, once the coordinator is at a round, which may be an earlier one.

    It was restarted then, and had not stored the rounds between.
    """
    counts = fleet.history.rounds_counted
    if number >= fleet.round:
        return counts
    known = counts.by_name.items() if number else ()
    return ParticipationCounts(
        {name: min(count, number) for name, (count, _) in known},
        {name: min(last, number - 1) for name, (_, last) in known},
    )


def _may_welcome(state: RelayState, token: str) -> bool:
    """Whether a session is connected, and the coordinator has confirmed all of its agents."""
    session = state.fleet.members.sessions[token]
    return session.phase is AgentPhase.CONNECTED and _is_confirmed(state, session)


def _is_confirmed(state: RelayState, session: Session) -> bool:
    """Whether the coordinator knows all agents of a session; with secure sums by the keys that they have now."""
    offer = state.fleet.members.offers.get(session.token)
    known = offer is None or all(member in state.offered.members for member in offer.members)
    return known and state.confirmed.issuperset(session.agent_ids)


def _on_refused(state: RelayState, error: errors.RemoteError, now: float) -> _Mixed:
    """Ends the sessions with agents that the coordinator has not confirmed, so that the others can join."""
    commands: tuple[events.Command | Command, ...] = ()
    for token in sorted(state.unwelcomed):
        session = state.fleet.members.sessions[token]
        if not _is_confirmed(state, session):
            state, more = _remove(state, token, f"the coordinator refused it: {error}", now)
            commands += (*more, events.CloseStream(session.stream, error))
    return state, commands


def _on_opened(state: RelayState, event: RoundOpened, now: float) -> _Mixed:
    fleet, number = state.fleet, event.round
    if not fleet.members.sessions:
        return state, ()
    if event.epoch is not None and is_open_already(fleet, number, event.epoch) and _is_same_basis(fleet, event):
        config = fleet.config.evolve(run_id=event.stamp.run_id, incarnation=event.stamp.incarnation)
        return replace(state, fleet=fleet.evolve(config=config), durable_round=event.stamp.durable_round), ()
    before = fleet.open_round.epoch
    counts, accepted = fleet.history.rounds_counted, dict[int, AgentSet]()
    if number > fleet.round and fleet.open_round.counted:
        counts = counts.add(fleet.open_round.counted, fleet.round)
        accepted = {fleet.round: fleet.open_round.counted}
    fleet = fleet.evolve(
        config=fleet.config.evolve(run_id=event.stamp.run_id, incarnation=event.stamp.incarnation),
        history=fleet.history.evolve(accepted=accepted, rounds_counted=counts),
    )
    fleet = _at_round(fleet, number, event, started=True)
    fleet = begin_round(fleet, now)
    if event.epoch is None:
        state = replace(state, fleet=fleet, durable_round=event.stamp.durable_round)
        return state, (events.Broadcast(BasisUpdate(state.stamp, event.basis, event.head_covariance)),)
    state = replace(
        state, fleet=with_epoch_below(fleet, event.epoch, before), durable_round=event.stamp.durable_round
    )
    told = announcement(state.fleet)
    fleet, more = close_if_complete(state.fleet, now)  # void where a member is gone
    return replace(state, fleet=fleet), (*told, *more)


def _is_same_basis(fleet: CoordinatorState, event: RoundOpened) -> bool:
    """Whether a round is opened again with the same numbers, bit for bit."""
    one, other = fleet.head_covariance, event.head_covariance
    same = one is other or (one is not None and other is not None and np.array_equal(one, other))
    return same and np.array_equal(fleet.basis, event.basis)


def _on_finished(state: RelayState, event: RunFinished, now: float) -> _Mixed:
    end, stamp = event.finish, event.finish.stamp
    started = state.fleet.history.started or stamp.round > 0
    fleet = _at_round(state.fleet, stamp.round, end, started=started)
    away = _close_unwelcomed(state, errors.RunFinishedError(f"the run is over: {end.message}"))
    fleet, commands = finish(fleet, end.cause, end.message, now)
    return replace(state, fleet=fleet, durable_round=stamp.durable_round), (*away, *commands)


def _on_going_down(state: RelayState, message: str, now: float) -> _Mixed:
    """Asks the agents to reconnect: the run continues with or without this relay."""
    away = _close_unwelcomed(state, errors.DrainingError(f"the relay goes down ({message}); try again"))
    fleet, commands = coordinator.step(state.fleet, events.DrainRequested(message, _RESUME_SECONDS), now)
    return replace(state, fleet=fleet), (*away, *commands)


def _close_unwelcomed(state: RelayState, error: errors.RemoteError) -> tuple[events.CloseStream, ...]:
    """Ends the streams of sessions that wait for their welcome, before which no other message may be sent."""
    sessions = (state.fleet.members.sessions[token] for token in sorted(state.unwelcomed))
    return tuple(events.CloseStream(session.stream, error) for session in sessions)


# Events of agents ---------------------------------------------------------------------------------------------


def _on_join(state: RelayState, event: events.JoinRequested, now: float) -> _Mixed:
    if not event.join.agent_ids:
        raise errors.InvalidMessageError("a relay assigns no sites; name the agent with --id or --index")
    fleet, commands = admit(state.fleet, event, now)
    # A lost group may come back with fewer or other agents, so the round may await no gradient any more.
    fleet, more = close_if_complete(fleet, now)
    fingerprint = fleet.specification.feature_fingerprint  # the first join sets it
    state = replace(state, fleet=fleet, specification=replace(state.specification, feature_fingerprint=fingerprint))
    token = next(each.token for each in commands if isinstance(each, events.Send))
    if not _may_welcome(state, token):
        commands = tuple(each for each in commands if not isinstance(each, events.Send))
        return replace(state, unwelcomed=state.unwelcomed | {token}), (*commands, *more)
    return replace(state, unwelcomed=state.unwelcomed - {token}), (*commands, *more)


def _on_gradient(state: RelayState, event: events.GradientArrived, now: float) -> _Mixed:
    session = state.fleet.session(event.token)
    if event.token in state.unwelcomed:
        raise errors.OutOfTurnError("a gradient came before the welcome; wait for that, and for a basis")
    if state.fleet.phase is RunPhase.WAITING or event.upload.round > state.fleet.round:
        # The coordinator went back a round after it was sent; its agent keeps it, and sends it again.
        return replace(state, fleet=state.fleet.with_session(replace(session, last_seen=now))), ()
    fleet, commands = coordinator.step(state.fleet, event, now)
    return replace(state, fleet=fleet), commands


def _remove(state: RelayState, token: str, cause: str, now: float) -> _Mixed:
    fleet, commands = remove(state.fleet, token, cause, now)
    fleet, more = close_if_complete(fleet, now)
    return replace(state, fleet=fleet), commands + more


def _on_tick(state: RelayState, now: float) -> _Mixed:
    fleet = state.fleet
    if fleet.phase in OVER:
        return state, ()
    for token in state.unwelcomed:  # they send nothing before their welcome
        session = fleet.members.sessions[token]
        if session.phase is AgentPhase.CONNECTED:
            fleet = fleet.with_session(replace(session, last_seen=now))
    fleet, commands = coordinator.drop_overdue(fleet, now)
    if fleet.open_round.contributions and now >= fleet.phase_since + fleet.specification.round_timeout_seconds:
        fleet = fleet.evolve(open_round=fleet.open_round.evolve(awaited=EMPTY_SET))  # these joined during the round
    fleet, more = close_if_complete(fleet, now)
    return replace(state, fleet=fleet), commands + more


# After every event --------------------------------------------------------------------------------------------


def _without_deserted_round(state: RelayState) -> RelayState:
    """Without sessions no round is open; a relay waits for agents without a timeout."""
    if state.fleet.members.sessions or state.fleet.phase in OVER or state.fleet.phase is RunPhase.WAITING:
        return state
    members = state.fleet.members.evolve(deserted_since=None)
    fleet = state.fleet.evolve(phase=RunPhase.WAITING, open_round=OpenRound(), members=members)
    return replace(state, fleet=fleet)


def _update_hosting(state: RelayState, now: float) -> Outcome:
    """Joins the coordinator with the agents that the relay hosts now, once they have stopped changing."""
    fleet = state.fleet
    if fleet.phase in OVER:
        return state, ()
    if state.specification.secure_sums:
        return _update_members(state, now)
    # An agent that departed after its gradient had been counted is in the sum all the same.
    hosted = {*fleet.members.hosts, *fleet.open_round.counted}
    wanted = tuple(sorted(hosted.intersection(state.names) if fleet.phase is RunPhase.CLOSING else hosted))
    if wanted == state.names:
        return replace(state, asking_at=None), ()
    if not set(wanted) < set(state.names):
        due = _due(state, wanted, now)
        if now < due:
            return replace(state, asking_at=due), ()
    state = replace(state, names=wanted, confirmed=state.confirmed.intersection(wanted), asking_at=None)
    return state, (HostAgents(wanted, fleet.specification.feature_fingerprint),)


def _due(state: RelayState, wanted: tuple[str, ...], now: float) -> float:
    """When the relay joins with agents that are new; a few moments after the first of them, or now with all."""
    if not state.names and len(wanted) >= state.gather_agents:
        return now
    pause = GATHER_SECONDS if state.names else _FIRST_GATHER_SECONDS
    return now + pause if state.asking_at is None else state.asking_at


def _update_members(state: RelayState, now: float) -> Outcome:
    """The same with secure sums, where the members of a round do not change while it is open.

    Where it is void it waits for nothing more, and the next one shall not be: then the relay joins at once.
    """
    fleet, last = state.fleet, state.offered
    offered = offered_below(fleet, last)
    if offered.offer is last.offer:
        return replace(state, offered=offered, asking_at=None), ()
    wanted = offered.agent_ids
    if not set(wanted) < set(state.names) and not fleet.open_round.void_cause:
        due = _due(state, wanted, now)
        if now < due:
            return replace(state, asking_at=due), ()
    if not fleet.open_round.counted.names <= set(wanted):
        # The join voids the round: there is no sum, and so none in which a departed member stays.
        none = fleet.open_round.evolve(counted=EMPTY_SET, contributions=PersistentMap(), void_cause=_REGROUPED)
        fleet = fleet.evolve(open_round=none)
        offered = offered_below(fleet, last)
        wanted = offered.agent_ids
    staying = (member for member in offered.offer.members if member in last.members)
    confirmed = state.confirmed.intersection(agent for member in staying for agent in member.agent_ids)
    state = replace(state, fleet=fleet, names=wanted, confirmed=confirmed, asking_at=None, offered=offered)
    return state, (HostAgents(wanted, fleet.specification.feature_fingerprint, offered.offer),)


def _with_stamps(state: RelayState, commands: tuple[events.Command | Command, ...]) -> tuple[Command, ...]:
    """The commands, with the coordinator's stamp on every message, and without storage."""
    told: list[Command] = []
    for command in commands:
        match command:
            case events.ComputeBasis(round=number, contributions=contributions):
                told.append(SumUp(number, tuple(sorted(state.fleet.open_round.counted)), contributions))
            case events.StoreRound(record=record):  # of a void round; no other one closes here
                told.append(DeclineUp(record.closed_round))
            case events.Send(token=token, message=Welcome() as welcome):
                as_told = replace(welcome, stamp=state.stamp, specification=state.specification)
                told.append(events.Send(token, as_told))
            case events.Send(token=token, message=Receipt() | SumMembers() as message):
                if token not in state.unwelcomed:
                    told.append(events.Send(token, replace(message, stamp=state.stamp)))
            case events.Broadcast(message=message):
                told.append(events.Broadcast(replace(message, stamp=state.stamp)))
            case events.CloseStream() | events.Note() | events.EndRun() | events.Suspend() | HostAgents() | SumUp():
                told.append(command)
            case _:
                pass
    return tuple(told)
