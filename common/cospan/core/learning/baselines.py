"""What the joint method is compared with, learnt from the same transitions."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.learning.blocked_td import blocks, gain_path, successive_errors
from cospan.core.learning.learner import Trajectory
from cospan.core.learning.schedules import AveragedIterate, decays
from cospan.core.learning.td import effective_step
from cospan.core.method import Method

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
        step_sizes: α, one for each row.
    """

    weights: Float[np.ndarray, "m d"]
    averaged: AveragedIterate
    gain_estimate: float = 0.0
    steps: int = 0
    step_sizes: tuple[float, ...] = INDEPENDENT_STEPS

    @classmethod
    def initial(cls, feature_dim: int, step_sizes: tuple[float, ...] = INDEPENDENT_STEPS) -> "IndependentTD":
        """θ = 0 for every step size."""
        zeros = np.zeros((len(step_sizes), feature_dim))
        return cls(weights=zeros, averaged=AveragedIterate(mean=zeros), step_sizes=step_sizes)

    @np.errstate(over="ignore", invalid="ignore")
    def learning_from(self, trajectory: Trajectory, method: Method) -> "IndependentTD":
        """The state after the L transitions of a round; a step too large for explicit TD may diverge to inf."""
        features, steps = trajectory.features, trajectory.rewards.shape[0]
        scales = decays(self.steps, steps, method.decay_horizon, method.decay_power)
        gains = gain_path(self.gain_estimate, trajectory.rewards, method.gain_step * scales)
        centred = trajectory.rewards - gains[:-1]
        curvatures = np.einsum("ij,ij->i", features[:-1], features[:-1])
        sizes = np.asarray(
            effective_step(np.outer(self.step_sizes, scales), curvatures, implicit=method.implicit_head_step)
        )
        weights = self.weights
        for block in blocks(steps):
            visited = features[block.start : block.stop + 1]
            differences = visited[1:] - visited[:-1]
            influence = (differences @ visited[:-1].T) * sizes[:, None, block]
            errors = successive_errors(weights @ differences.T + centred[block], influence)
            weights = weights + (sizes[:, block] * errors) @ visited[:-1]
        return IndependentTD(
            weights=weights,
            averaged=self.averaged.updated(weights),
            gain_estimate=float(gains[-1]),
            steps=self.steps + steps,
            step_sizes=self.step_sizes,
        )
