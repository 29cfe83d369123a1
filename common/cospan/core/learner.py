"""One agent's round: from a trajectory and a basis to a new head, a new gain estimate and a subspace gradient."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.matrices import DenseMatrix, Gradient
from cospan.core.method import Corrections, Method
from cospan.core.recursion import blocks, gain_path, successive_errors, trace_weights
from cospan.core.schedules import decay, decays
from cospan.core.td import effective_step, gain_update, head_update, l_step_error, subspace_gradient


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
    features, steps = trajectory.features, trajectory.rewards.shape[0]
    scales = decays(state.steps, steps, method.decay_horizon, method.decay_power)
    gains = gain_path(state.gain_estimate, trajectory.rewards.tolist(), (method.gain_step * scales).tolist())
    centred = trajectory.rewards - gains[:-1]
    head, trace = state.head, np.zeros(features.shape[1])
    gradient, moment, squares = np.zeros(basis.shape), np.zeros((basis.shape[1], basis.shape[1])), 0.0
    for block in blocks(steps):
        visited = features[block.start : block.stop + 1]
        coordinates = visited @ basis
        weights, fading = trace_weights(block.stop - block.start, method.trace_decay)
        directions = weights @ coordinates[:-1] + fading[:, None] * (trace @ basis)
        curvatures = np.einsum("ij,ij->i", coordinates[:-1], directions)
        sizes = effective_step(method.head_step * scales[block], curvatures, implicit=method.implicit_head_step)
        errors, heads = _head_path(
            head,
            centred[block],
            coordinates[1:] - coordinates[:-1],
            sizes[:, None] * directions,
            method.head_radius,
        )
        seen = errors[:, None] * heads[:-1]
        gradient += visited[:-1].T @ (weights.T @ seen) + trace[:, None] * (fading @ seen)
        moment += heads[:-1].T @ heads[:-1]
        squares += float(errors @ errors)
        head, trace = heads[-1], weights[-1] @ visited[:-1] + fading[-1] * trace
    return RoundOutcome(
        state=LearnerState(head=head.copy(), gain_estimate=gains[-1], steps=state.steps + steps),
        gradient=DenseMatrix(gradient),
        head_second_moment=moment / steps,
        mean_squared_error=squares / steps,
    )


@np.errstate(over="ignore", invalid="ignore")
def _head_path(
    head: Float[np.ndarray, " r"],
    centred: Float[np.ndarray, " n"],
    differences: Float[np.ndarray, "n r"],
    moves: Float[np.ndarray, "n r"],
    radius: float,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n1 r"]]:
    """δ of each of n corrections w ← Π[w + δ · move], and w before each and after the last.

    Args:
        head: w before the first.
        centred: r − η at each step.
        differences: Bᵀ(φ(s') − φ(s)) at each step.
        moves: step size times direction, of each step.
        radius: of the ball.
    """
    errors = successive_errors(centred + differences @ head, differences @ moves.T)
    heads = np.concatenate([head[None], errors[:, None] * moves]).cumsum(axis=0)
    if math.sqrt(np.einsum("ij,ij->i", heads, heads).max()) <= radius:
        return errors, heads
    # The ball is no linear map: where it is reached, or a sum is not finite, only the loop is right.
    for index, (difference, move) in enumerate(zip(differences, moves, strict=True)):
        errors[index] = centred[index] + difference @ heads[index]
        heads[index + 1] = head_update(heads[index], float(errors[index]), move, 1.0, radius)
    return errors, heads
