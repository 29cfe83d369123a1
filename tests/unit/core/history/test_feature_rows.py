"""Features by their numbers in a table are the features themselves."""

import numpy as np
import pytest

from cospan.core.history.feature_rows import Rows, TableRows, dense, joined, of_agents, shared_table

RNG = np.random.default_rng(3)
TABLE = RNG.standard_normal((300, 4))
STATES = RNG.integers(0, 300, (2, 5, 6))
"""Of two rounds, five agents and six states."""
KEPT: tuple[Rows, ...] = tuple(TableRows.of(TABLE, each) for each in STATES)
PLAIN: tuple[Rows, ...] = tuple(TABLE[each] for each in STATES)


@pytest.mark.parametrize("places", [2, [0, 3], slice(1, 4)])
def test_some_agents_features(places: int | list[int] | slice) -> None:
    found = of_agents(KEPT[0], places)
    assert isinstance(found, np.ndarray) == isinstance(places, int)
    np.testing.assert_array_equal(dense(found), of_agents(PLAIN[0], places))


@pytest.mark.parametrize("rounds", [KEPT, PLAIN, (KEPT[0], PLAIN[1])])
def test_rounds_are_joined(rounds: tuple[Rows, ...]) -> None:
    expected = np.concatenate([TABLE[each][1:3, :-1] for each in STATES], axis=1)
    np.testing.assert_array_equal(joined(rounds, slice(1, 3), slice(None, -1)), expected)


def test_the_smallest_numbers_that_hold_a_tables_rows() -> None:
    assert TableRows.of(TABLE, STATES[0]).rows.dtype == np.uint16
    assert TableRows.of(TABLE[:200], STATES[0] % 200).rows.dtype == np.uint8


def test_a_table_is_shared_where_it_is_equal() -> None:
    copy = TableRows.of(TABLE.copy(), STATES[1])
    assert shared_table((KEPT[0], copy)) is None
    assert shared_table((KEPT[0], copy.like(KEPT[:1]))) is TABLE
    other = TableRows.of(TABLE + 1.0, STATES[1])
    assert other.like(KEPT) is other
    assert copy.like(()) is copy
    assert copy.like(PLAIN) is copy
    assert shared_table(()) is None
    assert shared_table(PLAIN) is None
