"""How uncertain value weights are: the error bars within which a greedy policy keeps to the given one."""

import numpy as np
from jaxtyping import Float

_FLOOR = 1e-6
"""Added to S and to the precision, as a share of their mean eigenvalue."""


def weights_root(
    features: Float[np.ndarray, "m d"],
    following: Float[np.ndarray, "m d"],
    errors: Float[np.ndarray, " m"],
    prior_covariance: Float[np.ndarray, "d d"],
    *,
    steps: float,
) -> Float[np.ndarray, "d d"]:
    """F with F Fᵀ = (Aᵀ S⁻¹ A + Γ⁻¹)⁻¹: the posterior covariance of LSTD weights under the prior N(0, Γ).

    A = Σ φ̃ (φ − φ')ᵀ and S = Σ φ̃ φ̃ᵀ δ², with the centred features φ̃ = φ − mean: the moments' covariance is of the
    errors themselves, so it needs no model of their variance (White 1980, "A heteroskedasticity-consistent
    covariance matrix estimator"; the model is that of docs/adr/0023).

    Args:
        features: φ of m transitions.
        following: φ' of them.
        errors: δ of them, with the weights whose uncertainty is asked for.
        prior_covariance: Γ, positive definite.
        steps: transitions that there were, of which these m are kept; m or more.
    """
    centred = features - features.mean(axis=0)
    scale = steps / len(features)
    system = scale * (centred.T @ (features - following))
    weighted = centred * errors[:, None]
    noise = scale * (weighted.T @ weighted)
    noise = noise + _floor(noise)
    information = system.T @ np.linalg.solve(noise, system)
    precision = information + np.linalg.inv(prior_covariance)
    precision = (precision + precision.T) / 2.0
    eigenvalues, vectors = np.linalg.eigh(precision)
    eigenvalues = np.maximum(eigenvalues, _FLOOR * max(float(eigenvalues.mean()), np.finfo(float).tiny))
    return np.asarray(vectors / np.sqrt(eigenvalues))


def fleet_prior(
    basis: Float[np.ndarray, "d r"],
    head_covariance: Float[np.ndarray, "r r"],
    feature_covariance: Float[np.ndarray, "d d"],
    own_variance: float,
) -> Float[np.ndarray, "d d"]:
    """Γ = B W Bᵀ + ψ Λ, Λ the inverse of the feature covariance (docs/adr/0023).

    Args:
        basis: B.
        head_covariance: W, in the unit of the data.
        feature_covariance: C of the agent.
        own_variance: ψ, above 0: variance of the values, for each of the d dimensions, that is the agent's own.
    """
    eigenvalues, vectors = np.linalg.eigh(feature_covariance)
    # As in the posterior: what is hardly ever excited is not free to be anything.
    eigenvalues = np.maximum(eigenvalues, max(1e-3 * float(eigenvalues[-1]), np.finfo(float).tiny))
    own = own_variance * (vectors / eigenvalues) @ vectors.T
    return np.asarray(basis @ head_covariance @ basis.T + own)


def _floor(matrix: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    dim = len(matrix)
    return np.asarray((_FLOOR * float(np.trace(matrix)) / dim + np.finfo(float).tiny) * np.eye(dim))
