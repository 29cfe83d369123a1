"""Features of columns: bounded, no constant in the span, a circle that closes, and the fingerprint."""

import math

import numpy as np
import pytest

from cospan.client.logs.table_features import (
    ColumnFeatures,
    TableFeatures,
    cyclic_knots,
    even_knots,
    quantile_knots,
)
from cospan.core.learning.feature_span import FeatureSpan

HOUR = ColumnFeatures("hour", "cyclic", cyclic_knots(24.0, 6), 24.0)
LEVEL = ColumnFeatures("level", "numeric", (0.0, 1.0, 4.0, 10.0))
MODE = ColumnFeatures("mode", "categorical", (0.0, 1.0, 2.0))
ALL = TableFeatures((HOUR, LEVEL, MODE), (("level", "hour"), ("hour", "mode")))


def drawn(rows: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.column_stack([rng.uniform(0, 24, rows), rng.uniform(-2, 12, rows), rng.integers(0, 3, rows)])


def test_the_functions_of_a_column_are_not_negative_and_sum_to_one() -> None:
    for place, column in enumerate(ALL.columns):
        rows = column.functions(drawn()[:, place])
        assert rows.min() >= 0.0
        np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-12)


def test_hats_interpolate_between_uneven_knots_and_stay_at_the_edges() -> None:
    rows = LEVEL.functions(np.array([-5.0, 0.0, 0.25, 2.5, 10.0, 99.0]))
    assert rows.tolist() == [
        [1.0, 0.0, 0.0, 0.0],
        [1.0, 0.0, 0.0, 0.0],
        [0.75, 0.25, 0.0, 0.0],
        [0.0, 0.5, 0.5, 0.0],
        [0.0, 0.0, 0.0, 1.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
    assert LEVEL.outside(np.array([-5.0, 0.0, 10.0, 99.0])) == 2


def test_a_circle_closes() -> None:
    np.testing.assert_allclose(
        HOUR.functions(np.array([24.0, 47.0, -1.0])), HOUR.functions(np.array([0.0, 23, 23]))
    )
    assert HOUR.functions(np.array([22.0]))[0].tolist() == [0.5, 0.0, 0.0, 0.0, 0.0, 0.5]


def test_norms_are_at_most_one_and_no_constant_is_in_the_span() -> None:
    rows = ALL.batch(drawn())
    assert rows.shape == (4000, ALL.dim)
    assert np.sqrt((rows * rows).sum(axis=1)).max() <= 1.0
    span = FeatureSpan.of(rows)
    assert not span.has_constant
    assert span.dependent == 0


def test_the_dimension_of_a_full_product_is_that_of_the_tensor_product_less_one() -> None:
    whole = TableFeatures((HOUR, LEVEL, MODE), (("hour", "level", "mode"),))
    assert whole.dim == 6 * 4 * 3 - 1
    assert ALL.dim == 5 + 3 + 2 + 5 * 3 + 5 * 2


def test_equal_maps_have_equal_fingerprints_and_others_others() -> None:
    again = TableFeatures((HOUR, LEVEL, MODE), (("hour", "level"), ("mode", "hour")))
    assert again.fingerprint == ALL.fingerprint
    other = TableFeatures((HOUR, ColumnFeatures("level", "numeric", (0.0, 1.0, 5.0, 10.0)), MODE), ALL.products)
    fewer = TableFeatures((HOUR, LEVEL, MODE), (("hour", "level"),))
    assert len({ALL.fingerprint, other.fingerprint, fewer.fingerprint}) == 3


def test_one_observation_is_a_batch_of_one() -> None:
    rows = drawn(3)
    np.testing.assert_array_equal(ALL(rows[1]), ALL.batch(rows)[1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ColumnFeatures("x", "numeric", (1.0, 1.0)), "ascending"),
        (lambda: ColumnFeatures("x", "numeric", (0.0, math.nan)), "ascending"),
        (lambda: ColumnFeatures("x", "cyclic", (0.0, 5.0, 9.0), 8.0), "period must be larger"),
        (lambda: ColumnFeatures("x", "spline", (0.0, 1.0)), "none of cyclic"),
        (lambda: TableFeatures((LEVEL, LEVEL)), "one entry for each"),
        (lambda: TableFeatures((LEVEL, MODE), (("level", "hour"),)), "two or more different columns"),
        (lambda: TableFeatures((LEVEL, MODE), (("level", "level"),)), "two or more different columns"),
        (lambda: ALL.batch([[math.nan, 0.0, 0.0]]), "not a number"),
        (lambda: ALL.batch([[0.0, 0.0]]), "is needed"),
    ],
)
def test_what_cannot_be_a_map_is_refused(make: object, words: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=words):
        make()


def test_knots() -> None:
    assert even_knots(0.0, 1.0, 3) == (0.0, 0.5, 1.0)
    assert cyclic_knots(24.0, 4) == (0.0, 6.0, 12.0, 18.0)
    assert quantile_knots([0.0] * 90 + [1.0] * 9 + [5.123], 4) == (0.0, 5.12)
