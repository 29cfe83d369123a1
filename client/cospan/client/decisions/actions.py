"""The actions that a greedy policy chooses among: all of a finite space, or a grid of a box."""

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from cospan.wire.errors import InvalidValueError

GRID_POINTS = 21
"""Values along each axis of a box."""
MOST_ACTIONS = 1024
"""Each is valued in every step."""


def enumerated(space: gymnasium.Space[Any], points: int = GRID_POINTS) -> np.ndarray:
    """The actions of a space, one per row: shape (a,) of a Discrete one, (a, k) of the others.

    Args:
        space: Discrete, MultiDiscrete of one axis, or a bounded Box.
        points: along each axis of a box.

    Raises:
        InvalidValueError: the space cannot be enumerated, or has more than `MOST_ACTIONS` actions.
    """
    if isinstance(space, Discrete):
        _check_number(space, int(space.n))
        return np.arange(int(space.start), int(space.start) + int(space.n))
    if isinstance(space, MultiDiscrete) and space.nvec.ndim == 1:
        _check_number(space, math.prod(int(n) for n in space.nvec))
        axes = [start + np.arange(n) for start, n in zip(space.start, space.nvec, strict=True)]
        return _product(axes)
    if isinstance(space, Box):
        if not space.is_bounded("both"):
            raise InvalidValueError(
                f"the action space {space} has no bounds, so no grid of it can be made and its policy is not "
                "improved; give the box bounds"
            )
        if len(space.shape) != 1:
            raise InvalidValueError(
                f"the action space {space} has {len(space.shape)} axes; a grid is made of a box "
                "of one, so flatten it"
            )
        _check_number(space, points ** space.shape[0])
        return _product([np.linspace(low, high, points) for low, high in zip(space.low, space.high, strict=True)])
    raise InvalidValueError(
        f"the action space {space} cannot be enumerated, so its policy is not improved; give a Discrete, "
        "a MultiDiscrete or a bounded Box"
    )


def _check_number(space: gymnasium.Space[Any], number: int) -> None:
    if number > MOST_ACTIONS:
        raise InvalidValueError(
            f"the action space {space} has {number} actions to choose among; at most {MOST_ACTIONS} are valued in "
            "every step: make it coarser"
        )


def _product(axes: list[np.ndarray]) -> np.ndarray:
    return np.stack([part.ravel() for part in np.meshgrid(*axes, indexing="ij")], axis=1)
