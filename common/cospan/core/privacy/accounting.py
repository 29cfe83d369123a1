"""ε of several Gaussian mechanisms, by Rényi divergences: what every process can compute of a run's promise.

Who plans a run chooses the noise with the package `dp-accounting` (`cospan.wire.privacy_budget`). Agents check the
choice, and everything that shows ε computes it, with the formula below; tests hold the two to each other.
"""

import math
from functools import lru_cache

import numpy as np

ORDERS = tuple(float(order) for order in 1.0 + np.geomspace(0.005, 5000.0, 400))
"""α of the Rényi divergences; neighbours are 3.5 % apart, so the best one is missed by next to nothing."""
_LEAST_ORDER = 1.01
"""Below, the conversion loses its digits."""


@lru_cache(maxsize=1024)
def epsilon_of_vectors(multiplier: float, vectors: int, delta: float) -> float:
    """ε after T vectors with noise of multiplier z; 0 before the first.

    The smallest over α of T α / (2 z²) + log((α − 1) / α) − (log δ + log α) / (α − 1): the Gaussian's Rényi
    divergence (Mironov 2017, proposition 7), T times, converted by proposition 12 of Canonne, Kamath and Steinke
    2020.

    Args:
        multiplier: z, above 0.
        vectors: T, 0 or more.
        delta: δ, above 0 and below 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not (multiplier > 0.0 and vectors >= 0 and 0.0 < delta < 1.0):
        raise ValueError(f"no ε for a multiplier of {multiplier:g}, {vectors} vectors and δ = {delta:g}")
    if not vectors:
        return 0.0
    orders = np.array([order for order in ORDERS if order > _LEAST_ORDER])
    divergence = orders * (vectors / (2.0 * multiplier**2))
    found = divergence + np.log1p(-1.0 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1.0)
    return max(0.0, float(np.min(found)))
