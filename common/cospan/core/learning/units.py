"""The units of one agent, from its own data, so that no constant of the method acts in those of its workload."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cospan.core.method import Method


@dataclass(frozen=True, slots=True)
class Units:
    """What one agent measures in; both are 1 where the run does not scale (`Method.reward_scaled`).

    Attributes:
        reward: σ, the standard deviation of its rewards so far, above 0.
        feature: ρ, the root mean square of ‖φ‖ over its states so far, above 0.
    """

    reward: float = 1.0
    feature: float = 1.0

    @classmethod
    def of(cls, variance: float, mean_square: float) -> "Units":
        """From σ² and ρ²; 1 for one that is 0, which leaves nothing to measure."""
        reward = math.sqrt(variance) if variance > 0.0 else 1.0
        return cls(reward, math.sqrt(mean_square) if mean_square > 0.0 else 1.0)

    @property
    def head(self) -> float:
        """σ / ρ, of a head w: φᵀ B w is in σ."""
        return self.reward / self.feature

    def applied_to(self, method: Method) -> Method:
        """The method with β and U in the units of the data: β / ρ², U σ / ρ."""
        if self == NO_UNITS:
            return method
        return replace(
            method,
            head_step=method.head_step / self.feature / self.feature,
            head_radius=method.head_radius * self.head,
        )


NO_UNITS = Units()
BOUND_SLACK = 1e-9
"""A head within this relative distance of the ball's surface was projected onto it."""


def reaches_bound(heads: Float[np.ndarray, "*n r"], radius: float | Float[np.ndarray, "*#n"]) -> np.ndarray:
    """Whether the ball ‖w‖ ≤ U has cut each head: its norm is U. Shape (*n,), of bool; never at U = inf."""
    norms = np.sqrt(np.einsum("...r,...r->...", heads, heads))
    return np.asarray((norms >= radius * (1.0 - BOUND_SLACK)) & np.isfinite(radius))


def told_after(rounds: int) -> bool:
    """Whether an agent tells of its bounded head after this many such rounds: 1, 2, 4, 8, …; one may be lost."""
    return rounds > 0 and rounds & (rounds - 1) == 0
