"""The covariance of features within equal exogenous parts: what it leaves out, and what it counts."""

import numpy as np
import pytest

from cospan.core.quality.within import within_covariance

RNG = np.random.default_rng(5)
STATES = 4000
MIX = RNG.standard_normal((3, 3))


def test_without_parts_it_is_the_covariance_of_all_states() -> None:
    features = RNG.standard_normal((200, 3)) + 2.0
    np.testing.assert_allclose(within_covariance(features, np.zeros((200, 0))), np.cov(features.T), rtol=1e-12)


def test_what_a_clock_adds_is_left_out_and_what_varies_beside_it_is_kept() -> None:
    hour = RNG.integers(24, size=STATES)
    own = RNG.standard_normal((STATES, 3)) @ MIX
    features = own + RNG.standard_normal((24, 3))[hour] * 50.0
    found = within_covariance(features, hour[:, None].astype(float))
    np.testing.assert_allclose(found, MIX.T @ MIX, atol=0.1 * np.abs(MIX.T @ MIX).max())


def test_parts_with_many_values_are_regressed_on() -> None:
    """A clock and the weather, whose effect is not linear and differs by the hour."""
    hour, weather = RNG.integers(6, size=STATES), RNG.uniform(-1.0, 1.0, STATES)
    own = 0.1 * RNG.standard_normal((STATES, 1))
    features = own + np.where(hour % 2, np.abs(weather), 3.0 * weather)[:, None]
    found = within_covariance(features, np.stack([hour, weather], axis=1))
    assert found[0, 0] == pytest.approx(0.01, rel=0.15)
    assert within_covariance(features, hour[:, None].astype(float))[0, 0] > 0.05


def test_a_feature_that_follows_from_the_parts_has_none() -> None:
    week = RNG.permutation(np.arange(STATES) % 168).astype(float)
    features = np.stack([np.sin(week), RNG.standard_normal(STATES)], axis=1)
    found = within_covariance(features, week[:, None])
    assert abs(found[0]).max() < 1e-12
    assert found[1, 1] == pytest.approx(1.0, rel=0.1)


def test_states_that_cannot_be_compared_count_for_nothing() -> None:
    assert not within_covariance(np.ones((1, 2)), np.zeros((1, 1))).any()
    few = RNG.standard_normal((7, 2))
    assert np.linalg.eigvalsh(within_covariance(few, RNG.standard_normal((7, 3)))).min() > -1e-12
