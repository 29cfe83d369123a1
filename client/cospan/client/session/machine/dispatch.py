"""A process' side of the conversation as a pure state machine: `step(state, event, now) -> (state, commands)`.

    OFFLINE ── specification ──▶ PREPARING ── site made ──▶ OFFLINE
    OFFLINE ── connected ──▶ JOINING ── welcome ──▶ ACTIVE ── finish ──▶ DONE
       ▲                        │                      │
       ├──── stream broke ──────┴──────────────────────┤   (until the progress timeout runs out: FAILED)
       └──── round done ── LAGGING ◀── given up ───────┘   (in the middle of a round, see below)

The process asks for the specification first, because its site may depend on the seed of the run.

A gradient is kept until its round is durable, and is sent again after a broken stream or a restart of the
coordinator; it counts once, because (agent, round) is its idempotency key. It belongs to the basis at which it was
computed: where a restart leads to another basis for a round, the agent learns that round again. An agent that the
coordinator has given up joins again, but only when its own round is done: a fleet must not wait for it a second
time.

Every wait has an end. `progress_timeout_seconds` bounds the time without progress, whatever happens in it:
refusals, half-opened streams, sessions that break at once, coordinators of an older incarnation. Progress is a
round that becomes durable. A session that stays open for the session timeout or longer costs none of it: it may
wait for others. A `Drain` may excuse an absence, by `LONGEST_DRAIN_SECONDS` in all. A coordinator that sends
nothing over an open session is asked whether it still answers (`cospan.client.session.machine.idle_check`): a slow
round has no bound, a hung coordinator has.
"""

from cospan.client.session.machine.events import (
    Agreed,
    Answered,
    Command,
    Conclude,
    Connected,
    Counted,
    Described,
    Event,
    Fail,
    FeedSilent,
    GradientReady,
    Inquire,
    LearningFailed,
    Prepared,
    Received,
    Regrouped,
    Saved,
    StopRequested,
    StreamBroke,
    Tick,
    Transmit,
    Unanswered,
    Unsummed,
)
from cospan.client.session.machine.joining import on_connected, on_described, on_prepared, on_regrouped, on_welcome
from cospan.client.session.machine.reconnecting import (
    heard,
    is_of_the_past,
    on_broken,
    on_question,
    on_stale,
    on_tick,
    started_later,
)
from cospan.client.session.machine.rounds import announcement_problem, on_basis, on_gradient, take_part
from cospan.client.session.machine.secure_sums import on_members, on_unsummed, with_agreed, with_counted
from cospan.client.session.machine.state import Outcome, Phase, SessionState, failed
from cospan.client.session.message_checks import stamp_problem
from cospan.client.session.run_checks import Demands
from cospan.wire.errors import ForeignRunError, InvalidMessageError, OutOfTurnError
from cospan.wire.limits import LONGEST_DRAIN_SECONDS
from cospan.wire.messages import (
    BasisUpdate,
    CoordinatorMessage,
    Disposition,
    Drain,
    Finish,
    Heartbeat,
    Leave,
    Receipt,
    SumMembers,
    Welcome,
)

_NO_MORE = Demands()


def initial_state(
    *,
    progress_timeout_seconds: float,
    now: float,
    demands: Demands = _NO_MORE,
    spread: float = 0.5,
    near: bool = False,
    passes_on: bool = False,
) -> Outcome:
    """A session about to ask what the run is.

    Args:
        progress_timeout_seconds: seconds without progress after which it gives up.
        now: the time, in seconds.
        demands: a run that does not meet them is refused.
        spread: uniform in [0, 1), so that processes ask at different times.
        near: whether the coordinator is on this machine.
        passes_on: whether others learn, as below a relay.
    """
    state = SessionState(
        progress_timeout_seconds=progress_timeout_seconds,
        near=near,
        lost_since=now,
        demands=demands,
        spread=spread,
        passes_on=passes_on,
    )
    return state, (Inquire(0.0),)


def step(state: SessionState, event: Event, now: float) -> Outcome:
    """The state after an event at time `now` (seconds, monotonic), and what is to be done."""
    if state.phase in (Phase.DONE, Phase.FAILED):
        return state, ()
    match event:
        case Described(specification=specification):
            return on_described(state, specification)
        case Prepared(join=join):
            return on_prepared(state, join, now)
        case Connected():
            return on_connected(state, now)
        case Received(message=message):
            return _on_message(heard(state, now), message, now)
        case StreamBroke():
            return on_broken(state, event, now)
        case GradientReady() | Agreed() | Counted():
            return _on_readiness(state, event, now)
        case LearningFailed(error=error):
            # Not the message: it may show an observation or a reward, and causes are public.
            return _leave(state, Phase.FAILED, f"it failed ({error.reason}); its own output says how", Fail(error))
        case StopRequested(cause=cause, returning=returning):
            end = Conclude(cause, state.basis, left=True, head_covariance=state.head_covariance)
            return _leave(state, Phase.DONE, cause, end, returning=returning)
        case Regrouped() | Unsummed():
            return _of_a_relay(state, event, now)
        case Saved() | FeedSilent() | Answered() | Unanswered() | Tick():
            return _on_the_wait(state, event, now)


def _of_a_relay(state: SessionState, event: Regrouped | Unsummed, now: float) -> Outcome:
    """What happens to a process that learns through others."""
    if isinstance(event, Regrouped):
        return on_regrouped(state, event.agent_ids, now)
    return on_unsummed(state, event.round, now)


def _on_readiness(state: SessionState, event: GradientReady | Agreed | Counted, now: float) -> Outcome:
    """What the open round may need is there: its gradient, the masks of its epoch, or the count of its vector."""
    if isinstance(event, Counted):
        return take_part(with_counted(state), now)
    if isinstance(event, Agreed):
        return take_part(with_agreed(state, event), now)
    return on_gradient(state, event.upload, now)


def _on_the_wait(
    state: SessionState, event: Saved | FeedSilent | Answered | Unanswered | Tick, now: float
) -> Outcome:
    """What happens while the session waits, and does not change its round."""
    match event:
        case Saved():
            return _on_saved(state, event, now)
        case FeedSilent():
            return _on_feed_silent(state, event, now)
        case Answered() | Unanswered():
            return on_question(state, event, now)
        case Tick():
            return on_tick(state, now)


def _on_feed_silent(state: SessionState, event: FeedSilent, now: float) -> Outcome:
    """Tells the coordinator, which names the feed; without a session the next report does."""
    if state.phase is not Phase.ACTIVE:
        return state, ()
    return state.evolve(last_sent=now), (Transmit(Heartbeat(feed_silent_seconds=event.seconds)),)


def _on_saved(state: SessionState, event: Saved, now: float) -> Outcome:
    """Tells the coordinator which bases it need not keep; without a session the next write of the file does."""
    if state.phase is not Phase.ACTIVE:
        return state, ()
    return state.evolve(last_sent=now), (Transmit(Heartbeat(event.rounds)),)


def _on_message(state: SessionState, message: CoordinatorMessage, now: float) -> Outcome:
    """Takes a message, after it was checked against what the process knows of its run."""
    if state.stamp is not None and state.stamp.run_id != message.stamp.run_id:
        foreign = ForeignRunError(
            f"this agent belongs to run {state.stamp.run_id}, of which {state.stamp.round} rounds are done, and "
            f"the coordinator now holds run {message.stamp.run_id}: its state was removed, or it was started in "
            "another folder. Restore it to continue the run, or restart the agent to join the other one"
        )
        return failed(state, foreign)
    if is_of_the_past(state, message):
        return on_stale(state, message.stamp, now)
    expected = Phase.JOINING if isinstance(message, Welcome) else Phase.ACTIVE
    if state.phase is not expected:
        error = OutOfTurnError(
            f"the coordinator sent a {type(message).__name__} out of turn; is it of another version?"
        )
        return failed(state, error)
    if isinstance(message, BasisUpdate | Finish) and (problem := announcement_problem(state, message)):
        return failed(state, InvalidMessageError(problem))
    spec = message.specification if isinstance(message, Welcome) else state.specification
    # A coordinator that resumes an older copy of its store may have the incarnation of the one before it.
    known = None if started_later(state, message) else state.stamp
    implausible = stamp_problem(known, message.stamp, 0 if spec is None else spec.rounds)
    if implausible is not None:
        return failed(state, implausible)
    if isinstance(message, BasisUpdate):
        return on_basis(state, message, now)
    match message:
        case Welcome():
            return on_welcome(state, message, now)
        case SumMembers():
            return on_members(state, message)
        case Receipt(disposition=disposition):
            late = 1 if disposition is Disposition.LATE else 0
            return state.evolve(not_counted=state.not_counted + late), ()
        case Finish(stamp=stamp, cause=cause, message=text, basis=basis, head_covariance=covariance):
            done = state.evolve(phase=Phase.DONE, stamp=stamp, basis=basis, head_covariance=covariance)
            return done, (Conclude(text, basis, cause=cause, head_covariance=covariance),)
        case Drain(resume_after_seconds=seconds):
            # The coordinator ends the stream when it goes down; until then the session continues.
            drained_at = now if state.drained_at is None else state.drained_at
            resume_at = min(now + seconds, drained_at + LONGEST_DRAIN_SECONDS)
            return state.evolve(drained_at=drained_at, resume_at=resume_at), ()


def _leave(state: SessionState, phase: Phase, cause: str, end: Command, *, returning: bool = False) -> Outcome:
    """Ends the session; the coordinator is told where a stream is open."""
    joined = state.phase in (Phase.JOINING, Phase.ACTIVE)
    return state.evolve(phase=phase), ((Transmit(Leave(cause, returning)), end) if joined else (end,))
