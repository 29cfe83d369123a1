"""Values made of all steps that an agent has logged, whatever policies they were taken under."""

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.acting_env import StepLog
from cospan.client.decisions.hindsight import LEVELS, planned_over
from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.environment.rollout import checked_features
from cospan.core.decisions.iterated_values import iterated_values
from cospan.core.decisions.paired_values import Values, paired_values, prior_of_fleet
from cospan.core.decisions.weights_root import fleet_prior
from cospan.core.learning.learner_state import LearnerState
from cospan.core.learning.posterior import FleetPrior, history_of
from cospan.core.learning.units import Units

PLANNED_CAUTION = 0.0
"""κ with planned values: more is worse at sites that gain much, and better by 0.1 % at some that gain little."""
LEAST_OWN_SHARE = 0.03
"""The least part of an agent's values that is taken to be its own, whatever its shared weight."""
MOST_STEPS = 20_000
"""The newest steps that values are made of; fewer where their features would be more than `MOST_NUMBERS`."""
MOST_NUMBERS = 2**24
"""128 MiB of them."""


def planned_values(
    policy: GreedyPolicy, log: StepLog, block: int, prior_covariance: Float[np.ndarray, "d d"] | None
) -> Values | None:
    """Values by planning in hindsight over the logged steps (`cospan.client.decisions.hindsight`).

    Args:
        policy: of the site; its weights play no part.
        log: of its steps.
        block: steps that belong together, as those of a day.
        prior_covariance: `prior_of_plans` of the agent; None of an agent alone.

    Returns:
        None where the site cannot be planned for, or the steps are too few.
    """
    if not log.observations:
        return None
    most = min(MOST_STEPS, MOST_NUMBERS // (LEVELS * policy.features.dim))
    made = planned_over(policy, np.stack(log.observations[-most:]), block)
    if made is None:
        return None
    return paired_values(made.features(policy), made.returns, block, prior_covariance)


def prior_of_plans(state: LearnerState, fleet: FleetPrior) -> Float[np.ndarray, "d d"] | None:
    """Γ of one agent's weights by what a fleet has learnt of differences of plans; None while that is nothing.

    Args:
        state: of the agent, which has learnt of its own plans.
        fleet: its newest basis and head covariance.
    """
    if not state.rewards.count:
        return None
    return prior_of_fleet(fleet.basis, fleet.head_covariance, _unit(state))


def prior_of_values(state: LearnerState, fleet: FleetPrior) -> Float[np.ndarray, "d d"]:
    """Γ of one agent's weights by what a fleet has learnt of the values of held policies.

    Args:
        state: of the agent, with posterior head updates, after one round at least.
        fleet: its newest basis and head covariance.
    """
    posterior = state.posterior
    assert posterior is not None
    centred = (features := history_of(posterior)[0]) - features.mean(axis=0)
    covariance, weights = centred.T @ centred / len(features), posterior.weights
    variance = max(float(weights @ covariance @ weights) / len(weights), np.finfo(float).tiny)
    own = max(LEAST_OWN_SHARE, 1.0 - float(posterior.shared_weight)) * variance
    return fleet_prior(fleet.basis, fleet.head_covariance * _unit(state) ** 2, covariance, own)


def _unit(state: LearnerState) -> float:
    return float(Units.of(state.rewards.variance, state.feature_squares / state.rewards.count).head)


def action_values(policy: GreedyPolicy, log: StepLog, prior_covariance: Float[np.ndarray, "d d"] | None) -> Values:
    """Values of pairs (observation, action) by policy iteration over the logged steps.

    Args:
        policy: of a site with `action_features`; its weights play no part.
        log: of its steps, which followed one another; two at least.
        prior_covariance: of the weights; None of an agent alone.

    Raises:
        ValueError: there are fewer than two steps.
    """
    number = len(policy.actions)
    kept = log.tail(min(MOST_STEPS, MOST_NUMBERS // (number * policy.features.dim)))
    steps = len(kept.rewards) - 1
    if steps < 1:
        raise ValueError(f"{len(kept.rewards)} steps are too few to learn action values from; there must be two")
    seen, actions = np.stack(kept.observations), np.stack([np.asarray(each) for each in kept.actions])
    context = f"the policy of site {policy.index}"
    features = checked_features(policy.features, policy.pairs(seen[:-1], actions[:-1]), context)
    repeated = np.repeat(seen[1:], number, axis=0)
    every = policy.candidates(seen[1:])[:, -number:].reshape(steps * number, *policy.actions.shape[1:])
    following = checked_features(policy.features, policy.pairs(repeated, every), context)
    rewards = np.array(kept.rewards[:-1])
    return iterated_values(features, rewards, following.reshape(steps, number, -1), prior_covariance)
