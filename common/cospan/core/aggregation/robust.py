"""What stands for the mean of a round when some contributions may be anything: robust aggregation.

All of it is done with gradients taken at one common basis. A contribution that sums over a group of w agents counts
as w times its mean. The bits depend on the order of the contributions, as those of any sum; the caller fixes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.matrices import Gradient
from cospan.core.linalg.matrix_batch import Stack, stacked

OUTLIER_RATIO = 3.0
"""An outlier is at least this many times as far from the aggregate as the median agent."""
_FEWEST = 3
"""Of two contributions none can be told to be the outlier."""
_MOST_STEPS = 100
_TOLERANCE = 1e-6
_MOST_REJECTIONS = 10
_SMOOTHING = 1e-6
_LEAST_DISTANCE = 1e-150
_BLOCK_NUMBERS = 1 << 20


@dataclass(frozen=True, eq=False, slots=True)
class Parts:
    """One matrix of every contribution.

    Attributes:
        sums: Σ over each contribution's agents, n matrices of shape (d, r).
        weights: numbers of agents, above 0, shape (n,).
        norms: ‖G_i‖_F of the mean over each contribution's agents, shape (n,).
    """

    sums: Stack
    weights: Float[np.ndarray, " n"]
    norms: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, sums: Sequence[Gradient], weights: Sequence[float]) -> "Parts":
        """From sums, each over a number of agents.

        Raises:
            ValueError: there is none.
        """
        stack, counts = stacked(sums), np.array(weights, dtype=np.float64)
        return cls(stack, counts, np.sqrt(stack.squared_norms) / counts)

    def combined(self, shares: Float[np.ndarray, " n"]) -> Float[np.ndarray, "d r"]:
        """Σ_i s_i G_i of the means."""
        return self.sums.combined(shares / self.weights)

    def distances(self, centre: Float[np.ndarray, "d r"]) -> Float[np.ndarray, " n"]:
        """‖G_i − M‖_F of each mean."""
        products = self.sums.inner(centre) / self.weights
        squares = self.norms**2 - 2.0 * products + float(np.vdot(centre, centre))
        return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def weighted_median(values: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]) -> float:
    """The least value up to which half of the weight lies."""
    order = np.argsort(values, kind="stable")
    reached = np.searchsorted(np.cumsum(weights[order]), 0.5 * float(weights.sum()))
    return float(values[order[min(int(reached), len(order) - 1)]])


def clipped_mean(parts: Parts, clip_norm: float = 0.0) -> Float[np.ndarray, "d r"]:
    """(1/K) Σ_k G^k · min(1, τ / ‖G^k‖_F): no agent pulls farther than τ.

    Args:
        parts: the contributions.
        clip_norm: τ > 0; or 0 for the median of the round's norms (the adaptive clipping of Andrew et al. 2021,
            arXiv:1905.03871, at the quantile one half of the round itself, and without noise).
    """
    bound = clip_norm if clip_norm > 0.0 else weighted_median(parts.norms, parts.weights)
    factors = np.minimum(1.0, bound / np.maximum(parts.norms, _LEAST_DISTANCE))
    return parts.combined(factors * parts.weights / float(parts.weights.sum()))


def trimmed_mean(parts: Parts, share: float) -> Float[np.ndarray, "d r"]:
    """For every entry the mean of what is left without the `share` of largest and of smallest values.

    Yin et al. 2018, "Byzantine-robust distributed learning: towards optimal statistical rates", arXiv:1803.01498.
    A value on the edge counts in part, so that groups, and shares that do not divide the fleet, are exact.

    Args:
        parts: the contributions.
        share: ξ, trimmed on each side, 0 to below 1/2: the share of agents that may send anything.
    """
    weights, total = parts.weights[:, None, None], float(parts.weights.sum())
    low, high = share * total, (1.0 - share) * total
    n, d, r = parts.sums.shape
    result = np.empty((d, r))
    block = max(1, _BLOCK_NUMBERS // (n * r))
    for start in range(0, d, block):
        stop = min(start + block, d)
        values = parts.sums.rows(start, stop) / weights
        order = np.argsort(values, axis=0, kind="stable")
        own = parts.weights[order]
        until = np.cumsum(own, axis=0)
        kept = np.maximum(np.minimum(until, high) - np.maximum(until - own, low), 0.0)
        result[start:stop] = np.sum(kept * np.take_along_axis(values, order, axis=0), axis=0) / (high - low)
    return result


def geometric_median(parts: Parts) -> Float[np.ndarray, "d r"]:
    """arg min_M Σ_k ‖G^k − M‖_F over all that are not outliers of it.

    By smoothed Weiszfeld steps (Pillutla, Kakade, Harchaoui 2022, "Robust aggregation for federated learning",
    arXiv:1912.13445). Everybody pulls with the same force, however long the gradient: so fewer than half cannot
    carry it away, but pull it aside. Those that are found three times as far away as the median agent are left out,
    and do not pull.
    """
    weights = parts.weights
    centre = _pulled(parts, weights)
    for _ in range(_MOST_REJECTIONS):
        kept = parts.weights.copy()
        kept[list(outliers_of(parts, centre))] = 0.0
        if np.array_equal(kept, weights):
            break
        weights = kept
        centre = _pulled(parts, weights)
    return centre


def _pulled(parts: Parts, weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, "d r"]:
    """The geometric median with these weights; 0 leaves a contribution out."""
    typical = weighted_median(parts.norms, weights)
    floor = max(_SMOOTHING * typical, _LEAST_DISTANCE)
    # From the clipped mean on, for in a centre that is far away the differences between the near ones drown.
    shares = weights * np.minimum(1.0, max(typical, floor) / np.maximum(parts.norms, floor))
    centre = parts.combined(shares / float(weights.sum()))
    for _ in range(_MOST_STEPS):
        pulls = weights / np.maximum(parts.distances(centre), floor)
        before, shares = shares, pulls / float(pulls.sum())
        centre = parts.combined(shares)
        if float(np.abs(shares - before).sum()) < _TOLERANCE:
            break
    return centre


def outliers_of(parts: Parts, centre: Float[np.ndarray, "d r"]) -> tuple[int, ...]:
    """The contributions three times as far from `centre` as the median agent; none where there are but two."""
    if len(parts.weights) < _FEWEST:
        return ()
    distances = parts.distances(centre)
    bound = OUTLIER_RATIO * weighted_median(distances, parts.weights)
    return tuple(int(index) for index in np.flatnonzero(distances > bound))
