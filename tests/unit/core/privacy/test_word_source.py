"""Sources of random words."""

import numpy as np
from scipy.stats import chisquare

from cospan.core.privacy.word_source import SeededWords, SystemWords


def test_words_of_the_system_are_64_bits_and_never_the_same() -> None:
    source = SystemWords()
    first, second = source.words(64), source.words(64)
    assert first.dtype == np.uint64
    assert not set(first.tolist()) & set(second.tolist())
    assert (np.bitwise_or.reduce(first), np.bitwise_and.reduce(first)) == (2**64 - 1, 0)  # every bit is used
    assert source.words(0).shape == (0,)


def test_words_of_a_seed_follow_from_it() -> None:
    assert np.array_equal(SeededWords(3).words(9), SeededWords(3).words(9))
    assert not np.array_equal(SeededWords(3).words(9), SeededWords(4).words(9))


def test_words_of_a_seed_are_uniform() -> None:
    counts = np.bincount(SeededWords(1).words(20_000).view(np.uint8), minlength=256)
    assert chisquare(counts).pvalue > 0.01
