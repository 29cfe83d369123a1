"""What every side of a benchmark computes: the same gradients, the same first basis, the same step."""

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.subspace import orthonormalise, random_basis

_STEP = 0.3


def gradient_of(agent: int, feature_dim: int, rank: int) -> Float[np.ndarray, "d r"]:
    """What the agent of this number sends in every round: d × r, columns of length about 1."""
    return np.asarray(np.random.default_rng(agent).standard_normal((feature_dim, rank)) / np.sqrt(feature_dim))


def first_basis(feature_dim: int, rank: int) -> Float[np.ndarray, "d r"]:
    """The basis of round 0."""
    return random_basis(feature_dim, rank, np.random.default_rng(0))


def next_basis(
    basis: Float[np.ndarray, "d r"], total: Float[np.ndarray, "d r"], agents: int
) -> Float[np.ndarray, "d r"]:
    """Q of the basis and a step along the mean of so many gradients, of which the total is given."""
    return orthonormalise(basis + (_STEP / agents) * total)
