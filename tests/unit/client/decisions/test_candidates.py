"""The values that a new policy may be greedy with respect to, from what is kept of an agent's transitions."""

from dataclasses import replace

import numpy as np
import pytest

from cospan.client.decisions.candidates import Values, candidates_of
from cospan.client.learning.improving_learner import ImprovingLearner
from cospan.client.learning.run_config import specify
from cospan.client.workloads import queues
from cospan.core.learning.posterior import FleetPrior

ROUNDS = 12


def candidates(rubbish: float | None) -> list[Values]:
    """Of one agent whose third round has a cut in its fifth slot, with this reward there; None: without the cut."""
    spec = specify("queues", agents=2, seed=5, rank=2, improve=1, evaluation_rounds=ROUNDS)
    learner = ImprovingLearner(queues.make_site(0, 5), spec, name="site-0", index=0)
    prior = FleetPrior(spec.initial_basis(), np.eye(2), 2)
    for number in range(ROUNDS):
        learner.learn(number, prior.basis, prior.head_covariance)
    state = learner.state.posterior
    assert state is not None
    assert len(state.rewards) == ROUNDS
    if rubbish is not None:
        rewards, cuts = list(state.rewards), list(state.is_transition)
        is_transition = np.arange(len(rewards[2])) != 4
        rewards[2], cuts[2] = np.where(is_transition, rewards[2], rubbish), is_transition
        state = replace(state, rewards=tuple(rewards), is_transition=tuple(cuts))
    learner.state = replace(learner.state, posterior=state)
    return candidates_of(learner, prior, alone=False)


def test_what_stands_at_a_cut_is_in_no_error_bar() -> None:
    (shared, alone), others, whole = candidates(0.0), candidates(1e3), candidates(None)
    for (weights, root), (other_weights, other_root) in zip((shared, alone), others, strict=True):
        np.testing.assert_array_equal(other_weights, weights)
        np.testing.assert_array_equal(other_root, root)
    assert np.any(shared[1] != whole[0][1])
    assert shared[1] @ shared[1].T == pytest.approx(whole[0][1] @ whole[0][1].T, rel=0.5, abs=0.5)
