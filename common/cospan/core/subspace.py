"""The shared subspace: its basis, the coordinator's step, and distances between subspaces."""

import numpy as np
from jaxtyping import Float

ROW_MEMORY = 0.95
"""Of `running_row_squares`: it looks back over about 20 rounds."""
ROW_FLOOR = 0.1
"""Of `row_scales`: no row counts as smaller than a tenth of the mean."""


def orthonormalise(matrix: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d r"]:
    """Q of the thin QR factorisation with diag(R) > 0 (Algorithm 1, the step after eq. 8).

    LAPACK leaves the signs of diag(R) open; a column that flips between rounds makes every agent's head
    wrong in that coordinate. A zero on the diagonal (a rank-deficient matrix) keeps LAPACK's sign, so the
    rule has no gap.

    Raises:
        numpy.linalg.LinAlgError: the matrix has an entry that is not finite, or so large that a norm overflows.
    """
    if not np.isfinite(matrix).all():
        raise np.linalg.LinAlgError("cannot orthonormalise a matrix with a non-finite entry")
    q, r = np.linalg.qr(matrix, mode="reduced")
    if not np.isfinite(q).all():
        raise np.linalg.LinAlgError("cannot orthonormalise a matrix whose columns are too long for float64")
    signs = np.where(np.diagonal(r) < 0.0, -1.0, 1.0)
    return np.ascontiguousarray(q * signs)


def random_basis(feature_dim: int, rank: int, rng: np.random.Generator) -> Float[np.ndarray, "d r"]:
    """A basis of a uniformly distributed r-dimensional subspace of R^d."""
    return orthonormalise(rng.standard_normal((feature_dim, rank)))


def tangent_projection(
    basis: Float[np.ndarray, "d r"], gradient: Float[np.ndarray, "d q"]
) -> Float[np.ndarray, "d q"]:
    """(I − B Bᵀ) G: what of a gradient moves the subspace (the projection in eq. 8)."""
    return np.asarray(gradient - basis @ (basis.T @ gradient))


def precondition(
    gradient: Float[np.ndarray, "d r"], head_second_moment: Float[np.ndarray, "r r"], floor: float
) -> Float[np.ndarray, "d r"]:
    """Ḡ (W̄ + ε·tr(W̄)/r·I)⁻¹: makes the step free of the scale of the heads (ScaledGD; Tong, Ma, Chi 2021).

    Where W̄ is zero all heads are zero, the gradient is zero as well, and it is returned as it is. So it is where
    the inverse does not exist: then W̄ is no sum of w wᵀ, or too small for float64, and it must not end the run.
    """
    rank = head_second_moment.shape[0]
    scale = float(np.trace(head_second_moment)) / rank
    if scale <= 0.0:
        return gradient
    regularised = head_second_moment + floor * scale * np.eye(rank)
    try:
        return np.asarray(np.linalg.solve(regularised.T, gradient.T).T)
    except np.linalg.LinAlgError:
        return gradient


def running_row_squares(
    before: Float[np.ndarray, " d"] | None, direction: Float[np.ndarray, "d r"]
) -> Float[np.ndarray, " d"]:
    """v ← 0.95 v + 0.05 (squared norm of each row of the direction); the first direction's own where v is None."""
    squares = np.einsum("ij,ij->i", direction, direction)
    return np.asarray(squares if before is None else ROW_MEMORY * before + (1.0 - ROW_MEMORY) * squares)


def row_scales(sizes: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """1 / (s + 0.1 · mean s) for each feature: what the rows of the coordinator's step are multiplied with.

    With s = √v, the running size of a row's gradients, every row moves by about ζ whatever their size: an adaptive
    server step (Reddi et al. 2021, "Adaptive federated optimization", arXiv:2003.00295), with one number for each
    row rather than for each entry, so it does not depend on how the basis is turned within its subspace. With s the
    mean row sum of |A| it is a Jacobi step (`cospan.core.least_squares.TransitionSums.row_sums`). Both make ζ free
    of the scale of the features, and let states that are rarely seen keep up.
    """
    mean = float(sizes.mean())
    return np.asarray(1.0 / (sizes + ROW_FLOOR * mean)) if mean > 0.0 else np.ones(len(sizes))


def basis_step(
    basis: Float[np.ndarray, "d r"], mean_gradient: Float[np.ndarray, "d r"], step: float
) -> Float[np.ndarray, "d r"]:
    """The next basis: Q of B + ζ (I − B Bᵀ) Ḡ (eq. 8 and the QR step of Algorithm 1).

    The projection is linear, so applying it once to the mean equals applying it at every agent.
    """
    return orthonormalise(basis + step * tangent_projection(basis, mean_gradient))


def principal_angle_sine(basis: Float[np.ndarray, "d r"], target: Float[np.ndarray, "d q"]) -> float:
    """‖(I − B Bᵀ) B*‖₂: the sine of the largest angle from span(B*) to span(B); 0 to 1.

    Both have orthonormal columns. sqrt(1 − σ²) would lose the digits near zero.
    """
    return float(np.linalg.norm(tangent_projection(basis, target), ord=2))


def orthonormality_error(basis: Float[np.ndarray, "d r"]) -> float:
    """The largest entry of |BᵀB − I|."""
    return float(np.max(np.abs(basis.T @ basis - np.eye(basis.shape[1]))))
