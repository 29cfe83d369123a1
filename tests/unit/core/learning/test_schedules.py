"""Step decay and averaged iterates against their closed forms."""

import itertools

import numpy as np
import pytest
from values import read_only

from cospan.core.learning.schedules import AveragedIterate, decay


def test_decay_by_hand() -> None:
    assert decay(0, 2000.0, 0.7) == 1.0
    assert decay(6000, 2000.0, 0.5) == 0.5
    assert decay(2000, 2000.0, 1.0) == 0.5
    assert decay(3, 1.0, 0.0) == 1.0


def test_no_horizon_is_no_decay() -> None:
    assert decay(10**9, 0.0, 1.0) == 1.0
    assert decay(0, 0.0, 0.7) == 1.0


def test_decay_falls_and_stays_above_zero() -> None:
    values = [decay(steps, 50.0, 0.7) for steps in range(0, 10_000, 100)]
    assert all(later < earlier for earlier, later in itertools.pairwise(values))
    assert values[-1] > 0.0


@pytest.mark.parametrize("count", [1, 2, 3, 10, 57])
def test_average_has_weights_that_grow_like_the_cube(count: int) -> None:
    """Unrolling the recursion gives the j-th iterate the weight 4 j (j+1) (j+2) / (k (k+1) (k+2) (k+3))."""
    iterates = np.random.default_rng(count).standard_normal((count, 2, 3))
    average = AveragedIterate(mean=read_only(np.zeros((2, 3))))
    for value in iterates:
        average = average.updated(read_only(value))
    k = count
    weights = np.array([4.0 * j * (j + 1) * (j + 2) / (k * (k + 1) * (k + 2) * (k + 3)) for j in range(1, k + 1)])
    assert weights.sum() == pytest.approx(1.0, rel=1e-13)
    np.testing.assert_allclose(average.mean, np.einsum("j,jab->ab", weights, iterates), atol=1e-13)
    assert average.count == count


def test_the_start_does_not_count() -> None:
    average = AveragedIterate(mean=np.full(2, 1e6)).updated(np.array([1.0, -2.0]))
    np.testing.assert_array_equal(average.mean, [1.0, -2.0])


def test_the_average_of_a_constant_is_the_constant() -> None:
    average = AveragedIterate(mean=np.zeros(1))
    for _ in range(100):
        average = average.updated(np.array([3.5]))
    assert average.mean[0] == pytest.approx(3.5, rel=1e-14)


def test_the_last_half_has_nearly_all_the_weight() -> None:
    """15/16 in the limit: 1 − (1/2)⁴."""
    average = AveragedIterate(mean=np.zeros(1))
    for index in range(2000):
        average = average.updated(np.array([1.0 if index >= 1000 else 0.0]))
    assert average.mean[0] == pytest.approx(15 / 16, abs=2e-3)


@pytest.mark.parametrize("power", [0.0, 15.0])
def test_other_powers(power: float) -> None:
    """η = 0 is the plain mean; 1 − (7/8)¹⁶ of the weight is in the last eighth with η = 15."""
    average = AveragedIterate(mean=np.zeros(1), power=power)
    for index in range(4000):
        average = average.updated(np.array([1.0 if index >= 3500 else 0.0]))
    assert average.mean[0] == pytest.approx(1.0 - (7.0 / 8.0) ** (power + 1.0), abs=2e-3)


def test_an_average_is_not_changed_by_going_on() -> None:
    first = AveragedIterate(mean=np.zeros(1)).updated(np.array([1.0]))
    first.updated(np.array([9.0]))
    assert first.mean[0] == 1.0
    assert first.count == 1
