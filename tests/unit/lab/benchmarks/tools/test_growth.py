"""Exponents of power laws, and the terms of a sum of costs."""

import numpy as np
import pytest
from scipy import stats

from cospan.benchmarks.tools.growth import exponent, shares


def test_the_exponent_of_a_power_law() -> None:
    x = np.array([1.0, 10.0, 100.0, 1000.0])
    exact = exponent(x, 3.0 * x**1.5)
    assert exact.value == pytest.approx(1.5)
    assert (exact.low, exact.high) == (pytest.approx(1.5), pytest.approx(1.5))


def test_the_interval_of_an_exponent_is_that_of_student() -> None:
    """Against scipy's regression, whose standard error is the same by another way."""
    x = np.array([1.0, 2.0, 5.0, 9.0, 30.0])
    y = x * np.array([1.0, 1.3, 0.9, 1.2, 0.8])
    expected = stats.linregress(np.log(x), np.log(y))
    margin = stats.t.ppf(0.975, 3) * expected.stderr
    found = exponent(x, y)
    assert found.value == pytest.approx(expected.slope)
    assert found.high == pytest.approx(expected.slope + margin, rel=1e-3)
    assert found.low == pytest.approx(expected.slope - margin, rel=1e-3)


def test_what_a_sum_of_costs_consists_of() -> None:
    terms = np.array([[1.0, 8.0, 2.0], [1.0, 32.0, 7.0], [1.0, 128.0, 1.0], [1.0, 512.0, 5.0], [1.0, 9.0, 30.0]])
    np.testing.assert_allclose(shares(terms, terms @ [50.0, 3.0, 0.5]), [50.0, 3.0, 0.5], rtol=1e-9)
    found = shares(terms, terms @ [50.0, 3.0, -0.5])
    assert found[2] == 0.0, "nothing costs less than nothing"
    assert found[0] > 0.0
    assert found[1] == pytest.approx(3.0, rel=0.1)
