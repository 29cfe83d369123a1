"""Average-reward temporal-difference learning in a fixed basis: errors, head and gain updates, gradients.

Every function is one formula of arXiv:2603.02426. Features of one state are a vector φ(s) of shape (d,); a
trajectory of L steps has L rewards and L + 1 feature vectors. Leading axes *n are agents; without them, one agent.
"""

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.leading_axes import PerAgent, column, dot


def l_step_error(
    rewards: Float[np.ndarray, "*n L"],
    gain_estimate: PerAgent,
    first_features: Float[np.ndarray, "*n d"],
    last_features: Float[np.ndarray, "*n d"],
    weights: Float[np.ndarray, "*n d"],
) -> PerAgent:
    """The L-step temporal-difference error of the differential value V̂(s) = φ(s)ᵀ z.

    δ = Σ_{l<L} (r_l − η) + (φ(s_L) − φ(s_0))ᵀ z, with z = B w (eq. 6).
    """
    errors = (rewards - column(gain_estimate)).sum(axis=-1) + dot(last_features - first_features, weights)
    return errors if isinstance(errors, np.ndarray) else float(errors)


def project_to_ball(vector: Float[np.ndarray, "*n k"], radius: PerAgent) -> Float[np.ndarray, "*n k"]:
    """The nearest point of the ball {x : ‖x‖ ≤ U}, Π_{‖·‖≤U} of eq. 7. `radius` may be infinite."""
    norm = np.sqrt(dot(vector, vector))
    inside = norm <= radius
    if inside.all():
        return vector
    if vector.ndim == 1:
        return np.asarray(vector * (radius / norm))
    return np.asarray(vector * column(np.where(inside, 1.0, radius / np.where(inside, 1.0, norm))))


def effective_step(
    step: float | Float[np.ndarray, "..."], curvature: float | Float[np.ndarray, "..."], *, implicit: bool
) -> float | Float[np.ndarray, "..."]:
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
    applied: PerAgent = step / (1.0 + step * np.maximum(0.0, curvature))
    return applied


def head_update(
    head: Float[np.ndarray, "*n r"],
    error: PerAgent,
    coordinates: Float[np.ndarray, "*n r"],
    step: PerAgent,
    radius: PerAgent,
) -> Float[np.ndarray, "*n r"]:
    """One correction of the head, w ← Π_{‖·‖≤U}[w + step · δ · Bᵀφ(s_0)] (eq. 7; step = β / L)."""
    return project_to_ball(head + column(step * error) * coordinates, radius)


def gain_update(gain_estimate: PerAgent, mean_reward: PerAgent, step: float) -> PerAgent:
    """One correction of the gain estimate, η ← η + γ (mean of the L rewards − η)."""
    return gain_estimate + step * (mean_reward - gain_estimate)


def subspace_gradient(
    error: PerAgent, first_features: Float[np.ndarray, "*n d"], head: Float[np.ndarray, "*n r"], steps: int
) -> tuple[Float[np.ndarray, "*n d"], Float[np.ndarray, "*n r"]]:
    """The factors u and v of the agent's gradient before projection, G = (1/L) · δ · φ(s_0) wᵀ = u vᵀ (eq. 8).

    Args:
        error: δ of eq. 6.
        first_features: φ(s_0).
        head: w before this round's correction.
        steps: L. The body of the paper omits 1/L; its Algorithm 1 and its proofs have it.
    """
    return np.asarray(column(error / steps) * first_features), head.copy()
