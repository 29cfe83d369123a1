"""What agents have learnt, as browsers are told."""

import math

import pytest

from cospan.dashboard.analysis.learnt import LEARNT_COLUMNS, Learnt, error_columns, quartiles


def test_the_ratio_is_to_the_better_of_both_alone() -> None:
    assert Learnt(value_error=0.1, lstd_alone=0.2, td_alone=0.05).ratio == pytest.approx(2.0)
    assert Learnt(value_error=0.1, td_alone=0.2).ratio == pytest.approx(0.5)
    assert Learnt(value_error=0.1).ratio is None
    assert Learnt(lstd_alone=0.1).ratio is None


def test_a_row_has_a_value_for_each_column() -> None:
    row = dict(zip(LEARNT_COLUMNS, Learnt("here", 0.123456, learning_seconds=0.00123).as_row("a"), strict=True))
    assert (row["id"], row["label"], row["value_error"], row["gain"]) == ("a", "here", 0.1235, None)
    assert row["learning_seconds"] == 0.001, "one digit, so that a row rarely changes"


def test_learning_times_are_smoothed() -> None:
    newest = Learnt(gain=2.0, learning_seconds=1.0)
    assert newest.after(Learnt(gain=1.0, learning_seconds=0.0)) == Learnt(gain=2.0, learning_seconds=0.2)
    assert newest.after(None) == newest


def test_medians_and_quartiles_are_over_what_is_known() -> None:
    assert quartiles([None, math.nan]) is None
    assert quartiles([1.0, None, 3.0]) == (1.5, 2.0, 2.5)
    learnt = {str(error): Learnt(value_error=error, td_alone=2 * error) for error in (1.0, 2.0, 3.0)}
    known = {"value_low": 1.5, "value_error": 2.0, "value_high": 2.5, "td_alone": 4.0}
    assert error_columns(learnt) == known
    assert error_columns({}) == {}
