"""Summaries of errors over agents and rounds, with unknown and infinite values left out."""

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Float


def normal_quantile(coverage: float) -> float:
    """z with P(|Z| ≤ z) = coverage of a standard normal variable, 0 < coverage < 1."""
    return NormalDist().inv_cdf((1.0 + coverage) / 2.0)


def student_quantile(coverage: float, freedom: int) -> float:
    """The same of Student's t with ν degrees of freedom, 7 or more, from its expansion in 1 / ν.

    Four terms (Abramowitz and Stegun 1964, 26.7.5): at ν = 7 within 0.1 % up to a coverage of 0.99.
    """
    z, n = normal_quantile(coverage), float(freedom)
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    fourth = (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0
    return z + first / n + second / n**2 + third / n**3 + fourth / n**4


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


def median_of(values: Float[np.ndarray, " n"]) -> float | None:
    """The same of an array, whose unknown values are not finite, for thousands of agents at once."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None


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
