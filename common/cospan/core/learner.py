"""One agent's round: from a trajectory and a basis to a new head, a new gain estimate and a subspace gradient."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.matrices import DenseMatrix, Gradient
from cospan.core.method import Corrections, Method
from cospan.core.schedules import decay, decays
from cospan.core.td import (
    effective_step,
    eligibility_traces,
    gain_update,
    head_update,
    l_step_error,
    subspace_gradient,
)


@dataclass(frozen=True, eq=False, slots=True)
class Trajectory:
    """L consecutive steps of one chain.

    Attributes:
        features: φ(s_0) … φ(s_L), shape (L + 1, d).
        rewards: r_0 … r_{L−1}, shape (L,).
    """

    features: Float[np.ndarray, "L1 d"]
    rewards: Float[np.ndarray, " L"]


@dataclass(frozen=True, eq=False, slots=True)
class LearnerState:
    """What an agent knows besides the basis.

    Attributes:
        head: w, shape (r,).
        gain_estimate: η, reward per step.
        steps: environment steps learnt from so far.
    """

    head: Float[np.ndarray, " r"]
    gain_estimate: float = 0.0
    steps: int = 0

    @classmethod
    def initial(cls, rank: int) -> "LearnerState":
        """w = 0, η = 0."""
        return cls(head=np.zeros(rank))


@dataclass(frozen=True, eq=False, slots=True)
class RoundOutcome:
    """What a round gives.

    Attributes:
        state: the agent's state after the round.
        gradient: G, d × r, before projection; this is what is streamed.
        head_second_moment: the mean of w wᵀ over the round's corrections, shape (r, r).
        mean_squared_error: the mean of δ² over the round's corrections.
    """

    state: LearnerState
    gradient: Gradient
    head_second_moment: Float[np.ndarray, "r r"]
    mean_squared_error: float


def learn_round(
    state: LearnerState, basis: Float[np.ndarray, "d r"], trajectory: Trajectory, method: Method
) -> RoundOutcome:
    """One agent's part of a round, all quantities on the right being those before it (eqs. 6-8)."""
    if method.corrections is Corrections.END_OF_ROUND:
        return _correct_at_end(state, basis, trajectory, method)
    return _correct_at_every_step(state, basis, trajectory, method)


def _correct_at_end(
    state: LearnerState, basis: Float[np.ndarray, "d r"], trajectory: Trajectory, method: Method
) -> RoundOutcome:
    """Algorithm 1: one L-step error, one correction."""
    features, rewards = trajectory.features, trajectory.rewards
    steps = rewards.shape[0]
    scale = decay(state.steps, method.decay_horizon, method.decay_power)
    coordinates = basis.T @ features[0]
    error = l_step_error(rewards, state.gain_estimate, features[0], features[-1], basis @ state.head)
    curvature = float(coordinates @ coordinates)
    step = effective_step(method.head_step * scale, curvature, implicit=method.implicit_head_step)
    after = LearnerState(
        head=head_update(state.head, error, coordinates, step / steps, method.head_radius),
        gain_estimate=gain_update(state.gain_estimate, float(np.mean(rewards)), method.gain_step * scale),
        steps=state.steps + steps,
    )
    return RoundOutcome(
        state=after,
        gradient=subspace_gradient(error, features[0], state.head, steps),
        head_second_moment=np.outer(state.head, state.head),
        mean_squared_error=error * error,
    )


def _correct_at_every_step(
    state: LearnerState, basis: Float[np.ndarray, "d r"], trajectory: Trajectory, method: Method
) -> RoundOutcome:
    """TD(λ) in the frozen basis at each of the L steps; G = Σ δ e wᵀ is the sum of the steps' gradients."""
    steps = trajectory.rewards.shape[0]
    coordinates = trajectory.features @ basis
    differences = coordinates[1:] - coordinates[:-1]
    traces = eligibility_traces(trajectory.features[:-1], method.trace_decay)
    directions = coordinates if method.trace_decay == 0.0 else traces @ basis
    scales = decays(state.steps, steps, method.decay_horizon, method.decay_power)
    curvatures = np.einsum("ij,ij->i", coordinates[:-1], directions[:steps]).tolist()
    heads = np.empty((steps, basis.shape[1]))
    errors = np.empty(steps)
    head, gain_estimate = state.head, state.gain_estimate
    for index, (reward, scale) in enumerate(zip(trajectory.rewards.tolist(), scales, strict=True)):
        error = reward - gain_estimate + float(differences[index].dot(head))
        heads[index], errors[index] = head, error
        step = effective_step(method.head_step * scale, curvatures[index], implicit=method.implicit_head_step)
        head = head_update(head, error, directions[index], step, method.head_radius)
        gain_estimate = gain_update(gain_estimate, reward, method.gain_step * scale)
    return RoundOutcome(
        state=LearnerState(head=head, gain_estimate=gain_estimate, steps=state.steps + steps),
        gradient=DenseMatrix(traces.T @ (errors[:, None] * heads)),
        head_second_moment=heads.T @ heads / steps,
        mean_squared_error=float(errors @ errors) / steps,
    )
