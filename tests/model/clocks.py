"""States without their times, and states in which a timeout is due."""

from dataclasses import replace
from typing import Any

from cospan.server.machine import events
from cospan.server.machine.opening import is_connected
from cospan.server.machine.sessions import Departure
from cospan.server.machine.state import CoordinatorState
from cospan.wire.messages import RunPhase

RETURN_SECONDS = 15.0
LONG_AGO = -1e6


def moved_back(state: CoordinatorState, event: tuple[Any, ...]) -> CoordinatorState:
    """The state in which what a tick is due for lies in the past."""
    members = state.members
    match event:
        case ("tick", "silent", token):
            silent = replace(members.sessions[token], last_seen=LONG_AGO)
            return state.with_session(silent)
        case ("tick", "returned", drops_lost):
            sessions = members.sessions
            for each in members.sessions.values():
                if drops_lost and not is_connected(each):
                    sessions = sessions.set(each.token, replace(each, last_seen=-RETURN_SECONDS))
            return state.evolve(phase_since=-RETURN_SECONDS, members=members.evolve(sessions=sessions))
        case ("tick", "round"):
            sessions = members.sessions
            for each in members.sessions.values():
                sessions = sessions.set(each.token, replace(each, opened=LONG_AGO))
            return state.evolve(phase_since=LONG_AGO, members=members.evolve(sessions=sessions))
        case ("tick", "deadline"):
            return state.evolve(phase_since=-state.specification.deadline_seconds)
    return state


def without_times(state: CoordinatorState) -> CoordinatorState:
    """The state with all times at 0, and without what only observers see."""
    members, current, history = state.members, state.open_round, state.history
    sessions, departures = members.sessions, members.departures
    for token, each in members.sessions.items():
        sessions = sessions.set(token, replace(each, last_seen=0.0, opened=0.0, reconnects=0, needs_from=None))
    for name, gone in members.departures.items():
        departures = departures.set(name, plain_departure(gone))
    waits_late = state.phase is RunPhase.WAITING and state.phase_since < 0.0
    return state.evolve(
        phase_since=-RETURN_SECONDS if waits_late else 0.0,
        members=members.evolve(
            sessions=sessions,
            departures=departures,
            deserted_since=None if members.deserted_since is None else 0.0,
        ),
        open_round=current.evolve(
            first_gradient_seconds=0.0,
            quorum_seconds=None if current.quorum_seconds is None else 0.0,
            departed=tuple(sorted(set(current.departed))),
        ),
        history=history.evolve(slowest_first_gradient_seconds=0.0, last_slow_round=-1),
    )


def plain_departure(gone: Departure) -> Departure:
    """A departure without times, and without what only observers see."""
    return Departure(gone.agent_id, 0, "", 0.0, 0)


def plain_record(record: events.RoundRecord) -> events.RoundRecord:
    """The record without times, and without what only observers see."""
    return replace(
        record,
        stamp=replace(record.stamp, incarnation=0),
        closed=0.0,
        seconds=0.0,
        departed_agent_ids=(),
        absent_agent_ids=(),
    )
