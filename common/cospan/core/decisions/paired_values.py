"""Value weights from returns of the same moment: what chance did then is no noise of their difference."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

OWN_RIDGE = 0.01
"""Precision of the prior of an agent alone, as a share of the mean eigenvalue of its data's information."""
OWN_SHARE = 0.03
"""Variance of an agent's own in each direction of a fleet's prior, as a share of the fleet's mean one."""

Values = tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]
"""Weights z, and F with Cov z = F Fᵀ."""


@dataclass(frozen=True, eq=False, slots=True)
class PairedMoments:
    """What the returns of an agent's plans tell of its weights, whatever the prior.

    Attributes:
        information: A = Σ φ̃ φ̃ᵀ.
        moment: b = Σ φ̃ g̃.
        own: the precision that stands for a prior of an agent alone.
        noise: s².
    """

    information: Float[np.ndarray, "d d"]
    moment: Float[np.ndarray, " d"]
    own: Float[np.ndarray, "d d"]
    noise: float

    @classmethod
    def of(
        cls, features: Float[np.ndarray, "m k d"], returns: Float[np.ndarray, "m k"], block: int
    ) -> "PairedMoments":
        """See `paired_values`.

        Raises:
            ValueError: there is no moment, or the block is not 1 or more.
        """
        moments, levels, dim = features.shape
        if not moments or block < 1:
            raise ValueError(f"{moments} moments in blocks of {block}: there must be one of each")
        rows = (features - features.mean(axis=1, keepdims=True)).reshape(moments * levels, dim)
        answers = (returns - returns.mean(axis=1, keepdims=True)).reshape(moments * levels)
        information, moment = rows.T @ rows, rows.T @ answers
        size = float(np.trace(information)) / dim
        own = (OWN_RIDGE * size + np.finfo(float).tiny) * np.eye(dim)
        errors = answers - rows @ np.linalg.solve(information + own, moment)
        rows *= errors[:, None]
        weighted = rows.reshape(moments, levels, dim).sum(axis=1)
        blocks = np.add.reduceat(weighted, np.arange(0, moments, block), axis=0)
        noise = float(np.sum(blocks**2)) / max(size * dim, np.finfo(float).tiny)
        return cls(information, moment, own, noise)

    def values(self, prior_covariance: Float[np.ndarray, "d d"] | None = None) -> Values:
        """See `paired_values`."""
        precision = self.own if prior_covariance is None else self.noise * np.linalg.inv(prior_covariance)
        eigenvalues, vectors = np.linalg.eigh(self.information + (precision + precision.T) / 2.0)
        eigenvalues = np.maximum(eigenvalues, 1e-9 * max(float(eigenvalues[-1]), np.finfo(float).tiny))
        weights = (vectors / eigenvalues) @ (vectors.T @ self.moment)
        return np.asarray(weights), np.asarray(np.sqrt(self.noise) * vectors / np.sqrt(eigenvalues))


def paired_values(
    features: Float[np.ndarray, "m k d"],
    returns: Float[np.ndarray, "m k"],
    block: int,
    prior_covariance: Float[np.ndarray, "d d"] | None = None,
) -> Values:
    """The posterior of weights z with φᵀ z equal to the returns up to a number for each moment.

    A = Σ φ̃ φ̃ᵀ and b = Σ φ̃ g̃ with φ̃ and g̃ less their means over the k afterstates of a moment. The mean is
    (A + s² Γ⁻¹)⁻¹ b and the covariance s² (A + s² Γ⁻¹)⁻¹: Bayesian linear regression, with a noise s² that holds
    for sums over whole blocks, tr Σ_c u_c u_cᵀ / tr A with u_c = Σ φ̃ e over block c. Moments of one day share its
    weather, so they count for far less than as many of different days (Liang and Zeger 1986, "Longitudinal data
    analysis using generalized linear models").

    Args:
        features: φ of k afterstates at each of m moments, in the order of time.
        returns: g of them.
        block: moments whose errors belong together.
        prior_covariance: Γ, in the unit of the data, positive definite; None of an agent alone, whose data decide.

    Raises:
        ValueError: there is no moment, or the block is not 1 or more.
    """
    return PairedMoments.of(features, returns, block).values(prior_covariance)


def prior_of_fleet(
    basis: Float[np.ndarray, "d r"], head_covariance: Float[np.ndarray, "r r"], unit: float
) -> Float[np.ndarray, "d d"] | None:
    """Γ = u² (B W Bᵀ + ψ I) with ψ = `OWN_SHARE` · tr W / d; None while the fleet knows nothing.

    Args:
        basis: B.
        head_covariance: W.
        unit: u of the agent, in which W is a covariance of heads (`Units.head`), above 0.
    """
    dim = len(basis)
    size = float(np.trace(head_covariance)) / dim
    if not size > 0.0:
        return None
    return np.asarray(unit**2 * (basis @ head_covariance @ basis.T + OWN_SHARE * size * np.eye(dim)))
