"""What TD errors depend on beyond the features: found where there is something, and nothing where there is not."""

import numpy as np
import pytest

from cospan.core.quality.feature_tests import PERIODS, bins_of, bins_of_time, feature_tests, is_significant

STATES = 2000


def verdicts(errors: np.ndarray, features: np.ndarray, *parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = feature_tests(errors, features, [bins_of(part) for part in parts])
    return is_significant(found[0]), found[1]


def test_a_part_that_the_features_lack_is_found_and_a_useless_one_is_not() -> None:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((STATES, 5))
    weather, useless = rng.uniform(size=STATES), rng.uniform(size=STATES)
    errors = rng.standard_normal(STATES) + (weather > 0.5) + features @ np.arange(5.0)
    significant, share = verdicts(errors, features, weather, useless)
    assert significant.tolist() == [True, False]
    assert share[0] == pytest.approx(0.2, rel=0.25)
    assert share[1] < 0.01


def test_what_follows_from_the_features_is_not_tested() -> None:
    rng = np.random.default_rng(2)
    hour = rng.integers(4, size=STATES)
    features = np.eye(4)[hour][:, 1:]
    errors = rng.standard_normal(STATES) + 5.0 * hour
    significant, share = verdicts(errors, features, hour.astype(float))
    assert not significant.any()
    assert np.isnan(share).all()


def test_errors_whose_variance_depends_on_the_part_are_no_false_alarm() -> None:
    """Heavy tails as well, as TD errors have them; one in a thousand is expected."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(60):
        features, part = rng.standard_normal((STATES, 8)), rng.uniform(size=STATES)
        errors = rng.standard_t(4, STATES) * (0.2 + 3.0 * part)
        alarms += int(verdicts(errors, features, part, rng.integers(2, size=STATES).astype(float))[0].sum())
    assert alarms <= 1


def test_too_few_states_and_errors_that_are_not_finite_tell_nothing() -> None:
    rng = np.random.default_rng(4)
    assert np.isnan(feature_tests(rng.standard_normal(20), rng.standard_normal((20, 15)), [np.arange(20)])).all()
    assert np.isnan(feature_tests(np.full(100, np.nan), np.ones((100, 1)), [np.arange(100) % 2])).all()
    assert np.isnan(feature_tests(np.zeros(0), np.zeros((0, 3)), [])).all()
    assert not is_significant(np.full((2, 3), np.nan)).any()


def test_time_is_divided_by_periods_that_the_steps_hold_often_enough() -> None:
    bins = bins_of_time(np.arange(24 * 30))
    assert set(bins) == {period for period in PERIODS if period * 8 <= 24 * 30}
    assert bins[7][:8].tolist() == [0, 1, 2, 3, 4, 5, 6, 0]
    assert bins[24].max() == 11
    assert bins_of_time(np.zeros(0, dtype=np.intp)) == {}
    assert bins_of(np.array([3.0, 1.0, 3.0])).tolist() == [1, 0, 1]
    assert np.bincount(bins_of(np.arange(240.0))).tolist() == [20] * 12
