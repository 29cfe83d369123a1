"""What a fleet shares of plans: rounds whose transitions are differences of two afterstates at one moment.

A learner estimates weights z with (φ − φ')ᵀ z equal to the reward. Given rows of φ(x) − φ(y) that nothing follows
(φ' = 0), and the difference of their returns in place of a reward, it regresses differences of planned values. So
the fleet learns a basis and a head covariance of what decisions depend on, over the same stream of gradients.
"""

import numpy as np

from cospan.client.decisions.hindsight import Plan
from cospan.client.decisions.policy import GreedyPolicy
from cospan.core.learning.learner_state import Trajectory


def differences(policy: GreedyPolicy, made: Plan | None, slots: int, generator: np.random.Generator) -> Trajectory:
    """A round of differences between two levels at moments drawn from a plan; every second slot is a cut.

    Args:
        policy: whose features they are of.
        made: the plan; None for a round of cuts.
        slots: L of the round, two or more for a difference.
        generator: of the draws.
    """
    rows, rewards = np.zeros((slots + 1, policy.features.dim)), np.zeros(slots)
    is_transition = np.zeros(slots, dtype=np.bool_)
    number = slots // 2
    if made is None or not number:
        return Trajectory(rows, rewards, is_transition)
    moments, levels = made.returns.shape
    places = generator.integers(moments, size=number)
    first = generator.integers(levels, size=number)
    second = (first + 1 + generator.integers(levels - 1, size=number)) % levels
    phi = made.taken(places).features(policy)
    each = np.arange(number)
    taken = slice(0, 2 * number, 2)
    rows[taken] = phi[each, first] - phi[each, second]
    rewards[taken] = made.returns[places, first] - made.returns[places, second]
    is_transition[taken] = True
    return Trajectory(rows, rewards, is_transition)
