"""The samplers against the probabilities that they are to have: chi-square tests of fixed seeds."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from cospan.core.privacy.discrete_gaussian import MAX_SCALE, bernoulli_exp, discrete_gaussian, discrete_laplace
from cospan.core.privacy.word_source import SeededWords

SAMPLES = 40_000
LEAST_P = 0.01


class ListedWords:
    """The words of a list, one after the other."""

    def __init__(self, words: Sequence[int]) -> None:
        self.left = list(words)

    def words(self, count: int) -> np.ndarray:
        taken, self.left = self.left[:count], self.left[count:]
        return np.array(taken, dtype=np.uint64)


def whole(value: int, count: int = SAMPLES) -> np.ndarray:
    return np.full(count, value, dtype=np.int64)


def p_value(samples: np.ndarray, probabilities: np.ndarray, last: int) -> float:
    """That of −last … last, with all that is farther out in the two outermost cells."""
    counts = np.bincount(np.clip(samples, -last, last) + last, minlength=2 * last + 1)
    return float(chisquare(counts, probabilities / probabilities.sum() * len(samples)).pvalue)


def cells(weights: np.ndarray, last: int) -> np.ndarray:
    """Probabilities of the cells of `p_value`, from weights of −far … far."""
    middle = len(weights) // 2
    inner = weights[middle - last : middle + last + 1].copy()
    inner[0] += weights[: middle - last].sum()
    inner[-1] += weights[middle + last + 1 :].sum()
    return inner


@pytest.mark.parametrize(("a", "b"), [(0, 7), (1, 1), (3, 8), (9, 4), (5, 2), (2**40, 2**42)])
def test_events_of_probability_exp(a: int, b: int) -> None:
    came = int(bernoulli_exp(whole(a), whole(b), SeededWords(a + b)).sum())
    probability = math.exp(-a / b)
    if probability == 1.0:
        assert came == SAMPLES
    else:
        expected = np.array([probability, 1.0 - probability]) * SAMPLES
        assert chisquare([came, SAMPLES - came], expected).pvalue > LEAST_P


@pytest.mark.parametrize("scale", [1, 2, 6])
def test_discrete_laplace(scale: int) -> None:
    samples = discrete_laplace(whole(scale), SeededWords(scale))
    weights = np.exp(-np.abs(np.arange(-400, 401)) / scale)
    last = 4 * scale
    assert p_value(samples, cells(weights, last), last) > LEAST_P


@pytest.mark.parametrize("scale", [1, 2, 5])
def test_discrete_gaussian(scale: int) -> None:
    samples = discrete_gaussian(whole(scale), SeededWords(10 + scale))
    weights = np.exp(-0.5 * (np.arange(-400, 401) / scale) ** 2)
    last = 3 * scale
    assert p_value(samples, cells(weights, last), last) > LEAST_P


def test_each_sample_has_its_own_scale() -> None:
    """Also where scales differ within a call, and at the largest, where it is normal to every digit."""
    scales = np.tile(np.array([1, 700, MAX_SCALE], dtype=np.int64), SAMPLES // 3)
    samples = discrete_gaussian(scales, SeededWords(5))
    for scale in (700, MAX_SCALE):
        own = samples[scales == scale]
        assert kstest(own / scale, "norm").pvalue > LEAST_P
        assert abs(float(np.mean(own % 2)) - 0.5) < 0.02  # the last digit is noise too
    weights = np.exp(-0.5 * np.arange(-40.0, 41.0) ** 2)
    assert p_value(samples[scales == 1], cells(weights, 3), 3) > LEAST_P


def test_samples_are_independent() -> None:
    samples = discrete_gaussian(whole(50), SeededWords(8)) / 50.0
    assert abs(float(np.mean(samples[1:] * samples[:-1]))) < 4.0 / math.sqrt(SAMPLES)


def test_the_last_words_are_drawn_again() -> None:
    """2^64 is no multiple of 3: the word 2^64 − 1 would make 0 come more often."""
    words = ListedWords([2**64 - 1, 4, 1])
    assert bernoulli_exp(whole(1, 1), whole(3, 1), words).tolist() == [True]  # 4 mod 3 = 1 is not below 1: k = 1
    assert words.left == [1]


@pytest.mark.parametrize("scale", [0, -1, MAX_SCALE + 1])
def test_scales_out_of_range(scale: int) -> None:
    with pytest.raises(ValueError, match="scale"):
        discrete_gaussian(np.array([2, scale], dtype=np.int64), SeededWords(0))


def test_no_scales_no_samples() -> None:
    assert discrete_gaussian(whole(1, 0), SeededWords(0)).shape == (0,)
