"""The two forms in which a gradient travels: the matrix itself, and its factors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

_FACTORS_AT_ONCE = 64
"""Most factors side by side in memory, whatever the number of agents."""


@dataclass(frozen=True, eq=False, slots=True)
class DenseMatrix:
    """A matrix by its entries, of shape (d, r)."""

    values: Float[np.ndarray, "d r"]

    @property
    def shape(self) -> tuple[int, int]:
        """(d, r)."""
        return self.values.shape[0], self.values.shape[1]


@dataclass(frozen=True, eq=False, slots=True)
class FactoredMatrix:
    """The matrix u vᵀ by its factors: u of shape (d, m), v of shape (r, m). Exact; (d + r)·m numbers."""

    left: Float[np.ndarray, "d m"]
    right: Float[np.ndarray, "r m"]

    @property
    def shape(self) -> tuple[int, int]:
        """(d, r)."""
        return self.left.shape[0], self.right.shape[0]


Gradient: TypeAlias = DenseMatrix | FactoredMatrix


def to_dense(matrix: Gradient) -> Float[np.ndarray, "d r"]:
    """The entries of a matrix in either form, float64."""
    if isinstance(matrix, DenseMatrix):
        return np.asarray(matrix.values, dtype=np.float64)
    return np.asarray(matrix.left, dtype=np.float64) @ np.asarray(matrix.right, dtype=np.float64).T


def sum_of_products(matrices: Sequence[FactoredMatrix]) -> Float[np.ndarray, "d r"]:
    """Σ_k u_k v_kᵀ, float64: one product of the factors side by side, rather than a matrix for each of them.

    Args:
        matrices: one or more, of one shape, in the order in which they are summed.
    """
    d, r = matrices[0].shape
    total = np.zeros((d, r))
    start = 0
    while start < len(matrices):
        stop, factors = start + 1, matrices[start].left.shape[1]
        while stop < len(matrices) and factors + matrices[stop].left.shape[1] <= _FACTORS_AT_ONCE:
            factors += matrices[stop].left.shape[1]
            stop += 1
        lefts, rights = np.empty((factors, d)), np.empty((factors, r))
        np.concatenate([matrix.left.T for matrix in matrices[start:stop]], out=lefts)
        np.concatenate([matrix.right.T for matrix in matrices[start:stop]], out=rights)
        total += lefts.T @ rights
        start = stop
    return total
