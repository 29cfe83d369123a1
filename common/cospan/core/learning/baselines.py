"""What the joint method is compared with, learnt from the same transitions."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.learning.blocked_td import blocks, gain_path, successive_errors
from cospan.core.learning.learner_state import Trajectory
from cospan.core.learning.least_squares import PRIOR_STEPS, TransitionSums
from cospan.core.learning.schedules import AveragedIterate, decays
from cospan.core.learning.td import effective_step
from cospan.core.linalg.leading_axes import PerAgent, column
from cospan.core.method import Method

INDEPENDENT_STEPS = (1.0, 3.0, 10.0)
"""Step sizes that independent TD is run with side by side; the best of them is reported."""

LSTD_RIDGES = (3.0, PRIOR_STEPS, 30.0)
"""Weights of the ridge of LSTD alone, in environment steps; the middle one is reported, and the best beside it."""

MOST_LSTD_FEATURES = 512
"""Most features d for which d × d sums are kept only to compare with."""

_KEPT_BITS = 3


def holds_lstd_sums(method: Method) -> bool:
    """Whether a learner's own statistics are those of LSTD(0) in the features, all transitions weighing alike."""
    return method.keeps_history and not method.trace_decay and not method.forgetting


def separate_lstd_sums(method: Method, feature_dim: int, agents: tuple[int, ...] = ()) -> TransitionSums | None:
    """Sums of no transitions, for `lstd_alone`; None where the learner holds them itself, or d is above 512.

    Args:
        method: of the run.
        feature_dim: d.
        agents: () for one agent, (n,) for n.
    """
    if holds_lstd_sums(method) or feature_dim > MOST_LSTD_FEATURES:
        return None
    return TransitionSums.of_features(feature_dim, agents)


def with_transitions(sums: TransitionSums, trajectory: Trajectory, reference: PerAgent = 0.0) -> TransitionSums:
    """The sums of LSTD(0) with one more round, whose rewards are counted from a reference of each agent's own."""
    rewards = np.asarray(trajectory.uncut(trajectory.rewards - column(reference)))
    return sums.updated(trajectory.features, trajectory.visited, rewards, 0.0, trajectory.is_transition)


def lstd_alone(sums: TransitionSums, prior_steps: float = PRIOR_STEPS) -> Float[np.ndarray, "*n d"]:
    """The value weights of each agent alone: (A + κ I) z = b in all d features; 0 before the first round.

    LSTD(0) with the mean reward subtracted: the strongest an agent can do with its own transitions where d² numbers
    can be kept (Bradtke and Barto 1996, "Linear least-squares algorithms for temporal difference learning"; Boyan
    2002). It costs d³ / 3 multiplications for each agent.

    Args:
        sums: in the features.
        prior_steps: weight of the ridge in environment steps: κ is this times (mean ‖φ‖²) / d.
    """
    return sums.head(math.inf, prior_steps=prior_steps)


def lstd_is_due(round_number: int) -> bool:
    """Whether a learning curve has an error of LSTD alone for a round: 0 to 8, 10, 12, 14, 16, 20, 24, 28, 32, ….

    Numbers with three significant binary digits, at most 1.25 times the one before: so a run makes few solves, and
    a curve that keeps every second, fourth, … round keeps these.
    """
    below = max(0, round_number.bit_length() - _KEPT_BITS)
    return not round_number & ((1 << below) - 1)


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
        gains = gain_path(self.gain_estimate, trajectory.rewards, trajectory.uncut(method.gain_step * scales))
        centred = trajectory.rewards - gains[:-1]
        curvatures = np.einsum("ij,ij->i", features[:-1], features[:-1])
        sizes = np.asarray(
            effective_step(np.outer(self.step_sizes, scales), curvatures, implicit=method.implicit_head_step)
        )
        if trajectory.is_transition is not None:
            sizes = sizes * trajectory.is_transition
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
            steps=self.steps + trajectory.transitions,
            step_sizes=self.step_sizes,
        )
