"""Many matrices side by side, so that one product does for all what a loop would do for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from cospan.core.linalg.matrices import FactoredMatrix, Gradient, to_dense


@dataclass(frozen=True, eq=False, slots=True)
class DenseStack:
    """n matrices G_i of shape (d, r) by their entries."""

    values: Float[np.ndarray, "n d r"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, d, r)."""
        n, d, r = self.values.shape
        return n, d, r

    @property
    def squared_norms(self) -> Float[np.ndarray, " n"]:
        """‖G_i‖_F² of each."""
        return np.asarray(np.einsum("ndr,ndr->n", self.values, self.values))

    def inner(self, other: Float[np.ndarray, "d r"]) -> Float[np.ndarray, " n"]:
        """⟨G_i, M⟩ of each."""
        return np.asarray(self.values.reshape(len(self.values), -1) @ other.reshape(-1))

    def combined(self, factors: Float[np.ndarray, " n"]) -> Float[np.ndarray, "d r"]:
        """Σ_i f_i G_i."""
        flat = factors @ self.values.reshape(len(self.values), -1)
        return np.asarray(flat.reshape(self.values.shape[1:]))

    def rows(self, start: int, stop: int) -> Float[np.ndarray, "n b r"]:
        """A view of some rows of each."""
        return self.values[:, start:stop]


@dataclass(frozen=True, eq=False, slots=True)
class FactoredStack:
    """n matrices G_i of shape (d, r) by their factors, which stand beside each other; none is ever multiplied out.

    Attributes:
        left: shape (d, m), m the number of factors of all together.
        right: shape (r, m).
        starts: of each matrix its first factor, shape (n,).
    """

    left: Float[np.ndarray, "d m"]
    right: Float[np.ndarray, "r m"]
    starts: Int[np.ndarray, " n"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, d, r)."""
        return len(self.starts), self.left.shape[0], self.right.shape[0]

    @property
    def squared_norms(self) -> Float[np.ndarray, " n"]:
        """‖G_i‖_F² of each: the sum over UᵀU ∘ VᵀV."""
        ends = [*self.starts[1:].tolist(), self.left.shape[1]]
        spans = [slice(start, end) for start, end in zip(self.starts.tolist(), ends, strict=True)]
        pairs = ((self.left[:, span], self.right[:, span]) for span in spans)
        return np.array([max(0.0, float(np.vdot(u.T @ u, v.T @ v))) for u, v in pairs])

    def inner(self, other: Float[np.ndarray, "d r"]) -> Float[np.ndarray, " n"]:
        """⟨G_i, M⟩ of each."""
        return np.asarray(np.add.reduceat(np.einsum("dm,dm->m", self.left, other @ self.right), self.starts))

    def combined(self, factors: Float[np.ndarray, " n"]) -> Float[np.ndarray, "d r"]:
        """Σ_i f_i G_i, by one product."""
        counts = np.diff(self.starts, append=self.left.shape[1])
        return np.asarray((self.left * np.repeat(factors, counts)) @ self.right.T)

    def rows(self, start: int, stop: int) -> Float[np.ndarray, "n b r"]:
        """Some rows of each."""
        products = np.einsum("bm,rm->mbr", self.left[start:stop], self.right)
        return np.asarray(np.add.reduceat(products, self.starts, axis=0))


Stack: TypeAlias = DenseStack | FactoredStack


def stacked(matrices: Sequence[Gradient]) -> Stack:
    """The matrices in one stack, in float64: by their factors where all have some, else by their entries.

    Raises:
        ValueError: there is no matrix.
    """
    factored = [matrix for matrix in matrices if isinstance(matrix, FactoredMatrix)]
    if len(factored) < len(matrices) or not matrices:
        return DenseStack(np.stack([to_dense(matrix) for matrix in matrices]))
    counts = [matrix.left.shape[1] for matrix in factored]
    left = np.concatenate([matrix.left for matrix in factored], axis=1, dtype=np.float64)
    right = np.concatenate([matrix.right for matrix in factored], axis=1, dtype=np.float64)
    # A factor may be huge and the other one tiny: their product is in range, and the square of one alone is not.
    _, exponents = np.frexp(np.abs(left).max(axis=0))
    return FactoredStack(
        left=np.ldexp(left, -exponents), right=np.ldexp(right, exponents), starts=np.cumsum([0, *counts[:-1]])
    )
