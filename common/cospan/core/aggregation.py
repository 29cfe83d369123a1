"""The coordinator's arithmetic: from the gradients of a round to the next basis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.matrices import FactoredMatrix, Gradient, sum_of_products, to_dense
from cospan.core.method import Method
from cospan.core.schedules import decay
from cospan.core.spectral import spectral_basis
from cospan.core.subspace import (
    basis_step,
    orthonormality_error,
    precondition,
    principal_angle_sine,
    row_scales,
    running_row_squares,
)

_ONE_PRODUCT_FROM_NUMBERS = 16_384
"""From so many numbers on the factors of all agents are multiplied together. For less that gains little, and every
result is what it was before."""


@dataclass(frozen=True, eq=False, slots=True)
class Contribution:
    """What one session gave to a round: a sum over its agents.

    Attributes:
        gradient: Σ_k G^k, d × r; in the last round of a warm-up [a b] of one agent, d × 2.
        weight: the number of gradients in the sum, above 0.
        head_second_moment: Σ_k of the agents' mean w wᵀ, shape (r, r); None where the run does not precondition.
        row_sums: Σ_k of the agents' row sums of |A|, shape (d,), not negative; None where the run has no use for
            them.
    """

    gradient: Gradient
    weight: float = 1.0
    head_second_moment: Float[np.ndarray, "r r"] | None = None
    row_sums: Float[np.ndarray, " d"] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class BasisMove:
    """What a round did to the basis.

    Attributes:
        basis: B_{t+1}, shape (d, r).
        movement: ‖(I − B_t B_tᵀ) B_{t+1}‖₂, 0 to 1.
        orthonormality_error: the largest entry of |BᵀB − I| of the new basis.
        row_squares: what `row_scales` remembers, to be handed to the next round; None where the run does not scale.
    """

    basis: Float[np.ndarray, "d r"]
    movement: float
    orthonormality_error: float
    row_squares: Float[np.ndarray, " d"] | None = None


def mean_gradient(contributions: Sequence[Contribution]) -> Float[np.ndarray, "d r"]:
    """(1/K) Σ_k G^k, accumulated in float64 in the order given (the mean of eq. 8).

    Floating-point sums depend on their order, so the caller fixes it: that of the agents' names.

    Raises:
        ValueError: there is no contribution.
    """
    if not contributions:
        raise ValueError("the mean of no contributions is undefined")
    weight = contributions[0].weight
    for contribution in contributions[1:]:
        weight += contribution.weight
    factored = [each.gradient for each in contributions if isinstance(each.gradient, FactoredMatrix)]
    d, r = contributions[0].gradient.shape
    if len(factored) == len(contributions) and d * r >= _ONE_PRODUCT_FROM_NUMBERS:
        total = sum_of_products(factored)
    else:
        total = to_dense(contributions[0].gradient).copy()
        for contribution in contributions[1:]:
            total += to_dense(contribution.gradient)
    total /= weight
    return total


def mean_head_second_moment(contributions: Sequence[Contribution]) -> Float[np.ndarray, "r r"]:
    """W̄ = (1/K) Σ_k w^k w^kᵀ, accumulated in float64 in the order given.

    Raises:
        ValueError: a contribution carries none, or there is no contribution.
    """
    return _mean([contribution.head_second_moment for contribution in contributions], contributions)


def mean_row_sums(contributions: Sequence[Contribution]) -> Float[np.ndarray, " d"]:
    """The mean over the agents of their row sums of |A|, accumulated in float64 in the order given.

    Raises:
        ValueError: a contribution carries none, or there is no contribution.
    """
    return _mean([contribution.row_sums for contribution in contributions], contributions)


def _mean(
    parts: Sequence[Float[np.ndarray, "*shape"] | None], contributions: Sequence[Contribution]
) -> Float[np.ndarray, "*shape"]:
    total = None
    for part in parts:
        if part is None:
            raise ValueError("the run scales its step with something that a contribution does not carry")
        total = np.array(part, dtype=np.float64) if total is None else total + part
    if total is None:
        raise ValueError("the mean of no contributions is undefined")
    return np.asarray(total / sum(contribution.weight for contribution in contributions))


def next_basis(
    basis: Float[np.ndarray, "d r"],
    contributions: Sequence[Contribution],
    method: Method,
    round_number: int,
    row_squares: Float[np.ndarray, " d"] | None = None,
) -> BasisMove:
    """The coordinator's part of round t: mean, tangent projection, step, orthonormalisation (eq. 8 and QR).

    In a warm-up the basis stays as it is, but for its last round, which gives the basis of all estimates.

    Args:
        basis: B_t.
        contributions: those of round t, in the order of the agents' names.
        method: the constants.
        round_number: t, for the step decay.
        row_squares: that of the move before; None in the first round.

    Raises:
        numpy.linalg.LinAlgError: the gradients are so large that the step is not finite.
    """
    if method.warms_up_in(round_number):
        return _warm_up_move(basis, contributions, estimated=method.brings_estimates_in(round_number))
    direction = mean_gradient(contributions)
    if method.preconditioned:
        direction = precondition(direction, mean_head_second_moment(contributions), method.preconditioner_floor)
    if method.sends_row_sums:
        direction = row_scales(mean_row_sums(contributions))[:, None] * direction
    elif method.row_scaled:
        row_squares = running_row_squares(row_squares, direction)
        direction = row_scales(np.sqrt(row_squares))[:, None] * direction
    scale = 1.0
    if method.basis_step_decays:
        scale = decay(round_number * method.steps_per_round, method.decay_horizon, method.decay_power)
    remembered = row_squares if method.row_scaled and not method.sends_row_sums else None
    return _move(basis, basis_step(basis, direction, method.basis_step * scale), remembered)


def _warm_up_move(
    basis: Float[np.ndarray, "d r"], contributions: Sequence[Contribution], *, estimated: bool
) -> BasisMove:
    moved = basis
    if estimated:
        moved = spectral_basis([to_dense(contribution.gradient) for contribution in contributions], basis)
    return _move(basis, moved, None)


def _move(
    basis: Float[np.ndarray, "d r"], moved: Float[np.ndarray, "d r"], row_squares: Float[np.ndarray, " d"] | None
) -> BasisMove:
    return BasisMove(
        basis=moved,
        movement=principal_angle_sine(basis, moved),
        orthonormality_error=orthonormality_error(moved),
        row_squares=row_squares,
    )
