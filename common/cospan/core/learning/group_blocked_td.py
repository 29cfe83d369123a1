"""Many consecutive TD corrections of n agents at once: `cospan.core.learning.blocked_td` with a leading axis n.

With many agents a loop over the steps is no burden, for each of its steps is one product for all of them.
"""

import numpy as np
from jaxtyping import Float

from cospan.core.learning.group_least_squares import project_to_balls


def in_basis(features: Float[np.ndarray, "n L1 d"], basis: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "n L1 r"]:
    """Bᵀφ of every state, by one product."""
    agents, states, dim = features.shape
    return np.asarray((features.reshape(agents * states, dim) @ basis).reshape(agents, states, basis.shape[1]))


def forward_traces(values: Float[np.ndarray, "n L r"], trace_decay: float) -> Float[np.ndarray, "n L r"]:
    """e_h = λ e_{h−1} + v_h of each agent."""
    if trace_decay == 0.0:
        return values
    sums = values.copy()
    for step in range(1, values.shape[1]):
        sums[:, step] += trace_decay * sums[:, step - 1]
    return sums


def reversed_traces(values: Float[np.ndarray, "n L r"], trace_decay: float) -> Float[np.ndarray, "n L r"]:
    """The same from the last step to the first."""
    return forward_traces(values[:, ::-1], trace_decay)[:, ::-1]


def gain_paths(
    gain_estimates: Float[np.ndarray, " n"], rewards: Float[np.ndarray, "n L"], sizes: Float[np.ndarray, " L"]
) -> Float[np.ndarray, "n L1"]:
    """η before each of the L gain updates, and after the last, of each agent."""
    path = np.empty((len(rewards), len(sizes) + 1))
    path[:, 0] = gain_estimates
    for step, size in enumerate(sizes):
        path[:, step + 1] = path[:, step] + size * (rewards[:, step] - path[:, step])
    return path


@np.errstate(over="ignore", invalid="ignore")
def head_paths(
    heads: Float[np.ndarray, "n r"],
    centred: Float[np.ndarray, "n L"],
    differences: Float[np.ndarray, "n L r"],
    moves: Float[np.ndarray, "n L r"],
    radius: float | Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, "n L"], Float[np.ndarray, "n L1 r"]]:
    """δ of each of L corrections w ← Π[w + δ · move], and w before each and after the last, of each agent."""
    agents, steps = centred.shape
    errors, path = np.empty((agents, steps)), np.empty((agents, steps + 1, heads.shape[1]))
    path[:, 0] = heads
    for step in range(steps):
        before = path[:, step]
        errors[:, step] = centred[:, step] + np.einsum("nr,nr->n", differences[:, step], before)
        path[:, step + 1] = project_to_balls(before + errors[:, step, None] * moves[:, step], radius)
    return errors, path
