"""The values that a new policy may be greedy with respect to, from what is kept of an agent's transitions."""

from dataclasses import replace

import numpy as np
import pytest

from cospan.client.workloads import queues
from cospan.simulation import Fleet, Improvement, ImprovementSettings
from cospan.simulation.policy_candidates import Values, candidates_of

ROUNDS = 12


def candidates(rubbish: float | None) -> list[Values]:
    """Of one agent whose third round has a cut in its fifth slot, with this reward there; None: without the cut."""
    fleet = Fleet("queues", agents=2, seed=5, rank=2)
    fleet.close()
    made = Improvement(queues.workload, fleet.specification, ImprovementSettings(rounds=ROUNDS))
    try:
        learner = made._evaluated()[0]
    finally:
        made.close()
    state = learner.state.posterior
    assert state is not None
    assert len(state.rewards) == ROUNDS
    if rubbish is not None:
        rewards, cuts = list(state.rewards), list(state.is_transition)
        is_transition = np.arange(len(rewards[2])) != 4
        rewards[2], cuts[2] = np.where(is_transition, rewards[2], rubbish), is_transition
        state = replace(state, rewards=tuple(rewards), is_transition=tuple(cuts))
    learner.state = replace(learner.state, posterior=state)
    assert made._start is not None
    return candidates_of(learner, made._start, alone=False)


def test_what_stands_at_a_cut_is_in_no_error_bar() -> None:
    (shared, alone), others, whole = candidates(0.0), candidates(1e3), candidates(None)
    for (weights, root), (other_weights, other_root) in zip((shared, alone), others, strict=True):
        np.testing.assert_array_equal(other_weights, weights)
        np.testing.assert_array_equal(other_root, root)
    assert np.any(shared[1] != whole[0][1])
    assert shared[1] @ shared[1].T == pytest.approx(whole[0][1] @ whole[0][1].T, rel=0.5, abs=0.5)
