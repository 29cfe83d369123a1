"""The shared subspace: its basis, the coordinator's step, and distances between subspaces."""

import math

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.cholesky_qr import cholesky_qr
from cospan.core.linalg.row_blocks import gram_matrix

ROW_MEMORY = 0.95
"""Of `running_row_squares`: it looks back over about 20 rounds."""
ROW_FLOOR = 0.1
"""Of `row_scales`: no row counts as smaller than a tenth of the mean."""
NEGLIGIBLE = 1e-60
"""What is not above this counts as zero where it would be divided by: a quotient of what the coordinator takes from
its peers, 1e60 at most (`cospan.wire.codec.bounds`), stays so small that its square is finite."""
_MOMENT_TOLERANCE = 1e-6
"""Of `is_second_moment`, as a share of the trace: float32 rounds a matrix by 6e-8 of its norm, which is no more."""

_TALL_FROM_NUMBERS = 16_384
_TALL_FROM_COLUMNS = 8
_TALL_FROM_ROWS_PER_COLUMN = 8
"""From here on the Gram matrix is the quicker way to Q, also where it takes two passes; measured by `cospan bench
orthonormalise`. Below, r reflections are as quick, and every result is what it was before there was another way."""

_LEAST_SQUARE = 1e-280
"""No product that counts in a sum of squares as large as this has lost digits to underflow."""


def orthonormalise(matrix: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d r"]:
    """Q of the thin QR factorisation with diag(R) > 0 (Algorithm 1, the step after eq. 8).

    LAPACK leaves the signs of diag(R) open; a column that flips between rounds makes every agent's head
    wrong in that coordinate. A zero on the diagonal (a rank-deficient matrix) keeps LAPACK's sign, so the
    rule has no gap. A tall matrix goes through its Gram matrix where that gives QᵀQ = I to 1e-14, which is up to
    condition numbers of 1e7 and somewhat beyond; everything else by Householder's reflections.

    Raises:
        numpy.linalg.LinAlgError: the matrix has an entry that is not finite, or so large that a norm overflows.
    """
    q = cholesky_qr(matrix) if _is_tall(*matrix.shape) else None
    return _by_reflections(matrix) if q is None else q


def _is_tall(rows: int, columns: int) -> bool:
    return (
        rows * columns >= _TALL_FROM_NUMBERS
        and columns >= _TALL_FROM_COLUMNS
        and rows >= _TALL_FROM_ROWS_PER_COLUMN * columns
    )


def _by_reflections(matrix: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d r"]:
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
    within = basis @ (basis.T @ gradient)
    return np.asarray(np.subtract(gradient, within, out=within))


def precondition(
    gradient: Float[np.ndarray, "d r"], head_second_moment: Float[np.ndarray, "r r"], floor: float
) -> Float[np.ndarray, "d r"]:
    """Ḡ (W̄ + ε·tr(W̄)/r·I)⁻¹: makes the step free of the scale of the heads (ScaledGD; Tong, Ma, Chi 2021).

    Where W̄ is zero (not above `NEGLIGIBLE`) all heads are zero, the gradient is zero as well, and it is returned
    as it is.
    """
    rank = head_second_moment.shape[0]
    scale = float(np.trace(head_second_moment)) / rank
    if scale <= NEGLIGIBLE:
        return gradient
    regularised = head_second_moment + floor * scale * np.eye(rank)
    return np.asarray(np.linalg.solve(regularised.T, gradient.T).T)


def is_second_moment(matrix: Float[np.ndarray, "r r"]) -> bool:
    """Whether a finite matrix can be a sum of w wᵀ: symmetric and positive semidefinite, up to float32's rounding.

    Only then are all eigenvalues of `precondition`'s matrix above zero.
    """
    shifted = np.array(matrix, dtype=np.float64)
    trace = float(shifted.trace())
    if trace <= NEGLIGIBLE:
        return trace >= 0.0 and float(np.abs(shifted).max()) <= NEGLIGIBLE
    if float((shifted - shifted.T).max()) > _MOMENT_TOLERANCE * trace:
        return False
    shifted.flat[:: len(shifted) + 1] += _MOMENT_TOLERANCE * trace
    try:
        np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        return False
    return True


def running_row_squares(
    before: Float[np.ndarray, " d"] | None, direction: Float[np.ndarray, "d r"]
) -> Float[np.ndarray, " d"]:
    """v ← 0.95 v + 0.05 (squared norm of each row of the direction); the first direction's own where v is None."""
    squares = np.einsum("ij,ij->i", direction, direction)
    return np.asarray(squares if before is None else ROW_MEMORY * before + (1.0 - ROW_MEMORY) * squares)


def row_scales(sizes: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
    """1 / (s + 0.1 · mean s) for each feature: what the rows of the coordinator's step are multiplied with.

    With s = √v, the running size of a row's gradients, every row moves by about ζ whatever their size: an adaptive
    server step (Reddi et al. 2021, "Adaptive federated optimization", arXiv:2003.00295), with one number for each
    row rather than for each entry, so it does not depend on how the basis is turned within its subspace. With s the
    mean row sum of |A| it is a Jacobi step (`cospan.core.learning.least_squares.TransitionSums.row_sums`). Both
    make ζ free of the scale of the features, and let states that are rarely seen keep up.
    """
    mean = sizes.mean(axis=-1, keepdims=True)
    known = mean > NEGLIGIBLE
    return np.asarray(1.0 / np.where(known, sizes + ROW_FLOOR * mean, 1.0))


def basis_step(
    basis: Float[np.ndarray, "d r"],
    mean_gradient: Float[np.ndarray, "d r"],
    step: float,
    largest_turn: float = 90.0,
) -> tuple[Float[np.ndarray, "d r"], Float[np.ndarray, "d r"]]:
    """The next basis, Q of B + Δ with Δ = ζ (I − B Bᵀ) Ḡ (eq. 8 and the QR step of Algorithm 1); and Δ.

    The projection is linear, so applying it once to the mean equals applying it at every agent. A Δ that would turn
    the basis by more than `largest_turn` degrees is shortened as a whole, to ‖Δ‖₂ = tan of that angle.
    """
    moved = tangent_projection(basis, mean_gradient)
    moved *= step
    if largest_turn < 90.0:
        longest = math.tan(math.radians(largest_turn))
        # ‖Δ‖₂ ≤ ‖Δ‖: the norm that costs nothing says of nearly every step that it is short enough.
        if not np.vdot(moved, moved) <= longest * longest:
            length = _largest_singular_value(moved) if np.isfinite(moved).all() else math.inf
            if longest < length < math.inf:
                moved *= longest / length
    return orthonormalise(basis + moved), moved


def sine_of_step(step: Float[np.ndarray, "d r"]) -> float:
    """The sine of the largest angle from B to B + Δ, where BᵀΔ = 0: ‖Δ‖₂ / √(1 + ‖Δ‖₂²), 0 to 1.

    (B + Δ)ᵀ(B + Δ) = I + ΔᵀΔ, so the cosines of the angles are 1 / √(1 + σ²) with the singular values σ of Δ.
    """
    length = _largest_singular_value(step)
    return length / math.hypot(1.0, length) if length < math.inf else 1.0


def largest_angle(basis: Float[np.ndarray, "d r"], other: Float[np.ndarray, "d r"]) -> float:
    """The largest principal angle between two spans, in degrees, 0 to 90; both have orthonormal columns."""
    return math.degrees(math.asin(min(1.0, principal_angle_sine(basis, other))))


def principal_angle_sine(basis: Float[np.ndarray, "d r"], target: Float[np.ndarray, "d q"]) -> float:
    """‖(I − B Bᵀ) B*‖₂: the sine of the largest angle from span(B*) to span(B); 0 to 1.

    Both have orthonormal columns. sqrt(1 − σ²) would lose the digits near zero.
    """
    return _largest_singular_value(tangent_projection(basis, target))


def _largest_singular_value(matrix: Float[np.ndarray, "d q"]) -> float:
    """Of a tall matrix from its Gram matrix: of the largest one alone, that loses no digit."""
    if _is_tall(*matrix.shape):
        with np.errstate(over="ignore", invalid="ignore"):
            gram = gram_matrix(matrix)
        if _LEAST_SQUARE <= np.trace(gram) < np.inf:
            return float(np.sqrt(np.linalg.eigvalsh(gram)[-1]))
    return float(np.linalg.svd(matrix, compute_uv=False)[0])  # what `norm` does, and twice as quick for a small one


def orthonormality_error(basis: Float[np.ndarray, "d r"]) -> float:
    """The largest entry of |BᵀB − I|."""
    gram = basis.T @ basis
    gram.flat[:: len(gram) + 1] -= 1.0
    return max(-float(gram.min()), float(gram.max()))
