"""Whether TD errors depend on what the features do not hold: on a part of the observation, or on the time.

At the TD fixed point no TD error can be predicted from the features: E[δ φ] = 0. If the features hold the value
function, nothing else that is known at that time predicts one either. So indicators of a part's values, less what
the features and a constant explain of them, must not be correlated with δ: a score test, robust to a variance of δ
that depends on the state (White 1980, "A heteroskedasticity-consistent covariance matrix estimator").
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

PERIODS = (7, 12, 24, 48, 96, 168)
"""In environment steps: remainders of the time by these are tried as the observation's parts are."""
_MOST_BINS = 12
_FEWEST_IN_BIN = 30
_FEWEST_PERIODS = 8
_IN_SPAN = 1e-3
"""Of the length of an indicator, what is left of it below this follows from the features."""
LEVEL = 1e-3
"""Of all tests of one agent together (Bonferroni)."""


def bins_of(values: Float[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """A number for each value: of equal ones where they are few, else of those between two quantiles."""
    distinct, places = np.unique(values, return_inverse=True)
    if len(distinct) <= _MOST_BINS:
        return np.asarray(places.reshape(-1), dtype=np.intp)
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, _MOST_BINS + 1)[1:-1]))
    return np.searchsorted(edges, values, side="right").astype(np.intp)


def bins_of_time(steps: Int[np.ndarray, " m"]) -> dict[int, Int[np.ndarray, " m"]]:
    """For each of `PERIODS` that the steps hold eight times, equal parts of the period."""
    span = int(steps.max() - steps.min()) + 1 if len(steps) else 0
    return {
        period: (steps % period) * min(period, _MOST_BINS) // period
        for period in PERIODS
        if span >= _FEWEST_PERIODS * period
    }


def feature_tests(
    errors: Float[np.ndarray, " m"], features: Float[np.ndarray, "m d"], bins: Sequence[Int[np.ndarray, " m"]]
) -> Float[np.ndarray, "2 c"]:
    """For each set of bins how far the score test is from chance, in standard deviations; and the share explained.

    The share is that of the TD errors' variance which the bins explain beyond the features, less what chance does.
    Both are nan where the bins follow from the features, or hold too few states.

    Args:
        errors: δ, with any weights: what the features explain of them is taken out.
        features: φ of the same states.
        bins: numbers from 0 on.
    """
    count, found = len(errors), np.full((2, len(bins)), np.nan)
    if not (count and np.isfinite(errors).all()):
        return found
    frame = np.linalg.qr(np.concatenate([np.ones((count, 1)), features], axis=1))[0]
    free = count - frame.shape[1]
    if free < count // 2:
        return found
    left = (errors - frame @ (frame.T @ errors)) * np.sqrt(count / free)
    total = float(left @ left)
    for place, each in enumerate(bins):
        sizes = np.bincount(each)
        chosen = np.flatnonzero(sizes >= _FEWEST_IN_BIN)
        if len(chosen) < 2 or total <= 0.0:
            continue
        indicators = (each[:, None] == chosen[None, :]) / np.sqrt(sizes[chosen])
        beyond = indicators - frame @ (frame.T @ indicators)
        axes, lengths, _ = np.linalg.svd(beyond, full_matrices=False)
        axes = axes[:, lengths > _IN_SPAN]
        if not axes.shape[1]:
            continue
        scores, covariance = axes.T @ left, (axes * left[:, None] ** 2).T @ axes
        statistic = float(scores @ np.linalg.lstsq(covariance, scores, rcond=None)[0])
        found[0, place] = _deviations(statistic, axes.shape[1])
        found[1, place] = max(0.0, float(scores @ scores - np.trace(covariance))) / total
    return found


def is_significant(deviations: Float[np.ndarray, "*n c"]) -> np.ndarray:
    """Which tests of each agent are beyond chance, at `LEVEL` for all of them together; of bool."""
    tried = np.maximum(np.isfinite(deviations).sum(axis=-1, keepdims=True), 1)
    bounds = {int(count): NormalDist().inv_cdf(1.0 - LEVEL / count) for count in np.unique(tried)}
    return np.asarray(deviations > np.vectorize(bounds.__getitem__, otypes=[np.float64])(tried))


def _deviations(statistic: float, freedom: int) -> float:
    """A χ² with its degrees of freedom as standard normal deviations (Wilson and Hilferty 1931)."""
    scale = 2.0 / (9.0 * freedom)
    return float((np.cbrt(statistic / freedom) - (1.0 - scale)) / np.sqrt(scale))
