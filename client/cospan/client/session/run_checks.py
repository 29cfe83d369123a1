"""What a process holds a run and its bases against before it learns: what it refuses, it has sent nothing for.

An agent takes the run and every basis from its coordinator, and both decide what its uploads show
(docs/security.md). Two rules bound that: what a process demands of a run, and a bound on how far a basis may turn
from one round to the next. No clock and no state: the session keeps what they need.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.subspace import largest_angle, orthonormality_error
from cospan.core.method import DEFAULT_MIN_STEPS, NO_BOUND_DEGREES
from cospan.core.specification import RunSpecification
from cospan.wire.errors import (
    BasisRefusedError,
    CospanError,
    InvalidValueError,
    StepsBelowFloorError,
    WeakPrivacyError,
)
from cospan.wire.messages import Stamp

MOST_STEPS = 2**32
ORTHONORMAL_WITHIN = 1e-6
"""The largest entry of |BᵀB − I| of a basis that is taken for orthonormal; float32 rounds it by some 1e-7."""
_ANGLE_ROUNDING = 1e-4
"""Degrees that an angle may exceed its bound by: float32 rounds a basis by some 1e-5 degrees."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What a process demands of a run before it joins, whatever its coordinator would like.

    Attributes:
        min_steps_per_round: the fewest steps a round: the fewer, the more each upload shows. 1 to 2^32 − 1.
        secure_sums: whether the run must have secure sums.
        max_epsilon: the run must have differential privacy, with this ε at most, above 0; None where it need not.

    Raises:
        InvalidValueError: a number is out of its range.
    """

    min_steps_per_round: int = DEFAULT_MIN_STEPS
    secure_sums: bool = False
    max_epsilon: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min_steps_per_round < MOST_STEPS:
            raise InvalidValueError(f"min_steps_per_round is {self.min_steps_per_round}; it must be 1 to 2^32 − 1")
        if self.max_epsilon is not None and not 0.0 < self.max_epsilon < math.inf:
            raise InvalidValueError(f"max_epsilon is {self.max_epsilon:g}; it must be a number above 0")


def unmet(specification: RunSpecification, demands: Demands) -> CospanError | None:
    """Why a run is refused; None where it has what is demanded."""
    if demands.secure_sums and not specification.secure_sums:
        return WeakPrivacyError(
            "the run has no secure sums, and require_secure_sums is set: its coordinator would see each upload; "
            "join a run with --secure-sums, or leave out --require-secure-sums"
        )
    promised, most = specification.dp_epsilon, demands.max_epsilon
    if most is not None and not 0.0 < promised <= most:
        has = f"differential privacy with ε = {promised:g}" if promised else "no differential privacy"
        return WeakPrivacyError(
            f"the run has {has}, and max_epsilon is {most:g}; join a run that promises ε = {most:g} or less "
            "(--dp), or leave out --max-epsilon"
        )
    return below_floor(specification, demands.min_steps_per_round)


def below_floor(specification: RunSpecification, min_steps_per_round: int) -> StepsBelowFloorError | None:
    """Why a run is refused for its steps a round; None where it has enough."""
    steps = specification.method.steps_per_round
    if steps >= min_steps_per_round:
        return None
    return StepsBelowFloorError(
        f"the run has {steps} {'step' if steps == 1 else 'steps'} per round, and min_steps_per_round is "
        f"{min_steps_per_round}: with fewer steps an upload shows more of each; join a run with at least "
        f"{min_steps_per_round} steps per round, or allow this one with --min-steps-per-round {steps}"
    )


def check_sharing(specification: RunSpecification, *, share_td_error: bool) -> None:
    """What a process was told to share.

    Raises:
        InvalidValueError: the run has secure sums, and TD errors were to be shared.
    """
    if specification.secure_sums and share_td_error:
        raise InvalidValueError(
            "share_td_error is set, and the run has secure sums, in which nothing of a single agent is sent; "
            "leave out --share-td-error"
        )


def check_counting(specification: RunSpecification, *, keeps_file: bool) -> None:
    """Whether a process can count the vectors that it sends.

    Raises:
        InvalidValueError: the run has differential privacy, and the process keeps no file.
    """
    if specification.is_private and not keeps_file:
        raise InvalidValueError(
            "the run has differential privacy, and this agent keeps no file, in which it would count the vectors "
            "that it sends; give it one with --output, or state_file in ClientSettings"
        )


def slow_round(specification: RunSpecification, seconds: float) -> str | None:
    """What to say of a round that took longer than the run waits for one agent; None of a faster one."""
    if seconds <= specification.round_timeout_seconds:
        return None
    return (
        f"a round of {specification.method.steps_per_round} steps took {seconds:.3g} s here, and a round of this "
        f"run waits for {specification.round_timeout_seconds:g} s once another agent has sent its gradient: an "
        "agent that takes longer is given up. Start the coordinator with a longer --round-timeout-seconds or fewer "
        "--steps-per-round"
    )


@dataclass(frozen=True, eq=False, slots=True)
class Turn:
    """From the basis that a process learnt at last to the next one.

    Attributes:
        since: the round of the former.
        basis: the former.
        degrees: the largest angle between the two that the method allows; 90 for no bound.
    """

    since: int
    basis: Float[np.ndarray, "d r"]
    degrees: float


@runtime_checkable
class BoundsTurns(Protocol):
    """What bounds how far bases turn: a run, or its method alone where it has no improvement steps."""

    def largest_turn_between(self, first: int, last: int) -> float:
        """The largest angle, in degrees, from the basis of one round to that of a later one."""
        ...


def turn_between(bounds: BoundsTurns, before: Stamp, basis: Float[np.ndarray, "d r"], now: Stamp) -> Turn:
    """What a basis is held against.

    Within one life of the coordinator a basis comes of the one before by one step for each round in between. A
    coordinator that was started again goes back to a round that was stored, at most to the first one of which
    the process was not told that it is, and forward from there.

    Args:
        bounds: of the run.
        before: of the message that brought the former basis.
        basis: the former basis.
        now: of the message that brings the new one.
    """
    common = min(before.round, now.round)
    if now.incarnation != before.incarnation:
        common = min(common, before.durable_round)
    degrees = sum(bounds.largest_turn_between(common, each.round) for each in (before, now))
    return Turn(before.round, basis, min(degrees, NO_BOUND_DEGREES))


def check_basis(basis: Float[np.ndarray, "d r"], round_number: int, turn: Turn | None) -> None:
    """Checks that a basis is orthonormal, and that the method can have led to it.

    Args:
        basis: B_t.
        round_number: t.
        turn: from the basis that was learnt at last; None for the first one.

    Raises:
        BasisRefusedError: it is not, or cannot have been.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of entries that are not finite, or whose squares are not
        deviation = orthonormality_error(basis)
    if not deviation <= ORTHONORMAL_WITHIN:
        raise BasisRefusedError(
            f"the basis of round {round_number} is not orthonormal: an entry of BᵀB is {deviation:.3g} away from "
            f"the identity, and {ORTHONORMAL_WITHIN:g} is allowed; nothing was sent for it. Ask the operator of "
            "the coordinator which version it is, and whether it chooses its bases"
        )
    if turn is None or turn.degrees >= NO_BOUND_DEGREES or turn.basis is basis:
        return
    angle = largest_angle(turn.basis, basis)
    if not angle <= turn.degrees + _ANGLE_ROUNDING:
        raise BasisRefusedError(
            f"the basis of round {round_number} is turned by {angle:.4g} degrees from that of round {turn.since}, "
            f"and the method of this run turns it by at most {turn.degrees:.4g} degrees between them; nothing was "
            "sent for it. Ask the coordinator's operator whether it chooses its bases"
        )
