"""Quantiles, against printed tables."""

import numpy as np
import pytest

from cospan.core.statistics import median, median_of, normal_quantile, student_quantile


@pytest.mark.parametrize(("coverage", "z"), [(0.5, 0.67449), (0.9, 1.64485), (0.95, 1.95996), (0.99, 2.57583)])
def test_the_normal_distribution(coverage: float, z: float) -> None:
    assert normal_quantile(coverage) == pytest.approx(z, abs=1e-5)


@pytest.mark.parametrize(
    ("coverage", "freedom", "t"),
    [
        (0.9, 7, 1.8946),
        (0.95, 7, 2.3646),
        (0.99, 7, 3.4995),
        (0.9, 15, 1.7531),
        (0.95, 30, 2.0423),
        (0.5, 7, 0.7111),
    ],
)
def test_students_t(coverage: float, freedom: int, t: float) -> None:
    """Abramowitz and Stegun 1964, table 26.10."""
    assert student_quantile(coverage, freedom) == pytest.approx(t, rel=1e-3)


def test_many_degrees_of_freedom_are_the_normal_distribution() -> None:
    assert student_quantile(0.9, 10**6) == pytest.approx(normal_quantile(0.9), rel=1e-5)


@pytest.mark.parametrize("values", [[], [np.nan, np.inf], [3.0, np.nan, 1.0, -np.inf, 2.0], [4.0, 1.0]])
def test_the_median_of_an_array_is_that_of_its_known_values(values: list[float]) -> None:
    assert median_of(np.array(values)) == median(value for value in values if np.isfinite(value))
