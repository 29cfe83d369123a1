"""Means, medians and slopes over several runs, with bootstrap intervals."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

CONFIDENCE = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number from several runs, and its 95 % bootstrap interval; None if unknown."""

    value: float
    low: float | None = None
    high: float | None = None


def interval(values: Float[np.ndarray, " n"]) -> tuple[float | None, float | None]:
    """The 95 % bootstrap interval of the mean (percentiles); None for fewer than two values, or one not finite."""
    from scipy.stats import bootstrap

    if len(values) < 2 or not np.isfinite(values).all():
        return None, None
    if np.ptp(values) == 0.0:
        return float(values[0]), float(values[0])
    found = bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def mean(values: Float[np.ndarray, " n"]) -> Estimate:
    """The mean over the runs."""
    return Estimate(float(np.mean(values)), *interval(np.asarray(values)))


def median_estimate(values: Float[np.ndarray, " n"]) -> Estimate:
    """The median, and its 95 % bootstrap interval (percentiles); none for fewer than two values."""
    values = np.asarray(values)
    if len(values) < 2:
        return Estimate(float(np.median(values)))
    drawn = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(np.median(values[drawn], axis=1), [tail, 100.0 - tail])
    return Estimate(float(np.median(values)), float(low), float(high))


def log_slope(x: Float[np.ndarray, " n"], y: Float[np.ndarray, "runs n"]) -> Estimate:
    """The slope of log y against log x by least squares, and its bootstrap interval over the runs (rows).

    The runs' logarithms are averaged, which is what the mean of their slopes does.
    """
    slopes = np.array([np.polyfit(np.log(x), np.log(row), 1)[0] for row in y])
    return mean(slopes)


def resampled(statistic: Callable[..., float], *runs: Float[np.ndarray, "seeds *shape"]) -> Estimate:
    """A number made of the means over the runs, and its bootstrap interval over the runs, drawn together.

    Args:
        statistic: of the means of each array over its first axis.
        runs: arrays with as many rows as there are seeds.
    """
    value, count = statistic(*(each.mean(axis=0) for each in runs)), len(runs[0])
    if count < 2:
        return Estimate(value)
    drawn = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
    found = [statistic(*(each[rows].mean(axis=0) for each in runs)) for rows in drawn]
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(found, [tail, 100.0 - tail])
    return Estimate(value, float(low), float(high))
