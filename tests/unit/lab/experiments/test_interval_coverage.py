"""What the intervals of a small fleet hold: the counts, against the value functions' own intervals."""

import itertools

import numpy as np

from cospan.core.method import practical
from cospan.experiments.interval_coverage import GAIN, LEVELS, ONE, PAIRS, POSTERIOR, CoverageTask, name_of


def test_points_of_every_question_level_agent_and_horizon() -> None:
    task = CoverageTask(seed=3, workload="queues", agents=4, horizons=(9, 20), setting="queues")
    points = task.run().points
    assert len(points) == 2 * 4 * 4 * len(LEVELS)
    assert {point.method for point in points} == {
        name_of(kind, level) for kind in (PAIRS, ONE, POSTERIOR, GAIN) for level in LEVELS
    }
    assert {(point.rounds, point.steps) for point in points} == {(9, 180), (20, 400)}
    assert practical(20).steps_per_round == 20

    def of(kind: str, level: float, column: str) -> np.ndarray:
        return np.array([getattr(each, column) for each in points if each.method == name_of(kind, level)])

    for kind in (PAIRS, ONE, POSTERIOR, GAIN):
        held = [of(kind, level, "coverage") for level in LEVELS]
        widths = [of(kind, level, "half_width") for level in LEVELS]
        assert all((more >= less).all() for less, more in itertools.pairwise(held))
        assert all((more > less).all() for less, more in itertools.pairwise(widths))
    assert (of(PAIRS, 0.9, "half_width") > of(POSTERIOR, 0.9, "half_width")).all(), "a prior that may not hold"
    assert of(PAIRS, 0.9, "coverage").mean() > 0.75
    assert set(of(GAIN, 0.9, "coverage").tolist()) <= {0.0, 1.0}
