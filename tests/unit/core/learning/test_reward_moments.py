"""Mean and variance of rewards that come in rounds."""

import numpy as np
import pytest

from cospan.core.learning.reward_moments import NO_REWARDS, RewardBatches


def test_rounds_together_are_one_sample() -> None:
    """Also far from zero, where a difference of squares would have no digits left."""
    rewards = 1e8 + np.random.default_rng(1).standard_normal(90)
    moments = NO_REWARDS
    for round_rewards in np.split(rewards, [20, 21, 60]):
        moments = moments.updated(round_rewards)
    assert moments.count == 90
    assert moments.mean == pytest.approx(rewards.mean(), rel=1e-15)
    assert moments.variance == pytest.approx(rewards.var(), rel=1e-8)


def test_nothing_has_no_variance() -> None:
    assert NO_REWARDS.variance == 0.0
    assert NO_REWARDS.updated(np.ones(3)).variance == 0.0


# Batch means ----------------------------------------------------------------------------------------------------


def batches_of(rewards: np.ndarray) -> RewardBatches:
    """Of rewards by round, shape (*n, rounds, L)."""
    found = RewardBatches.initial(rewards.shape[:-2])
    for number in range(rewards.shape[-2]):
        found = found.updated(rewards[..., number, :])
    return found


@pytest.mark.parametrize(
    ("rounds", "batches", "length"), [(1, 1, 1), (7, 7, 1), (31, 31, 1), (32, 16, 2), (65, 16, 4), (1000, 31, 32)]
)
def test_batches_are_joined_by_twos_and_no_reward_is_lost(rounds: int, batches: int, length: int) -> None:
    rewards = np.random.default_rng(rounds).integers(-9, 9, (2, rounds, 5)).astype(float)
    found = batches_of(rewards)
    assert (found.sums.shape, found.rounds, found.open_rounds) == ((2, batches), length, rounds - batches * length)
    np.testing.assert_array_equal(found.sums.sum(axis=-1) + found.open_sum, rewards.sum(axis=(1, 2)))
    expected = rewards[:, : batches * length].reshape(2, batches, -1).sum(axis=-1)
    np.testing.assert_array_equal(found.sums, expected)
    one = batches_of(rewards[1])
    np.testing.assert_array_equal(one.sums, found.of_agents(1).sums)
    np.testing.assert_array_equal(one.half_width(5), found.half_width(5)[1])


def test_an_interval_covers_the_mean_of_correlated_rewards() -> None:
    """Of 0.9 at lag one: from the variance of the rewards alone it would be four times too short."""
    rng, chains, steps = np.random.default_rng(3), 400, 2000
    rewards, state = np.zeros((chains, steps)), rng.standard_normal(chains)
    for step in range(steps):
        state = 0.9 * state + np.sqrt(1.0 - 0.81) * rng.standard_normal(chains)
        rewards[:, step] = state
    half = batches_of(rewards.reshape(chains, -1, 5)).half_width(5)
    assert 0.92 < np.mean(np.abs(rewards.mean(axis=1)) < half) < 0.98
    assert np.isnan(batches_of(rewards[0, :35].reshape(-1, 5)).half_width(5)), "seven batches tell too little"
