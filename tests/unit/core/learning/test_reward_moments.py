"""Mean and variance of rewards that come in rounds."""

import numpy as np
import pytest

from cospan.core.learning.reward_moments import NO_REWARDS


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
