"""Sums over a table's rows are the sums over the transitions."""

import numpy as np
import pytest

from cospan.core.history.feature_rows import Rows, TableRows, dense
from cospan.core.history.visits import (
    AGENTS_AT_ONCE,
    DenseVisits,
    TableVisits,
    noise_of_rounds,
    short_table,
    visits_of,
)

RNG = np.random.default_rng(8)
TABLE = 0.3 * RNG.standard_normal((9, 4))
ROUNDS: tuple[Rows, ...] = tuple(TableRows.of(TABLE, RNG.integers(0, 9, (5, 6))) for _ in range(3))
SOME = slice(1, 4)
BY_TABLE, DENSE = visits_of(ROUNDS, SOME, TABLE), visits_of(ROUNDS, SOME, None)
WEIGHTS, VARIANCE = RNG.standard_normal((3, 4)), RNG.standard_normal((3, 5))


def test_a_table_is_short_where_it_has_no_more_rows_than_there_are_transitions() -> None:
    assert short_table(ROUNDS, 9) is TABLE
    assert short_table(ROUNDS, 8) is None
    assert isinstance(BY_TABLE, TableVisits)
    assert isinstance(DENSE, DenseVisits)


@pytest.mark.parametrize("name", ["sums", "products", "crossed"])
def test_sums_of_features(name: str) -> None:
    np.testing.assert_allclose(getattr(BY_TABLE, name), getattr(DENSE, name), rtol=1e-12, atol=1e-14)


def test_values_of_states_and_of_the_last_of_each_round() -> None:
    for found, expected in zip(BY_TABLE.values(WEIGHTS), DENSE.values(WEIGHTS), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_weighed_features_and_noise() -> None:
    numbers = RNG.random((3, 15))
    np.testing.assert_allclose(BY_TABLE.weighed(numbers), DENSE.weighed(numbers), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(BY_TABLE.noise(VARIANCE), DENSE.noise(VARIANCE), rtol=1e-12, atol=1e-14)


def test_states_that_follow_each_other_are_counted_or_looked_up() -> None:
    """In 75 transitions they are counted, in 15 looked up."""
    many = tuple(TableRows.of(TABLE, RNG.integers(0, 9, (5, 26))) for _ in range(3))
    found, expected = (visits_of(many, SOME, table).crossed for table in (TABLE, None))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_the_noise_of_rounds_is_that_of_their_transitions() -> None:
    """Of more agents than are counted at a time."""
    rounds = tuple(TableRows.of(TABLE, RNG.integers(0, 9, (AGENTS_AT_ONCE + 3, 6))) for _ in range(3))
    variance = RNG.standard_normal((AGENTS_AT_ONCE + 3, 5))
    found, expected = (noise_of_rounds(each, variance) for each in (rounds, [dense(each) for each in rounds]))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
