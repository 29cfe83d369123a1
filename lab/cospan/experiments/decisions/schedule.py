"""How policies get better in these experiments: the methods, the steps of each, and what a fleet learns with."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.policy import GreedyPolicy
from cospan.core.decisions.paired_bound import paired_bound
from cospan.core.learning.posterior import FleetPrior
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import practical
from cospan.experiments.methods.compared_methods import JointFleet

GIVEN, ALONE, JOINT = "given policy", "alone, gated", "with the fleet, gated"
ALONE_UNGATED, JOINT_UNGATED = "alone, no gate", "with the fleet, no gate"
GATED = {ALONE: ALONE_UNGATED, JOINT: JOINT_UNGATED}
"""The methods with a gate, and each without it."""
CONFIDENCE = 0.95
"""Of the lower bound that a trial has to show."""
EXPLORE = 0.1
TAG = 0x62657474  # "bett": keeps these draws apart from others of the same (seed, index)

Worth = dict[str, list[tuple[float, float]]]
"""Of each method that was measured: what each agent's policy is worth, as a share and in the rewards' unit."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How many improvement steps, and what each takes.

    Attributes:
        steps: of improvement.
        evaluation: blocks of environment steps that are learnt from, in each.
        trial: blocks of each trial; later steps learn from them too.
        rounds: of gradients in the first step.
        later_rounds: in each other one.
        rank: r.
    """

    steps: int
    evaluation: int
    trial: int
    rounds: int
    later_rounds: int
    rank: int

    @property
    def blocks(self) -> int:
        """Of all steps."""
        return self.steps * (self.evaluation + self.trial)


def initial_fleet(policy: GreedyPolicy, rank: int, seed: int, agents: int, slots: int) -> JointFleet:
    """A fleet that has learnt nothing, with `practical` and rounds of this number of slots."""
    basis = random_basis(policy.features.dim, rank, np.random.default_rng(seed))
    return JointFleet.initial(practical(slots), basis, agents)


def prior_of(fleet: JointFleet) -> FleetPrior:
    """What the fleet has learnt by now."""
    assert fleet.head_covariance is not None
    return FleetPrior(fleet.basis, fleet.head_covariance, len(fleet.states))


def is_proved(gains: Float[np.ndarray, " m"]) -> bool:
    """Whether the lower bound of a new policy's gain is above zero."""
    return paired_bound(gains, CONFIDENCE).lower > 0.0
