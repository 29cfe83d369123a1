"""What the coordinator does to a noisy sum before it takes its step: nothing that costs privacy.

Noise makes the pooled curvature K̄ indefinite, and a step divided by it wild; it can make row sums and weights
negative. All that is known of the noise is its size, and that is enough to bound each from below. And it lets the
head covariance grow without end, which the same size bounds from above.
"""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import BasisMove, Contribution
from cospan.core.aggregation.evidence_step import unpacked
from cospan.core.method import Method
from cospan.core.privacy.clipping import Bounds

_LARGEST_TO_NOISE = 10.0
"""Of the eigenvalues of the head covariance W to 1 / σ; 1 costs what is learnt from the sums of some rounds."""


def repaired(total: Contribution, method: Method, deviations: Bounds) -> Contribution:
    """A noisy sum over the fleet with which the step is defined.

    * Eigenvalues of K̄, and of the heads' second moment, are at least σ √m, m being the size of the matrix: noise
      of deviation σ in a triangle has eigenvalues up to about 2 σ √m.
    * The sum of the weights ω is at least its own deviation, and row sums are at least theirs.

    Args:
        total: of the round, decoded.
        method: the constants.
        deviations: of the noise in each field of the sum, in the units of the sum (`Mechanism.deviations_of_sum`).
    """
    moment, pooled = total.head_second_moment, total.pooled
    if moment is not None:
        moment = _lifted(moment, deviations.moment)
    if pooled is not None and method.has_head_covariance:
        dim = total.gradient.shape[0]
        curvature = _lifted(unpacked(pooled[:-1], dim), deviations.pooled)
        weight = max(float(pooled[-1]), deviations.influence)
        pooled = np.concatenate([curvature[np.triu_indices(dim)], [weight]])
    elif pooled is not None and method.pooled_is_nonnegative:
        pooled = np.maximum(pooled, deviations.pooled)
    return replace(total, head_second_moment=moment, pooled=pooled)


def limited(move: BasisMove, deviations: Bounds, agents: float) -> BasisMove:
    """The move, with eigenvalues of the head covariance W of 10 / σ at most; σ is the noise of the mean gradient.

    A step adds W N W to W, N being that noise. Far above 1 / σ this is more than W itself: noise alone decides, and
    the largest eigenvalue grows by factors in every round.

    Args:
        move: of a round, whose step memory ends with the mean weight ω.
        deviations: of the noise in each field of the sum.
        agents: of the sum.
    """
    covariance, memory = move.head_covariance, move.step_memory
    if covariance is None or memory is None:
        return move
    largest = _LARGEST_TO_NOISE * agents * float(memory[-1]) / deviations.gradient
    eigenvalues, vectors = np.linalg.eigh(covariance)
    if not eigenvalues[-1] > largest:
        return move
    found = (vectors * np.minimum(eigenvalues, largest)) @ vectors.T
    return replace(move, head_covariance=np.asarray((found + found.T) / 2.0))


def _lifted(matrix: Float[np.ndarray, "m m"], deviation: float) -> Float[np.ndarray, "m m"]:
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(eigenvalues, deviation * math.sqrt(len(matrix)))) @ vectors.T)
