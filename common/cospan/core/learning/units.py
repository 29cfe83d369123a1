"""The units of each agent, from its own data, so that no constant of the method acts in those of its workload."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.leading_axes import PerAgent


@dataclass(frozen=True, eq=False, slots=True)
class Units:
    """What each agent measures in; all are 1 where the run does not scale (`Method.reward_scaled`).

    Attributes:
        reward: σ, the standard deviation of its rewards so far, above 0.
        feature: ρ, the root mean square of ‖φ‖ over its states so far, above 0.
    """

    reward: PerAgent = 1.0
    feature: PerAgent = 1.0

    @classmethod
    def of(cls, variance: PerAgent, mean_square: PerAgent) -> "Units":
        """From σ² and ρ²; 1 for one that is 0, which leaves nothing to measure."""
        return cls(_root_or_one(variance), _root_or_one(mean_square))

    @property
    def head(self) -> PerAgent:
        """σ / ρ, of a head w: φᵀ B w is in σ."""
        return self.reward / self.feature


def _root_or_one(square: PerAgent) -> PerAgent:
    if isinstance(square, np.ndarray):
        return np.sqrt(np.where(square > 0.0, square, 1.0))
    return math.sqrt(square) if square > 0.0 else 1.0


NO_UNITS = Units()
BOUND_SLACK = 1e-9
"""A head within this relative distance of the ball's surface was projected onto it."""


def reaches_bound(heads: Float[np.ndarray, "*n r"], radius: float | Float[np.ndarray, "*#n"]) -> np.ndarray:
    """Whether the ball ‖w‖ ≤ U has cut each head: its norm is U. Shape (*n,), of bool; never at U = inf."""
    if not isinstance(radius, np.ndarray) and math.isinf(radius):
        return np.zeros(heads.shape[:-1], dtype=np.bool_)
    norms = np.sqrt(np.einsum("...r,...r->...", heads, heads))
    return np.asarray((norms >= radius * (1.0 - BOUND_SLACK)) & np.isfinite(radius))


def told_after(rounds: int) -> bool:
    """Whether an agent tells of its bounded head after this many such rounds: 1, 2, 4, 8, …; one may be lost."""
    return rounds > 0 and rounds & (rounds - 1) == 0
