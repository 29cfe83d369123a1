"""Products over the last axes of arrays with or without leading ones.

The learner's formulas are written once, for one agent (arrays without a leading axis) and for n (a leading axis n).
For one agent these are plain BLAS calls, so its results have the bits of the formula as it is written down.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

PerAgent: TypeAlias = float | Float[np.ndarray, "*n"]
"""A number of one agent, or of each of n."""


def per_agent(values: PerAgent) -> PerAgent:
    """The numbers of n agents as they are; that of one agent, also in an array without axes, as a float."""
    return values if isinstance(values, np.ndarray) and values.ndim else float(values)


def column(values: PerAgent) -> float | Float[np.ndarray, "*n 1"]:
    """The numbers with one more axis, shape (*n, 1), to be combined with a row of each agent; a float as it is."""
    return values[..., None] if isinstance(values, np.ndarray) else values


def numbers_of(values: PerAgent, places: int | Sequence[int] | slice) -> float | Float[np.ndarray, "*m"]:
    """The numbers of one of n agents, or of some of them, by their places."""
    assert isinstance(values, np.ndarray), "of one agent there is nothing to choose"
    chosen = values[places]
    return chosen if isinstance(chosen, np.ndarray) else float(chosen)


def dot(left: Float[np.ndarray, "*n k"], right: Float[np.ndarray, "*n k"]) -> PerAgent:
    """Σ_i u_i v_i of each pair of vectors."""
    return float(left.dot(right)) if left.ndim == 1 else np.einsum("...k,...k->...", left, right)


def sum_of_squares(matrices: Float[np.ndarray, "*n q k"]) -> PerAgent:
    """‖M‖_F² of each matrix."""
    if matrices.ndim == 2:
        return float(np.vdot(matrices, matrices))
    return np.asarray(np.einsum("...qk,...qk->...", matrices, matrices))


def applied(matrices: Float[np.ndarray, "*n q k"], vectors: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n q"]:
    """M v of each pair."""
    return np.asarray(matrices @ vectors if vectors.ndim == 1 else (matrices @ vectors[..., None])[..., 0])


def times_shared(
    matrices: Float[np.ndarray, "*n q k"], shared: Float[np.ndarray, "k r"]
) -> Float[np.ndarray, "*n q r"]:
    """M S of each matrix with one S, by one product."""
    if matrices.ndim == 2:
        return np.asarray(matrices @ shared)
    flat = matrices.reshape(-1, matrices.shape[-1]) @ shared
    return np.asarray(flat.reshape(*matrices.shape[:-1], shared.shape[1]))


def symmetric(matrices: Float[np.ndarray, "*n d d"]) -> Float[np.ndarray, "*n d d"]:
    """(M + Mᵀ) / 2 of each matrix."""
    return np.asarray((matrices + matrices.swapaxes(-1, -2)) / 2.0)
