"""The acrobots: Gymnasium's dynamics for many at once, a policy that gets there, and the reference solutions."""

from typing import Any

import numpy as np
import pytest
from gymnasium.envs.classic_control.acrobot import AcrobotEnv

from cospan.client.environment.rollout import Chain
from cospan.client.environment.workload_loader import make_site
from cospan.client.workload import Site
from cospan.client.workloads import acrobot
from cospan.client.workloads.acrobot import FEATURES, START, fleet_policy, start_features, workload
from cospan.client.workloads.models.acrobot import (
    EXPLORATION,
    LINK_1,
    LINK_2,
    LinkedAcrobot,
    Motion,
    observed,
    reached,
    starts,
)
from cospan.client.workloads.references import acrobot as acrobot_reference
from cospan.client.workloads.references import acrobot_policy, solutions
from cospan.core.exact_solutions import ReferenceSolution
from cospan.wire.errors import WorkloadError

SITES = range(6)
EVERYWHERE = np.array([np.pi, np.pi, 4.0 * np.pi, 9.0 * np.pi])


def site_of(index: int) -> Site:
    """Site `index`; the seed plays no part."""
    return workload.make_site(index, 0)


def reference_of(index: int) -> ReferenceSolution:
    """The site's reference, which every site has."""
    reference = site_of(index).reference
    assert reference is not None
    return reference


@pytest.mark.parametrize("index", SITES)
def test_many_at_once_move_as_gymnasium_moves_one(index: int) -> None:
    """Over the whole box of states, so that angles wrap and velocities are cut off."""
    rng = np.random.default_rng(index)
    states = rng.uniform(-1.0, 1.0, size=(4, 300)) * EVERYWHERE[:, None]
    actions = rng.integers(3, size=300)
    env: Any = site_of(index).env
    env.reset(seed=0)
    moved = Motion(LINK_1[index], LINK_2[index]).after(states, actions)
    ends = 0
    for before, action, after, over, seen in zip(
        states.T, actions, moved.T, reached(moved), observed(moved), strict=True
    ):
        env.state = before.copy()
        observation, reward, terminated, truncated, _ = env.step(action)
        # Minus and plus π are one angle.
        apart = np.abs(env.state - after)
        apart[:2] = np.minimum(apart[:2], 2.0 * np.pi - apart[:2])
        assert apart.max() < 1e-9
        np.testing.assert_allclose(observation, seen, atol=1e-6)
        assert (terminated, truncated) == (bool(over), False)
        assert reward == over - 1.0
        ends += terminated
    assert 10 < ends < 290


def test_lengths_of_each_state_or_one_for_all() -> None:
    rng = np.random.default_rng(4)
    states = rng.uniform(-1.0, 1.0, size=(4, 6)) * EVERYWHERE[:, None]
    together = Motion(np.array(LINK_1), np.array(LINK_2)).after(states, np.full(6, 2))
    for index in SITES:
        alone = Motion(LINK_1[index], LINK_2[index]).after(states[:, [index]], np.array([2]))
        np.testing.assert_allclose(together[:, [index]], alone, rtol=0, atol=1e-12)


def test_links_of_one_metre_are_gymnasiums_own() -> None:
    mine, theirs = LinkedAcrobot(), AcrobotEnv()
    first, second = mine.reset(seed=3)[0], theirs.reset(seed=3)[0]
    np.testing.assert_array_equal(first, second)
    for step in range(60):
        first, second = mine.step(step % 3)[0], theirs.step(step % 3)[0]
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("index", SITES)
def test_lengths_are_the_papers_and_masses_stay_in_the_middle(index: int) -> None:
    env: Any = site_of(index).env
    assert (LINK_1[index], LINK_2[index]) == (env.LINK_LENGTH_1, env.LINK_LENGTH_2)
    assert (LINK_1[index] / 2.0, LINK_2[index] / 2.0) == (env.LINK_COM_POS_1, env.LINK_COM_POS_2)
    assert (env.LINK_MASS_1, env.LINK_MASS_2, env.LINK_MOI) == (1.0, 1.0, 1.0)


def test_starts_are_as_gymnasium_draws_them() -> None:
    env: Any = site_of(0).env
    env.reset(seed=8)
    theirs = np.array([env.reset() and env.state for _ in range(2000)], dtype=np.float64)
    mine = starts(2000, np.random.default_rng(8))
    assert np.abs(mine).max() <= np.float32(0.1)
    assert np.array_equal(mine, mine.astype(np.float32))
    np.testing.assert_allclose(np.sort(mine.T, axis=0), np.sort(theirs, axis=0), atol=0.012)


def test_the_goal_is_followed_by_the_next_start() -> None:
    """Nothing ends: some thousand steps hold several goals, each worth 0, and every other step −1."""
    chain = Chain(site_of(1), name="acrobot-1", index=1, seed=5)
    trajectory = chain.advance(1500)
    goals = np.flatnonzero(trajectory.rewards == 0.0)
    assert 4 <= len(goals) <= 30
    assert set(trajectory.rewards) == {0.0, -1.0}
    angles = np.array([FEATURES(observation) for observation in observed(starts(50, np.random.default_rng(0)))])
    width = np.abs(angles - FEATURES(START)).max()
    assert np.abs(trajectory.features[goals + 1] - FEATURES(START)).max() < 1.5 * width


@pytest.mark.parametrize("index", SITES)
def test_the_policy_reaches_the_goal(index: int) -> None:
    """60 episodes of every site; none takes thousands of steps, and they take about as long as the gain says."""
    lengths = np.zeros(60)
    for step, (_, rewards, _) in enumerate(acrobot_reference.simulate(index, 60, np.random.default_rng(index))):
        assert step < 5000
        lengths[: len(rewards)] += 1.0
    mean = 1.0 / (1.0 + reference_of(index).gain)
    assert lengths.mean() == pytest.approx(mean, abs=4.0 * lengths.std() / np.sqrt(60))


def test_the_policy_leaves_a_share_to_chance() -> None:
    policy, rng = fleet_policy(), np.random.default_rng(0)
    observation = observed(starts(1, rng))[0]
    taken = np.bincount([policy(observation, rng) for _ in range(6000)], minlength=3) / 6000
    best = int(policy.preferred(observation))
    assert best in (0, 2)
    expected = np.full(3, EXPLORATION / 3.0)
    expected[best] += 1.0 - EXPLORATION
    np.testing.assert_allclose(taken, expected, atol=0.015)
    many = policy.actions(np.tile(observation, (6000, 1)), rng)
    np.testing.assert_allclose(np.bincount(many, minlength=3) / 6000, expected, atol=0.015)


def test_the_policy_is_the_same_for_one_and_for_many() -> None:
    rng = np.random.default_rng(1)
    observations = observed(rng.uniform(-1.0, 1.0, size=(4, 400)) * EVERYWHERE[:, None])
    together = fleet_policy().preferred(observations)
    assert set(together) == {0, 2}
    np.testing.assert_array_equal([fleet_policy().preferred(one) for one in observations], together)


def test_training_is_decided_by_its_seed_and_shortens_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acrobot_policy, "LONGEST", 150)
    first, again = (acrobot_policy.train(7, generations=2, population=8) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    rng = np.random.default_rng(2)
    shipped = fleet_policy()
    scales = np.array([1.0, 1.0, 1.0, 1.0, *acrobot_policy.VELOCITY_SCALES])
    weights = np.concatenate([(shipped.inner * scales[:, None]).reshape(-1), shipped.shift, shipped.outer])
    lengths, _ = acrobot_policy.episode_lengths(np.stack([weights, first]), 3, 800, rng)
    assert lengths[0].mean() < 0.7 * lengths[1].mean()


def test_features_know_angles_and_velocities() -> None:
    """One for all turns of an angle, and different wherever the state differs."""
    state = np.array([[2.0], [-1.0], [0.5], [-3.0]])
    turned = state + np.array([[2.0 * np.pi], [-2.0 * np.pi], [0.0], [0.0]])
    np.testing.assert_allclose(FEATURES.batch(observed(state)), FEATURES.batch(observed(turned)), atol=1e-6)
    for coordinate in range(4):
        other = state.copy()
        other[coordinate] += 0.3
        assert np.abs(FEATURES.batch(observed(state)) - FEATURES.batch(observed(other))).max() > 1e-3
    assert FEATURES.batch([]).shape == (0, FEATURES.dim)


def test_no_site_seven() -> None:
    assert workload.max_agents == 6
    with pytest.raises(WorkloadError, match="no site 6; take 0 to 5"):
        make_site(workload, 6, 0)
    with pytest.raises(ValueError, match="there are sites 0 to 5"):
        workload.make_site(6, 0)
    with pytest.raises(ValueError, match="seeds from 0 on"):
        workload.make_site(0, -1)


@pytest.mark.parametrize("index", [4])
def test_a_short_run_of_its_own_agrees_with_the_reference(index: int) -> None:
    """120 episodes, independent of the shipped ones: two batches say how far off they may be."""
    reference = reference_of(index)
    batches = [acrobot_reference.least_squares(index, np.random.default_rng(seed), 60) for seed in (11, 12)]
    alone = [solutions.solve(batch) for batch in batches]
    pooled = {name: batches[0][name] + batches[1][name] for name in batches[0]}
    gain, weights, covariance = solutions.solve(pooled)
    assert gain == pytest.approx(reference.gain, abs=0.15 * (1.0 + reference.gain))
    apart = alone[0][1] - alone[1][1]
    spread = 0.25 * (apart @ covariance @ apart) / (weights @ covariance @ weights)
    assert reference.value_error(weights) < 4.0 * spread + 4.0 * reference.weights_uncertainty
    assert np.linalg.norm(covariance - reference.covariance) < 0.1 * np.linalg.norm(covariance)


def test_reference_is_certain_enough_to_measure_against() -> None:
    for index in SITES:
        reference = reference_of(index)
        assert 0.0 < reference.weights_uncertainty < 0.01
        assert 0.0 < reference.gain_uncertainty < 0.03 * (1.0 + reference.gain)
        assert np.linalg.eigvalsh(reference.covariance).min() > -1e-8


def test_the_start_is_worth_less_than_what_comes_after() -> None:
    """The value of hanging at rest, and that of states shortly before the goal."""
    hanging = observed(np.zeros((4, 1)))[0]
    np.testing.assert_array_equal(hanging, np.array(START, dtype=np.float32))
    for index in (0, 2, 5):
        weights = reference_of(index).weights
        value = weights @ start_features(index)
        total, count, before_goal = 0.0, 0, []
        for seen, rewards, _ in acrobot_reference.simulate(index, 60, np.random.default_rng(1)):
            values = FEATURES.batch(seen) @ weights
            total, count = total + values.sum(), count + len(values)
            before_goal.extend(values[rewards == 0.0])
        assert FEATURES(hanging) @ weights - total / count == pytest.approx(value, abs=0.08)
        assert -0.6 < value < -0.3
        assert np.mean(before_goal) - total / count > 0.2


def test_fleet_basis_is_that_of_the_reference_weights() -> None:
    basis = acrobot.fleet_basis(6, 6, 0)
    for index in SITES:
        weights = reference_of(index).weights
        np.testing.assert_allclose(basis @ (basis.T @ weights), weights, atol=1e-9 * np.abs(weights).max())
