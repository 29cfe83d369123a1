"""The answers of an agent's posterior for several sizes ψ of what is its own, and the mixture of them.

With Γ = B W Bᵀ + ψ Λ the answer of each ψ is (H + Γ⁻¹)⁻¹ c; see `cospan.core.learning.posterior`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.leading_axes import applied, dot, symmetric

METRIC_FLOOR = 1e-3
"""The least eigenvalue of the feature covariance that Λ inverts, as a share of the largest."""
SHARES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""ψ of the answers that are mixed, in the same unit: from the fleet's subspace alone to the agent's data alone."""
TEMPERATURE = 0.2
"""Of the weights of that mixture, as a share of the risk of the agent's data alone."""
TINY = 1e-12


@dataclass(frozen=True, eq=False, slots=True)
class DiagonalInformation:
    """Coordinates y of weights z = M y in which H is diagonal and Λ = M Mᵀ the identity.

    Λ is the inverse of the feature covariance: what is not shared is as large in every direction of the values.

    Attributes:
        information: the diagonal of H, not negative, shape (*n, d).
        to_weights: M, shape (*n, d, d).
        from_weights: M⁻¹, shape (*n, d, d).
        metric: MᵀC M, so that yᵀ (MᵀC M) y is the mean square of the values, shape (*n, d, d).
        scores: Mᵀc, shape (*n, d).
    """

    information: Float[np.ndarray, "*n d"]
    to_weights: Float[np.ndarray, "*n d d"]
    from_weights: Float[np.ndarray, "*n d d"]
    metric: Float[np.ndarray, "*n d d"]
    scores: Float[np.ndarray, "*n d"]

    @classmethod
    def of(
        cls,
        system: Float[np.ndarray, "*n d d"],
        rewards: Float[np.ndarray, "*n d"],
        noise: Float[np.ndarray, "*n d d"],
        covariance: Float[np.ndarray, "*n d d"],
    ) -> "DiagonalInformation":
        """Of A, b, S and the feature covariance C."""
        eigenvalues, vectors = np.linalg.eigh(covariance)
        eigenvalues = np.maximum(eigenvalues, METRIC_FLOOR * eigenvalues[..., -1:] + TINY)
        weighted = np.linalg.solve(noise, system).swapaxes(-1, -2)
        turned = vectors / np.sqrt(eigenvalues)[..., None, :]
        information = turned.swapaxes(-1, -2) @ (weighted @ system) @ turned
        h, rotation = np.linalg.eigh(symmetric(information))
        back = rotation.swapaxes(-1, -2)
        to_weights = turned @ rotation
        metric = to_weights.swapaxes(-1, -2) @ covariance @ to_weights
        return cls(
            information=np.maximum(h, 0.0),
            to_weights=to_weights,
            from_weights=(back * np.sqrt(eigenvalues)[..., None, :]) @ vectors.swapaxes(-1, -2),
            metric=symmetric(metric),
            scores=applied(to_weights.swapaxes(-1, -2), applied(weighted, rewards)),
        )


@dataclass(frozen=True, eq=False, slots=True)
class Mixture:
    """The answers of all ψ and of LSTD alone, and what each weighs; all in y of `DiagonalInformation`.

    Attributes:
        mean: Σ_j chance_j mean_j, shape (*n, d).
        means: of each ψ of `SHARES`, and the agent's own LSTD at last, each of shape (*n, d).
        chances: their weights, shape (*n, m + 1).
        psis: ψ, each of shape (*n, 1).
        damped: a = 1 / (1 + ψ h), each of shape (*n, d).
        edges: X of the posterior covariance ψ a + X Xᵀ, each of shape (*n, d, r).
    """

    mean: Float[np.ndarray, "*n d"]
    means: tuple[Float[np.ndarray, "*n d"], ...]
    chances: Float[np.ndarray, "*n m1"]
    psis: tuple[Float[np.ndarray, "*n 1"], ...]
    damped: tuple[Float[np.ndarray, "*n d"], ...]
    edges: tuple[Float[np.ndarray, "*n d r"], ...]


def mixed(
    data: DiagonalInformation,
    factor: Float[np.ndarray, "*n d r"],
    unit: Float[np.ndarray, "*n 1"],
    alone: tuple[Float[np.ndarray, "*n d"], Float[np.ndarray, "*n d"]],
) -> Mixture:
    """The mixture of the posterior means over ψ.

    With a = 1 / (1 + ψ h) and F Fᵀ = M⁻¹ B W Bᵀ M⁻ᵀ the posterior covariance is ψ a + a F (I + Fᵀ h a F)⁻¹ Fᵀ a.

    Args:
        data: of the agent.
        factor: F.
        unit: of ψ.
        alone: the agent's own LSTD, and a nearly unbiased estimate.
    """
    h, metric, scores = data.information, data.metric, data.scores
    own, unbiased = alone
    means, risks, psis, dampings, edges = [], [], [], [], []
    diagonal = np.diagonal(metric, axis1=-2, axis2=-1)
    for share in SHARES:
        psi = share * unit
        damped = 1.0 / (1.0 + psi * h)
        # Of the eigenvectors rather than by an inverse: W may be so large that rounding would leave it indefinite.
        inner, turn = np.linalg.eigh(factor.swapaxes(-1, -2) @ ((h * damped)[..., None] * factor))
        edge = (damped[..., None] * factor) @ (turn / np.sqrt(1.0 + np.maximum(inner, 0.0))[..., None, :])
        mean = psi * damped * scores + applied(edge, applied(edge.swapaxes(-1, -2), scores))
        spread = (psi * damped * diagonal).sum(axis=-1) + np.einsum("...ia,...ia->...", edge, metric @ edge)
        away = mean - unbiased
        means.append(mean)
        risks.append(dot(away, applied(metric, away)) + 2.0 * spread)
        psis.append(psi)
        dampings.append(damped)
        edges.append(edge)
    away = own - unbiased
    means.append(own)
    risks.append(dot(away, applied(metric, away)) + 2.0 * spread)
    risk = np.stack(risks, axis=-1)
    exponents = (risk.min(axis=-1, keepdims=True) - risk) / (
        TEMPERATURE * np.maximum(spread, 0.0)[..., None] + TINY
    )
    chances = np.exp(exponents)
    chances /= chances.sum(axis=-1, keepdims=True)
    mean = np.einsum("...j,...ji->...i", chances, np.stack(means, axis=-2))
    return Mixture(mean, tuple(means), chances, tuple(psis), tuple(dampings), tuple(edges))
