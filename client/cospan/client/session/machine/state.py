"""What an agent process knows of its run: plain frozen values, written only by `step`."""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.client.session.machine.events import Command, Fail
from cospan.client.session.machine.idle_check import Silence
from cospan.client.session.run_checks import Demands
from cospan.core.evolving import Evolving
from cospan.core.specification import RunSpecification
from cospan.wire.errors import CospanError
from cospan.wire.limits import rounds_ahead
from cospan.wire.messages import GradientUpload, Join, Stamp

_STALE_GRADIENTS = 2
"""Gradients that are kept beside those of the rounds that may be announced and not durable."""


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
    """A gradient that the coordinator may ask for again, and the basis and head covariance it was computed at."""

    upload: GradientUpload
    basis: Float[np.ndarray, "d r"]
    head_covariance: Float[np.ndarray, "r r"] | None = None
    epoch_id: bytes = b""
    """With secure sums: the epoch that it was masked in; empty before it was sent."""

    def is_of(
        self, number: int, basis: Float[np.ndarray, "d r"], head_covariance: Float[np.ndarray, "r r"] | None
    ) -> bool:
        """Whether it is of this round, and was computed at the same, bit for bit."""
        return (
            self.upload.round == number
            and (self.basis is basis or np.array_equal(self.basis, basis))
            and _are_equal(self.head_covariance, head_covariance)
        )


def _are_equal(one: Float[np.ndarray, "r r"] | None, other: Float[np.ndarray, "r r"] | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or np.array_equal(one, other)


@dataclass(frozen=True, eq=False)
class SessionState(Evolving):
    """What an agent process knows of its run.

    Attributes:
        join: how it joins, once its site is made; the same at every attempt.
        progress_timeout_seconds: seconds without progress after which the process gives up.
        near: whether the coordinator is on this machine.
        phase: where the conversation stands.
        described: the specification that the site was made for.
        specification: of the run, once welcomed.
        token: of the session; None before the first welcome, and when the coordinator has forgotten it.
        stamp: of the newest message.
        last_announced_round: the newest round of any message; a restarted coordinator may have gone back.
        basis: B_t of the stamp's round.
        head_covariance: W_t of that round; None where the method has none.
        is_open: whether that round takes gradients; not while the coordinator waits for the fleet.
        learning: the round whose gradient is being computed.
        learning_at: the basis and head covariance that it is computed at.
        learnt_at: stamp and basis of the last round that was given to the learner.
        demands: what a run must have to be joined.
        kept: gradients whose rounds are not durable, oldest first.
        last_sent: when anything was sent.
        lost_since: time without progress counts from here; moved by the time that sessions were open.
        open_since: since when the session is open, or since the last progress that it has made.
        has_progressed: whether the open session has made progress.
        lagging_since: when an agent that was given up in the middle of its round learnt of that.
        coordinator_started: when the coordinator of the last welcome was started, by its own clock; 0 if unknown.
        drained_at: when the first `Drain` since the last progress came; None without one.
        resume_at: the time before which no attempt is made, after a `Drain`.
        attempts: to connect, since the last welcome or progress.
        reconnects: how often the stream was opened again.
        not_counted: gradients that came too late.
        hearing: when the coordinator behind the open stream was last heard, and when it is asked.
        spread: this process' own number in [0, 1), so that a fleet's questions come at different times.
        epoch_id: with secure sums the epoch of the stamp's round; empty where this process is not in it.
        agreed: the newest epoch whose members were found in order.
        masked_until: for rounds below this one no vector is masked any more: one may have been.
        counting: with differential privacy, whether a vector is being counted in the process' file.
        counted: likewise, whether one is counted there that has not been sent.
        passes_on: whether others learn, as below a relay: with secure sums a round that opens is passed on to them
            even while the one before has no sum, for that may be void; and sums come masked.
    """

    progress_timeout_seconds: float
    near: bool = False
    join: Join | None = None
    phase: Phase = Phase.OFFLINE
    described: RunSpecification | None = None
    specification: RunSpecification | None = None
    token: str | None = None
    stamp: Stamp | None = None
    last_announced_round: int = 0
    basis: Float[np.ndarray, "d r"] | None = None
    head_covariance: Float[np.ndarray, "r r"] | None = None
    is_open: bool = False
    learning: int | None = None
    learning_at: tuple[Float[np.ndarray, "d r"], Float[np.ndarray, "r r"] | None] | None = None
    learnt_at: tuple[Stamp, Float[np.ndarray, "d r"]] | None = None
    demands: Demands = field(default_factory=Demands)
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
    epoch_id: bytes = b""
    agreed: bytes = b""
    masked_until: int = 0
    counting: bool = False
    counted: bool = False
    passes_on: bool = False

    def check(self) -> None:
        """Raises AssertionError where an invariant does not hold; called by tests after every event."""
        welcomed = (self.specification, self.stamp, self.basis)
        assert all(value is None for value in welcomed) or all(value is not None for value in welcomed)
        assert self.phase is not Phase.ACTIVE or self.token is not None, "an active session has a token"
        assert self.phase is not Phase.LAGGING or self.learning is not None, "only an agent that learns lags behind"
        assert self.learning is None or self.stamp is not None, "nothing is learnt before the welcome"
        assert (self.learning is None) == (self.learning_at is None), "a gradient is taken at a basis"
        assert len(self.kept) <= most_kept(self), "what is kept is bounded"
        site_made = self.phase in (Phase.JOINING, Phase.ACTIVE, Phase.LAGGING)
        assert not site_made or self.join is not None, "a process joins with its site made"
        waits = (
            self.phase is not Phase.ACTIVE
            or math.isinf(self.progress_timeout_seconds)
            or math.isfinite(self.hearing.ask_at)
        )
        assert waits or self.hearing.asked_at is not None, "an active session asks, or will ask"
        assert self.hearing.asked_at is None or self.phase in (Phase.ACTIVE, Phase.DONE, Phase.FAILED), (
            "a question needs a stream"
        )
        masked = [each.upload.round for each in self.kept if each.epoch_id]
        assert len(masked) == len(set(masked)), "one vector is masked for a round"
        assert all(number < self.masked_until for number in masked), "what was masked is known"
        assert not (self.counting and self.counted), "vectors are counted one at a time"


Outcome: TypeAlias = tuple[SessionState, tuple[Command, ...]]


def failed(state: SessionState, error: CospanError) -> Outcome:
    """The session is over, and not in order."""
    return state.evolve(phase=Phase.FAILED), (Fail(error),)


def most_kept(state: SessionState) -> int:
    """The largest number of gradients that are kept: those of all rounds that may be announced and not durable."""
    spec = state.specification
    return _STALE_GRADIENTS + 1 if spec is None else most_kept_rounds(spec)


def most_kept_rounds(specification: RunSpecification) -> int:
    """The same for a run of this specification."""
    return _STALE_GRADIENTS + rounds_ahead(specification.feature_dim, specification.rank)
