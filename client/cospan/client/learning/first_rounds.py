"""What the data of the first rounds say of a feature map: whether a constant function is in its span.

The features of the observation space alone cannot show it: coordinates may always sum to one on a chain, and not on
the box that they are drawn from; or one may stand for the site and never change.
"""

import numpy as np
from jaxtyping import Float

from cospan.core.learning.feature_span import FeatureSpan

MOST_FEATURES = 128
"""With more of them the check would take longer than 0.1 s."""
_ROWS_PER_FEATURE = 10
_FEWEST_ROWS = 200
_STATES_PER_FEATURE = 2
"""Different states for each feature below which there is no warning."""


class FirstRounds:
    """Collects an agent's features until there are enough of them to judge by, and judges once."""

    def __init__(self, name: str, feature_dim: int) -> None:
        """Of an agent, whose features have this length."""
        self._name = name
        self._rows: list[Float[np.ndarray, "n d"]] = []
        self._wanted = 0 if feature_dim > MOST_FEATURES else max(_FEWEST_ROWS, _ROWS_PER_FEATURE * feature_dim)

    def look(self, features: Float[np.ndarray, "n d"]) -> str:
        """What is wrong with the features of the rounds so far, as a sentence; empty where nothing is yet."""
        if not self._wanted:
            return ""
        self._rows.append(features)
        if sum(map(len, self._rows)) < self._wanted:
            return ""
        rows = np.concatenate(self._rows)
        self._rows, self._wanted = [], 0
        return self._problem(rows)

    def _problem(self, rows: Float[np.ndarray, "n d"]) -> str:
        different = np.unique(rows, axis=0)
        span = FeatureSpan.of(different)
        # Hardly more states than features can be given any values, the constant 1 among them: that says nothing.
        if not span.has_constant or len(different) < _STATES_PER_FEATURE * span.used:
            return ""
        return (
            f"the features of {self._name} have a constant function in their span: over the {len(different)} "
            f"different states of its first {len(rows)} steps they give 1 up to {span.constant_residual:.2g}, so "
            "its weights drift; leave out one feature, or centre them"
        )
