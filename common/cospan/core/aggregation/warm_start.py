"""The spectral warm start: a first basis from two independent estimates of every agent's value weights.

Each agent solves its own d × d LSTD system twice, over two halves of a warm-up, which gives a_k and b_k. Their
noise is independent, so E[a_k b_kᵀ] = z_k z_kᵀ without the noise's own second moment, and the leading eigenvectors
of the symmetrised mean span the subspace that the fleet shares (the subspace estimation of Kong, Somani, Song,
Kakade and Oh 2020, "Meta-learning for mixed linear regression", arXiv:2002.08936, there for regressions).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from cospan.core.learning.least_squares import TransitionSums
from cospan.core.linalg.matrices import FactoredMatrix
from cospan.core.linalg.subspace import orthonormalise


@dataclass(frozen=True, eq=False, slots=True)
class HalfSums:
    """An agent's transitions of the warm-up, in two halves of consecutive rounds. Nothing is forgotten here.

    Attributes:
        first: of the first half, in the features themselves.
        second: of the second half.
        second_from: the round with which the second half begins.
    """

    first: TransitionSums
    second: TransitionSums
    second_from: int

    @classmethod
    def begun_in(cls, round_number: int, warm_up_rounds: int, feature_dim: int) -> "HalfSums":
        """Of no transitions; of the rounds from this one to the warm-up's last, the first half is the smaller."""
        nothing = TransitionSums.of_features(feature_dim)
        return cls(nothing, nothing, round_number + (warm_up_rounds - round_number) // 2)

    def updated(
        self,
        features: Float[np.ndarray, "L1 d"],
        traces: Float[np.ndarray, "L d"],
        rewards: Float[np.ndarray, " L"],
        round_number: int,
        is_transition: Bool[np.ndarray, " L"] | None = None,
    ) -> "HalfSums":
        """With the L transitions of one more round; see `TransitionSums.updated`."""
        if round_number < self.second_from:
            return replace(self, first=self.first.updated(features, traces, rewards, 0.0, is_transition))
        return replace(self, second=self.second.updated(features, traces, rewards, 0.0, is_transition))

    @property
    def joined(self) -> TransitionSums:
        """The sums over both halves."""
        return self.first.joined_with(self.second)

    @property
    def estimates(self) -> Float[np.ndarray, "d 2"]:
        """[a b], the LSTD solutions of the two halves; zeros where a half is empty, as for one that came late."""
        solutions = np.stack([self.first.head(np.inf), self.second.head(np.inf)], axis=1)
        return solutions if self.first.rounds and self.second.rounds else np.zeros_like(solutions)


def cross_spectrum(
    first: Float[np.ndarray, "d n"], second: Float[np.ndarray, "d n"]
) -> tuple[Float[np.ndarray, " q"], Float[np.ndarray, "d q"]]:
    """Eigenvalues, largest first, and eigenvectors of M = (1/n) Σ_k ½ (a_k b_kᵀ + b_k a_kᵀ); q = min(d, 2n).

    Where 2n < d, M is never formed: with the thin QR [A B] = Q [R_a R_b], its eigenvectors off the kernel are Q
    times those of the 2n × 2n matrix (R_a R_bᵀ + R_b R_aᵀ) / 2n. The signs are such that each vector's largest
    entry is positive.

    Args:
        first: a_k, one agent's in each column.
        second: b_k.

    Raises:
        numpy.linalg.LinAlgError: the estimates are not finite, or so large that their products overflow.
    """
    matrix, frame = _symmetric_products(first, second)
    values, vectors = np.linalg.eigh(matrix)
    return _largest_first(values, vectors if frame is None else frame @ vectors)


def cross_eigenvalues(first: Float[np.ndarray, "d n"], second: Float[np.ndarray, "d n"]) -> Float[np.ndarray, " q"]:
    """The eigenvalues of `cross_spectrum` alone, largest first: equal but for rounding, at a third of the cost.

    Raises:
        numpy.linalg.LinAlgError: as there.
    """
    return np.linalg.eigvalsh(_symmetric_products(first, second)[0])[::-1].copy()


def _symmetric_products(
    first: Float[np.ndarray, "d n"], second: Float[np.ndarray, "d n"]
) -> tuple[Float[np.ndarray, "q q"], Float[np.ndarray, "d q"] | None]:
    """M in the coordinates of Q, and Q; M itself and None where 2n ≥ d."""
    dim, agents = first.shape
    frame = None
    if 2 * agents < dim:
        frame, factors = np.linalg.qr(np.concatenate([first, second], axis=1))
        first, second = factors[:, :agents], factors[:, agents:]
    with np.errstate(over="ignore", invalid="ignore"):
        products = (first @ second.T) / agents
        matrix = 0.5 * (products + products.T)
    if not np.isfinite(matrix).all():
        raise np.linalg.LinAlgError("the estimates of the warm-up are too large for float64")
    return matrix, frame


def _largest_first(
    values: Float[np.ndarray, " q"], vectors: Float[np.ndarray, "d q"]
) -> tuple[Float[np.ndarray, " q"], Float[np.ndarray, "d q"]]:
    vectors = vectors[:, ::-1]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    return values[::-1].copy(), vectors * np.where(largest < 0.0, -1.0, 1.0)


def spectral_basis(
    estimates: Sequence[Float[np.ndarray, "d 2"]], basis: Float[np.ndarray, "d r"]
) -> Float[np.ndarray, "d r"]:
    """The r leading eigenvectors (largest algebraic eigenvalues) of `cross_spectrum`, orthonormal.

    Eigenvalues that are not above rounding have no direction of their own. What they leave open is filled up from
    the basis that there was; so with no information at all that basis stays as it is.

    Args:
        estimates: [a_k b_k] of each agent, in the order of the agents' names.
        basis: the basis that there was.

    Raises:
        numpy.linalg.LinAlgError: the estimates are so large that their products overflow.
    """
    pairs = np.stack([np.asarray(pair, dtype=np.float64) for pair in estimates], axis=2)
    return _leading(*cross_spectrum(pairs[:, 0], pairs[:, 1]), basis)


def product_of(estimates: Float[np.ndarray, "d 2"]) -> FactoredMatrix:
    """½ (a bᵀ + b aᵀ) of one agent: what `cross_spectrum` takes the mean of, by its factors, shape (d, d)."""
    pair = np.asarray(estimates, dtype=np.float64)
    return FactoredMatrix(left=0.5 * pair, right=pair[:, ::-1].copy())


def basis_of_products(
    product: Float[np.ndarray, "d d"], basis: Float[np.ndarray, "d r"]
) -> Float[np.ndarray, "d r"]:
    """As `spectral_basis`, of whatever stands for the mean of the agents' products; only its symmetric part counts.

    Raises:
        numpy.linalg.LinAlgError: the product is not finite.
    """
    if not np.isfinite(product).all():
        raise np.linalg.LinAlgError("the estimates of the warm-up are too large for float64")
    return _leading(*_largest_first(*np.linalg.eigh(0.5 * (product + product.T))), basis)


def _leading(
    values: Float[np.ndarray, " q"], vectors: Float[np.ndarray, "d q"], basis: Float[np.ndarray, "d r"]
) -> Float[np.ndarray, "d r"]:
    rounding = len(basis) * np.finfo(np.float64).eps * float(np.abs(values).max())
    rank = basis.shape[1]
    known = vectors[:, :rank][:, values[:rank] > rounding]
    return orthonormalise(np.concatenate([known, basis[:, : rank - known.shape[1]]], axis=1))
