"""What an agent's data say of the fleet's basis: the gradient of the evidence, and what it counts in the step.

See `cospan.core.learning.posterior` for the model, and for curvature and score, which are of the newest refresh.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.leading_axes import PerAgent, applied, column, per_agent
from cospan.core.linalg.triangular import small_inverse

if TYPE_CHECKING:
    from cospan.core.learning.posterior import PosteriorState

LEAST_INFLUENCE = 0.1
"""What the data of an agent that shares nothing count in the fleet's step, where those of most count 1."""
INFLUENCE_SLOPE = 5.0
"""By how much more they count for each unit of the shared weight."""


def influence(shared_weight: PerAgent) -> PerAgent:
    """What an agent's data count in the fleet's step, 0.1 to 1, representable in float32.

    Agents that do not belong to the fleet come to a shared weight near 0 by themselves; a few of them would
    otherwise turn the basis to where they lie, for their data are as informative as others'.
    """
    weight = np.minimum(1.0, LEAST_INFLUENCE + INFLUENCE_SLOPE * np.asarray(shared_weight))
    return per_agent(weight.astype(np.float32).astype(np.float64))


def evidence_gradient(
    state: "PosteriorState", basis: Float[np.ndarray, "d r"], head_covariance: Float[np.ndarray, "r r"]
) -> tuple[Float[np.ndarray, "*n d r"], Float[np.ndarray, "*n r"]]:
    """The gradient (T − g gᵀ) B of −log evidence with respect to B W^½, but for the factor W^½; and the mean of w.

    With M = A Γ Aᵀ + S: T = AᵀM⁻¹A and g = AᵀM⁻¹b, here by way of K alone, in O(d² r). It is zero in expectation
    where B and W are those of the model.
    """
    curved = state.curvature @ basis
    inner = np.linalg.inv(np.eye(basis.shape[1]) + head_covariance @ (basis.T @ curved))
    heads = applied(inner @ head_covariance, state.score @ basis)
    residual = state.score - applied(curved, heads)
    along = residual @ basis
    gradient = curved @ inner - residual[..., :, None] * along[..., None, :]
    return gradient, along @ head_covariance


def summed_evidence(
    state: "PosteriorState", basis: Float[np.ndarray, "d r"], head_covariance: Float[np.ndarray, "r r"]
) -> tuple[Float[np.ndarray, "d r"], Float[np.ndarray, "n r"]]:
    """Σ_k of the gradients of n agents, each times its `influence`; and the mean of w of each.

    The sum is made of products of matrices over all agents: no agent's own d × r gradient is formed. K B and what
    comes of it have the columns of B first, so that each is one array (n, d).
    """
    weight = np.asarray(influence(state.shared_weight))
    agents, dim = state.score.shape
    rank = basis.shape[1]
    try:  # (I + W Q)⁻¹ = F (I + FᵀQ F)⁻¹ F⁻¹ with W = F Fᵀ, of which the middle is symmetric
        root = np.linalg.cholesky(head_covariance)
    except np.linalg.LinAlgError:
        gradient, head = evidence_gradient(state, basis, head_covariance)
        return np.einsum("n,ndr->dr", weight, gradient), head
    curved = (basis.T @ state.curvature.reshape(-1, dim).T).reshape(rank, agents, dim)
    within = np.empty((agents, rank, rank))
    for place in range(rank):
        np.matmul(curved[place], basis, out=within[:, :, place])
    symmetric = (within.reshape(agents, -1) @ np.kron(root, root)).reshape(within.shape)
    middle = small_inverse((symmetric + symmetric.swapaxes(-1, -2)) / 2.0 + np.eye(rank)).reshape(agents, -1)
    heads = applied((middle @ np.kron(root.T, root.T)).reshape(within.shape), state.score @ basis)
    inner = (middle @ np.kron(root.T, np.linalg.inv(root))).reshape(within.shape)
    inner *= column(column(weight))
    residual = state.score.copy()
    for place in range(rank):
        residual -= curved[place] * heads[:, place, None]
    along = residual @ basis
    gradient = -(residual.T @ (along * column(weight)))
    for place in range(rank):
        gradient += curved[place].T @ inner[:, place]
    return gradient, along @ head_covariance
