"""The sum of contributions: what a relay sends in place of what its agents sent."""

import numpy as np
import pytest

from cospan.core.aggregation.basis_update import Contribution, aggregate
from cospan.core.aggregation.partial_sums import sum_of_contributions
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, to_dense
from cospan.core.method import practical


def some(count: int, d: int = 5, r: int = 2, seed: int = 3) -> list[Contribution]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        head = rng.normal(size=r)
        gradient = (
            DenseMatrix(rng.normal(size=(d, r)))
            if number % 2
            else FactoredMatrix(rng.normal(size=(d, 1)), rng.normal(size=(r, 1)))
        )
        made.append(Contribution(gradient, 1.0 + number, np.outer(head, head), rng.random(d)))
    return made


def test_sums_of_parts_come_to_the_aggregate_of_all() -> None:
    parts, method = some(7), practical(3)
    whole = aggregate(parts, method)
    halves = aggregate([sum_of_contributions(parts[:3]), sum_of_contributions(parts[3:])], method)
    np.testing.assert_allclose(halves.gradient, whole.gradient, rtol=1e-14, atol=1e-15)
    assert (whole.row_sums is None) == (halves.row_sums is None)
    if whole.row_sums is not None:
        np.testing.assert_allclose(halves.row_sums, whole.row_sums, rtol=1e-14)
    assert sum_of_contributions(parts).weight == sum(part.weight for part in parts)


def test_moments_and_row_sums_are_summed_likewise() -> None:
    parts = some(4)
    total = sum_of_contributions(parts)
    moments = [part.head_second_moment for part in parts if part.head_second_moment is not None]
    rows = [part.row_sums for part in parts if part.row_sums is not None]
    assert total.head_second_moment is not None
    assert total.row_sums is not None
    np.testing.assert_array_equal(total.head_second_moment, ((moments[0] + moments[1]) + moments[2]) + moments[3])
    np.testing.assert_array_equal(total.row_sums, ((rows[0] + rows[1]) + rows[2]) + rows[3])


def test_float32_is_accumulated_in_float64_and_nothing_is_written_to() -> None:
    small = np.full((2, 1), 1e-9, dtype=np.float32)
    parts = [Contribution(DenseMatrix(np.ones((2, 1), dtype=np.float32)))] + [Contribution(DenseMatrix(small))] * 9
    total = to_dense(sum_of_contributions(parts).gradient)
    assert total.dtype == np.float64
    assert (total > 1.0).all()
    one = some(2)[1:]
    before = to_dense(one[0].gradient).copy()
    to_dense(sum_of_contributions(one).gradient)[:] = 0.0
    np.testing.assert_array_equal(to_dense(one[0].gradient), before)


def test_what_one_does_not_carry_the_sum_does_not_carry() -> None:
    first, second = some(2)
    bare = Contribution(second.gradient)
    total = sum_of_contributions([first, bare])
    assert total.head_second_moment is None
    assert total.row_sums is None


def test_no_contributions_have_no_sum() -> None:
    with pytest.raises(ValueError, match="the sum of no contributions"):
        sum_of_contributions([])
