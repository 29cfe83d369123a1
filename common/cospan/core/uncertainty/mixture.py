"""The answers of an agent's posterior for several sizes ψ of what is its own, and the mixture of them.

With Γ = B W Bᵀ + ψ Λ the answer of each ψ is (H + Γ⁻¹)⁻¹ c; see `cospan.core.learning.posterior`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.leading_axes import PerAgent, applied, dot, symmetric
from cospan.core.linalg.triangular import lower_inverse, small_inverse

METRIC_FLOOR = 1e-3
"""The least eigenvalue of the feature covariance that Λ inverts, as a share of the largest."""
SHARES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""ψ of the answers that are mixed, in the same unit: from the fleet's subspace alone to the agent's data alone."""
TEMPERATURE = 0.2
"""Of the weights of that mixture, as a share of the risk of the agent's data alone."""
TINY = 1e-12
_MOST_INNER = 1e8
"""Trace of Fᵀ h a F beyond which I + Fᵀ h a F is not inverted as it is."""


@dataclass(frozen=True, eq=False, slots=True)
class DiagonalInformation:
    """Coordinates y of weights z = M y in which H is diagonal and Λ = M Mᵀ the identity.

    Λ is the inverse of the feature covariance: what is not shared is as large in every direction of the values.

    Attributes:
        information: the diagonal of H, not negative, shape (*n, d).
        to_weights: M, shape (*n, d, d).
        from_weights: M⁻¹, shape (*n, d, d).
        metric: MᵀC M, so that yᵀ (MᵀC M) y is the mean square of the values, shape (*n, d, d); None where it is the
            identity, as where no eigenvalue of C is below the floor of Λ and M is of Cholesky factors.
        scores: Mᵀc, shape (*n, d).
    """

    information: Float[np.ndarray, "*n d"]
    to_weights: Float[np.ndarray, "*n d d"]
    from_weights: Float[np.ndarray, "*n d d"]
    metric: Float[np.ndarray, "*n d d"] | None
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
        turned, turned_back, is_exact = _roots(covariance)
        weighted = np.linalg.solve(noise, system).swapaxes(-1, -2)
        information = turned.swapaxes(-1, -2) @ (weighted @ system) @ turned
        h, rotation = np.linalg.eigh(symmetric(information))
        back = rotation.swapaxes(-1, -2)
        to_weights = turned @ rotation
        metric = None if is_exact else symmetric(to_weights.swapaxes(-1, -2) @ covariance @ to_weights)
        return cls(
            information=np.maximum(h, 0.0),
            to_weights=to_weights,
            from_weights=turned_back(back),
            metric=metric,
            scores=applied(to_weights.swapaxes(-1, -2), applied(weighted, rewards)),
        )

    def measured(self, vectors: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
        """(MᵀC M) y of each y."""
        return vectors if self.metric is None else applied(self.metric, vectors)

    @property
    def whole_metric(self) -> Float[np.ndarray, "*n d d"]:
        """MᵀC M, where it is the identity too."""
        if self.metric is not None:
            return self.metric
        return np.broadcast_to(np.eye(self.information.shape[-1]), self.to_weights.shape)


_TurnedBack: TypeAlias = Callable[[Float[np.ndarray, "*n d d"]], Float[np.ndarray, "*n d d"]]
"""Rᵀ M₀⁻¹ of a rotation's transpose Rᵀ, for the root M₀ that it belongs to."""


def _roots(covariance: Float[np.ndarray, "*n d d"]) -> tuple[Float[np.ndarray, "*n d d"], _TurnedBack, bool]:
    """M₀ of M₀ M₀ᵀ = Λ, what makes Rᵀ M₀⁻¹ of Rᵀ, and whether Λ is C⁻¹ itself, of factors of C.

    Of n agents by Cholesky factors, a third of the time, where no eigenvalue is below the floor of Λ.
    """
    factors = _cholesky_roots(covariance) if covariance.ndim == 3 else None
    if factors is not None:
        root, inverse = factors
        return root, lambda back: back @ inverse, True
    eigenvalues, vectors = np.linalg.eigh(covariance)
    eigenvalues = np.maximum(eigenvalues, METRIC_FLOOR * eigenvalues[..., -1:] + TINY)

    def turned_back(back: Float[np.ndarray, "*n d d"]) -> Float[np.ndarray, "*n d d"]:
        return np.asarray((back * np.sqrt(eigenvalues)[..., None, :]) @ vectors.swapaxes(-1, -2))

    return vectors / np.sqrt(eigenvalues)[..., None, :], turned_back, False


def _cholesky_roots(
    covariance: Float[np.ndarray, "n d d"],
) -> tuple[Float[np.ndarray, "n d d"], Float[np.ndarray, "n d d"]] | None:
    """L⁻ᵀ and Lᵀ of C = L Lᵀ; None where an eigenvalue may be below the floor.

    ‖M²‖_F^½ bounds the largest eigenvalue of M = C and of M = C⁻¹, and exceeds it by d^¼ at most.
    """
    try:
        lower = np.linalg.cholesky(covariance)
        inverse = lower_inverse(lower)
    except np.linalg.LinAlgError:
        return None
    root = inverse.swapaxes(-1, -2)
    largest, inverse_of_least = (_bound(matrix) for matrix in (covariance, root @ inverse))
    if not np.all((METRIC_FLOOR * largest + TINY) * inverse_of_least < 1.0):
        return None
    return root, lower.swapaxes(-1, -2)


def _bound(matrices: Float[np.ndarray, "n d d"]) -> Float[np.ndarray, " n"]:
    squares = matrices @ matrices
    return np.asarray(np.sqrt(np.sqrt(np.einsum("nij,nij->n", squares, squares))))


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
    h, metric, scores = data.information, data.whole_metric, data.scores
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
    chances = _chances(np.stack(risks, axis=-1), spread)
    mean = np.einsum("...j,...ji->...i", chances, np.stack(means, axis=-2))
    return Mixture(mean, tuple(means), chances, tuple(psis), tuple(dampings), tuple(edges))


def _chances(risk: Float[np.ndarray, "*n m1"], spread: PerAgent) -> Float[np.ndarray, "*n m1"]:
    """The exponential weights of the answers, whose last is LSTD alone; the spread is that of the largest ψ."""
    exponents = (risk.min(axis=-1, keepdims=True) - risk) / (
        TEMPERATURE * np.asarray(np.maximum(spread, 0.0))[..., None] + TINY
    )
    chances = np.exp(exponents)
    chances /= chances.sum(axis=-1, keepdims=True)
    return np.asarray(chances)


def mixed_means(
    data: DiagonalInformation,
    factor: Float[np.ndarray, "*n d r"],
    unit: Float[np.ndarray, "*n 1"],
    alone: tuple[Float[np.ndarray, "*n d"], Float[np.ndarray, "*n d"]],
) -> tuple[Float[np.ndarray, "*n d"], Float[np.ndarray, "*n d"]]:
    """`mean` and the first of `means` of `mixed`, whose arguments these are.

    Of n agents the answers of all ψ are computed at once, with (I + Fᵀ h a F)⁻¹ in place of its eigenvectors.
    """
    found = _mixed_at_once(data, factor, unit, alone) if factor.ndim == 3 else None
    if found is None:
        mixture = mixed(data, factor, unit, alone)
        return mixture.mean, mixture.means[0]
    return found


def _mixed_at_once(
    data: DiagonalInformation,
    factor: Float[np.ndarray, "n d r"],
    unit: Float[np.ndarray, "n 1"],
    alone: tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]],
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]] | None:
    """None where W is so large that an inverse would be rounding alone. Arrays have an axis m of ψ after n."""
    h, (own, unbiased) = data.information[:, None, :], alone
    agents, dim, rank = factor.shape
    psi = np.array(SHARES)[:, None] * unit[:, None, :]
    damped = 1.0 / (1.0 + psi * h)
    products = (factor[..., :, None] * factor[..., None, :]).reshape(agents, dim, rank * rank)
    inner = ((h * damped) @ products).reshape(agents, len(SHARES), rank, rank)
    if not np.all(np.einsum("nmkk->nm", inner) < _MOST_INNER):
        return None
    inverse = small_inverse((inner + np.eye(rank)).reshape(-1, rank, rank)).reshape(inner.shape)
    shrunk = damped * data.scores[:, None, :]
    heads = np.einsum("nmkl,nml->nmk", inverse, shrunk @ factor)
    means = psi * shrunk + damped * (heads @ factor.swapaxes(-1, -2))
    spread = _spreads(data.metric, factor, products, psi=psi, damped=damped, inverse=inverse)
    means = np.concatenate([means, own[:, None]], axis=1)
    away = means - unbiased[:, None]
    risk = np.einsum("nmd,nmd->nm", away, away if data.metric is None else away @ data.metric)
    risk += 2.0 * np.concatenate([spread, spread[:, -1:]], axis=1)
    chances = _chances(risk, spread[:, -1])
    return np.einsum("nm,nmd->nd", chances, means), means[:, 0]


def _spreads(
    metric: Float[np.ndarray, "n d d"] | None,
    factor: Float[np.ndarray, "n d r"],
    products: Float[np.ndarray, "n d rr"],
    *,
    psi: Float[np.ndarray, "n m 1"],
    damped: Float[np.ndarray, "n m d"],
    inverse: Float[np.ndarray, "n m r r"],
) -> Float[np.ndarray, "n m"]:
    """tr(C (ψ a + X Xᵀ)) of X Xᵀ = a F (I + Fᵀ h a F)⁻¹ Fᵀ a, with the metric C; `products`: f fᵀ of F's rows."""
    if metric is None:
        own = (psi * damped).sum(axis=-1)
        along = (damped * damped) @ products
        return np.asarray(own + np.einsum("nmk,nmk->nm", inverse.reshape(along.shape), along))
    spread = np.einsum("nmd,nd->nm", psi * damped, np.einsum("ndd->nd", metric))
    for place in range(factor.shape[-1]):  # a column of F at a time
        column = ((damped * factor[:, None, :, place]) @ metric * damped) @ factor
        spread += np.einsum("nmk,nmk->nm", inverse[:, :, place], column)
    return np.asarray(spread)
