"""Whether the coordinator is there: broken streams, attempts to reconnect, and the end of every wait."""

import math

from cospan.client.session.machine import idle_check
from cospan.client.session.machine.backoff import LONGEST_SECONDS, pause_seconds
from cospan.client.session.machine.events import (
    Answered,
    Ask,
    Conclude,
    Connect,
    Inquire,
    StreamBroke,
    Transmit,
    Unanswered,
)
from cospan.client.session.machine.idle_check import Silence
from cospan.client.session.machine.secure_sums import passes_on_early
from cospan.client.session.machine.state import Outcome, Phase, SessionState, failed
from cospan.wire.errors import (
    CertificateError,
    CoordinatorUnavailableError,
    CospanError,
    RemoteError,
    RunFinishedError,
    SessionUnknownError,
    StaleCoordinatorError,
    WorkloadBehaviourError,
)
from cospan.wire.messages import CoordinatorMessage, Heartbeat, Stamp, Welcome

_HEARTBEATS_PER_TIMEOUT = 4.0
_SHORTEST_TICK_SECONDS = 0.01
"""The shortest interval between two ticks, however short the session timeout that a peer names."""
_DOUBTS = 2
"""Attempts of an agent that has not joined yet, after one where one end does not trust the other's certificate."""


def progressed(state: SessionState, now: float) -> SessionState:
    """The state after progress: the progress timeout begins again."""
    return state.evolve(lost_since=now, open_since=now, has_progressed=True, drained_at=None, attempts=0)


def closed(state: SessionState, now: float, *, wanted: bool = False) -> SessionState:
    """The state without its session.

    A session that made progress starts the progress timeout again; one that stayed open for long, or that this
    side ended because it `wanted` to, costs none of it; one that broke soon counts as no session.
    """
    if state.phase is not Phase.ACTIVE:
        return state.evolve(phase=Phase.OFFLINE, hearing=Silence())
    # A coordinator that left a question unanswered was gone before the stream broke.
    until = state.hearing.heard_at if state.hearing.unanswered else now
    held = until - state.open_since
    session_timeout = math.inf if state.specification is None else state.specification.session_timeout_seconds
    lost_since = until if state.has_progressed else state.lost_since
    if not state.has_progressed and (wanted or held >= session_timeout):
        lost_since += held
    return state.evolve(phase=Phase.OFFLINE, lost_since=lost_since, hearing=Silence())


def on_broken(state: SessionState, event: StreamBroke, now: float) -> Outcome:
    """Reconnects after a pause, unless the error is final; an agent that was given up finishes its round first."""
    error = event.error
    if isinstance(error, RunFinishedError) and state.specification is not None:
        end = Conclude(str(error), state.basis, head_covariance=state.head_covariance)
        return state.evolve(phase=Phase.DONE), (end,)
    state = closed(state, now)
    if isinstance(error, SessionUnknownError):
        # Without a token it joined afresh, as a relay with other agents does, and an older join of its own has
        # overtaken that: it was not given up. And its round may need the agents that are not welcomed before.
        given_up, state = state.token is not None, state.evolve(token=None)
        learns = given_up and state.learning is not None and not passes_on_early(state)
        if learns and not _is_exhausted(state, now):
            return state.evolve(phase=Phase.LAGGING, lagging_since=now), ()
    elif isinstance(error, CertificateError) and state.specification is None and state.attempts >= _DOUBTS:
        return failed(state, error)  # after the welcome, a renewal on disk may cure it
    elif isinstance(error, RemoteError) and not error.retryable:
        return failed(state, error)
    near_agents = state.specification.agents if state.near and state.specification is not None else None
    return _try_again(state, error, pause_seconds(state.attempts, event.jitter, near_agents=near_agents), now)


def is_of_the_past(state: SessionState, message: CoordinatorMessage) -> bool:
    """Whether the message is from a coordinator that was replaced while it stood still, and does not know it.

    A lower incarnation that was started later is none: its store was restored from a copy.
    """
    if state.stamp is None or message.stamp.incarnation >= state.stamp.incarnation:
        return False
    return not started_later(state, message)


def started_later(state: SessionState, message: CoordinatorMessage) -> bool:
    """Whether the message is the welcome of a coordinator that was started after the one of the last welcome."""
    started = message.coordinator_started if isinstance(message, Welcome) else 0.0
    return started > state.coordinator_started > 0.0


def on_stale(state: SessionState, stamp: Stamp, now: float) -> Outcome:
    """Hangs up on a coordinator of an older incarnation, and tries later to reach the newer one."""
    assert state.stamp is not None
    stale = StaleCoordinatorError(
        f"incarnation {stamp.incarnation} of the coordinator of run {stamp.run_id} answers, and this agent has met "
        f"incarnation {state.stamp.incarnation}, which was started later; end the older one. If its store was "
        "brought back from a copy, start the agents again: they join, and learn on from their own files"
    )
    return _try_again(closed(state, now), stale, LONGEST_SECONDS, now)


def _try_again(state: SessionState, error: CospanError, pause: float, now: float) -> Outcome:
    """Asks again after a pause, unless the progress timeout has run out: then the error is why."""
    if _is_exhausted(state, now):
        return failed(state, _given_up(state, error))
    pause = max(pause, state.resume_at - now)
    again = Inquire(pause) if state.join is None else Connect(pause)
    return state.evolve(phase=Phase.OFFLINE, attempts=state.attempts + 1), (again,)


def _is_exhausted(state: SessionState, now: float) -> bool:
    """Whether the progress timeout has run out."""
    return now - max(state.lost_since, state.resume_at) >= state.progress_timeout_seconds


def _given_up(state: SessionState, error: CospanError) -> CospanError:
    """The last error, with how long the agent tried."""
    if isinstance(error, CoordinatorUnavailableError | StaleCoordinatorError):
        said = "" if state.stamp is None else " without a finished round"
        return type(error)(f"{error} (given up after {state.progress_timeout_seconds:g} s{said})")
    return error


def on_tick(state: SessionState, now: float) -> Outcome:
    """Gives up, asks a silent coordinator, or sends a heartbeat, where that is due."""
    # A coordinator that asked to be left alone until `resume_at` has not been silent before.
    since = state.lagging_since if state.phase is Phase.LAGGING else max(state.lost_since, state.resume_at)
    if state.phase in (Phase.JOINING, Phase.LAGGING) and now - since >= state.progress_timeout_seconds:
        return failed(state, _waited_in_vain(state))
    if state.phase is not Phase.ACTIVE or state.specification is None:
        return state, ()
    session_timeout = state.specification.session_timeout_seconds
    state, questions = _asked(state, now)
    if now - state.last_sent < session_timeout / _HEARTBEATS_PER_TIMEOUT:
        return state, questions
    return state.evolve(last_sent=now), (Transmit(Heartbeat()), *questions)


def _times(state: SessionState) -> idle_check.IdleCheckTimes:
    """How this process asks; a group asks once for all of its agents."""
    spec = state.described  # of a welcome it is the same: another one is refused
    hosted = 1 if state.join is None else max(1, len(state.join.agent_ids))
    return idle_check.times_of(
        state.progress_timeout_seconds, 1.0 if spec is None else spec.agents / hosted, state.spread
    )


def heard(state: SessionState, now: float) -> SessionState:
    """The state after a message of the coordinator."""
    return state.evolve(hearing=idle_check.heard(state.hearing, _times(state), now))


def _asked(state: SessionState, now: float) -> Outcome:
    """Asks a coordinator that is silent whether it still answers, where that is due."""
    if not idle_check.is_due(state.hearing, now):
        return state, ()
    asked = idle_check.asked(state.hearing, _times(state), now, excused_until=state.resume_at)
    return state.evolve(hearing=asked), (Ask(asked.answer_by - now),)


def on_question(state: SessionState, event: Answered | Unanswered, now: float) -> Outcome:
    """A question was answered or not. An answer counts from the stream's own run and incarnation alone."""
    if state.phase is not Phase.ACTIVE or state.stamp is None or state.hearing.asked_at is None:
        return state, ()  # of a stream that has broken meanwhile
    times, stamp = _times(state), event.stamp if isinstance(event, Answered) else None
    same_run = stamp is not None and stamp.run_id == state.stamp.run_id
    if stamp is not None and same_run and stamp.incarnation > state.stamp.incarnation:
        replaced = CoordinatorUnavailableError(
            f"the stream was opened to incarnation {state.stamp.incarnation} of the coordinator, and incarnation "
            f"{stamp.incarnation} answers"
        )
        return _try_again(closed(state, now), replaced, LONGEST_SECONDS * state.spread, now)
    runs = stamp is not None and same_run and stamp.incarnation == state.stamp.incarnation
    # Only a coordinator that runs can refuse a question as one too many.
    if runs or (isinstance(event, Unanswered) and isinstance(event.error, RemoteError) and event.error.retryable):
        return state.evolve(hearing=idle_check.answered(state.hearing, times, now)), ()
    state = state.evolve(hearing=idle_check.unanswered(state.hearing, times, now, excused_until=state.resume_at))
    if idle_check.is_too_long(state.hearing, times, now, excused_until=state.resume_at):
        return failed(state, _silent(state, now))
    return state, ()


def _silent(state: SessionState, now: float) -> CospanError:
    return CoordinatorUnavailableError(
        f"the stream to the coordinator is open, but the coordinator does not answer: no message for "
        f"{now - state.hearing.heard_at:.1f} s, and no answer to any question in that time "
        f"(questions: {state.hearing.unanswered}; given up after {state.progress_timeout_seconds:g} s). Its "
        "process hangs, or another one answers at its address: look at its log, end it, and start it again in its "
        "run folder"
    )


def _waited_in_vain(state: SessionState) -> CospanError:
    if state.phase is Phase.JOINING:
        return CoordinatorUnavailableError(
            f"the coordinator has not answered the join for {state.progress_timeout_seconds:g} s"
        )
    return WorkloadBehaviourError(
        f"round {state.learning} is not done {state.progress_timeout_seconds:g} s after the coordinator stopped "
        "waiting for it; does the environment hang?"
    )


def tick_seconds(state: SessionState) -> float:
    """The interval at which the machine needs a `Tick`, in seconds."""
    if state.specification is None:
        seconds = state.progress_timeout_seconds / _HEARTBEATS_PER_TIMEOUT
    else:
        seconds = state.specification.session_timeout_seconds / _HEARTBEATS_PER_TIMEOUT / 2.0
    return min(1.0, max(_SHORTEST_TICK_SECONDS, seconds))
