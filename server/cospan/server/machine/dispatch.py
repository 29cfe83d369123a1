"""The table of transitions, and `step`, which looks events up in it.

    WAITING ── enough agents joined ──▶ COLLECTING ── awaited gradients counted ──▶ CLOSING ── basis computed,
    and stored unless a restart would give the same bits ──▶ COLLECTING (next round) … and from each of them to
    FINISHED, or to DRAINING: the run is resumed by another process, which begins in WAITING.

`TRANSITIONS` has exactly one entry for each phase and event, and is also printed in docs/architecture.md
(docs/scripts/state_table.py). Nothing here knows sockets, files, threads or a clock.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias, get_args

from cospan.server.machine import closing, counting, events, timeouts
from cospan.server.machine.membership import admit, remove, with_saved_rounds
from cospan.server.machine.state import OVER, CoordinatorState, Outcome
from cospan.wire.messages import AgentPhase, FinishCause, RunPhase

Handler: TypeAlias = Callable[[CoordinatorState, Any, float], Outcome]

_RESUME_AFTER_FAILURE_SECONDS = 5.0
"""Agents reconnect after this time when the store has failed."""


def step(state: CoordinatorState, event: events.Event, now: float) -> Outcome:
    """The state after an event at time `now` (seconds, monotonic), and the commands for the shell.

    Raises:
        RemoteError: a peer caused an event that is not allowed; nothing has changed.
        ValueError: the shell handed over gradients that cannot be counted in a batch; nothing has changed.
    """
    return _HANDLERS[type(event)][state.phase](state, event, now)


# Handlers that combine membership with rounds -----------------------------------------------------------------


def _on_join(state: CoordinatorState, event: events.JoinRequested, now: float) -> Outcome:
    state, commands = admit(state, event, now)
    state, more = closing.start_if_ready(state, now)
    commands += more
    # A lost group may come back with fewer or other agents, so the round may await no gradient any more.
    state, more = closing.reevaluate(state, now)
    return state, commands + more


def _on_heartbeat(state: CoordinatorState, event: events.HeartbeatArrived, now: float) -> Outcome:
    session = with_saved_rounds(state.session(event.token), event.saved_rounds)
    return state.with_session(session.heard(now)), ()


def _on_leave(state: CoordinatorState, event: events.LeaveArrived, now: float) -> Outcome:
    state.session(event.token)
    state, commands = remove(state, event.token, f"it left: {event.cause or 'no cause given'}", now)
    if state.phase is RunPhase.COLLECTING and not state.members.sessions and not event.returning:
        state, more = closing.finish(state, FinishCause.NO_AGENTS, "every agent has left", now)
    else:
        state, more = closing.reevaluate(state, now)
    return state, commands + more


def _ignore_leave(state: CoordinatorState, event: events.LeaveArrived, _now: float) -> Outcome:
    state.session(event.token)
    return state, ()


def _on_stream_closed(state: CoordinatorState, event: events.StreamClosed, now: float) -> Outcome:
    session = state.members.sessions.get(event.token)
    if session is None or session.stream != event.stream:
        return state, ()
    state = state.with_session(replace(session, phase=AgentPhase.LOST, last_seen=now))
    return state, (events.Note("agent-lost", state.round, session.agent_ids, "its stream broke"),)


def _on_store_failed(state: CoordinatorState, event: events.StoreFailed, now: float) -> Outcome:
    return closing.suspend(state, events.Suspend(event.message, failed=True), _RESUME_AFTER_FAILURE_SECONDS, now)


def _on_drain(state: CoordinatorState, event: events.DrainRequested, now: float) -> Outcome:
    return closing.suspend(state, events.Suspend(event.message, failed=False), event.resume_after_seconds, now)


def _on_stop(state: CoordinatorState, event: events.StopRequested, now: float) -> Outcome:
    return closing.finish(state, FinishCause.STOPPED, event.message, now)


def _ignore(state: CoordinatorState, _event: events.Event, _now: float) -> Outcome:
    return state, ()


# The table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transition:
    """What an event does in some phases."""

    phases: tuple[RunPhase, ...]
    event: type[events.Event]
    handler: Handler
    effects: Mapping[str, str]
    """Condition → what follows, in words; the condition is empty if there is none."""


_WAITING, _COLLECTING, _CLOSING = (RunPhase.WAITING,), (RunPhase.COLLECTING,), (RunPhase.CLOSING,)
_FINISHED, _DRAINING = (RunPhase.FINISHED,), (RunPhase.DRAINING,)
_OPEN = _COLLECTING + _CLOSING
_ACTIVE = _WAITING + _OPEN
_ALL = _ACTIVE + OVER


def _ignored(event: type[events.Event], phases: tuple[RunPhase, ...], why: str) -> Transition:
    return Transition(phases, event, _ignore, {"": f"ignored: {why}"})


TRANSITIONS: tuple[Transition, ...] = (
    Transition(
        _WAITING,
        events.JoinRequested,
        _on_join,
        {
            "a new process": (
                "a session is opened and welcomed; refused if its features differ from the run's, or a connected "
                "process hosts one of its agents"
            ),
            "it names no agents": "it is assigned the site that its claim had, or the first free one",
            "it has a session": "the session is resumed, and its older stream closed",
            "all `agents` are connected": "COLLECTING; the basis is sent to every session",
            "after a restart, the contributors of the last stored round are connected": (
                "COLLECTING as a *replay*: no other agent takes part, so the round gives the same bits"
            ),
            "the same, and all rounds are stored": "FINISHED (all rounds)",
        },
    ),
    Transition(
        _OPEN,
        events.JoinRequested,
        _on_join,
        {
            "": "the session is opened, resumed or refused as in WAITING",
            "a new process in COLLECTING": "the round awaits its agents, unless it is a replay or has counted one",
        },
    ),
    Transition(_FINISHED, events.JoinRequested, _on_join, {"": "refused: the run is over"}),
    Transition(
        _DRAINING, events.JoinRequested, _on_join, {"": "refused: the process joins again after the restart"}
    ),
    Transition(_WAITING, events.GradientArrived, counting.on_gradient, {"": "refused: no round is open"}),
    Transition(
        _COLLECTING,
        events.GradientArrived,
        counting.on_gradient,
        {
            "of the open round": "counted; CLOSING once none is awaited, unless the in-flight limit is reached",
            "at most `max_staleness` rounds old": "counted until a newer one of the same agents replaces it",
            "counted before, or too old": "a receipt: duplicate or late",
            "in a replay, over some of its agents and others": "the round opens again for all, and counts it",
        },
    ),
    Transition(
        _CLOSING + _FINISHED, events.GradientArrived, counting.on_gradient, {"": "a receipt: duplicate or late"}
    ),
    Transition(
        _DRAINING,
        events.GradientArrived,
        counting.ignore_gradient,
        {"": "ignored: it is sent again after the restart"},
    ),
    Transition(
        _COLLECTING,
        events.GradientsArrived,
        counting.on_gradients,
        {"": "as `GradientArrived` for each; refused if one is not of a whole awaited session"},
    ),
    Transition(
        _WAITING + _CLOSING + OVER,
        events.GradientsArrived,
        counting.refuse_gradients,
        {"": "refused: none is awaited"},
    ),
    Transition(_ALL, events.HeartbeatArrived, _on_heartbeat, {"": "the session is alive"}),
    Transition(
        _ACTIVE,
        events.LeaveArrived,
        _on_leave,
        {
            "": "its agents depart, and are not awaited any more",
            "it is the last session in COLLECTING, and does not return": "FINISHED (no agents)",
            "the round awaits its vector (secure sums)": "CLOSING: the round is void",
        },
    ),
    Transition(OVER, events.LeaveArrived, _ignore_leave, {"": "ignored: the sessions end with the process"}),
    Transition(
        _ACTIVE,
        events.StreamClosed,
        _on_stream_closed,
        {
            "": "the session is *lost*, and awaited until it comes back or times out",
            "a newer stream has replaced it": "ignored",
        },
    ),
    Transition(
        _COLLECTING,
        events.DeclineArrived,
        counting.on_decline,
        {"the round awaits its vector (secure sums)": "CLOSING: the round is *void*; the basis does not change"},
    ),
    Transition(
        _WAITING + _CLOSING + OVER, events.DeclineArrived, counting.ignore_decline, {"": "the session is alive"}
    ),
    _ignored(events.StreamClosed, OVER, "the sessions end with the process"),
    Transition(
        _CLOSING,
        events.BasisComputed,
        closing.on_basis_computed,
        {
            "a restart would give the same bits": "the round is stored; COLLECTING of the next one at once",
            "otherwise": "the round is stored before it is announced",
        },
    ),
    _ignored(events.BasisComputed, _WAITING + _COLLECTING + OVER, "the round was ended meanwhile"),
    Transition(_CLOSING, events.BasisFailed, closing.on_basis_failed, {"": "FINISHED (failed)"}),
    _ignored(events.BasisFailed, _WAITING + _COLLECTING + OVER, "the round was ended meanwhile"),
    Transition(
        _ACTIVE,
        events.RoundsStored,
        closing.on_rounds_stored,
        {
            "announced before": "reported; a complete round that waited at the in-flight limit is CLOSING",
            "not announced yet": "reported; COLLECTING of the next round, after the last one FINISHED (all rounds)",
        },
    ),
    Transition(OVER, events.RoundsStored, closing.on_rounds_stored, {"": "announced rounds are reported"}),
    Transition(_ACTIVE, events.StoreFailed, _on_store_failed, {"": "DRAINING: agents keep what is not durable"}),
    _ignored(events.StoreFailed, OVER, "the process ends anyway"),
    Transition(_ACTIVE, events.DrainRequested, _on_drain, {"": "DRAINING: agents keep what is not durable"}),
    _ignored(events.DrainRequested, OVER, "the process ends anyway"),
    Transition(_ACTIVE, events.StopRequested, _on_stop, {"": "FINISHED (stopped)"}),
    _ignored(events.StopRequested, OVER, "the process ends anyway"),
    Transition(
        _WAITING,
        events.Tick,
        timeouts.on_tick_waiting,
        {
            "a session is silent for `session_timeout_seconds`": "its agents depart, by name and cause",
            "`start_seconds` have passed": (
                "COLLECTING with `min_agents` or more; else FINISHED (not started; after a restart, no agents)"
            ),
            "`return_seconds` have passed after a restart": "COLLECTING with the agents that are connected",
            "one of these times has passed, and all rounds are stored": "FINISHED (all rounds)",
        },
    ),
    Transition(
        _OPEN,
        events.Tick,
        timeouts.on_tick_running,
        {
            "a session is silent for `session_timeout_seconds`": "its agents depart, by name and cause",
            "a quorum's deadline has passed": "CLOSING; the agents still awaited are *absent* in this round",
            "a round with a gradient is open for `round_timeout_seconds`": (
                "the agents still awaited depart; later if the first gradient was late "
                "([ADR 16](adr/0016-rounds-take-the-time-of-the-fleet.md))"
            ),
            "a round without a gradient is open for as long": "noted once; agents that are alive stay",
            "no session for `round_timeout_seconds`": "FINISHED (no agents)",
        },
    ),
    _ignored(events.Tick, OVER, "nothing is waited for"),
)


def _handlers() -> Mapping[type[events.Event], Mapping[RunPhase, Handler]]:
    """Event → phase → handler.

    Raises:
        ValueError: the table lacks a cell, or has it twice.
    """
    handlers: dict[type[events.Event], dict[RunPhase, Handler]] = {event: {} for event in get_args(events.Event)}
    for transition in TRANSITIONS:
        for phase in transition.phases:
            if phase in handlers[transition.event]:
                raise ValueError(f"two transitions for {transition.event.__name__} in {phase.name}")
            handlers[transition.event][phase] = transition.handler
    for event, by_phase in handlers.items():
        if missing := [phase.name for phase in RunPhase if phase not in by_phase]:
            raise ValueError(f"no transition for {event.__name__} in {', '.join(missing)}")
    return MappingProxyType(handlers)


_HANDLERS = _handlers()
