"""Ways that take turns, and ratios of what each turn took."""

import numpy as np
import pytest

from cospan.benchmarks.tools.paired_timing import Turns, in_turns


def test_ways_take_turns_forwards_and_backwards() -> None:
    order: list[str] = []
    turns = in_turns([lambda: order.append("a"), lambda: order.append("b")], rounds=4)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab" + "ba", "one turn that does not count, then four"
    assert turns.seconds.shape == (4, 2)


def test_ratios_are_taken_round_by_round() -> None:
    """The machine is ten times slower in two rounds: that is no news about the ratio."""
    turns = Turns(np.array([[1.0, 2.0], [10.0, 20.0], [1.0, 2.2], [10.0, 20.0]]))
    ratio = turns.ratio(1, 0)
    assert ratio.value == 2.0
    assert (ratio.low, ratio.high) == (2.0, pytest.approx(2.2, abs=0.11))
    assert turns.median(0) == 5.5
