"""What built-in workloads owe an agent: Gymnasium's contract, determinism, bounded features, a fitting policy.

And states that can be saved, so that an agent that is started again continues where it was.
"""

import subprocess
import sys
from functools import cache
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from runs import SECONDS

from cospan.client.environment.plain_values import packed, unpacked
from cospan.client.environment.workload_loader import load_workload
from cospan.client.workload import FeatureMap, Resumable, Site
from cospan.client.workloads import BUILT_IN

SITES = pytest.mark.parametrize(
    ("name", "index"),
    [(name, index) for name in BUILT_IN for index in (0, 1)] + [("microgrids", 9), ("microgrids", 20)],
)


@cache
def site_of(name: str, index: int) -> Site:
    """Agent `index` of a built-in workload, seed 3."""
    return load_workload(name).make_site(index, 3)


def play(site: Site, steps: int, seed: int) -> tuple[list[Any], list[float]]:
    """Observations, the first and those after each step, and the rewards, of the site under its policy.

    After a true end comes the next start, as in a chain.
    """
    rng = np.random.default_rng(seed)
    observation, _ = site.env.reset(seed=seed)
    observations, rewards = [observation], []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = site.env.step(site.policy(observation, rng))
        assert not truncated
        if terminated:
            observation, _ = site.env.reset()
        observations.append(observation)
        rewards.append(float(reward))
    return observations, rewards


@SITES
def test_gymnasium_finds_nothing_wrong(name: str, index: int) -> None:
    """Every warning of the checker is an error here. There is nothing to render."""
    check_env(site_of(name, index).env, skip_render_check=True)


@SITES
def test_seeds_decide_everything(name: str, index: int) -> None:
    """Across environments, and across resets of one: a block of draws in hand must not survive a reset."""
    first = play(load_workload(name).make_site(index, 3), 1300, seed=11)
    again = play(load_workload(name).make_site(index, 3), 1300, seed=11)
    site = site_of(name, index)
    play(site, 77, seed=12)
    reset = play(site, 1300, seed=11)
    other = play(site, 1300, seed=12)
    for observations, rewards in (again, reset):
        np.testing.assert_array_equal(observations, first[0])
        assert rewards == first[1]
    assert not np.array_equal(other[0], first[0])


@SITES
def test_a_reset_without_a_seed_goes_on(name: str, index: int) -> None:
    """It neither repeats what was played nor forgets the seed: the same seed gives the same second play."""
    plays = []
    for _ in range(2):
        site = site_of(name, index)
        observations, _ = play(site, 60, seed=5)
        site.env.reset()
        rng = np.random.default_rng(5)
        second, _ = site.env.reset()
        followed = [second]
        for _ in range(60):
            second, *_ = site.env.step(site.policy(second, rng))
            followed.append(second)
        assert not np.array_equal(followed, observations)
        plays.append(followed)
    np.testing.assert_array_equal(plays[0], plays[1])


@SITES
@pytest.mark.parametrize("steps", [0, 1, 1100])
def test_a_saved_state_has_the_same_future(name: str, index: int, steps: int) -> None:
    """In another environment, of whatever past; and what comes after does not change what was saved."""
    site, other = site_of(name, index), load_workload(name).make_site(index, 3)
    play(site, steps, seed=13)
    env, again = site.env.unwrapped, other.env.unwrapped
    assert isinstance(env, Resumable)
    assert isinstance(again, Resumable)
    state, generator = env.save_state(), env.np_random.bit_generator.state
    kept = packed(state)
    actions = [np.asarray(site.env.action_space.sample()) for _ in range(1100)]
    expected = [env.step(action) for action in actions]
    again.reset(seed=99)
    again.load_state(unpacked(*kept))
    again.np_random.bit_generator.state = generator
    for action, (observation, reward, terminated, *_) in zip(actions, expected, strict=True):
        found = again.step(action)
        np.testing.assert_array_equal(found[0], observation)
        assert found[1:3] == (reward, terminated)
    assert packed(state)[0] == kept[0]
    assert [array.tobytes() for array in packed(state)[1]] == [array.tobytes() for array in kept[1]]


@SITES
@pytest.mark.parametrize(
    "state", [{}, {"state": 10**6, "uniforms": np.zeros(0), "day": 400, "hour": 0, "level": 0}]
)
def test_a_state_that_means_nothing_is_refused(name: str, index: int, state: dict[str, Any]) -> None:
    env = load_workload(name).make_site(index, 3).env.unwrapped
    assert isinstance(env, Resumable)
    env.reset(seed=1)
    with pytest.raises((KeyError, ValueError)):
        env.load_state(state)


@SITES
def test_observations_actions_and_rewards_stay_where_they_belong(name: str, index: int) -> None:
    site = site_of(name, index)
    observations, rewards = play(site, 400, seed=1)
    rng = np.random.default_rng(2)
    for observation in observations:
        assert site.env.observation_space.contains(observation)
        assert site.env.action_space.contains(site.policy(observation, rng))
    assert np.isfinite(rewards).all()


@SITES
def test_any_action_of_the_space_will_do(name: str, index: int) -> None:
    env = site_of(name, index).env
    env.reset(seed=4)
    env.action_space.seed(4)
    for _ in range(200):
        observation, reward, *_ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert np.isfinite(float(reward))


@SITES
def test_features_are_bounded_and_batches_are_their_rows(name: str, index: int) -> None:
    site = site_of(name, index)
    observations, _ = play(site, 400, seed=6)
    rows = site.features.batch(observations)
    assert isinstance(site.features, FeatureMap)
    assert rows.dtype == np.float64
    assert rows.shape == (401, site.features.dim)
    assert np.sqrt((rows * rows).sum(axis=1)).max() <= 1.0 + 1e-12
    np.testing.assert_array_equal([site.features(observation) for observation in observations], rows)


@SITES
def test_a_site_fits_its_workload(name: str, index: int) -> None:
    workload, site = load_workload(name), site_of(name, index)
    assert workload.name == name
    assert 1 <= workload.rank <= site.features.dim
    assert workload.steps_per_round >= 1
    assert site.features.fingerprint == site_of(name, 0).features.fingerprint
    assert isinstance(site.env, gymnasium.Env)
    assert site.reference is not None
    assert site.reference.weights.shape == (site.features.dim,)
    assert site.reference.covariance.shape == (site.features.dim, site.features.dim)
    assert np.isfinite(site.reference.weights).all()
    assert workload.fleet_basis is not None
    basis = workload.fleet_basis(workload.rank, workload.rank, 3)
    assert basis is not None
    assert basis.shape == (site.features.dim, workload.rank)
    np.testing.assert_allclose(basis.T @ basis, np.eye(workload.rank), atol=1e-12)


@SITES
def test_agents_of_a_fleet_differ(name: str, index: int) -> None:
    mine, other = site_of(name, index).reference, site_of(name, index + 2).reference
    assert mine is not None
    assert other is not None
    assert mine.gain != other.gain
    assert mine.value_error(other.weights) > 1e-4


def test_importing_the_package_imports_no_workload() -> None:
    code = "import sys, cospan.client.workloads as w; print([n for n in sys.modules if w.__name__ + '.' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=SECONDS)
    assert done.stdout.strip() == "[]"
