"""An agent's side of the conversation as a pure state machine: `step(state, event, now) -> (state, commands)`.

    OFFLINE ── specification ──▶ PREPARING ── site made ──▶ OFFLINE
    OFFLINE ── connected ──▶ JOINING ── welcome ──▶ ACTIVE ── finish ──▶ DONE
       ▲                        │                      │
       ├──── stream broke ──────┴──────────────────────┤   (until the progress timeout runs out: FAILED)
       └──── round done ── LAGGING ◀── given up ───────┘   (in the middle of a round, see below)

The agent asks for the specification first, because its site may depend on the seed of the run.

A gradient is kept until its round is durable, and is sent again after a broken stream or a restart of the
coordinator; it counts once, because (agent, round) is its idempotency key. It belongs to the basis that it was
taken at: where a restart has come to another basis for a round, the agent learns that round anew, too. An agent
that the coordinator has given up joins anew, but not before its own round is done: a fleet must not wait for it a
second time.

Every wait has an end. `progress_timeout_seconds` bounds the time without progress, whatever happens in it:
refusals, half-opened streams, sessions that break at once, coordinators of the past. Progress is a round that
becomes durable. A session that stays open for the session timeout or longer costs nothing: it may wait for others.
A `Drain` may excuse an absence, by `LONGEST_DRAIN_SECONDS` at most, however many there are. An open session in
which nothing comes is asked whether the coordinator still answers (`cospan.client.session.idle_check`): a slow
round has no bound, a hung coordinator has.

Nothing here knows of sockets, threads or a clock.
"""

import math
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.client.session import idle_check
from cospan.client.session.backoff import LONGEST_SECONDS, pause_seconds
from cospan.client.session.events import (
    Answered,
    Ask,
    Begin,
    Command,
    Conclude,
    Connect,
    Connected,
    Described,
    Event,
    Fail,
    GradientReady,
    Inquire,
    Learn,
    LearningFailed,
    Prepare,
    Prepared,
    Received,
    Regrouped,
    Saved,
    StopRequested,
    StreamBroke,
    Tick,
    Transmit,
    Unanswered,
    answer_to_ask,
)
from cospan.client.session.idle_check import Silence
from cospan.client.session.message_checks import feature_problem, stamp_problem, welcome_problem
from cospan.client.session.run_checks import below_floor, turn_between
from cospan.core.method import DEFAULT_MIN_STEPS
from cospan.core.specification import RunSpecification
from cospan.wire.errors import (
    CertificateError,
    CoordinatorUnavailableError,
    CospanError,
    ForeignRunError,
    InvalidMessageError,
    OutOfTurnError,
    RemoteError,
    RunFinishedError,
    SessionUnknownError,
    StaleCoordinatorError,
    WorkloadBehaviourError,
)
from cospan.wire.limits import LONGEST_DRAIN_SECONDS, rounds_ahead
from cospan.wire.messages import (
    BasisUpdate,
    CoordinatorMessage,
    Disposition,
    Drain,
    Finish,
    GradientUpload,
    Heartbeat,
    Join,
    Leave,
    Receipt,
    Resumption,
    Stamp,
    Welcome,
)

__all__ = [
    "Answered",
    "Ask",
    "Begin",
    "Command",
    "Conclude",
    "Connect",
    "Connected",
    "Described",
    "Event",
    "Fail",
    "GradientReady",
    "Inquire",
    "KeptGradient",
    "Learn",
    "LearningFailed",
    "Outcome",
    "Phase",
    "Prepare",
    "Prepared",
    "Received",
    "Regrouped",
    "Saved",
    "SessionState",
    "StopRequested",
    "StreamBroke",
    "Tick",
    "Transmit",
    "Unanswered",
    "answer_to_ask",
    "initial_state",
    "most_kept",
    "most_kept_rounds",
    "step",
    "tick_seconds",
]

_MOST_STALE = 2
"""So many gradients more than there may be rounds that are told and not durable are kept."""
_HEARTBEATS_PER_LIVENESS = 4.0
_SHORTEST_TICK_SECONDS = 0.01
"""A session timeout that a peer names may be as small as it likes; the machine is not asked more often."""
_DOUBTS = 2
"""So often an agent that is not in yet tries again where one end does not trust the other's certificate."""


class Phase(Enum):
    """Where the conversation stands."""

    OFFLINE = "offline"
    PREPARING = "preparing"
    JOINING = "joining"
    ACTIVE = "active"
    LAGGING = "lagging"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, eq=False, slots=True)
class KeptGradient:
    """A gradient that the coordinator may ask for again, and the basis that it was taken at."""

    upload: GradientUpload
    basis: Float[np.ndarray, "d r"]


@dataclass(frozen=True, eq=False, slots=True)
class SessionState:
    """What an agent process knows of its run.

    Attributes:
        join: who it is, once its site is made; the same at every attempt.
        progress_timeout_seconds: seconds without progress after which it gives up.
        near: whether the coordinator is on this machine.
        phase: where the conversation stands.
        described: the specification that the site was made for.
        specification: of the run, once welcomed.
        token: of the session; None before the first welcome, and when the coordinator has forgotten it.
        stamp: of the newest message.
        told: the newest round that it was ever told of; a coordinator that was started again may have gone back.
        basis: B_t of the stamp's round.
        is_open: whether that round takes gradients; not while the coordinator waits for the fleet.
        learning: the round whose gradient is being computed.
        learning_at: the basis that it is computed at.
        learnt_at: stamp and basis of the last round that was given to the learner.
        min_steps_per_round: a run with fewer steps a round is refused.
        kept: gradients whose rounds are not durable, oldest first.
        last_sent: when anything was sent.
        lost_since: time without progress is counted from here; moved on by the time that sessions were open.
        open_since: since when the session is open, or since the last progress that it has made.
        has_progressed: whether the open session has made progress.
        lagging_since: since when an agent that was given up is busy with its round.
        coordinator_started: when the coordinator of the last welcome was started, by its own clock; 0 if unknown.
        drained_at: when the first `Drain` since the last progress came; None without one.
        resume_at: when the coordinator wants to be asked again, after a `Drain`.
        attempts: attempts to connect since then.
        reconnects: how often the stream was opened again.
        not_counted: gradients that came too late.
        hearing: when the coordinator behind the open stream was last heard, and when it is asked.
        spread: this process' own number in [0, 1): a fleet's questions come apart.
    """

    progress_timeout_seconds: float
    near: bool = False
    join: Join | None = None
    phase: Phase = Phase.OFFLINE
    described: RunSpecification | None = None
    specification: RunSpecification | None = None
    token: str | None = None
    stamp: Stamp | None = None
    told: int = 0
    basis: Float[np.ndarray, "d r"] | None = None
    is_open: bool = False
    learning: int | None = None
    learning_at: Float[np.ndarray, "d r"] | None = None
    learnt_at: tuple[Stamp, Float[np.ndarray, "d r"]] | None = None
    min_steps_per_round: int = DEFAULT_MIN_STEPS
    kept: tuple[KeptGradient, ...] = ()
    last_sent: float = 0.0
    lost_since: float = 0.0
    open_since: float = 0.0
    has_progressed: bool = False
    lagging_since: float = 0.0
    coordinator_started: float = 0.0
    drained_at: float | None = None
    resume_at: float = -math.inf
    attempts: int = 0
    reconnects: int = 0
    not_counted: int = 0
    hearing: Silence = field(default_factory=Silence)
    spread: float = 0.5

    def check(self) -> None:
        """Raises AssertionError where an invariant does not hold; called by tests after every event."""
        welcomed = (self.specification, self.stamp, self.basis)
        assert all(value is None for value in welcomed) or all(value is not None for value in welcomed)
        assert self.phase is not Phase.ACTIVE or self.token is not None, "an active session has a token"
        assert self.phase is not Phase.LAGGING or self.learning is not None, "only who learns lags behind"
        assert self.learning is None or self.stamp is not None, "nothing is learnt before the welcome"
        assert (self.learning is None) == (self.learning_at is None), "a gradient is taken at a basis"
        assert len(self.kept) <= most_kept(self), "what is kept is bounded"
        site_made = self.phase in (Phase.JOINING, Phase.ACTIVE, Phase.LAGGING)
        assert not site_made or self.join is not None, "who joins has a site"
        waits = (
            self.phase is not Phase.ACTIVE
            or math.isinf(self.progress_timeout_seconds)
            or math.isfinite(self.hearing.ask_at)
        )
        assert waits or self.hearing.asked_at is not None, "an active session asks, or will ask"
        assert self.hearing.asked_at is None or self.phase in (Phase.ACTIVE, Phase.DONE, Phase.FAILED), (
            "a question needs a stream"
        )


Outcome: TypeAlias = tuple[SessionState, tuple[Command, ...]]


def initial_state(
    *,
    progress_timeout_seconds: float,
    now: float,
    min_steps_per_round: int = DEFAULT_MIN_STEPS,
    spread: float = 0.5,
    near: bool = False,
) -> Outcome:
    """A session about to ask what the run is.

    Args:
        progress_timeout_seconds: seconds without progress after which it gives up.
        now: the time, in seconds.
        min_steps_per_round: a run with fewer is refused.
        spread: uniform in [0, 1), so that processes ask at different times.
        near: whether the coordinator is on this machine.
    """
    state = SessionState(
        progress_timeout_seconds=progress_timeout_seconds,
        near=near,
        lost_since=now,
        min_steps_per_round=min_steps_per_round,
        spread=spread,
    )
    return state, (Inquire(0.0),)


def step(state: SessionState, event: Event, now: float) -> Outcome:
    """The state after an event at time `now` (seconds, monotonic), and what is to be done."""
    if state.phase in (Phase.DONE, Phase.FAILED):
        return state, ()
    match event:
        case Described(specification=specification):
            return _on_described(state, specification)
        case Prepared(join=join):
            return _on_prepared(state, join, now)
        case Connected():
            return _on_connected(state, now)
        case Received(message=message):
            return _on_message(_heard(state, now), message, now)
        case StreamBroke():
            return _on_broken(state, event, now)
        case GradientReady(upload=upload):
            return _on_gradient(state, upload, now)
        case LearningFailed(error=error):
            # Not the sentence: it may show an observation or a reward, and every onlooker can read a cause.
            return _leave(state, Phase.FAILED, f"it failed ({error.reason}); its own output says how", Fail(error))
        case StopRequested(cause=cause, returning=returning):
            return _leave(state, Phase.DONE, cause, Conclude(cause, state.basis, left=True), returning=returning)
        case Regrouped(agent_ids=agent_ids):
            return _on_regrouped(state, agent_ids, now)
        case Saved() | Answered() | Unanswered() | Tick():
            return _on_the_wait(state, event, now)


def _on_the_wait(state: SessionState, event: Saved | Answered | Unanswered | Tick, now: float) -> Outcome:
    """What happens while the session waits, and changes nothing of its round."""
    match event:
        case Saved():
            return _on_saved(state, event, now)
        case Answered() | Unanswered():
            return _on_question(state, event, now)
        case Tick():
            return _on_tick(state, now)


def _on_saved(state: SessionState, event: Saved, now: float) -> Outcome:
    """Tells the coordinator which bases it need not keep any more; where it cannot now, the next write does."""
    if state.phase is not Phase.ACTIVE:
        return state, ()
    return replace(state, last_sent=now), (Transmit(Heartbeat(event.rounds)),)


def _on_described(state: SessionState, specification: RunSpecification) -> Outcome:
    """Makes the site for a run that shows no more of it than it allows; a refused run has been told nothing."""
    refusal = below_floor(specification, state.min_steps_per_round)
    if refusal is not None:
        return replace(state, phase=Phase.FAILED), (Fail(refusal),)
    state = replace(state, phase=Phase.PREPARING, described=specification, attempts=0)
    return state, (Prepare(specification),)


def _on_prepared(state: SessionState, join: Join, now: float) -> Outcome:
    """Connects, unless the run's features are not those of the site: whatever the coordinator would say to that."""
    if state.described is not None:
        problem = feature_problem(state.described, join.feature_dim, join.feature_fingerprint)
        if problem is not None:
            return replace(state, phase=Phase.FAILED), (Fail(problem),)
    # Making a site may take long, and happens once.
    return replace(state, phase=Phase.OFFLINE, join=join, lost_since=now), (Connect(0.0),)


def _on_regrouped(state: SessionState, agent_ids: tuple[str, ...], now: float) -> Outcome:
    """Joins anew, as those agents. A sum that holds others cannot be sent any more; its round is learnt anew."""
    if state.join is None:
        raise OutOfTurnError("other agents came before the site was made")
    hosted, before = set(agent_ids), state.join.agent_ids
    # An upload that names nobody is the sum over all that joined.
    kept = tuple(each for each in state.kept if hosted.issuperset(each.upload.agent_ids or before))
    join = replace(state.join, agent_ids=agent_ids)
    return replace(_closed(state, now, wanted=True), join=join, token=None, kept=kept), (Connect(0.0),)


def _on_connected(state: SessionState, now: float) -> Outcome:
    if state.join is None:
        raise OutOfTurnError("connected before the site was made")
    join = state.join
    if state.token is not None and state.stamp is not None:
        join = replace(join, resumption=Resumption(state.token, state.stamp.run_id, state.told))
    return replace(state, phase=Phase.JOINING, last_sent=now), (Transmit(join),)


def _on_message(state: SessionState, message: CoordinatorMessage, now: float) -> Outcome:
    if state.stamp is not None and state.stamp.run_id != message.stamp.run_id:
        foreign = ForeignRunError(
            f"this agent belongs to run {state.stamp.run_id}, of which {state.stamp.round} rounds are done, and "
            f"the coordinator now holds run {message.stamp.run_id}: its state was removed, or it was started in "
            "another folder. Bring it back to go on with the run, or start the agent anew to join the other one"
        )
        return replace(state, phase=Phase.FAILED), (Fail(foreign),)
    if _is_of_the_past(state, message):
        return _on_stale(state, message.stamp, now)
    expected = Phase.JOINING if isinstance(message, Welcome) else Phase.ACTIVE
    if state.phase is not expected:
        error = OutOfTurnError(
            f"the coordinator sent a {type(message).__name__} out of turn; is it of another version?"
        )
        return replace(state, phase=Phase.FAILED), (Fail(error),)
    if isinstance(message, BasisUpdate | Finish) and (problem := _shape_problem(state, message.basis)):
        return replace(state, phase=Phase.FAILED), (Fail(InvalidMessageError(problem)),)
    spec = message.specification if isinstance(message, Welcome) else state.specification
    implausible = stamp_problem(state.stamp, message.stamp, 0 if spec is None else spec.rounds)
    if implausible is not None:
        return replace(state, phase=Phase.FAILED), (Fail(implausible),)
    if isinstance(message, BasisUpdate):
        return _on_basis(state, message, now)
    match message:
        case Welcome():
            return _on_welcome(state, message, now)
        case Receipt(disposition=disposition):
            late = 1 if disposition is Disposition.LATE else 0
            return replace(state, not_counted=state.not_counted + late), ()
        case Finish(stamp=stamp, message=text, basis=basis):
            done = replace(state, phase=Phase.DONE, stamp=stamp, basis=basis)
            return done, (Conclude(text, basis),)
        case Drain(resume_after_seconds=seconds):
            # The coordinator ends the stream when it goes down; until then the conversation goes on.
            drained_at = now if state.drained_at is None else state.drained_at
            resume_at = min(now + seconds, drained_at + LONGEST_DRAIN_SECONDS)
            return replace(state, drained_at=drained_at, resume_at=resume_at), ()


def _is_of_the_past(state: SessionState, message: CoordinatorMessage) -> bool:
    """Whether a coordinator speaks that was replaced while it stood still, and does not know it.

    One with a lower incarnation that was started later is another thing: its store was brought back from a copy.
    """
    if state.stamp is None or message.stamp.incarnation >= state.stamp.incarnation:
        return False
    started = message.coordinator_started if isinstance(message, Welcome) else 0.0
    return not started > state.coordinator_started > 0.0


def _on_stale(state: SessionState, stamp: Stamp, now: float) -> Outcome:
    """Leaves a coordinator of the past alone, and asks again later whether the newer one is back."""
    assert state.stamp is not None
    stale = StaleCoordinatorError(
        f"incarnation {stamp.incarnation} of the coordinator of run {stamp.run_id} answers, and this agent has met "
        f"incarnation {state.stamp.incarnation}, which was started later; end the older one. If its store was "
        "brought back from a copy, start the agents again: they join, and learn on from their own files"
    )
    return _try_again(_closed(state, now), stale, LONGEST_SECONDS, now)


def _progressed(state: SessionState, now: float) -> SessionState:
    """The state after progress: all of the progress timeout is there again."""
    return replace(state, lost_since=now, open_since=now, has_progressed=True, drained_at=None, attempts=0)


def _closed(state: SessionState, now: float, *, wanted: bool = False) -> SessionState:
    """The state without its session.

    A session that made progress starts the progress timeout again; one that stayed open for long, or that this
    side ended because it `wanted` to, costs none of it; one that broke soon counts as no session.
    """
    if state.phase is not Phase.ACTIVE:
        return replace(state, phase=Phase.OFFLINE, hearing=Silence())
    # A coordinator that left a question unanswered was gone before the stream broke.
    until = state.hearing.heard_at if state.hearing.unanswered else now
    held = until - state.open_since
    liveness = math.inf if state.specification is None else state.specification.session_timeout_seconds
    lost_since = until if state.has_progressed else state.lost_since
    if not state.has_progressed and (wanted or held >= liveness):
        lost_since += held
    return replace(state, phase=Phase.OFFLINE, lost_since=lost_since, hearing=Silence())


def _shape_problem(state: SessionState, basis: Float[np.ndarray, "rows columns"]) -> str:
    """What is wrong with the shape of a basis; empty where it is the run's. A welcome's was looked at with it."""
    spec = state.specification
    if spec is None or basis.shape == (spec.feature_dim, spec.rank):
        return ""
    rows, columns = basis.shape
    return (
        f"the coordinator sent a basis of {rows} × {columns}, and this run has {spec.feature_dim} × {spec.rank}; "
        "is it of another version?"
    )


def _on_basis(state: SessionState, message: BasisUpdate, now: float) -> Outcome:
    """The message of every round."""
    stamp = message.stamp
    kept = tuple(each for each in state.kept if each.upload.round >= stamp.durable_round)
    if state.stamp is not None and stamp.durable_round > state.stamp.durable_round:
        state = _progressed(state, now)
    state = replace(
        state,
        stamp=stamp,
        told=max(state.told, stamp.round),
        basis=message.basis,
        is_open=True,
        kept=kept,
    )
    return _take_part(state, now)


def _take_part(state: SessionState, now: float) -> Outcome:
    """Sends the gradient of the open round where it is kept; else begins to learn, unless the learner is busy."""
    if not state.is_open or state.stamp is None or state.basis is None:
        return state, ()
    kept = _kept_for(state, state.stamp.round, state.basis)
    if kept is not None:
        return replace(state, last_sent=now), (Transmit(kept.upload),)
    if state.learning is not None:
        return state, ()
    number, basis = state.stamp.round, state.basis
    assert state.specification is not None
    turn = state.learnt_at and turn_between(state.specification.method, *state.learnt_at, state.stamp)
    state = replace(state, learning=number, learning_at=basis, learnt_at=(state.stamp, basis))
    return state, (Learn(number, basis, turn),)


def _kept_for(state: SessionState, number: int, basis: Float[np.ndarray, "d r"]) -> KeptGradient | None:
    """The gradient of a round that was taken at this basis, bit for bit."""
    for each in state.kept:
        if each.upload.round == number and (each.basis is basis or np.array_equal(each.basis, basis)):
            return each
    return None


def _on_welcome(state: SessionState, welcome: Welcome, now: float) -> Outcome:
    first = state.specification is None
    problem = welcome_problem(welcome, state.join, state.described)
    if problem is not None:
        return replace(state, phase=Phase.FAILED), (Fail(problem),)
    before = state.stamp
    state = replace(
        state,
        phase=Phase.ACTIVE,
        join=_seated(state.join, welcome),
        specification=welcome.specification,
        token=welcome.session_token,
        stamp=welcome.stamp,
        told=max(state.told, welcome.stamp.round),
        basis=welcome.basis,
        is_open=welcome.started and welcome.stamp.round >= welcome.first_round,
        kept=tuple(each for each in state.kept if each.upload.round >= welcome.stamp.durable_round),
        reconnects=state.reconnects + (0 if first else 1),
        last_sent=now,
        open_since=now,
        has_progressed=False,
        coordinator_started=welcome.coordinator_started,
        attempts=0,
    )
    if before is None or welcome.stamp.durable_round > before.durable_round:
        state = _progressed(state, now)
    commands: tuple[Command, ...] = (Begin(welcome),) if first else ()
    state, more = _take_part(state, now)
    return state, commands + more


def _seated(join: Join | None, welcome: Welcome) -> Join | None:
    """How to join from now on: whoever was given a site has a name."""
    return replace(join, agent_ids=welcome.agent_ids, site_claim_id="") if join and join.site_claim_id else join


def _on_gradient(state: SessionState, upload: GradientUpload, now: float) -> Outcome:
    if state.learning_at is None or state.learning != upload.round:
        raise OutOfTurnError(f"a gradient of round {upload.round} is ready, which nobody has asked for")
    kept = (*state.kept, KeptGradient(upload, state.learning_at))[-most_kept(state) :]
    state = replace(state, learning=None, learning_at=None, kept=kept)
    if state.phase is Phase.LAGGING:
        # What it took for its own round is no wait for the coordinator.
        lost_since = state.lost_since + (now - state.lagging_since)
        return replace(state, phase=Phase.OFFLINE, lost_since=lost_since), (Connect(0.0),)
    if state.phase is not Phase.ACTIVE or state.stamp is None:
        return state, ()
    late: tuple[Command, ...] = ()
    if upload.round > state.stamp.round and state.basis is not None:
        # The coordinator went back. What the open round needs was sent when it was opened, if it was kept.
        if _kept_for(state, state.stamp.round, state.basis) is not None:
            return state, ()
    elif upload.round < state.stamp.round and state.is_open:
        # It may still count under a policy that allows stale gradients; the coordinator decides.
        state, late = replace(state, kept=kept[:-1], last_sent=now), (Transmit(upload),)
    state, commands = _take_part(state, now)
    return state, (*late, *commands)


def most_kept(state: SessionState) -> int:
    """How many gradients are kept: as many as may belong to rounds that are not durable."""
    spec = state.specification
    return _MOST_STALE + 1 if spec is None else most_kept_rounds(spec)


def most_kept_rounds(specification: RunSpecification) -> int:
    """The same of a run that is known."""
    return _MOST_STALE + rounds_ahead(specification.feature_dim, specification.rank)


def _on_broken(state: SessionState, event: StreamBroke, now: float) -> Outcome:
    error = event.error
    if isinstance(error, RunFinishedError) and state.specification is not None:
        return replace(state, phase=Phase.DONE), (Conclude(str(error), state.basis),)
    state = _closed(state, now)
    if isinstance(error, SessionUnknownError):
        state = replace(state, token=None)
        if state.learning is not None and not _is_exhausted(state, now):
            return replace(state, phase=Phase.LAGGING, lagging_since=now), ()
    elif isinstance(error, CertificateError) and state.specification is None and state.attempts >= _DOUBTS:
        return replace(state, phase=Phase.FAILED), (Fail(error),)  # later on, a renewal on disk cures it
    elif isinstance(error, RemoteError) and not error.retryable:
        return replace(state, phase=Phase.FAILED), (Fail(error),)
    near_agents = state.specification.agents if state.near and state.specification is not None else None
    return _try_again(state, error, pause_seconds(state.attempts, event.jitter, near_agents=near_agents), now)


def _try_again(state: SessionState, error: CospanError, pause: float, now: float) -> Outcome:
    """Asks again after a pause, unless the progress timeout has run out: then the error is why."""
    if _is_exhausted(state, now):
        return replace(state, phase=Phase.FAILED), (Fail(_given_up(state, error)),)
    pause = max(pause, state.resume_at - now)
    again = Inquire(pause) if state.join is None else Connect(pause)
    return replace(state, phase=Phase.OFFLINE, attempts=state.attempts + 1), (again,)


def _is_exhausted(state: SessionState, now: float) -> bool:
    return now - max(state.lost_since, state.resume_at) >= state.progress_timeout_seconds


def _given_up(state: SessionState, error: CospanError) -> CospanError:
    if isinstance(error, CoordinatorUnavailableError | StaleCoordinatorError):
        said = "" if state.stamp is None else " without a finished round"
        return type(error)(f"{error} (given up after {state.progress_timeout_seconds:g} s{said})")
    return error


def _leave(state: SessionState, phase: Phase, cause: str, end: Command, *, returning: bool = False) -> Outcome:
    """Says good-bye where there is a stream to say it through."""
    joined = state.phase in (Phase.JOINING, Phase.ACTIVE)
    return replace(state, phase=phase), ((Transmit(Leave(cause, returning)), end) if joined else (end,))


def _on_tick(state: SessionState, now: float) -> Outcome:
    # A coordinator that asked to be left alone until `resume_at` has not been silent before.
    since = state.lagging_since if state.phase is Phase.LAGGING else max(state.lost_since, state.resume_at)
    if state.phase in (Phase.JOINING, Phase.LAGGING) and now - since >= state.progress_timeout_seconds:
        return replace(state, phase=Phase.FAILED), (Fail(_waited_in_vain(state)),)
    if state.phase is not Phase.ACTIVE or state.specification is None:
        return state, ()
    liveness = state.specification.session_timeout_seconds
    state, questions = _asked(state, now)
    if now - state.last_sent < liveness / _HEARTBEATS_PER_LIVENESS:
        return state, questions
    return replace(state, last_sent=now), (Transmit(Heartbeat()), *questions)


def _terms(state: SessionState) -> idle_check.Terms:
    """How this process asks; a group asks once for all of its agents."""
    spec = state.specification or state.described
    hosted = 1 if state.join is None else max(1, len(state.join.agent_ids))
    return idle_check.terms_of(
        state.progress_timeout_seconds, 1.0 if spec is None else spec.agents / hosted, state.spread
    )


def _heard(state: SessionState, now: float) -> SessionState:
    return replace(state, hearing=idle_check.heard(state.hearing, _terms(state), now))


def _asked(state: SessionState, now: float) -> Outcome:
    """Asks a coordinator that is silent whether it still answers, where that is due."""
    if not idle_check.is_due(state.hearing, now):
        return state, ()
    asked = idle_check.asked(state.hearing, _terms(state), now, excused_until=state.resume_at)
    return replace(state, hearing=asked), (Ask(asked.answer_by - now),)


def _on_question(state: SessionState, event: Answered | Unanswered, now: float) -> Outcome:
    """A question is over. Only the coordinator of the stream's run and incarnation can answer it, or refuse it."""
    if state.phase is not Phase.ACTIVE or state.stamp is None or state.hearing.asked_at is None:
        return state, ()  # of a stream that has broken meanwhile
    terms, stamp = _terms(state), event.stamp if isinstance(event, Answered) else None
    same_run = stamp is not None and stamp.run_id == state.stamp.run_id
    if stamp is not None and same_run and stamp.incarnation > state.stamp.incarnation:
        replaced = CoordinatorUnavailableError(
            f"the stream was opened to incarnation {state.stamp.incarnation} of the coordinator, and incarnation "
            f"{stamp.incarnation} answers"
        )
        return _try_again(_closed(state, now), replaced, LONGEST_SECONDS * state.spread, now)
    runs = stamp is not None and same_run and stamp.incarnation == state.stamp.incarnation
    # It takes a coordinator that runs to say that too much was asked of it.
    if runs or (isinstance(event, Unanswered) and isinstance(event.error, RemoteError) and event.error.retryable):
        return replace(state, hearing=idle_check.answered(state.hearing, terms, now)), ()
    failed = idle_check.unanswered(state.hearing, terms, now, excused_until=state.resume_at)
    state = replace(state, hearing=failed)
    if idle_check.is_too_long(failed, terms, now, excused_until=state.resume_at):
        return replace(state, phase=Phase.FAILED), (Fail(_silent(state, now)),)
    return state, ()


def _silent(state: SessionState, now: float) -> CospanError:
    return CoordinatorUnavailableError(
        f"the stream to the coordinator is open, but the coordinator does not answer: no message for "
        f"{now - state.hearing.heard_at:.1f} s, and no answer to any question in that time "
        f"(questions: {state.hearing.unanswered}; given up after {state.progress_timeout_seconds:g} s). Its "
        "process hangs, or "
        "another one answers at its address: look at its log, end it, and start it again in its run folder"
    )


def _waited_in_vain(state: SessionState) -> CospanError:
    if state.phase is Phase.JOINING:
        return CoordinatorUnavailableError(
            f"the coordinator has not answered the join for {state.progress_timeout_seconds:g} s"
        )
    return WorkloadBehaviourError(
        f"round {state.learning} is not done {state.progress_timeout_seconds:g} s after the coordinator stopped "
        "waiting for it; "
        "does the environment hang?"
    )


def tick_seconds(state: SessionState) -> float:
    """How often a `Tick` is needed."""
    if state.specification is None:
        seconds = state.progress_timeout_seconds / _HEARTBEATS_PER_LIVENESS
    else:
        seconds = state.specification.session_timeout_seconds / _HEARTBEATS_PER_LIVENESS / 2.0
    return min(1.0, max(_SHORTEST_TICK_SECONDS, seconds))
