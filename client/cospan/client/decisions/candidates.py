"""The values that an agent's new policy may be greedy with respect to, each with its uncertainty."""

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.logged_values import LEAST_OWN_SHARE
from cospan.client.learning.site_learner import SiteLearner
from cospan.core.decisions.paired_values import Values
from cospan.core.decisions.weights_root import fleet_prior, weights_root
from cospan.core.learning.posterior import FleetPrior, history_of
from cospan.core.learning.units import Units

OWN_VARIANCE_ALONE = 30.0
"""Of an agent that learns alone, in units of the variance of its values per feature: its data decide."""


def candidates_of(learner: SiteLearner, fleet: FleetPrior, *, alone: bool) -> list[Values]:
    """The posterior mean under the fleet's prior, and the agent's own LSTD; the latter only where it is alone.

    Args:
        learner: of one agent with posterior head updates, after one round at least.
        fleet: its newest basis and head covariance.
        alone: whether the fleet's values are left out.
    """
    posterior = learner.state.posterior
    assert posterior is not None
    own = learner.lstd_alone_weights()
    found = [(own, _root(learner, own, fleet, own_share=None))]
    if not alone:
        share = max(LEAST_OWN_SHARE, 1.0 - float(posterior.shared_weight))
        shared = posterior.weights
        found.insert(0, (shared, _root(learner, shared, fleet, own_share=share)))
    return found


def _root(
    learner: SiteLearner, weights: Float[np.ndarray, " d"], fleet: FleetPrior, *, own_share: float | None
) -> Float[np.ndarray, "d d"]:
    """F of one set of weights; `own_share` None stands for an agent alone."""
    state, posterior, sums = learner.state, learner.state.posterior, learner.state.statistics
    assert posterior is not None
    assert sums is not None
    features, following, rewards = history_of(posterior)
    errors = rewards - sums.gain_estimate + (following - features) @ weights
    centred = features - features.mean(axis=0)
    covariance = centred.T @ centred / len(features)
    variance = float(weights @ covariance @ weights) / len(weights)
    variance = max(variance, np.finfo(float).tiny)
    head = np.zeros((fleet.basis.shape[1],) * 2)
    if own_share is not None:
        scale = Units.of(state.rewards.variance, state.feature_squares / state.rewards.count).head
        head = fleet.head_covariance * float(scale) ** 2
    own = OWN_VARIANCE_ALONE if own_share is None else own_share
    prior = fleet_prior(fleet.basis, head, covariance, own * variance)
    return weights_root(features, following, errors, prior, steps=float(sums.steps))
