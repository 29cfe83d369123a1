"""A workload of rings that takes its time: PACE_SECONDS a step, so that there is time to break something.

Where PACE_WHILE names a file, it takes its time only while that file is there.
It is mounted into the containers; and it shows that a workload of one's own can be.
"""

import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from cospan.client.features import OneHotFeatures
from cospan.client.workload import Site, Workload

STATES = 8
PACE = float(os.environ.get("PACE_SECONDS", "0"))
PACE_WHILE = os.environ.get("PACE_WHILE", "")


class Ring(gymnasium.Env[Any, Any]):
    """A token walks round a ring; each state has a reward of its own."""

    observation_space = gymnasium.spaces.Discrete(STATES)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, rewards: np.ndarray) -> None:
        self._rewards, self._state = rewards, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Begins at state 0."""
        super().reset(seed=seed)
        self._state = 0
        return self._state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """On, or on by two; sometimes by chance."""
        if not PACE_WHILE or Path(PACE_WHILE).exists():
            time.sleep(PACE)
        jump = 1 + int(action) + int(self.np_random.random() < 0.2)
        reward = float(self._rewards[self._state])
        self._state = (self._state + jump) % STATES
        return self._state, reward, False, False, {}


def make_ring(index: int, seed: int) -> Site:
    """Ring `index`: rewards of its own."""
    rewards = np.random.default_rng((seed, index)).standard_normal(STATES)
    return Site(env=Ring(rewards), features=OneHotFeatures(STATES), policy=lambda _, rng: int(rng.integers(2)))


rings = Workload(make_site=make_ring, name="rings", rank=2, steps_per_round=5)
