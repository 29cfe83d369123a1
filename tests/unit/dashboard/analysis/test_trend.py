"""Whether a run still learns."""

import numpy as np
import pytest

from cospan.dashboard.analysis.trend import PriorSnapshots, error_trend, movement_trend, prior_change
from cospan.dashboard.series import Round, RoundSeries

RNG = np.random.default_rng(5)
BASIS = np.linalg.qr(RNG.normal(size=(9, 4)))[0]
COVARIANCE = np.diag([2.0, 1.0, 0.5, 0.0])


def test_the_change_of_the_prior_is_that_of_the_matrices() -> None:
    other, weights = np.linalg.qr(RNG.normal(size=(9, 4)))[0], np.diag([1.0, 0.25, 0.1, 0.3])
    old, new = BASIS @ COVARIANCE @ BASIS.T, other @ weights @ other.T
    expected = np.linalg.norm(new - old) / np.linalg.norm(new)
    assert prior_change((BASIS, COVARIANCE), (other, weights)) == pytest.approx(expected)
    assert prior_change((BASIS, COVARIANCE), (BASIS, COVARIANCE)) == pytest.approx(0.0, abs=1e-7)


def test_directions_that_are_switched_off_do_not_count() -> None:
    """The movement of the whole basis would be a right angle."""
    turned = BASIS.copy()
    rest = RNG.normal(size=9)
    rest -= BASIS @ (BASIS.T @ rest)
    turned[:, 3] = rest / np.linalg.norm(rest)
    assert prior_change((BASIS, COVARIANCE), (turned, COVARIANCE)) == pytest.approx(0.0, abs=1e-7)


def test_the_newest_prior_is_compared_with_that_of_the_middle() -> None:
    snapshots = PriorSnapshots()
    for number in range(1, 1001):
        snapshots.note(number, BASIS, COVARIANCE * (1.0 if number < 800 else 2.0))
    trend = snapshots.trend(1000, BASIS, 2.0 * COVARIANCE)
    assert trend is not None
    assert 300 <= trend.since <= 700
    assert trend.change == pytest.approx(0.5)
    assert PriorSnapshots().trend(1000, BASIS, COVARIANCE) is None


def run_of(values: list[float | None]) -> RoundSeries:
    series = RoundSeries()
    for number, value in enumerate(values):
        series.add(Round(number, 0.1, 1, 1.0 / (number + 1), {"value_error": value}))
    return series


def test_errors_are_compared_with_those_of_the_middle() -> None:
    trend = error_trend(run_of([1.0 / (number + 1) for number in range(101)]))
    assert trend is not None
    assert (trend.since, trend.then, trend.now) == (50, 1.0 / 51, 1.0 / 101)
    assert trend.change == pytest.approx(0.5, abs=0.01)
    assert error_trend(run_of([None] * 100)) is None
    assert error_trend(run_of([1.0, 0.5, 0.25])) is None, "too early"


def test_the_movement_is_compared_between_quarters() -> None:
    trend = movement_trend(run_of([None] * 100))
    assert trend is not None
    assert trend.what == "movement"
    assert 0.0 < trend.change < 1.0
