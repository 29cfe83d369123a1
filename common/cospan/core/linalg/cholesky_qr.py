"""Orthonormal columns for tall matrices, through their Gram matrix: a few products instead of r reflections."""

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.row_blocks import copied_blocks, gram_matrix, in_halves, total_of

_ENOUGH = 9.0
"""Of κ², the ratio of the Gram matrix' eigenvalues: so far one pass is all that is needed. What it leaves was never
seen to be more than 4e-15."""
_SHORTEST_SQUARE, _LONGEST_SQUARE = 1e-280, 1e280
"""Of a column's squared length: no product that counts has lost digits to underflow, nor a sum overflowed."""


def cholesky_qr(matrix: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d r"] | None:
    """Q of the thin QR factorisation with diag(R) > 0, or None where this way is not safe.

    G = AᵀA = RᵀR, Q = A R⁻¹. One pass leaves ‖QᵀQ − I‖ ≈ ε κ², κ being the condition number of A with columns of
    length 1, so a second pass over Q follows unless κ is small: Cholesky-QR2 (Yamamoto, Nakatsukasa, Yanagisawa,
    Fukaya 2015, "Roundoff error analysis of the CholeskyQR2 algorithm", ETNA 44). Whether the first pass did well
    enough for the second is not estimated but seen, from the Gram matrix of what it gave: always up to κ = 1e7, and
    from about 1e9 on it did not.

    A product with R⁻¹ may leave ‖A − QR‖ of up to ε κ ‖A‖, where reflections leave ε ‖A‖. Q is as near to the exact
    one in both, for that moves by ε κ when A does by ε.

    The rows are taken in blocks of a fixed size, in order, and those of a large matrix in two halves at the same
    time, whose sums are added in order: the same matrix gives the same bits on any number of cores.

    Args:
        matrix: A, not written to; an entry that is not finite gives None.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        gram = gram_matrix(matrix)
        inverse = _inverse_factor(gram)
        if inverse is None:
            return None
        q = np.empty(matrix.shape)
        if _is_well_conditioned(gram):
            _multiply(matrix, inverse, q)
            return q
        gram = _multiply_to_gram(matrix, inverse, q)
        inverse = _inverse_factor(gram) if _is_well_conditioned(gram) else None
    if inverse is None:
        return None
    _multiply(q, inverse, q)
    return q


def _multiply(
    matrix: Float[np.ndarray, "d r"], factor: Float[np.ndarray, "r r"], into: Float[np.ndarray, "d r"]
) -> None:
    """Writes A F into an array, which may be A itself."""

    def of_rows(rows: slice) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            for block, copied in copied_blocks(matrix, rows):
                np.matmul(copied, factor, out=into[block])

    in_halves(matrix, of_rows)


def _multiply_to_gram(
    matrix: Float[np.ndarray, "d r"], factor: Float[np.ndarray, "r r"], into: Float[np.ndarray, "d r"]
) -> Float[np.ndarray, "r r"]:
    """The same, and the Gram matrix of the product, each block of which is still in the cache."""

    def of_rows(rows: slice) -> Float[np.ndarray, "r r"]:
        total = np.zeros_like(factor)
        with np.errstate(over="ignore", invalid="ignore"):
            for block, copied in copied_blocks(matrix, rows):
                product = np.matmul(copied, factor, out=into[block])
                total += product.T @ product
        return total

    return total_of(in_halves(matrix, of_rows))


def _inverse_factor(gram: Float[np.ndarray, "r r"]) -> Float[np.ndarray, "r r"] | None:
    """R⁻¹ of G = RᵀR with diag(R) > 0; None where there is none, or no digits of it could be trusted."""
    squares = np.diagonal(gram)
    if not (squares.min() >= _SHORTEST_SQUARE and squares.max() <= _LONGEST_SQUARE):
        return None  # so it is where a square is not a number
    try:
        # R is triangular: LAPACK's LU leaves it as it is, and its inverse is one back substitution.
        return np.asarray(np.linalg.inv(np.linalg.cholesky(gram).T))
    except np.linalg.LinAlgError:
        return None


def _is_well_conditioned(gram: Float[np.ndarray, "r r"]) -> bool:
    lengths = np.sqrt(np.diagonal(gram))
    eigenvalues = np.linalg.eigvalsh(gram / np.outer(lengths, lengths))
    return bool(eigenvalues[-1] <= _ENOUGH * eigenvalues[0])
