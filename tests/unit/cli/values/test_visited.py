"""Where a site goes, and the most typical of its states."""

import numpy as np

from cospan.cli.values.visited import grid_of, typical, visited
from cospan.client.workloads.queues import workload


def test_the_same_site_is_seen_in_the_same_states() -> None:
    first, again = (visited(workload.make_site(2, 1), 50, index=2, seed=1) for _ in range(2))
    assert len(first) == 50
    assert first == again
    assert first != visited(workload.make_site(2, 2), 50, index=2, seed=2)


def test_the_typical_state_is_one_that_was_visited() -> None:
    numbers = np.array([[0.0, 100.0], [1.0, 300.0], [2.0, 200.0], [1.0, 190.0], [9.0, 900.0]])
    assert typical(numbers) == 3
    assert typical(np.ones((4, 2))) == 0


def test_a_grid_is_of_the_values_met_where_these_are_few() -> None:
    assert grid_of(np.array([3.0, 1.0, 3.0]), is_whole=False).tolist() == [1.0, 3.0]
    even = grid_of(np.linspace(0.0, 1.0, 500), is_whole=False)
    assert (even[0], even[-1], len(even)) == (0.0, 1.0, 73)
    assert grid_of(np.arange(60.0), is_whole=True).tolist() == list(range(60))
