"""What a study makes of the numbers of its runs: means, intervals, slopes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

CONFIDENCE = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number from several runs, and its 95 % bootstrap interval; None where there is none."""

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


def known(value: float) -> float | None:
    """A finite number, or None."""
    return float(value) if math.isfinite(value) else None


def best(errors: Float[np.ndarray, " m"]) -> float | None:
    """The smallest of the errors of several step sizes, one that diverged left out; None where none is known."""
    finite = errors[np.isfinite(errors)]
    return float(finite.min()) if finite.size else None


def median(values: Iterable[float | None]) -> float | None:
    """The median of those that are known; None where none is."""
    numbers = [value for value in values if value is not None]
    return float(np.median(numbers)) if numbers else None


def best_of_rows(errors: Float[np.ndarray, "rounds m"]) -> Float[np.ndarray, " rounds"]:
    """The smallest error of each round, those that are not finite left out; not finite where none is left."""
    if not errors.size:
        return np.full(len(errors), np.nan)
    return np.asarray(np.where(np.isfinite(errors), errors, np.inf).min(axis=1))


def medians_by_round(rounds: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> dict[int, float]:
    """The median over the agents of what is known of each round, for thousands of agents at once."""
    pairs = [(number[: len(value)], value[: len(number)]) for number, value in zip(rounds, values, strict=True)]
    if not pairs:
        return {}
    numbers, errors = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    finite = np.isfinite(errors)
    numbers, errors = numbers[finite], errors[finite]
    ordered = errors[np.lexsort((errors, numbers))]
    present, counts = np.unique(numbers, return_counts=True)
    starts = np.cumsum(counts) - counts
    middles = 0.5 * (ordered[starts + (counts - 1) // 2] + ordered[starts + counts // 2])
    return dict(zip(present.tolist(), middles.tolist(), strict=True))
