"""Estimates with their intervals, and slopes."""

import numpy as np
import pytest

from cospan.experiments.estimates import log_slope, median_estimate


def test_a_median_has_an_interval_that_holds_it_and_is_the_same_every_time() -> None:
    values = np.random.default_rng(1).standard_normal(101)
    found = median_estimate(values)
    assert found == median_estimate(values)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value == np.median(values) < found.high
    assert median_estimate(values[:1]).low is None


def test_the_slope_of_a_power_is_its_exponent() -> None:
    x = np.array([4.0, 8.0, 16.0])
    slope = log_slope(x, np.stack([3.0 / x, 5.0 / x]))
    assert slope.value == pytest.approx(-1.0, abs=1e-12)
    assert slope.low == pytest.approx(-1.0, abs=1e-12)
