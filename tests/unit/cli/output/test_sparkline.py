"""Sparklines."""

from cospan.cli.output.sparkline import ASCII, BLOCKS, sparkline


def test_a_sparkline_is_logarithmic_and_shows_the_newest() -> None:
    assert sparkline([1.0, 0.1, 0.01], 80, bars="abc") == "cba"
    assert sparkline([9.0, 1.0, 0.1, 0.01], 3, bars="abc") == "cba"
    assert sparkline([0.5, 0.5], 80, bars="abc") == "bb"
    assert sparkline([1.0, float("nan"), 0.0], 80, bars="abc") == "c a"
    assert sparkline([], 80) == sparkline([1.0], 0) == ""
    assert len(BLOCKS) == len(ASCII) == 8
