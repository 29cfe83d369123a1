"""The bound that a new policy has to pass: it holds as often as it says, and pairing gives it power."""

import math

import numpy as np
import pytest
from scipy import stats

from cospan.core.decisions.paired_bound import LEAST_PAIRS, paired_bound, student_quantile


@pytest.mark.parametrize("freedom", [7, 10, 29, 200])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.95, 0.99])
def test_the_quantile_is_students(freedom: int, probability: float) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-3)


def test_it_holds_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(0.3, 2.0, (4000, 30))
    below = np.mean([paired_bound(each, 0.95).lower <= 0.3 for each in draws])
    assert below == pytest.approx(0.95, abs=0.012)  # three and a half standard errors


def test_few_blocks_bound_nothing() -> None:
    found = paired_bound(np.ones(LEAST_PAIRS - 1), 0.95)
    assert (found.mean, found.lower, found.pairs) == (1.0, -math.inf, LEAST_PAIRS - 1)
    assert math.isnan(paired_bound(np.zeros(0), 0.95).mean)


@pytest.mark.parametrize("confidence", [0.5, 1.0, math.nan])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"must be above 0\.5 and below 1"):
        paired_bound(np.ones(10), confidence)
