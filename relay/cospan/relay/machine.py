"""A relay as a pure state machine: `step(state, event, now) -> (state, commands)`.

    WAITING ── the coordinator opens a round ──▶ COLLECTING ── all awaited gradients in ──▶ CLOSING: the sum goes up
       ▲                                          │   ▲                                       │
       └───────── its last agent is gone ─────────┘   └── the coordinator opens the next one ─┘

Towards its agents a relay is a coordinator: who may join, what counts, and who is given up is decided by the same
functions (`cospan.server.machine.membership`, `cospan.server.machine.rounds`). But it computes no basis and stores
nothing. Its messages carry the coordinator's stamp, so an agent keeps a gradient until the round is durable at the
coordinator.

Which agents it hosts, the coordinator must know before any of them is welcomed. When they change, the relay joins
anew under its old instance id: as long as a round collects, with all that are here; while the sum of one is under
way, without those that are gone. Whoever is new is then awaited in the same round at both ends, or at neither.
"""

import math
from dataclasses import replace
from typing import TypeAlias, assert_never

from cospan.core.run_fields import Participation
from cospan.core.specification import RunSpecification
from cospan.relay.events import Command, Event, Host, Refused, RoundOpened, RunFinished, SumUp, Welcomed
from cospan.relay.state import RelayState
from cospan.server import machine as coordinator
from cospan.server.machine import events, rounds
from cospan.server.machine.collections.agent_set import NOBODY, AgentSet
from cospan.server.machine.collections.participation_counts import ParticipationCounts
from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.server.machine.membership import admit, remove, welcome_of
from cospan.server.machine.transition import session_of
from cospan.wire.errors import (
    DrainingError,
    InvalidMessageError,
    InvalidValueError,
    OutOfTurnError,
    RemoteError,
    RunFinishedError,
)
from cospan.wire.messages import AgentPhase, BasisUpdate, Receipt, RunPhase, Welcome

Outcome: TypeAlias = tuple[RelayState, tuple[Command, ...]]
_Mixed: TypeAlias = tuple[RelayState, tuple[events.Command | Command, ...]]

_SHARE_OF_A_LEVEL = 0.1
"""Of the time for a round: a relay gives a straggler up so much earlier than it is given up itself for it."""
MOST_LEVELS = 5
GATHER_SECONDS = 0.05
"""So long others that come may join together with the first of them."""
_FIRST_GATHER_SECONDS = 2.5
"""The same where the relay is not in yet: after a restart its agents come back within two seconds."""
_RESUME_SECONDS = 1.0
_OVER = (RunPhase.FINISHED, RunPhase.DRAINING)


def check_relayable(specification: RunSpecification) -> None:
    """Sees to it that a sum can stand for the agents of this run.

    Raises:
        InvalidValueError: it cannot.
    """
    if specification.method.warm_up_rounds:
        raise InvalidValueError(
            f"warm_up_rounds is {specification.method.warm_up_rounds}; a warm-up's estimates are each agent's own "
            "and have no sum, so let the agents of this run join its coordinator"
        )
    if specification.participation is not Participation.ALL:
        raise InvalidValueError(
            "the run's participation is quorum; behind a relay one straggler would keep all of its agents out of "
            "the round, so let the agents of this run join its coordinator"
        )


def initial_state(specification: RunSpecification, *, gather_agents: int, level: int, now: float) -> RelayState:
    """A relay without agents, of a run of which nothing but the specification is known.

    `level` is 1 for a relay whose coordinator is no relay, 2 for one behind such a relay, and so on.
    """
    fleet = coordinator.initial_state(
        _shortened(specification, level), run_id="", incarnation=0, start_seconds=math.inf, now=now
    )
    return RelayState(fleet, specification, gather_agents, level)


def _shortened(specification: RunSpecification, level: int) -> RunSpecification:
    """The specification by which the relay waits; agents are given the run's own."""
    return replace(
        specification, round_timeout_seconds=(1.0 - _SHARE_OF_A_LEVEL * level) * specification.round_timeout_seconds
    )


def next_deadline(state: RelayState) -> float | None:
    """The earliest time at which a `Tick` may change something; None when the run is over."""
    deadline = coordinator.next_deadline(state.fleet)
    if deadline is None or state.asking_at is None:
        return deadline
    return min(deadline, state.asking_at)


def step(state: RelayState, event: Event, now: float) -> Outcome:
    """The state after an event at time `now` (seconds, monotonic), and what is to be done.

    Raises:
        RemoteError: the event is not allowed; nothing has changed.
    """
    if state.fleet.phase in _OVER and isinstance(event, Welcomed | Refused | RoundOpened | RunFinished):
        return state, ()
    after, commands = _happened(state, event, now)
    told = _told(after, commands)
    after = _without_deserted_round(after)
    unwelcomed = after.unwelcomed.intersection(after.fleet.sessions)
    after = replace(after, unwelcomed=unwelcomed) if unwelcomed != after.unwelcomed else after
    same = after.fleet.hosts is state.fleet.hosts and after.fleet.phase is state.fleet.phase
    if same and state.asking_at is None and not isinstance(event, RoundOpened):
        return after, told  # as at nearly every gradient: the names need not be looked at
    after, asked = _asked(after, now)
    return after, told + asked


def _happened(state: RelayState, event: Event, now: float) -> _Mixed:
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
            session_of(state.fleet, token)
            return _gone(state, token, f"it left: {cause or 'no cause given'}", now)
        case events.Tick():
            return _on_tick(state, now)
        case events.HeartbeatArrived() | events.StreamClosed():
            fleet, commands = coordinator.step(state.fleet, event, now)
            return replace(state, fleet=fleet), commands
        case events.DrainRequested(message=message) | events.StopRequested(message=message):
            return _on_going_down(state, message, now)
        case (
            events.GradientsArrived()
            | events.BasisComputed()
            | events.BasisFailed()
            | events.RoundsStored()
            | events.StoreFailed()
        ):  # its engine hands gradients over one by one
            raise AssertionError(f"no relay is told of a {type(event).__name__}")
        case _:
            assert_never(event)


# What the coordinator says ------------------------------------------------------------------------------------


def _on_welcomed(state: RelayState, welcome: Welcome) -> _Mixed:
    stamp, fleet = welcome.stamp, state.fleet
    shortened = _shortened(welcome.specification, state.level)
    fleet = replace(
        fleet,
        run_id=stamp.run_id,
        incarnation=stamp.incarnation,
        specification=shortened,
        coordinator_started=welcome.coordinator_started,
    )
    if fleet.phase is RunPhase.WAITING:
        fleet = replace(
            fleet, round=stamp.round, durable_round=stamp.round, basis=welcome.basis, started=stamp.round > 0
        )
    confirmed = frozenset(welcome.agent_ids).intersection(state.names)
    state = replace(
        state,
        fleet=fleet,
        specification=welcome.specification,
        confirmed=confirmed,
        durable_round=stamp.durable_round,
    )
    ready = [token for token in sorted(state.unwelcomed) if _is_welcome(state, token)]
    state = replace(state, unwelcomed=state.unwelcomed.difference(ready))
    return state, tuple(events.Send(token, welcome_of(fleet, fleet.sessions[token])) for token in ready)


def _is_welcome(state: RelayState, token: str) -> bool:
    """Whether a session may be told that it is in."""
    session = state.fleet.sessions[token]
    return session.phase is AgentPhase.CONNECTED and state.confirmed.issuperset(session.agent_ids)


def _on_refused(state: RelayState, error: RemoteError, now: float) -> _Mixed:
    """Sends those away whom the coordinator has not welcomed: they must not keep the others out."""
    commands: tuple[events.Command | Command, ...] = ()
    for token in sorted(state.unwelcomed):
        session = state.fleet.sessions[token]
        if not state.confirmed.issuperset(session.agent_ids):
            state, more = _gone(state, token, f"the coordinator refused it: {error}", now)
            commands += (*more, events.CloseStream(session.stream, error))
    return state, commands


def _on_opened(state: RelayState, event: RoundOpened, now: float) -> _Mixed:
    fleet, number = state.fleet, event.round
    if not fleet.sessions:
        return state, ()
    counts, accepted = fleet.rounds_counted, dict[int, AgentSet]()
    if number > fleet.round and fleet.counted:
        counts = counts.add(fleet.counted, fleet.round)
        accepted = {fleet.round: fleet.counted}
    elif number < fleet.round:  # the coordinator was started again, and had not stored what it went back by
        known = counts.by_name.items() if number else ()
        counts = ParticipationCounts(
            {name: min(count, number) for name, (count, _) in known},
            {name: min(last, number - 1) for name, (_, last) in known},
        )
    fleet = replace(
        fleet,
        run_id=event.stamp.run_id,
        incarnation=event.stamp.incarnation,
        round=number,
        durable_round=number,
        basis=event.basis,
        started=True,
        accepted=accepted,
        rounds_counted=counts,
    )
    state = replace(state, fleet=rounds.open_round(fleet, now), durable_round=event.stamp.durable_round)
    return state, (events.Broadcast(BasisUpdate(state.stamp, event.basis)),)


def _on_finished(state: RelayState, event: RunFinished, now: float) -> _Mixed:
    finish, stamp = event.finish, event.finish.stamp
    fleet = replace(
        state.fleet,
        round=stamp.round,
        durable_round=stamp.round,
        basis=finish.basis,
        started=state.fleet.started or stamp.round > 0,
    )
    away = _dismissed(state, RunFinishedError(f"the run is over: {finish.message}"))
    fleet, commands = rounds.finish(fleet, finish.cause, finish.message, now)
    return replace(state, fleet=fleet, durable_round=stamp.durable_round), (*away, *commands)


def _on_going_down(state: RelayState, message: str, now: float) -> _Mixed:
    """The run goes on, with or without this relay: its agents are asked to come back."""
    away = _dismissed(state, DrainingError(f"the relay goes down ({message}); try again"))
    fleet, commands = coordinator.step(state.fleet, events.DrainRequested(message, _RESUME_SECONDS), now)
    return replace(state, fleet=fleet), (*away, *commands)


def _dismissed(state: RelayState, error: RemoteError) -> tuple[events.CloseStream, ...]:
    """Ends the streams of those that still wait for their welcome: no other message may come before that."""
    sessions = (state.fleet.sessions[token] for token in sorted(state.unwelcomed))
    return tuple(events.CloseStream(session.stream, error) for session in sessions)


# What agents say ----------------------------------------------------------------------------------------------


def _on_join(state: RelayState, event: events.JoinRequested, now: float) -> _Mixed:
    if not event.join.agent_ids:
        raise InvalidMessageError("a relay gives out no sites; say which agent this is, with --id or --index")
    fleet, commands = admit(state.fleet, event, now)
    # A lost group may come back smaller, or as others: nobody else may be awaited then.
    fleet, more = rounds.close_if_complete(fleet, now)
    fingerprint = fleet.specification.feature_fingerprint  # of the run; the first agent fixes it where it was empty
    state = replace(state, fleet=fleet, specification=replace(state.specification, feature_fingerprint=fingerprint))
    token = next(each.token for each in commands if isinstance(each, events.Send))
    if not _is_welcome(state, token):
        commands = tuple(each for each in commands if not isinstance(each, events.Send))
        return replace(state, unwelcomed=state.unwelcomed | {token}), (*commands, *more)
    return replace(state, unwelcomed=state.unwelcomed - {token}), (*commands, *more)


def _on_gradient(state: RelayState, event: events.GradientArrived, now: float) -> _Mixed:
    session = session_of(state.fleet, event.token)
    if event.token in state.unwelcomed:
        raise OutOfTurnError("a gradient came before the welcome; wait for that, and for a basis")
    if state.fleet.phase is RunPhase.WAITING or event.upload.round > state.fleet.round:
        # The coordinator went back a round while this was under way; its agent keeps it, and sends it again.
        return replace(state, fleet=state.fleet.with_session(replace(session, last_seen=now))), ()
    fleet, commands = rounds.on_gradient(state.fleet, event, now)
    return replace(state, fleet=fleet), commands


def _gone(state: RelayState, token: str, cause: str, now: float) -> _Mixed:
    fleet, commands = remove(state.fleet, token, cause, now)
    fleet, more = rounds.close_if_complete(fleet, now)
    return replace(state, fleet=fleet), commands + more


def _on_tick(state: RelayState, now: float) -> _Mixed:
    fleet = state.fleet
    if fleet.phase in _OVER:
        return state, ()
    for token in state.unwelcomed:  # they have nothing to say before they are welcomed
        session = fleet.sessions[token]
        if session.phase is AgentPhase.CONNECTED:
            fleet = fleet.with_session(replace(session, last_seen=now))
    fleet, commands = coordinator.give_up_overdue(fleet, now)
    if fleet.contributions and now - fleet.phase_since >= fleet.specification.round_timeout_seconds:
        fleet = replace(fleet, awaited=NOBODY)  # of those who joined in mid-round
    fleet, more = rounds.close_if_complete(fleet, now)
    return replace(state, fleet=fleet), commands + more


# After every event --------------------------------------------------------------------------------------------


def _without_deserted_round(state: RelayState) -> RelayState:
    """With nobody here no round is open; a relay waits for agents without a bound."""
    if state.fleet.sessions or state.fleet.phase in _OVER or state.fleet.phase is RunPhase.WAITING:
        return state
    fleet = replace(
        state.fleet,
        phase=RunPhase.WAITING,
        awaited=NOBODY,
        contributions=PersistentMap(),
        counted=NOBODY,
        quorum_seconds=None,
        deserted_since=None,
    )
    return replace(state, fleet=fleet)


def _asked(state: RelayState, now: float) -> Outcome:
    """Has the coordinator told whom the relay hosts, once that is settled."""
    fleet = state.fleet
    if fleet.phase in _OVER:
        return state, ()
    hosted = {*fleet.hosts, *fleet.counted}  # who went after its gradient had counted is in the sum all the same
    wanted = tuple(sorted(hosted.intersection(state.names) if fleet.phase is RunPhase.CLOSING else hosted))
    if wanted == state.names:
        return replace(state, asking_at=None), ()
    if not set(wanted) < set(state.names):
        pause = GATHER_SECONDS if state.names else _FIRST_GATHER_SECONDS
        due = now + pause if state.asking_at is None else state.asking_at
        complete = not state.names and len(wanted) >= state.gather_agents
        if now < due and not complete:
            return replace(state, asking_at=due), ()
    state = replace(state, names=wanted, confirmed=state.confirmed.intersection(wanted), asking_at=None)
    return state, (Host(wanted, fleet.specification.feature_fingerprint),)


def _told(state: RelayState, commands: tuple[events.Command | Command, ...]) -> tuple[Command, ...]:
    """What is to be done, with the coordinator's stamp on every message; nothing is stored."""
    told: list[Command] = []
    for command in commands:
        match command:
            case events.ComputeBasis(round=number, contributions=contributions):
                told.append(SumUp(number, tuple(sorted(state.fleet.counted)), contributions))
            case events.Send(token=token, message=Welcome() as welcome):
                as_told = replace(welcome, stamp=state.stamp, specification=state.specification)
                told.append(events.Send(token, as_told))
            case events.Send(token=token, message=Receipt() as receipt):
                told.append(events.Send(token, replace(receipt, stamp=state.stamp)))
            case events.Broadcast(message=message):
                told.append(events.Broadcast(replace(message, stamp=state.stamp)))
            case events.CloseStream() | events.Note() | events.EndRun() | events.Suspend() | Host() | SumUp():
                told.append(command)
            case _:
                pass
    return tuple(told)
