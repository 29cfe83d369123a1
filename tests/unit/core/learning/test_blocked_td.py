"""Many head updates at once are the head updates one after another."""

import numpy as np
import pytest

from cospan.core.learning.blocked_td import BLOCK, blocks, discounted_sums, gain_path, successive_errors
from cospan.core.learning.td import gain_update


@pytest.mark.parametrize("steps", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK])
def test_blocks_cover_every_step_once_and_in_order(steps: int) -> None:
    covered = [index for block in blocks(steps) for index in range(block.start, block.stop)]
    assert covered == list(range(steps))
    assert all(block.stop - block.start <= BLOCK for block in blocks(steps))


def test_errors_by_hand() -> None:
    """c = (1, 2, 3), N = ((·, ·, ·), (2, ·, ·), (−1, 3, ·)): δ = 1, 2 + 2·1 = 4, 3 − 1 + 3·4 = 14."""
    influence = np.array([[9.0, 9.0, 9.0], [2.0, 9.0, 9.0], [-1.0, 3.0, 9.0]])
    np.testing.assert_allclose(
        successive_errors(np.array([1.0, 2.0, 3.0]), influence), [1.0, 4.0, 14.0], rtol=1e-14
    )


def test_several_systems_at_once_are_each_on_its_own() -> None:
    rng = np.random.default_rng(4)
    first, influence = rng.standard_normal((3, 7)), rng.standard_normal((3, 7, 7))
    together = successive_errors(first, influence)
    for index in range(3):
        np.testing.assert_allclose(together[index], successive_errors(first[index], influence[index]), rtol=1e-12)
        loop: list[float] = []
        for step in range(7):
            loop.append(float(first[index, step] + influence[index, step, :step] @ np.array(loop)))
        np.testing.assert_allclose(together[index], loop, rtol=1e-9)


def test_errors_that_grow_past_all_bounds_are_still_those_of_the_loop() -> None:
    """A diverging step makes the system look singular to an elimination with pivots; it never is."""
    first, influence = np.ones(3), np.full((3, 3), 1e200)
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.solve(np.eye(3) - np.tril(influence, -1), first)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(successive_errors(first, influence), [1.0, 1e200, np.inf])


def test_the_gains_are_those_of_one_update_after_another() -> None:
    rewards, steps = np.array([1.0, -2.0, 3.0]), np.array([0.1, 0.2, 0.3])
    path = gain_path(0.5, rewards, steps)
    estimate, expected = 0.5, [0.5]
    for reward, step in ((1.0, 0.1), (-2.0, 0.2), (3.0, 0.3)):
        estimate = gain_update(estimate, reward, step)
        expected.append(estimate)
    np.testing.assert_array_equal(path, expected)
    both = gain_path(np.array([0.5, 0.0]), np.stack([rewards, -rewards]), steps)
    np.testing.assert_array_equal(both[0], expected)
    np.testing.assert_array_equal(both[1], gain_path(0.0, -rewards, steps))


@pytest.mark.parametrize("decay", [0.0, 0.75, 0.999])
@pytest.mark.parametrize("steps", [1, BLOCK, 3 * BLOCK + 7])
def test_discounted_sums_are_those_of_the_loop(decay: float, steps: int) -> None:
    values = np.random.default_rng(8).standard_normal((steps, 3))
    sums, current = discounted_sums(values, decay), np.zeros(3)
    for step in range(steps):
        current = decay * current + values[step]
        np.testing.assert_allclose(sums[step], current, rtol=1e-11, atol=1e-12)
