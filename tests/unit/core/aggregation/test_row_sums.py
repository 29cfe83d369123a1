"""Row sums as they are sent: in which rounds, how coarse, and that they scale with the features."""

from dataclasses import replace

import numpy as np
import pytest

from cospan.core.aggregation.row_sums import coarse
from cospan.core.method import full_history, takes_pooled

RNG = np.random.default_rng(3)


def test_they_are_sent_in_rounds_that_grow_by_a_quarter() -> None:
    sent = [number for number in range(100) if takes_pooled(number)]
    assert sent == [0, 1, 2, 3, 4, 5, 7, 9, 12, 15, 19, 24, 30, 38, 48, 60, 75, 94]
    assert sum(map(takes_pooled, range(10_000))) == 38


def test_a_warm_up_is_not_counted() -> None:
    warming = replace(full_history(5), warm_up_rounds=4)
    assert [t for t in range(12) if warming.sends_pooled_in(t)] == [4, 5, 6, 7, 8, 9, 11]


@pytest.mark.parametrize("shape", [(7,), (3, 7)])
def test_each_is_one_multiple_of_the_root_mean_square_times_a_power_of_two(shape: tuple[int, ...]) -> None:
    exact = RNG.random(shape) ** 3
    sent = coarse(exact)
    scales = 3.0 / np.pi * np.sqrt((exact**2).mean(axis=-1, keepdims=True))
    powers = np.log2(sent / scales)
    np.testing.assert_allclose(powers, np.rint(powers), atol=1e-12)
    seldom = exact < scales / 256.0
    np.testing.assert_allclose(sent[seldom], np.broadcast_to(scales, shape)[seldom] / 256.0, rtol=1e-12)
    ratios = (sent / exact)[~seldom]
    assert ratios.max() <= np.sqrt(2.0) * (1 + 1e-12)
    assert ratios.min() >= np.sqrt(0.5) * (1 - 1e-12)


def test_counts_that_are_near_each_other_look_alike() -> None:
    assert len(set(coarse(np.array([25.0, 28.0, 30.0, 31.0, 33.0])))) == 1


def test_a_count_between_two_powers_of_two_is_rounded_alike_in_every_unit() -> None:
    counts = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 1.0])  # the first is √2 times the root mean square
    for factor in np.random.default_rng(3).uniform(1e-3, 1e3, 50):
        np.testing.assert_allclose(coarse(factor * counts), factor * coarse(counts), rtol=1e-12)


@pytest.mark.parametrize("factor", [1e-24, 0.37, 1e6, 2.0**-70])
def test_they_scale_as_the_exact_ones_do(factor: float) -> None:
    exact = RNG.random((5, 9))
    np.testing.assert_allclose(coarse(factor * exact), factor * coarse(exact), rtol=1e-14)


def test_nothing_seen_is_nothing_sent() -> None:
    np.testing.assert_array_equal(coarse(np.zeros((2, 3))), np.zeros((2, 3)))


def test_a_stack_is_what_each_is_alone() -> None:
    exact = RNG.random((4, 33))
    np.testing.assert_array_equal(coarse(exact), np.stack([coarse(each) for each in exact]))
