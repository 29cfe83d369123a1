"""The walk on a ring of examples/agent-node, in Python: agents in both languages learn in one fleet.

cospan coordinator --workload examples.ring:rings --agents 4 --rounds 100 &
cospan agent examples.ring:rings --ids 0-2 --coordinator 127.0.0.1:15051 &
node examples/agent-node/agent.mjs --index 3 --coordinator 127.0.0.1:15051
"""

from typing import Any

import gymnasium
from gymnasium.spaces import Discrete

from cospan.client.features import OneHotFeatures
from cospan.client.workload import Site, Workload

STATES = 8
FEATURES = OneHotFeatures(STATES, reference=0)


class Ring(gymnasium.Env[Any, Any]):
    """From state s to s + 1 or s − 1, drawn from a 32-bit generator; rewards are exact in binary."""

    def __init__(self, index: int) -> None:
        self.observation_space, self.action_space = Discrete(STATES), Discrete(1)
        self._forwards = index % 5 + 3  # of 8 draws
        self._first = 0x9E3779B9 ^ index
        self._drawn, self._state = self._first, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Begins at state 0. The draws depend on the index alone, for a program that knows no seeds of NumPy's."""
        super().reset(seed=seed)
        self._drawn, self._state = self._first, 0
        return self._state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """One step; there is a single action."""
        self._drawn = (self._drawn * 1664525 + 1013904223) % 2**32
        forwards = self._drawn >> 29 < self._forwards
        reward = (self._state == 0) + self._state / 16 - (0.0 if forwards else 1 / 8)
        self._state = (self._state + (1 if forwards else STATES - 1)) % STATES
        return self._state, reward, False, False, {}

    def save_state(self) -> dict[str, Any]:
        """What the next steps depend on."""
        return {"drawn": self._drawn, "state": self._state}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues from what `save_state` gave."""
        self._drawn, self._state = int(state["drawn"]), int(state["state"])


def make_ring(index: int, seed: int) -> Site:
    """Ring `index`, of any number."""
    return Site(env=Ring(index), features=FEATURES, policy=lambda _observation, _rng: 0, label=f"ring {index}")


rings = Workload(make_site=make_ring, name="rings", rank=2, steps_per_round=5)
