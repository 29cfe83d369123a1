"""The noise S of an agent's moments: Σ u φφᵀ with the variance u(φ) of δ, which is linear in the features.

u(φ) = max(VARIANCE_FLOOR, [1 φ] · variance), relative to its mean; see `cospan.core.learning.posterior`.
"""

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.leading_axes import applied

VARIANCE_RIDGE = 30.0
"""Of the regression of δ² on the features, in environment steps."""
VARIANCE_FLOOR = 0.05
"""The least variance that the regression gives a transition, as a share of the mean one."""


def regressed(
    products: Float[np.ndarray, "*n d1 d1"], right: Float[np.ndarray, "*n d1 1"], steps: int
) -> Float[np.ndarray, "*n d1"]:
    """The coefficients of δ² on [1 φ], by least squares with a ridge on those of φ.

    Args:
        products: Σ [1 φ][1 φ]ᵀ.
        right: Σ [1 φ] δ².
        steps: of which the sums are.
    """
    dim = products.shape[-1]
    ridge = VARIANCE_RIDGE * np.trace(products, axis1=-2, axis2=-1) / dim / steps
    system = products + ridge[..., None, None] * np.diag(np.arange(dim) > 0)
    return np.asarray(np.linalg.solve(system, right)[..., 0])


def bordered(
    corner: float | Float[np.ndarray, " n"], edge: Float[np.ndarray, "n d"], inner: Float[np.ndarray, "n d d"]
) -> Float[np.ndarray, "n d1 d1"]:
    """[[corner, edgeᵀ], [edge, inner]] of each."""
    agents, dim = edge.shape
    whole = np.empty((agents, dim + 1, dim + 1))
    whole[:, 0, 0], whole[:, 0, 1:], whole[:, 1:, 0], whole[:, 1:, 1:] = corner, edge, edge, inner
    return whole


def noise_of_many(
    visited: Float[np.ndarray, "n m d"], variance: Float[np.ndarray, "n d1"]
) -> Float[np.ndarray, "n d1 d1"]:
    """`noise_of_rows` of n agents, without a copy of their features beside ones."""
    modelled = np.maximum((visited @ variance[:, 1:, None])[..., 0] + variance[:, :1], VARIANCE_FLOOR)
    edge = (modelled[:, None] @ visited)[:, 0]
    return bordered(modelled.sum(axis=1), edge, gram(visited * modelled[..., None], visited))


def noise_of_rows(
    rows: Float[np.ndarray, "*n m d1"], variance: Float[np.ndarray, "*n d1"]
) -> Float[np.ndarray, "*n d1 d1"]:
    """Σ u [1 φ][1 φ]ᵀ over rows [1 φ], with the variance u of each."""
    modelled = np.maximum(applied(rows, variance), VARIANCE_FLOOR)
    return gram(rows * modelled[..., None], rows)


def noise_of_round(
    visited: Float[np.ndarray, "*n m d"], variance: Float[np.ndarray, "*n d1"]
) -> Float[np.ndarray, "*n d1 d1"]:
    """The same over the states of a round, for one agent or for n."""
    return noise_of_rows(with_one(visited), variance) if visited.ndim == 2 else noise_of_many(visited, variance)


def with_one(features: Float[np.ndarray, "*n m d"]) -> Float[np.ndarray, "*n m d1"]:
    """[1 φ] of each row."""
    return np.concatenate([np.ones((*features.shape[:-1], 1)), features], axis=-1)


def gram(left: Float[np.ndarray, "*n m p"], right: Float[np.ndarray, "*n m q"]) -> Float[np.ndarray, "*n p q"]:
    """UᵀV of each pair."""
    return np.asarray(left.swapaxes(-1, -2) @ right)


def outer(left: Float[np.ndarray, "*n p"], right: Float[np.ndarray, "*n q"]) -> Float[np.ndarray, "*n p q"]:
    """u vᵀ of each pair."""
    return np.asarray(left[..., :, None] * right[..., None, :])
