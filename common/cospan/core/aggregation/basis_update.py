"""The coordinator's arithmetic: from the gradients of a round to the next basis."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.evidence_step import evidence_step, positive_part, unpacked
from cospan.core.aggregation.robust import Parts, clipped_mean, geometric_median, outliers_of, trimmed_mean
from cospan.core.aggregation.warm_start import basis_of_products, product_of, spectral_basis
from cospan.core.learning.schedules import decay
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, Gradient, sum_of_products, to_dense
from cospan.core.linalg.subspace import (
    basis_step,
    orthonormality_error,
    precondition,
    principal_angle_sine,
    row_scales,
    running_row_squares,
    sine_of_step,
)
from cospan.core.method import Aggregation, Method

_ROBUST_PASSES = 30
"""About how many passes over all contributions robust aggregation makes."""
_ONE_PRODUCT_FROM_NUMBERS = 16_384
"""The size of G, d · r, from which the factors of all agents are multiplied together; below, that gains little."""


@dataclass(frozen=True, eq=False, slots=True)
class Contribution:
    """What one session gave to a round: a sum over its agents.

    Attributes:
        gradient: Σ_k G^k, d × r; in the last round of a warm-up [a b] of one agent, d × 2.
        weight: the number of gradients in the sum, above 0.
        head_second_moment: Σ_k of the agents' mean w wᵀ, shape (r, r); None where the run does not precondition.
        pooled: Σ_k of what the agents pool in some rounds, a vector of `Method.pooled_length` numbers: row sums of
            |A|, coarse (`cospan.core.aggregation.row_sums`), not negative; None where the run has no use for it in
            this round.
    """

    gradient: Gradient
    weight: float = 1.0
    head_second_moment: Float[np.ndarray, "r r"] | None = None
    pooled: Float[np.ndarray, " m"] | None = None


@dataclass(frozen=True, eq=False)
class BasisMove:
    """What a round did to the basis.

    The distances are computed when first needed, in any thread: the next round does not wait for them.

    Attributes:
        before: B_t, shape (d, r).
        basis: B_{t+1}, of the same shape; the same array where the basis stays as it is.
        step_memory: what the step remembers, a vector that is handed to the next round: the running squares of the
            rows, or what was pooled last, row sums or the curvature; None where the run does not scale. The same
            array as in the round before where it has not changed, so that it is stored only when it has.
        outliers: indices of the contributions that are far from what was made of all; never any with the mean.
        step: ζ (I − B_t B_tᵀ) Ḡ, scaled as the method has it, shape (d, r), where the basis came of such a step.
        head_covariance: W_{t+1}, shape (r, r), symmetric and positive semidefinite; None where the method has none.
    """

    before: Float[np.ndarray, "d r"]
    basis: Float[np.ndarray, "d r"]
    step_memory: Float[np.ndarray, " m"] | None = None
    outliers: tuple[int, ...] = ()
    step: Float[np.ndarray, "d r"] | None = None
    head_covariance: Float[np.ndarray, "r r"] | None = None

    @cached_property
    def movement(self) -> float:
        """‖(I − B_t B_tᵀ) B_{t+1}‖₂, 0 to 1."""
        if self.basis is self.before:
            return 0.0
        return principal_angle_sine(self.before, self.basis) if self.step is None else sine_of_step(self.step)

    @cached_property
    def orthonormality_error(self) -> float:
        """The largest entry of |BᵀB − I| of the new basis."""
        return orthonormality_error(self.basis)


@dataclass(frozen=True, eq=False, slots=True)
class Aggregate:
    """What a round's contributions come to.

    Attributes:
        gradient: Ḡ, shape (d, r).
        head_second_moment: W̄, shape (r, r); None where the run does not precondition.
        pooled: a vector; None where the run has no use for it.
        outliers: see `BasisMove`.
    """

    gradient: Float[np.ndarray, "d r"]
    head_second_moment: Float[np.ndarray, "r r"] | None = None
    pooled: Float[np.ndarray, " m"] | None = None
    outliers: tuple[int, ...] = ()


def aggregate(
    contributions: Sequence[Contribution], method: Method, *, with_pooled: bool | None = None
) -> Aggregate:
    """The contributions by the run's policy, each kind of matrix by itself.

    All in float64 and in the order given: floating-point sums depend on it, so the caller fixes it, by the agents'
    names. What scales the step goes by the same policy as the gradients, for it could do as much harm.

    Args:
        contributions: of a round, in the order of the agents' names.
        method: the constants.
        with_pooled: whether pooled numbers are looked at; where left out, as the run has them. One that lacks them,
            as an older gradient that still counts may, is left out of their aggregate.

    Raises:
        ValueError: there is no contribution, or one lacks a second moment that the run scales its step with.
    """
    with_pooled = method.sends_pooled if with_pooled is None else with_pooled
    weights = [contribution.weight for contribution in contributions]
    gradient, far = _combined([contribution.gradient for contribution in contributions], weights, method)
    moment = pooled = None
    if not (method.preconditioned or with_pooled):
        return Aggregate(gradient, outliers=far)
    scaling = replace(method, clip_norm=0.0)  # a bound for gradients is none for these
    if method.preconditioned:
        moments = _present([contribution.head_second_moment for contribution in contributions])
        moment, _ = _combined([DenseMatrix(each) for each in moments], weights, scaling)
    vectors = [(each.pooled, each.weight) for each in contributions if each.pooled is not None]
    if with_pooled and vectors:
        columns = [DenseMatrix(vector[:, None]) for vector, _ in vectors]
        column, _ = _combined(columns, [weight for _, weight in vectors], scaling)
        pooled = column[:, 0]
    return Aggregate(gradient, moment, pooled, far)


def initial_head_covariance(method: Method, rank: int) -> Float[np.ndarray, "r r"] | None:
    """W_0, the identity, which is announced with B_0; None where the method has no such covariance."""
    return np.eye(rank) if method.has_head_covariance else None


def head_covariance_problem(covariance: Float[np.ndarray, "a b"] | None, method: Method, rank: int) -> str:
    """Why what a basis is announced with is not what the method announces; empty where it is."""
    if covariance is None:
        return (
            "the head covariance is missing; the method of this run has one" if method.has_head_covariance else ""
        )
    if not method.has_head_covariance:
        return "a head covariance came with the basis; the method of this run has none"
    rows, columns = covariance.shape
    if (rows, columns) != (rank, rank):
        return f"the head covariance is {rows} × {columns}; this run needs {rank} × {rank}"
    return ""


def mean_gradient(contributions: Sequence[Contribution]) -> Float[np.ndarray, "d r"]:
    """(1/K) Σ_k G^k, accumulated in float64 in the order given (the mean of eq. 8).

    Raises:
        ValueError: there is no contribution.
    """
    weights = [contribution.weight for contribution in contributions]
    return _mean([contribution.gradient for contribution in contributions], weights)


def sum_of_contributions(contributions: Sequence[Contribution], *, keep_factors: bool = False) -> Contribution:
    """Σ of gradients, weights, second moments and pooled numbers, as one contribution of all their agents.

    The mean of eq. 8 is linear, so a sum formed on the way (by a group or a relay) approximates nothing. Matrices
    are accumulated in float64 in the order given. A second moment or pooled numbers that one contribution lacks,
    the sum lacks too. Without pooled numbers, as a gradient of an older round may be, the coordinator keeps to
    those of other sessions, or of the round before; without a second moment it refuses the sum where the run
    preconditions.

    Args:
        contributions: of one round.
        keep_factors: whether the gradients' factors are kept, side by side, where they are fewer than r.

    Raises:
        ValueError: there is no contribution.
    """
    if not contributions:
        raise ValueError("the sum of no contributions is undefined")
    if len(contributions) == 1 and keep_factors:
        return contributions[0]
    gradients = [each.gradient for each in contributions]
    return Contribution(
        gradient=_side_by_side(gradients) if keep_factors else DenseMatrix(_total([*map(to_dense, gradients)])),
        weight=float(sum(each.weight for each in contributions)),
        head_second_moment=_total_if_all([each.head_second_moment for each in contributions]),
        pooled=_total_if_all([each.pooled for each in contributions]),
    )


def _side_by_side(gradients: Sequence[Gradient]) -> Gradient:
    """Their sum by their factors if all have some, together fewer than r; else by its entries."""
    factored = [gradient for gradient in gradients if isinstance(gradient, FactoredMatrix)]
    if len(factored) < len(gradients) or sum(each.left.shape[1] for each in factored) >= gradients[0].shape[1]:
        return DenseMatrix(_total([*map(to_dense, gradients)]))
    left, right = [each.left for each in factored], [each.right for each in factored]
    return FactoredMatrix(np.concatenate(left, axis=1), np.concatenate(right, axis=1))


def _total(parts: Sequence[Float[np.ndarray, "*shape"]]) -> Float[np.ndarray, "*shape"]:
    total = parts[0].astype(np.float64)  # a copy: what came in is not written to
    for part in parts[1:]:
        total += part
    return total


def _total_if_all(parts: Sequence[Float[np.ndarray, "*shape"] | None]) -> Float[np.ndarray, "*shape"] | None:
    """Their sum; None where one is missing, for the sum is then not of all agents."""
    present = [part for part in parts if part is not None]
    return _total(present) if len(present) == len(parts) else None


def _combined(
    matrices: Sequence[Gradient], weights: Sequence[float], method: Method
) -> tuple[Float[np.ndarray, "d r"], tuple[int, ...]]:
    """What stands for the mean, and the outliers of it."""
    if method.aggregation is Aggregation.MEAN:
        return _mean(matrices, weights), ()
    parts = Parts.of(matrices, weights)
    match method.aggregation:
        case Aggregation.CLIPPED:
            centre = clipped_mean(parts, method.clip_norm)
        case Aggregation.TRIMMED:
            centre = trimmed_mean(parts, method.trimmed_share)
        case Aggregation.GEOMETRIC_MEDIAN:
            centre = geometric_median(parts)
    return centre, outliers_of(parts, centre)


def _mean(matrices: Sequence[Gradient], weights: Sequence[float]) -> Float[np.ndarray, "d r"]:
    if not matrices:
        raise ValueError("the mean of no contributions is undefined")
    d, r = matrices[0].shape
    factored = [matrix for matrix in matrices if isinstance(matrix, FactoredMatrix)]
    if len(factored) == len(matrices) and d * r >= _ONE_PRODUCT_FROM_NUMBERS:
        total = sum_of_products(factored)
    else:
        total = to_dense(matrices[0]).copy()
        for matrix in matrices[1:]:
            total += matrix.values if isinstance(matrix, DenseMatrix) else to_dense(matrix)
    total /= sum(weights)
    return total


def _present(parts: Sequence[Float[np.ndarray, "*shape"] | None]) -> list[Float[np.ndarray, "*shape"]]:
    present = [part for part in parts if part is not None]
    if len(present) < len(parts):
        raise ValueError("the run scales its step with something that a contribution does not carry")
    return present


def arithmetic_of(method: Method, shape: tuple[int, int], contributions: int) -> int:
    """About how many numbers the coordinator's part of a round touches: what tells a quick one from a slow one."""
    passes = 1 if method.aggregation is Aggregation.MEAN else _ROBUST_PASSES
    return shape[0] * shape[1] * (passes * contributions + shape[1])


def next_basis(
    basis: Float[np.ndarray, "d r"],
    contributions: Sequence[Contribution],
    method: Method,
    round_number: int,
    step_memory: Float[np.ndarray, " m"] | None = None,
    *,
    head_covariance: Float[np.ndarray, "r r"] | None = None,
) -> BasisMove:
    """The coordinator's part of round t: mean, tangent projection, step, orthonormalisation (eq. 8 and QR).

    In a warm-up the basis stays as it is, but for its last round, which gives the basis of all estimates.

    Args:
        basis: B_t.
        contributions: those of round t, in the order of the agents' names.
        method: the constants.
        round_number: t, for the step decay.
        step_memory: that of the move before; None in the first round.
        head_covariance: W_t; None where the method has none.

    Raises:
        numpy.linalg.LinAlgError: the gradients are so large that the step is not finite.
        ValueError: the run scales its step with something that is not there.
    """
    if method.warms_up_in(round_number):
        if not method.brings_estimates_in(round_number):
            return BasisMove(basis, basis)
        first, far = _first_basis(basis, contributions, method)
        return BasisMove(basis, first, outliers=far)
    found = aggregate(contributions, method, with_pooled=method.sends_pooled_in(round_number))
    largest_turn = method.largest_turn_between(round_number, round_number + 1)
    if method.has_head_covariance:
        assert head_covariance is not None
        memory = _known(step_memory, found.pooled)
        agents = sum(contribution.weight for contribution in contributions)
        return _evidence_move(
            basis, head_covariance, found, memory, method, agents=agents, largest_turn=largest_turn
        )
    direction = found.gradient
    if found.head_second_moment is not None:
        direction = precondition(direction, found.head_second_moment, method.preconditioner_floor)
    if method.sends_pooled:
        step_memory = _known(step_memory, found.pooled)
        direction = row_scales(step_memory)[:, None] * direction
    elif method.row_scaled:
        step_memory = running_row_squares(step_memory, direction)
        direction = row_scales(np.sqrt(step_memory))[:, None] * direction
    scale = 1.0
    if method.basis_step_decays:
        scale = decay(round_number * method.steps_per_round, method.decay_horizon, method.decay_power)
    remembered = step_memory if method.row_scaled else None
    moved, step = basis_step(basis, direction, method.basis_step * scale, largest_turn)
    return BasisMove(basis, moved, remembered, found.outliers, step)


def _evidence_move(
    basis: Float[np.ndarray, "d r"],
    head_covariance: Float[np.ndarray, "r r"],
    found: Aggregate,
    memory: Float[np.ndarray, " m"],
    method: Method,
    *,
    agents: float,
    largest_turn: float,
) -> BasisMove:
    """The step on the evidence from B and W; `memory` is the pooled curvature and, last, the mean weight."""
    weight = float(memory[-1])
    if not weight > 0.0:
        raise np.linalg.LinAlgError("the agents' weights in the step are not above 0")
    following, covariance, step = evidence_step(
        basis,
        head_covariance,
        found.gradient / weight,
        _curvature(memory[:-1] / weight, len(basis), method),
        weight * agents,
        share=method.basis_step,
        largest_turn=largest_turn,
    )
    return BasisMove(basis, following, memory, found.outliers, step, head_covariance=covariance)


def _curvature(triangle: Float[np.ndarray, " m"], dim: int, method: Method) -> Float[np.ndarray, "d d"]:
    """K̄; a mean of positive matrices is one, and what other policies make of them need not be."""
    matrix = unpacked(triangle, dim)
    return matrix if method.aggregation is Aggregation.MEAN else positive_part(matrix)


def _known(
    before: Float[np.ndarray, " m"] | None, pooled: Float[np.ndarray, " m"] | None
) -> Float[np.ndarray, " m"]:
    """The newest pooled numbers."""
    newest = before if pooled is None else pooled
    if newest is None:
        raise ValueError("no pooled numbers are known, and no contribution carries them; the step needs them")
    return newest


def _first_basis(
    basis: Float[np.ndarray, "d r"], contributions: Sequence[Contribution], method: Method
) -> tuple[Float[np.ndarray, "d r"], tuple[int, ...]]:
    """What the estimates of a warm-up come to, and the outliers among them."""
    estimates = [to_dense(contribution.gradient) for contribution in contributions]
    if method.aggregation is Aggregation.MEAN:
        return spectral_basis(estimates, basis), ()
    weights = [contribution.weight for contribution in contributions]
    products = [product_of(estimate) for estimate in estimates]
    product, far = _combined(products, weights, replace(method, clip_norm=0.0))
    return basis_of_products(product, basis), far
