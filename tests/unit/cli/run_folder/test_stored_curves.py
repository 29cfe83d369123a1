"""The learning curves that a report shows."""

import numpy as np

from cospan.cli.run_folder.stored_curves import Curve, points_each, quartile_columns

NAN = np.nan


def curve(rounds: list[int], joint: list[float]) -> Curve:
    values = np.full((len(rounds), 4), NAN)
    values[:, 1] = joint
    return Curve(np.array(rounds), values)


def test_a_curve_has_the_newest_known_value_at_any_round() -> None:
    found = curve([2, 4, 6], [0.5, NAN, 0.25]).at(np.array([1, 2, 5, 9]))
    np.testing.assert_array_equal(found[:, 1], [NAN, 0.5, 0.5, 0.25])
    assert np.isnan(found[:, 0]).all()


def test_a_thinned_curve_keeps_both_ends() -> None:
    thinned = curve(list(range(1000)), [1.0] * 1000).thinned(10)
    assert thinned.shape == (10, 5)
    assert (thinned[0, 0], thinned[-1, 0]) == (0, 999)
    assert curve([], []).thinned(10).shape == (0, 5)


def test_quartiles_are_over_the_agents_that_have_begun() -> None:
    curves = {"a": curve([0, 1], [1.0, 1.0]), "b": curve([1], [3.0])}
    columns = quartile_columns(curves, np.array([0, 1]))
    assert columns["value_low"] == [1.0, 1.5]
    assert columns["value_high"] == [1.0, 2.5]
    assert np.isnan(columns["td_error"]).all()
    assert "value_error" not in columns
    assert quartile_columns({}, np.array([0])) == {}


def test_all_curves_of_a_report_together_are_bounded() -> None:
    assert points_each(12) == 240
    assert points_each(2_000) * 2_000 <= 60_000
    assert points_each(10_000) == 16
