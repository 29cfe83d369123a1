"""How many dimensions a fleet's value functions share: the spectrum of the cross products of two estimates each.

Shares mean variance of the value function, each agent's counted as one, and not squared lengths of weights: an
estimate z is measured as zᵀ C z, with C the covariance of the features. Agents see different states, and of one
that an agent hardly sees its estimate is noise or nothing; so C is the harmonic mean of the agents' covariances,
which weighs a direction by those that see it least.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.warm_start import HalfSums, cross_eigenvalues
from cospan.core.learning.least_squares import PRIOR_STEPS, TransitionSums


@dataclass(frozen=True, eq=False, slots=True)
class FeatureMoments:
    """First and second moments of the features that an agent has seen.

    Attributes:
        total: Σ φ, shape (d,).
        products: Σ φ φᵀ, shape (d, d).
        count: Σ 1.
    """

    total: Float[np.ndarray, " d"]
    products: Float[np.ndarray, "d d"]
    count: int = 0

    @classmethod
    def of_nothing(cls, feature_dim: int) -> "FeatureMoments":
        """Before the first state."""
        return cls(np.zeros(feature_dim), np.zeros((feature_dim, feature_dim)))

    def updated(self, features: Float[np.ndarray, "n d"]) -> "FeatureMoments":
        """With n more states."""
        return FeatureMoments(
            self.total + features.sum(axis=0), self.products + features.T @ features, self.count + len(features)
        )

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """C = (1/n) Σ (φ − φ̄)(φ − φ̄)ᵀ: zᵀ C z is the variance of φᵀz over the states seen."""
        mean = self.total / self.count
        return np.asarray(self.products / self.count - np.outer(mean, mean))


@dataclass(frozen=True, eq=False, slots=True)
class AgentEstimate:
    """What one agent gives.

    Attributes:
        pair: [a b], two independent estimates of its value weights, shape (d, 2).
        covariance: C of its features, shape (d, d).
        floor: below which C says nothing: the ridge of its heads, a step.
    """

    pair: Float[np.ndarray, "d 2"]
    covariance: Float[np.ndarray, "d d"]
    floor: float

    @classmethod
    def of(cls, halves: HalfSums, moments: FeatureMoments) -> "AgentEstimate":
        """Of all that an agent has seen."""
        sums: TransitionSums = halves.joined
        floor = PRIOR_STEPS * float(sums.squares) / (sums.steps * sums.steps * len(sums.traces))
        return cls(halves.estimates, moments.covariance, floor)

    @property
    def cross_variance(self) -> float:
        """aᵀ C b: the variance of the values without the noise of the estimates."""
        return float(self.pair[:, 0] @ self.covariance @ self.pair[:, 1])

    @property
    def scaled(self) -> Float[np.ndarray, "d 2"]:
        """The pair as if φᵀa and φᵀb had variance one on average: their noise is in that, so noise counts less."""
        variance = float(np.einsum("dq,de,eq->", self.pair, self.covariance, self.pair)) / 2.0
        return np.asarray(self.pair / np.sqrt(variance)) if variance > 0.0 else np.zeros_like(self.pair)


def harmonic_mean(estimates: Sequence[AgentEstimate]) -> Float[np.ndarray, "d d"]:
    """C = ((1/n) Σ_k (C_k + κ_k I)⁻¹)⁻¹: a direction that one agent never sees counts for next to nothing."""
    dim = len(estimates[0].pair)
    inverses = [np.linalg.inv(each.covariance + max(each.floor, 1e-300) * np.eye(dim)) for each in estimates]
    return np.asarray(np.linalg.inv(np.mean(inverses, axis=0)))


def measured(estimates: Sequence[AgentEstimate]) -> tuple[Float[np.ndarray, "q n"], Float[np.ndarray, "q n"]]:
    """The agents' a and b, each in a column, where squared lengths are value variances; q = min(d, 2n)."""
    values, vectors = np.linalg.eigh(harmonic_mean(estimates))
    factor = vectors * np.sqrt(np.clip(values, 0.0, None))
    pairs = np.stack([factor.T @ each.scaled for each in estimates], axis=1)
    both = np.concatenate([pairs[:, :, 0], pairs[:, :, 1]], axis=1)
    if both.shape[1] < both.shape[0]:  # nothing lies outside their span
        both = np.linalg.qr(both)[1]
    return both[:, : len(estimates)], both[:, len(estimates) :]


@dataclass(frozen=True, eq=False, slots=True)
class Spectrum:
    """The eigenvalues of the mean cross product, largest first.

    The halves' noise is independent, so as likely to point one way as the other: the eigenvalues of noise alone lie
    symmetrically around zero, and those of the signal are not negative. So the most negative one shows how large
    the noise is, and only what exceeds it is signal: the magnitude criterion of Sibson (1979, "Studies in the
    robustness of multidimensional scaling: perturbational analysis of classical scaling", J. R. Stat. Soc. B 41,
    217-229).

    Attributes:
        values: shape (q,).
    """

    values: Float[np.ndarray, " q"]

    @classmethod
    def of(cls, first: Float[np.ndarray, "q n"], second: Float[np.ndarray, "q n"]) -> "Spectrum":
        """Of estimates as `measured` gives them."""
        return cls(cross_eigenvalues(first, second))

    @property
    def noise(self) -> float:
        """The size of the most negative eigenvalue; 0 where none is."""
        return max(0.0, -float(self.values[-1]))

    @property
    def above_noise(self) -> int:
        """How many components exceed the noise and rounding."""
        rounding = len(self.values) * np.finfo(np.float64).eps * max(float(self.values[0]), 0.0)
        return int(np.count_nonzero(self.values > max(self.noise, rounding)))

    @property
    def shares(self) -> Float[np.ndarray, " q"]:
        """Each eigenvalue over the sum of those above the noise; zeros where none is."""
        signal = float(self.values[: self.above_noise].sum())
        return self.values / signal if signal > 0.0 else np.zeros_like(self.values)

    def rank(self, share: float) -> int:
        """The smallest r whose components hold this share of the signal; 0 where there is no signal.

        Args:
            share: 0 to 1.
        """
        held = np.cumsum(self.shares[: self.above_noise])
        return int(np.searchsorted(held, share - 1e-12)) + 1 if len(held) else 0
