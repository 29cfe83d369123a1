"""Whether an action is one of its space: judged by values and shapes, not by types."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

_BOX_SLACK = 1e-6
"""Of a box's width: bounds are float32 numbers, and a policy may compute with others."""
_LONGEST = 120
"""Characters of an action that a sentence shows."""


def problem_of_action(space: gymnasium.Space[Any], action: Any) -> str:
    """What is wrong with an action of this space; empty where it is one of its actions.

    Only values and shapes count: numbers of another type that stand for the same action are welcome.
    """
    try:
        allowed = _is_in(space, action)
    except (TypeError, ValueError):
        allowed = False
    return "" if allowed else f"outside its action_space {space}: {_shortened(repr(action))}"


def _is_in(space: gymnasium.Space[Any], action: Any) -> bool:
    if isinstance(space, Box):
        values = np.asarray(action, dtype=np.float64)
        low, high = np.asarray(space.low, dtype=np.float64), np.asarray(space.high, dtype=np.float64)
        slack = _BOX_SLACK * np.maximum(1.0, np.where(np.isfinite(high - low), high - low, 1.0))
        return values.shape == space.shape and bool(((values >= low - slack) & (values <= high + slack)).all())
    if isinstance(space, Discrete):
        value = np.asarray(action)
        if value.size != 1 or int(value.item()) != value.item():
            return False
        return bool(0 <= value.item() - space.start < space.n)
    if isinstance(space, MultiDiscrete):
        values = np.asarray(action)
        offsets = values - space.start
        return values.shape == space.shape and bool(((offsets >= 0) & (offsets < space.nvec)).all())
    return bool(space.contains(action))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
