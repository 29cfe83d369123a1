"""Exact samples of the discrete Gaussian distribution, by integer arithmetic alone.

P(x) ∝ exp(−x² / 2s²) over all integers x. Canonne, Kamath and Steinke 2020, "The discrete Gaussian for
differential privacy" (arXiv:2004.00010), algorithms 1 to 3, for many samples at once. No number is rounded, so the
distribution is exact; samplers in floating point have been attacked through the values that they cannot give
(Mironov 2012). How long a call takes depends on what it draws.
"""

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from cospan.core.privacy.word_source import WordSource

MAX_SCALE = 2**20
"""The largest s: every product below is then far below 2^63."""


def discrete_gaussian(scales: Int64[np.ndarray, " m"], source: WordSource) -> Int64[np.ndarray, " m"]:
    """One sample of each scale s, from 1 to `MAX_SCALE`; its variance is s² for s ≥ 4, to 17 digits.

    A discrete Laplace y of scale s is accepted with probability exp(−(|y| − s)² / 2s²) (algorithm 3 with t = s).

    Raises:
        ValueError: a scale is out of its range.
    """
    if scales.size and not (scales.min() >= 1 and scales.max() <= MAX_SCALE):
        raise ValueError(f"a scale is not from 1 to {MAX_SCALE}")
    found = np.empty(len(scales), dtype=np.int64)
    missing = np.arange(len(scales))
    while missing.size:
        own = scales[missing]
        drawn = discrete_laplace(own, source)
        far = np.abs(drawn) - own
        kept = bernoulli_exp(far * far, 2 * own * own, source)
        found[missing[kept]] = drawn[kept]
        missing = missing[~kept]
    return found


def discrete_laplace(scales: Int64[np.ndarray, " m"], source: WordSource) -> Int64[np.ndarray, " m"]:
    """One sample of each scale t: P(x) ∝ exp(−|x| / t) over all integers (algorithm 2)."""
    found = np.empty(len(scales), dtype=np.int64)
    missing = np.arange(len(scales))
    while missing.size:
        own = scales[missing]
        rest = _uniform_below(own, source)
        kept = bernoulli_exp(rest, own, source)
        size = rest + own * _successes(len(own), source)
        negative = (source.words(len(own)) & np.uint64(1)).astype(np.bool_)
        kept &= ~(negative & (size == 0))  # or 0 would come twice as often
        found[missing[kept]] = np.where(negative, -size, size)[kept]
        missing = missing[~kept]
    return found


def bernoulli_exp(
    numerators: Int64[np.ndarray, " m"], denominators: Int64[np.ndarray, " m"], source: WordSource
) -> Bool[np.ndarray, " m"]:
    """Each true with probability exp(−a/b), a ≥ 0 and 1 ≤ b ≤ 2^42 (algorithm 1)."""
    whole, rest = np.divmod(numerators, denominators)
    alive = _bernoulli_exp_of_fraction(rest, denominators, source)
    while (due := (alive & (whole > 0)).nonzero()[0]).size:
        one = np.ones(len(due), dtype=np.int64)
        alive[due] = _bernoulli_exp_of_fraction(one, one, source)
        whole[due] -= 1
    return alive


def _bernoulli_exp_of_fraction(
    numerators: Int64[np.ndarray, " m"], denominators: Int64[np.ndarray, " m"], source: WordSource
) -> Bool[np.ndarray, " m"]:
    """exp(−γ) for γ = a/b ≤ 1: the first k at which an event of probability γ/k fails is odd."""
    odd = np.zeros(len(numerators), dtype=np.bool_)
    running, k = np.arange(len(numerators)), 1
    while running.size:
        passed = _uniform_below(denominators[running] * k, source) < numerators[running]
        odd[running[~passed]] = k % 2 == 1
        running, k = running[passed], k + 1
    return odd


def _successes(count: int, source: WordSource) -> Int64[np.ndarray, " count"]:
    """How many events of probability exp(−1) come true before the first that does not."""
    number = np.zeros(count, dtype=np.int64)
    running = np.arange(count)
    while running.size:
        one = np.ones(len(running), dtype=np.int64)
        running = running[_bernoulli_exp_of_fraction(one, one, source)]
        number[running] += 1
    return number


def _uniform_below(bounds: Int64[np.ndarray, " m"], source: WordSource) -> Int64[np.ndarray, " m"]:
    """Each uniform over 0 to its bound less 1: words of the last, incomplete run of the bound are drawn again."""
    limits: UInt64[np.ndarray, " m"] = bounds.astype(np.uint64)
    words = source.words(len(limits))
    if (words > ~limits).any():  # hardly ever: no word below is of an incomplete run, and a division takes long
        last = ~((np.uint64(0) - limits) % limits)  # 2^64 − 1 − (2^64 mod bound)
        while (over := np.flatnonzero(words > last)).size:
            words[over] = source.words(len(over))
    return np.asarray(words % limits).view(np.int64)
