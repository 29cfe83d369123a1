"""What is kept of an agent's rounds, for one agent and for n at once."""

import numpy as np
import pytest

from cospan.core.quality.record import _each


@pytest.mark.parametrize("agents", [(), (3,)])
@pytest.mark.parametrize("columns", [0, 2])
def test_each_agents_rows_are_taken_one_after_another(agents: tuple[int, ...], columns: int) -> None:
    """Also where nothing is known of what an agent observed: a log has features alone."""
    features, seen = np.ones((*agents, 4, 5, 6)), np.zeros((*agents, 4, 5, columns))
    found = _each(lambda *rows: np.array([np.concatenate([each.shape for each in rows])]), features, seen)
    assert found.shape == (*agents, 1, 4)
    assert found.reshape(-1, 4).tolist() == [[20, 6, 20, columns]] * int(np.prod(agents))
