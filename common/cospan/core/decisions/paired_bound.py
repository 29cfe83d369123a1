"""A lower bound on the mean of paired differences: what a new policy has to pass."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

LEAST_PAIRS = 8
"""Fewer paired blocks bound nothing: their spread is not known."""


@dataclass(frozen=True, slots=True)
class PairedBound:
    """What paired blocks say of the gain of a new policy over that of the old one.

    Attributes:
        mean: of the differences, in the unit of the rewards.
        lower: the one-sided lower confidence bound of that mean; −inf of fewer than `LEAST_PAIRS` blocks.
        pairs: number of blocks.
    """

    mean: float
    lower: float
    pairs: int


def paired_bound(differences: Float[np.ndarray, " m"], confidence: float) -> PairedBound:
    """Student's bound, mean − t · s / √m, on the mean of m differences of the same blocks under two policies.

    Pairing is what gives it power: what both policies meet, as the weather of a day, is no noise of the difference.

    Args:
        differences: gain of the new policy less that of the old one, one for each block.
        confidence: one-sided, above 0.5 and below 1.

    Raises:
        ValueError: the confidence is out of its range.
    """
    if not 0.5 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; it must be above 0.5 and below 1")
    pairs = len(differences)
    if not pairs:
        return PairedBound(math.nan, -math.inf, 0)
    mean = float(differences.mean())
    if pairs < LEAST_PAIRS:
        return PairedBound(mean, -math.inf, pairs)
    spread = float(differences.std(ddof=1)) / math.sqrt(pairs)
    return PairedBound(mean, mean - student_quantile(confidence, pairs - 1) * spread, pairs)


def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t with ν degrees of freedom, 7 or more, by its expansion in 1 / ν.

    Four terms (Abramowitz and Stegun 1964, 26.7.5): within 0.1 % at ν = 7 up to a probability of 0.995.
    """
    z, n = NormalDist().inv_cdf(probability), float(freedom)
    terms = (
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
        (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0,
    )
    return z + sum(term / n**power for power, term in enumerate(terms, start=1))
