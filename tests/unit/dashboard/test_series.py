"""The series of rounds that the dashboard draws."""

import math
from collections.abc import Iterator

import numpy as np
import pytest

from cospan.dashboard.series import COLUMNS, Round, RoundSeries, percentile


def rounds(count: int, seconds: float = 0.5) -> Iterator[Round]:
    for number in range(count):
        yield Round(number, seconds, 3, 1.0 / (number + 1))


# The series ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 8, 9, 100, 1000])
def test_a_series_shows_the_whole_run_in_few_points(count: int) -> None:
    series = RoundSeries(most=8)
    for closed in rounds(count):
        series.add(closed)
    assert len(series.points) <= 8
    assert sum(point.rounds for point in series.points) == count
    assert series.points[-1].last == count - 1
    assert [point.last for point in series.points] == sorted(point.last for point in series.points)
    moved = [(point.value("movement") or 0.0) * point.rounds for point in series.points]
    assert sum(moved) / count == pytest.approx(np.mean([closed.movement for closed in rounds(count)]))
    assert series.points[-1].value("elapsed") == pytest.approx(0.5 * count)


def test_what_is_learnt_later_is_shown_where_it_belongs() -> None:
    series = RoundSeries(most=4)
    for closed in rounds(7):
        series.add(closed)
    series.learn({"value_error": 0.25}, [(0, 0.5), (6, 0.125), (99, 1.0)])
    assert [point.value("subspace_error") for point in series.points] == [0.5, None, None, 0.125]
    assert series.points[-1].value("value_error") == 0.25
    assert series.points[0].value("value_error") is None
    assert series.known("subspace_error") == [(1, 0.5), (6, 0.125)]
    assert (series.newest("value_error"), series.newest("td_error")) == (0.25, None)


def test_columns_can_be_filled_afterwards() -> None:
    series = RoundSeries(most=4)
    for closed in rounds(3):
        series.add(closed)
    series.fill({"td_error": [1.0, math.nan, 3.0]})
    assert [point.value("td_error") for point in series.points] == [1.0, None, 3.0]
    assert [len(point.as_row()) for point in series.points] == [len(COLUMNS)] * 3


def test_older_points_keep_the_worst_of_what_they_stand_for() -> None:
    series = RoundSeries(most=2)
    for number, (seconds, contributors) in enumerate([(1.0, 3), (9.0, 1), (1.0, 3), (1.0, 3)]):
        series.add(Round(number, seconds, contributors, 0.5, {"disk": seconds}))
    values = [series.points[0].value(column) for column in ("p99", "contributors", "disk")]
    assert values == [9.0, 1, 5.0], "the worst, and the mean of a part of the time"


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.99) == 4.0
    assert percentile([7.0], 0.5) == 7.0
