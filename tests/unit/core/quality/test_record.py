"""What is recorded for the quality of values, also of steps whose observations are no numbers."""

import numpy as np
import pytest

from cospan.core.quality.record import _each


@pytest.mark.parametrize("agents", [(), (3,)])
@pytest.mark.parametrize("columns", [0, 2])
def test_a_function_of_each_agents_rows_takes_any_number_of_columns(agents: tuple[int, ...], columns: int) -> None:
    rounds, steps = 4, 5
    deltas, observations = np.ones((*agents, rounds, steps, 1)), np.zeros((*agents, rounds, steps, columns))
    shapes = _each(lambda delta, seen: np.array([*delta.shape, *seen.shape]), deltas, observations)
    assert shapes.shape == (*agents, 4)
    assert (shapes == [rounds * steps, 1, rounds * steps, columns]).all()
