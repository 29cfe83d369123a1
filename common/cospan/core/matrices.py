"""The two forms in which a gradient travels: the matrix itself, and its factors."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float


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
