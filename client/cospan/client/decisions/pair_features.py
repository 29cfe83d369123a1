"""Features of pairs (state, action) of a finite process, for the values of actions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.features import OneHotFeatures


@dataclass(frozen=True, slots=True)
class OneHotPairs:
    """The indicator of each pair (s, a) but one, d = states · actions − 1; see `OneHotFeatures`.

    Attributes:
        states: number of states.
        actions: number of actions, from 0 on.
        reference: the state whose pair with action 0 is left out.
    """

    states: int
    actions: int
    reference: int = 0

    @property
    def _indicators(self) -> OneHotFeatures:
        return OneHotFeatures(self.states * self.actions, self.reference * self.actions)

    @property
    def dim(self) -> int:
        """d = states · actions − 1."""
        return self.states * self.actions - 1

    @property
    def fingerprint(self) -> str:
        """`pairs-` and that of the indicators, whose hash also depends on the reference."""
        return f"pairs-{self.actions}-{self._indicators.fingerprint}"

    def __call__(self, observation: Any) -> Float[np.ndarray, " d"]:
        """φ(s, a) of one pair, shape (d,)."""
        row: np.ndarray = self.batch([observation])[0]
        return row

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ(s, a) of several pairs, shape (n, d).

        Raises:
            ValueError: a state or an action is none of these.
        """
        pairs = np.array([[float(state), float(action)] for state, action in observations]).reshape(-1, 2)
        states, actions = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
        if ((actions < 0) | (actions >= self.actions)).any():
            raise ValueError(f"an action is none of 0 to {self.actions - 1}")
        return self._indicators.batch(states * self.actions + actions)
