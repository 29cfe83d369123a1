"""Average-reward temporal-difference learning in a fixed basis: errors, head and gain updates, gradients.

Every function is one formula of arXiv:2603.02426. Features of one state are a vector φ(s) of shape (d,); a
trajectory of L steps has L rewards and L + 1 feature vectors.
"""

import math
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.matrices import FactoredMatrix

Size = TypeVar("Size", float, np.ndarray)
"""One step size, or many at once."""


def l_step_error(
    rewards: Float[np.ndarray, " L"],
    gain_estimate: float,
    first_features: Float[np.ndarray, " d"],
    last_features: Float[np.ndarray, " d"],
    weights: Float[np.ndarray, " d"],
) -> float:
    """The L-step temporal-difference error of the differential value V̂(s) = φ(s)ᵀ z.

    δ = Σ_{l<L} (r_l − η) + (φ(s_L) − φ(s_0))ᵀ z, with z = B w (eq. 6).
    """
    return float(np.sum(rewards - gain_estimate) + (last_features - first_features) @ weights)


def project_to_ball(vector: Float[np.ndarray, " n"], radius: float) -> Float[np.ndarray, " n"]:
    """The nearest point of the ball {x : ‖x‖ ≤ U}, Π_{‖·‖≤U} of eq. 7. `radius` may be infinite."""
    norm = math.sqrt(float(vector.dot(vector)))
    return vector if norm <= radius else vector * (radius / norm)


def effective_step(step: Size, curvature: Size, *, implicit: bool) -> Size:
    """The step size that is applied: β, or for the implicit update β / (1 + β max(0, zᵀe)).

    The implicit form is that of implicit average-reward TD, arXiv:2510.06149; it keeps large steps stable.

    Args:
        step: β; one, or an array of several.
        curvature: zᵀe, where z = Bᵀφ(s) are the state's coordinates and e is the direction of the correction: z
            itself for TD(0), so that zᵀe is ‖Bᵀφ‖², and the trace in the basis for TD(λ), where it may be negative.
        implicit: whether the implicit form is wanted.
    """
    if not implicit:
        return step
    applied: Size = step / (1.0 + step * np.maximum(0.0, curvature))
    return applied


def head_update(
    head: Float[np.ndarray, " r"],
    error: float,
    coordinates: Float[np.ndarray, " r"],
    step: float,
    radius: float,
) -> Float[np.ndarray, " r"]:
    """One correction of the head, w ← Π_{‖·‖≤U}[w + step · δ · Bᵀφ(s_0)] (eq. 7; step = β / L)."""
    return project_to_ball(head + (step * error) * coordinates, radius)


def gain_update(gain_estimate: float, mean_reward: float, step: float) -> float:
    """One correction of the gain estimate, η ← η + γ (mean of the L rewards − η)."""
    return gain_estimate + step * (mean_reward - gain_estimate)


def subspace_gradient(
    error: float, first_features: Float[np.ndarray, " d"], head: Float[np.ndarray, " r"], steps: int
) -> FactoredMatrix:
    """The agent's gradient before projection, G = (1/L) · δ · φ(s_0) wᵀ, as its rank-one factors (eq. 8).

    Args:
        error: δ of eq. 6.
        first_features: φ(s_0).
        head: w before this round's correction.
        steps: L. The body of the paper omits 1/L; its Algorithm 1 and its proofs have it.
    """
    return FactoredMatrix(left=((error / steps) * first_features)[:, None], right=head[:, None].copy())
