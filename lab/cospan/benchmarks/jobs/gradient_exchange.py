"""The arithmetic of all sides of a benchmark: gradients, first basis and step."""

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.subspace import orthonormalise, random_basis

_STEP = 0.3


def gradient_of(agent: int, feature_dim: int, rank: int) -> Float[np.ndarray, "d r"]:
    """The gradient of this agent in each round: d × r, columns of length about 1."""
    return np.asarray(np.random.default_rng(agent).standard_normal((feature_dim, rank)) / np.sqrt(feature_dim))


def first_basis(feature_dim: int, rank: int) -> Float[np.ndarray, "d r"]:
    """The basis of round 0."""
    return random_basis(feature_dim, rank, np.random.default_rng(0))


def next_basis(
    basis: Float[np.ndarray, "d r"], total: Float[np.ndarray, "d r"], agents: int
) -> Float[np.ndarray, "d r"]:
    """Q of the basis plus a step along the mean of `agents` gradients with this total."""
    return orthonormalise(basis + (_STEP / agents) * total)
