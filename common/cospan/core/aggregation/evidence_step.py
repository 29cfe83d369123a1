"""The coordinator's step on the evidence: from the agents' gradients to the next basis and head covariance.

The agents' gradients are D B, D = T − g gᵀ, of the model of `cospan.core.learning.posterior`. A step is one of
Fisher scoring, with the pooled curvature K̄ in place of each agent's: first-order steps would take thousands of
rounds, for the condition number of the information is some thousands.
"""

import math

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.leading_axes import PerAgent, column
from cospan.core.linalg.subspace import orthonormalise, tangent_projection

COVARIANCE_FLOOR = 0.05
"""Added to W where a step is divided by it, as a share of its mean eigenvalue."""
NOISE_SHARE = 0.3
"""Of the d features, how many count as directions of noise of their own in the shrinkage of W."""
_LARGEST_GROWTH = 4.0
"""Of the largest eigenvalue of W in one round."""
_LEAST_RATIO = 1e-6
"""Of the eigenvalues of W to the largest."""
_LEAST_COVARIANCE = 1e-9
"""The least eigenvalue of W: halved in every round of a fleet that shares nothing, it would come to 0."""
_CURVATURE_FLOOR = 1e-6
"""Added to the curvature, as a share of its trace: well above what float32 does, ‖E‖₂ ≤ 2⁻²⁴ ‖K‖_F ≤ 2⁻²⁴ tr K."""
_IN_USE = 1e-4
"""Of the largest eigenvalue of W: directions with less are switched off."""


def packed(matrix: Float[np.ndarray, "*n d d"]) -> Float[np.ndarray, "*n m"]:
    """The upper triangle of a symmetric matrix, m = d(d + 1)/2, rounded to float32: half the bytes, and enough."""
    rows, columns = np.triu_indices(matrix.shape[-1])
    return matrix[..., rows, columns].astype(np.float32).astype(np.float64)


def weighed(matrix: Float[np.ndarray, "*n d d"], weight: PerAgent) -> Float[np.ndarray, "*n m1"]:
    """The packed matrix times the agent's weight, and at last that weight: what is pooled."""
    return np.concatenate([packed(matrix * column(column(weight))), np.asarray(weight)[..., None]], axis=-1)


def unpacked(triangle: Float[np.ndarray, " m"], dim: int) -> Float[np.ndarray, "d d"]:
    """The symmetric matrix of a packed upper triangle."""
    matrix = np.zeros((dim, dim))
    rows, columns = np.triu_indices(dim)
    matrix[rows, columns] = triangle
    matrix[columns, rows] = triangle
    return matrix


def positive_part(matrix: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """The nearest positive semidefinite matrix; combined entry by entry, positive ones may not come to one."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(eigenvalues, 0.0)) @ vectors.T)


def evidence_step(
    basis: Float[np.ndarray, "d r"],
    head_covariance: Float[np.ndarray, "r r"],
    gradient: Float[np.ndarray, "d r"],
    curvature: Float[np.ndarray, "d d"],
    agents: float,
    *,
    share: float = 0.5,
    largest_turn: float = 90.0,
) -> tuple[Float[np.ndarray, "d r"], Float[np.ndarray, "r r"], Float[np.ndarray, "d r"]]:
    """The next basis and head covariance; and the step, in the tangent space of the basis.

    Args:
        basis: B.
        head_covariance: W.
        gradient: the mean of the agents' D B.
        curvature: K̄, the mean of the agents' (H⁻¹ + ψ Λ)⁻¹.
        agents: how many the mean is of, above 0.
        share: of the whole scoring step, which overshoots, for the agents' curvatures differ.
        largest_turn: by which each direction of the basis turns at most, in degrees.

    Raises:
        numpy.linalg.LinAlgError: the gradient or the curvature is not finite, or the curvature is not positive.
    """
    if not (np.isfinite(gradient).all() and np.isfinite(curvature).all()):
        raise np.linalg.LinAlgError("the gradients or the curvatures have an entry that is not finite")
    if share == 0.0:
        return basis, head_covariance, np.zeros_like(basis)
    dim, rank = basis.shape
    size = float(np.trace(curvature)) / dim
    if size <= 0.0:
        return basis, head_covariance, np.zeros_like(basis)
    # Features whose sum is constant leave K singular, and rounded indefinite.
    curvature = curvature + _CURVATURE_FLOOR * dim * size * np.eye(dim)
    np.linalg.cholesky(curvature)  # raises where it is not positive definite
    within = _symmetric(basis.T @ curvature @ basis)
    total = _symmetric(np.linalg.inv(within)) + head_covariance
    target = _shrunken(total - total @ _symmetric(basis.T @ gradient) @ total, within, dim / agents)
    mean = float(np.trace(head_covariance)) / rank
    scaled = np.linalg.solve(head_covariance + COVARIANCE_FLOOR * mean * np.eye(rank), total).T
    step = -share * tangent_projection(basis, np.linalg.solve(curvature, gradient)) @ scaled
    if largest_turn < 90.0:
        step = _bounded(step, math.tan(math.radians(largest_turn)))
    moved = _clipped(head_covariance + share * (target - head_covariance), head_covariance)
    following = orthonormalise(basis + step)
    turned = following.T @ (basis + step)
    covariance = _symmetric(turned @ moved @ turned.T)
    if not np.isfinite(covariance).all():
        raise np.linalg.LinAlgError("the head covariance is not finite")
    return following, covariance, step


def rank_in_use(head_covariance: Float[np.ndarray, "r r"]) -> int:
    """In how many directions of the basis W lets heads differ from zero: eigenvalues above 1e-4 of the largest."""
    eigenvalues = np.linalg.eigvalsh(head_covariance)
    return int((eigenvalues > _IN_USE * eigenvalues[-1]).sum())


def _shrunken(
    total: Float[np.ndarray, "r r"], within: Float[np.ndarray, "r r"], ratio: float
) -> Float[np.ndarray, "r r"]:
    """W from the total covariance of the agents' solutions, signal and noise, by eigenvalue shrinkage.

    Few agents fit directions to their own noise. In the spiked covariance model with γ dimensions an agent, an
    eigenvalue λ of the sample stands for ℓ, λ = ℓ (1 + γ / (ℓ − 1)), with a direction of squared cosine
    (1 − γ / (ℓ − 1)²) / (1 + γ / (ℓ − 1)); none below (1 + √γ)² stands for anything (Donoho, Gavish and Johnstone
    2018, "Optimal shrinkage of eigenvalues in the spiked covariance model"). So directions that the agents do not
    share are switched off: the rank need not be known.

    Args:
        total: W + Q⁻¹ as the agents' solutions have it.
        within: Q, the information within the basis; the noise of a solution is Q⁻¹.
        ratio: features an agent.
    """
    gamma = NOISE_SHARE * ratio
    eigenvalues, vectors = np.linalg.eigh(within)
    eigenvalues = np.maximum(eigenvalues, 1e-12 * eigenvalues[-1])
    root = (vectors * np.sqrt(eigenvalues)) @ vectors.T
    inverse = (vectors / np.sqrt(eigenvalues)) @ vectors.T
    found, directions = np.linalg.eigh(_symmetric(root @ total @ root))
    middle = found + 1.0 - gamma
    signal = (middle + np.sqrt(np.maximum(middle * middle - 4.0 * found, 0.0))) / 2.0 - 1.0
    known = found > (1.0 + math.sqrt(gamma)) ** 2
    signal = np.where(known, signal, 1.0)
    cosines = np.maximum(1.0 - gamma / signal**2, 0.0) / (1.0 + gamma / signal)
    kept = np.where(known, signal * cosines, 0.0)
    return _symmetric(inverse @ (directions * kept) @ directions.T @ inverse)


def _bounded(step: Float[np.ndarray, "d r"], longest: float) -> Float[np.ndarray, "d r"]:
    """Each singular value at most `longest`: a direction that turns far does not hold up the others."""
    if np.vdot(step, step) <= longest * longest:
        return step
    left, lengths, right = np.linalg.svd(step, full_matrices=False)
    return np.asarray((left * np.minimum(lengths, longest)) @ right)


def _clipped(covariance: Float[np.ndarray, "r r"], before: Float[np.ndarray, "r r"]) -> Float[np.ndarray, "r r"]:
    largest = float(np.linalg.eigvalsh(before)[-1])
    eigenvalues, vectors = np.linalg.eigh(_symmetric(covariance))
    least = max(_LEAST_RATIO * largest, _LEAST_COVARIANCE)
    eigenvalues = np.clip(eigenvalues, least, max(_LARGEST_GROWTH * largest, least))
    return _symmetric((vectors * eigenvalues) @ vectors.T)


def _symmetric(matrix: Float[np.ndarray, "r r"]) -> Float[np.ndarray, "r r"]:
    return np.asarray((matrix + matrix.T) / 2.0)
