"""Synthetic fleets: the truth they claim is the truth of their chains, and what is common is common."""

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from cospan.client.workload import Workload
from cospan.client.workloads.synthetic import (
    ChainEnv,
    ChainInstance,
    ChainSizes,
    chain_features,
    chain_instance,
    common_reward_workload,
    make_workload,
    tilted_rows,
    workload,
)
from cospan.core.exact_solutions import differential_value, gain, stationary_distribution, td_fixed_point
from cospan.core.linalg.subspace import principal_angle_sine

SIZES = ChainSizes()
KINDS = pytest.mark.parametrize("common_rewards", [False, True], ids=["own rewards", "common rewards"])
WORKLOADS = pytest.mark.parametrize("fleet", [workload, common_reward_workload], ids=lambda fleet: fleet.name)


def chains(*, common_rewards: bool, agents: int = 6, seed: int = 0) -> list[ChainInstance]:
    """The first agents of a fleet of the built-in sizes."""
    return [chain_instance(i, seed, SIZES, common_rewards=common_rewards) for i in range(agents)]


@KINDS
def test_truth_is_the_truth_of_the_chain(common_rewards: bool) -> None:
    """J and V solve the Poisson equation, and z* is the TD fixed point for every number of steps."""
    for chain in chains(common_rewards=common_rewards):
        assert chain.transition.min() > 0.0
        np.testing.assert_allclose(chain.transition.sum(axis=1), 1.0, rtol=1e-13)
        stationary = stationary_distribution(chain.transition)
        assert chain.gain == pytest.approx(gain(stationary, chain.rewards), abs=1e-12)
        centred = chain.values - stationary @ chain.values
        np.testing.assert_allclose(centred, differential_value(chain.transition, chain.rewards), atol=1e-10)
        for steps in (1, 10):
            fixed = td_fixed_point(chain.features, chain.transition, chain.rewards, steps)
            np.testing.assert_allclose(fixed, chain.weights, atol=1e-10)


@KINDS
def test_what_is_common_to_a_fleet(common_rewards: bool) -> None:
    first, *others = chains(common_rewards=common_rewards)
    for chain in others:
        np.testing.assert_array_equal(chain.features, first.features)
        np.testing.assert_array_equal(chain.basis, first.basis)
        assert np.array_equal(chain.rewards, first.rewards) == common_rewards
        assert np.abs(chain.transition - first.transition).max() > 0.1
        assert np.linalg.norm(chain.head - first.head) > 0.1
        assert chain.gain != first.gain


@KINDS
def test_scales(common_rewards: bool) -> None:
    """V has variance one over the states and about one under the chain; ‖w‖ ≤ √n."""
    for chain in chains(common_rewards=common_rewards):
        assert np.mean(chain.values**2) == pytest.approx(1.0, rel=1e-12)
        assert np.linalg.norm(chain.head) <= np.sqrt(SIZES.states)
        stationary = stationary_distribution(chain.transition)
        assert 0.4 < stationary @ chain.values**2 - (stationary @ chain.values) ** 2 < 2.5
        np.testing.assert_allclose(chain.basis.T @ chain.basis, np.eye(SIZES.rank), atol=1e-14)


@pytest.mark.parametrize("sizes", [SIZES, ChainSizes(5, 4, 2), ChainSizes(3, 1, 1)])
def test_features_are_bounded_orthogonal_and_without_constants(sizes: ChainSizes) -> None:
    features = chain_features(sizes, np.random.default_rng(2))
    assert features.shape == (sizes.states, sizes.feature_dim)
    np.testing.assert_allclose(features.mean(axis=0), 0.0, atol=1e-15)
    norms = np.linalg.norm(features, axis=1)
    assert norms.max() == pytest.approx(1.0, rel=1e-15)
    gram = features.T @ features
    np.testing.assert_allclose(gram, gram[0, 0] * np.eye(sizes.feature_dim), atol=1e-13)
    assert gram[0, 0] >= 1.0


def test_tilted_rows_have_the_means_asked_for() -> None:
    """And are the exponential tilt: log(p/q) is linear in V along every row."""
    rng = np.random.default_rng(3)
    rows = rng.dirichlet(np.full(6, 0.5), size=6) * 0.9 + 0.1 / 6
    values = rng.standard_normal(6)
    means = values.min() + np.ptp(values) * np.array([0.02, 0.2, 0.4, 0.6, 0.8, 0.98])
    tilted = tilted_rows(rows, values, means)
    np.testing.assert_allclose(tilted.sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(tilted @ values, means, atol=1e-12)
    design = np.column_stack([np.ones(6), values])
    logs = np.log(tilted / rows)
    line = design @ np.linalg.lstsq(design, logs.T, rcond=None)[0]
    np.testing.assert_allclose(line.T, logs, atol=1e-8)


@WORKLOADS
def test_site_is_the_instance(fleet: Workload) -> None:
    chain = chain_instance(3, 9, SIZES, common_rewards=fleet is common_reward_workload)
    site = fleet.make_site(3, 9)
    assert site.reference is not None
    np.testing.assert_array_equal(site.reference.weights, chain.weights)
    np.testing.assert_array_equal(site.features.batch(range(SIZES.states)), chain.features)
    assert site.reference.gain == chain.gain
    assert site.features.fingerprint == fleet.make_site(4, 9).features.fingerprint
    assert site.features.fingerprint != fleet.make_site(3, 10).features.fingerprint


def test_simulated_steps_follow_the_chain() -> None:
    """Each reward is that of the state left; transitions agree by χ², and the mean reward is near J."""
    chain = chain_instance(0, 1, ChainSizes(8, 4, 2), common_rewards=False)
    env = ChainEnv(chain.transition, chain.rewards)
    state, _ = env.reset(seed=0)
    counts = np.zeros((8, 8))
    total = 0.0
    for _ in range(30_000):
        after, reward, terminated, truncated, _ = env.step(0)
        assert reward == chain.rewards[state]
        assert not terminated
        assert not truncated
        counts[state, after] += 1.0
        state, total = after, total + reward
    expected = counts.sum(axis=1, keepdims=True) * chain.transition
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_squared - 56.0) < 5.0 * np.sqrt(2.0 * 56.0)
    assert total / 30_000 == pytest.approx(chain.gain, abs=0.06)


@WORKLOADS
def test_fleet_basis_is_the_common_basis(fleet: Workload) -> None:
    assert fleet.fleet_basis is not None
    chain = chain_instance(0, 4, SIZES, common_rewards=fleet is common_reward_workload)
    for rank in (3, 8):  # no agent has weights beyond the third dimension
        basis = fleet.fleet_basis(8, rank, 4)
        assert basis is not None
        assert basis.shape == (20, 3)
        assert principal_angle_sine(basis, chain.basis) < 1e-12
    one = fleet.fleet_basis(1, 3, 4)
    assert one is not None
    assert principal_angle_sine(one, chain.weights[:, None] / np.linalg.norm(chain.weights)) < 1e-12


def test_own_sizes() -> None:
    fleet = make_workload("small", ChainSizes(6, 3, 1), steps_per_round=4)
    assert (fleet.name, fleet.rank, fleet.steps_per_round) == ("small", 1, 4)
    assert fleet.make_site(0, 0).features.dim == 3


@pytest.mark.parametrize("sizes", [(5, 5, 2), (5, 2, 3), (5, 2, 0)])
def test_sizes_that_cannot_be(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="is needed"):
        ChainSizes(*sizes)


@pytest.mark.parametrize(("index", "seed"), [(-1, 0), (0, -1)])
def test_no_such_chain(index: int, seed: int) -> None:
    with pytest.raises(ValueError, match="both must be 0 or more"):
        workload.make_site(index, seed)


def test_wrong_use_is_refused() -> None:
    env = ChainEnv(np.full((2, 2), 0.5), np.zeros(2))
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="only action is 0"):
        env.step(1)
