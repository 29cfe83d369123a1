"""Tables of errors, and how numbers stand in them."""

import math

import numpy as np

from cospan.experiments.estimates import Estimate, mean
from cospan.experiments.plots.tables import error_table, number
from cospan.experiments.runner import WHOLE_FLEET, Point

D, R, L, AGENTS = 6, 2, 5, 3


def point(method: str, seed: int, error: float, setting: str = "", rounds: int = 10) -> Point:
    return Point(setting, method, seed, WHOLE_FLEET, rounds, rounds * L, 0, error)


def test_numbers_are_short_and_what_has_diverged_is_named() -> None:
    assert number(0.00123456) == "0.00123"
    assert number(math.inf) == "diverged"
    assert mean(np.array([1.0])) == Estimate(1.0, None, None)


def test_a_table_has_a_row_for_each_method_and_a_column_for_each_setting() -> None:
    points = [point("a", 1, 0.5, "x"), point("a", 1, 0.25, "y"), point("b", 1, 2.0, "x")]
    table = error_table(points, "setting")
    assert table.columns == ("setting", "x", "y")
    assert table.rows == (("a", "0.5", "0.25"), ("b", "2", ""))
