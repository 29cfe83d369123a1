"""What the joint method is compared with, learnt from the same transitions."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.learner import Trajectory
from cospan.core.method import Method
from cospan.core.schedules import AveragedIterate, decays
from cospan.core.td import gain_update

INDEPENDENT_STEPS = (1.0, 3.0, 10.0)
"""Step sizes that independent TD is run with side by side; the best of them is reported."""


@dataclass(frozen=True, eq=False, slots=True)
class IndependentTD:
    """d-dimensional average-reward TD(0) of one agent alone, with several step sizes side by side.

    θ ← θ + α_t δ φ(s), with the run's step decay and gain step and, where the run has it, the implicit step; so
    it differs from the joint method only in that it learns d numbers rather than r.

    Attributes:
        weights: θ, one row per step size, shape (m, d).
        gain_estimate: η.
        steps: environment steps learnt from so far.
        averaged: the averaged iterates of `weights`.
    """

    weights: Float[np.ndarray, "m d"]
    averaged: AveragedIterate
    gain_estimate: float = 0.0
    steps: int = 0

    @classmethod
    def initial(cls, feature_dim: int) -> "IndependentTD":
        """θ = 0 for every step size."""
        zeros = np.zeros((len(INDEPENDENT_STEPS), feature_dim))
        return cls(weights=zeros, averaged=AveragedIterate(mean=zeros))

    def learning_from(self, trajectory: Trajectory, method: Method) -> "IndependentTD":
        """The state after the L transitions of a round."""
        features, rewards = trajectory.features, trajectory.rewards.tolist()
        differences = features[1:] - features[:-1]
        scales = decays(self.steps, len(rewards), method.decay_horizon, method.decay_power)
        steps = np.array(scales)[:, None] * np.array(INDEPENDENT_STEPS)
        if method.implicit_head_step:
            steps = steps / (1.0 + steps * np.einsum("ij,ij->i", features, features)[:-1, None])
        columns = steps[:, :, None]
        weights, gain_estimate = self.weights.copy(), self.gain_estimate
        for index, (reward, scale) in enumerate(zip(rewards, scales, strict=True)):
            errors = weights @ differences[index] + (reward - gain_estimate)
            weights += (errors[:, None] * columns[index]) * features[index]
            gain_estimate = gain_update(gain_estimate, reward, method.gain_step * scale)
        return IndependentTD(
            weights=weights,
            averaged=self.averaged.including(weights),
            gain_estimate=gain_estimate,
            steps=self.steps + len(rewards),
        )
