"""The fleet of access-control queues: the chain is the environment's, and the truth is the chain's."""

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from cospan.client.workloads.queues import (
    ACTION_FEATURES,
    FEATURES,
    FREE_PROBABILITY_RANGE,
    PRIORITIES,
    SERVERS,
    QueueEnv,
    after_decision,
    fleet_chain,
    markov_chain,
    queue_parameters,
    workload,
)
from cospan.core.exact_solutions import differential_value, gain, stationary_distribution

MIX = np.array([0.1, 0.2, 0.3, 0.4])


def test_after_decision_by_hand() -> None:
    """One of two servers free, p = ¼, two priorities: the busy one becomes free or not."""
    outcome = after_decision(0.25, np.array([0.4, 0.6]), servers=2)
    np.testing.assert_allclose(outcome[1], [0.0, 0.0, 0.75 * 0.4, 0.75 * 0.6, 0.25 * 0.4, 0.25 * 0.6])
    np.testing.assert_allclose(outcome[0, ::2] / 0.4, [0.5625, 0.375, 0.0625])
    np.testing.assert_allclose(outcome[2], [0.0, 0.0, 0.0, 0.0, 0.4, 0.6])


def test_accepting_takes_a_server_and_pays_the_priority() -> None:
    outcome = after_decision(0.06, MIX)
    never, nothing = markov_chain(0.06, MIX, 0.0)
    always, paid = markov_chain(0.06, MIX, 1.0)
    for free in range(SERVERS + 1):
        for kind, priority in enumerate(PRIORITIES):
            state = free * 4 + kind
            np.testing.assert_allclose(never[state], outcome[free])
            np.testing.assert_allclose(always[state], outcome[max(free - 1, 0)])
            assert paid[state] == (priority if free > 0 else 0.0)
    assert not nothing.any()


def test_a_policy_may_depend_on_the_state() -> None:
    accept = np.zeros(44)
    accept[[20, 21]] = 1.0
    transition, rewards = markov_chain(0.06, MIX, accept)
    np.testing.assert_allclose(transition[20], after_decision(0.06, MIX)[4])
    np.testing.assert_allclose(transition[22], after_decision(0.06, MIX)[5])
    np.testing.assert_array_equal(np.flatnonzero(rewards), [20, 21])


def test_the_fleets_chain_is_that_of_its_policy() -> None:
    transition, rewards = fleet_chain(0.06, MIX)
    policy = workload.make_site(0, 0).policy
    rng = np.random.default_rng(0)
    accept = np.array([np.mean([policy(state, rng) for _ in range(400)]) for state in range(44)])
    expected, paid = markov_chain(0.06, MIX, accept)
    assert np.abs(transition - expected).max() < 0.1
    assert np.abs(rewards - paid).max() < 0.1 * max(PRIORITIES)


def test_steps_follow_the_chain() -> None:
    """χ² of 40,000 transitions from the states that occur, under uniformly random actions."""
    env = QueueEnv(0.1, MIX)
    state, _ = env.reset(seed=3)
    counts = np.zeros((44, 44))
    for action in np.random.default_rng(4).integers(2, size=40_000).tolist():
        after, reward, *_ = env.step(action)
        counts[state, after] += 1.0
        assert reward == (PRIORITIES[state % 4] if action == 1 and state >= 4 else 0.0)
        state = after
    transition, _ = markov_chain(0.1, MIX, 0.5)
    expected = counts.sum(axis=1, keepdims=True) * transition
    assert not counts[expected == 0.0].any()
    usual = expected >= 5.0
    freedom = int(usual.sum() - usual.any(axis=1).sum())
    chi_squared = float(((counts - expected)[usual] ** 2 / expected[usual]).sum())
    assert abs(chi_squared - freedom) < 5.0 * np.sqrt(2.0 * freedom)


@pytest.mark.parametrize("index", [0, 7, 23])
def test_reference_is_the_solution_of_the_poisson_equation(index: int) -> None:
    site = workload.make_site(index, seed=5)
    assert site.reference is not None
    transition, rewards = fleet_chain(*queue_parameters(index, 5))
    stationary = stationary_distribution(transition)
    np.testing.assert_allclose(transition.sum(axis=1), 1.0, rtol=1e-14)
    assert site.reference.gain == pytest.approx(gain(stationary, rewards), rel=1e-13)
    assert (site.reference.weights_uncertainty, site.reference.gain_uncertainty) == (0.0, 0.0)

    rows = FEATURES.batch(range(44))
    values = rows @ site.reference.weights
    np.testing.assert_allclose(rewards - site.reference.gain + transition @ values, values, atol=1e-10)
    centred = values - stationary @ values
    np.testing.assert_allclose(centred, differential_value(transition, rewards), atol=1e-10)
    variance = site.reference.weights @ site.reference.covariance @ site.reference.weights
    assert variance == pytest.approx(stationary @ centred**2, rel=1e-10)
    assert site.reference.value_error(0.9 * site.reference.weights) == pytest.approx(0.01, rel=1e-10)


def test_mean_reward_of_a_site_is_its_gain() -> None:
    site = workload.make_site(2, seed=0)
    assert site.reference is not None
    rng = np.random.default_rng(1)
    state, _ = site.env.reset(seed=2)
    total = 0.0
    for _ in range(30_000):
        state, reward, terminated, truncated, _ = site.env.step(site.policy(state, rng))
        total += float(reward)
        assert not terminated
        assert not truncated
    assert total / 30_000 == pytest.approx(site.reference.gain, rel=0.05)


def test_every_queue_visits_enough_for_the_features_to_be_free_of_constants() -> None:
    """The state left out has a probability worth speaking of at every queue of a large fleet."""
    for index in range(40):
        transition, _ = fleet_chain(*queue_parameters(index, 0))
        assert stationary_distribution(transition)[FEATURES.reference] > 1e-4


def test_queues_differ_and_stay_what_they_are() -> None:
    parameters = [queue_parameters(index, 0) for index in range(200)]
    free = np.array([p for p, _ in parameters])
    mixes = np.array([mix for _, mix in parameters])
    low, high = FREE_PROBABILITY_RANGE
    assert ((free >= low) & (free <= high)).all()
    assert free.mean() == pytest.approx((low + high) / 2.0, abs=0.01)
    np.testing.assert_allclose(mixes.sum(axis=1), 1.0)
    np.testing.assert_allclose(mixes.mean(axis=0), 0.25, atol=0.04)
    assert len(set(free)) == 200
    again, mix = queue_parameters(17, 0)
    assert again == free[17]
    np.testing.assert_array_equal(mix, mixes[17])
    assert queue_parameters(17, 1)[0] != again


def test_fleet_basis_holds_the_fleets_weights() -> None:
    assert workload.fleet_basis is not None
    basis = workload.fleet_basis(12, 2, 0)
    assert basis is not None
    assert basis.shape == (43, 2)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-12)
    references = [workload.make_site(index, 0).reference for index in range(12)]
    weights = np.stack([reference.weights for reference in references if reference is not None])
    left_over = weights - weights @ basis @ basis.T
    assert (left_over**2).sum() < 0.02 * (weights**2).sum()


@pytest.mark.parametrize(("index", "seed"), [(-1, 0), (0, -1)])
def test_no_such_queue(index: int, seed: int) -> None:
    with pytest.raises(ValueError, match="both must be 0 or more"):
        workload.make_site(index, seed)


def test_wrong_use_is_refused() -> None:
    env = QueueEnv(0.1, MIX)
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="allowed are 0"):
        env.step(2)


def test_pairs_are_the_servers_left_free_and_who_was_let_in() -> None:
    rows = ACTION_FEATURES.batch([(state, action) for state in range(FEATURES.states) for action in (0, 1)])
    assert rows.shape == (88, ACTION_FEATURES.dim) == (88, 14)
    assert np.linalg.norm(rows, axis=1).max() == pytest.approx(1.0)
    letting_in, turning_away = ACTION_FEATURES((4 * 7 + 2, 1)), ACTION_FEATURES((4 * 6 + 1, 0))
    np.testing.assert_array_equal(letting_in[:10], turning_away[:10])  # six servers are free after either
    assert letting_in[10:].nonzero()[0].tolist() == [2]
    np.testing.assert_array_equal(ACTION_FEATURES((3, 1)), ACTION_FEATURES((3, 0)))  # no server is free
    np.testing.assert_array_equal(ACTION_FEATURES((4 * 3, 0)), 0.0)
    assert np.linalg.matrix_rank(np.column_stack([rows, np.ones(88)])) == 15  # no constant in the span
    for pair in ((44, 0), (0, 2), (-1, 0)):
        with pytest.raises(ValueError, match="none of states"):
            ACTION_FEATURES(pair)
