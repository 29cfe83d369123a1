"""Which action spaces a policy can be improved over, and what is said of the others."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Space

from cospan.client.decisions.actions import enumerated
from cospan.wire.errors import InvalidValueError


def test_finite_spaces_give_all_their_actions() -> None:
    assert enumerated(Discrete(3, start=-1)).tolist() == [-1, 0, 1]
    assert enumerated(MultiDiscrete([2, 2])).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_a_box_gives_a_grid_with_its_ends() -> None:
    grid = enumerated(Box(-1.0, 1.0, shape=(2,)), points=3)
    assert grid.shape == (9, 2)
    assert {tuple(row) for row in grid.tolist()} >= {(-1.0, -1.0), (0.0, 0.0), (1.0, 1.0)}


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Box(-np.inf, np.inf, shape=(1,)), "has no bounds"),
        (Box(0.0, 1.0, shape=(2, 2)), "flatten it"),
        (Box(0.0, 1.0, shape=(3,)), "make it coarser"),
        (Discrete(2000), "make it coarser"),
        (Dict({"a": Discrete(2)}), "cannot be enumerated"),
    ],
)
def test_other_spaces_are_refused_in_a_sentence(space: Space[object], words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        enumerated(space)
