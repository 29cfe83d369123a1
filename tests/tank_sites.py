"""A fleet of tanks that keeps every promise of a workload, and whose parts can be replaced to break one."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from cospan.client.features import RadialBasisFeatures
from cospan.client.workload import FeatureMap, Site, Workload

FULL = 10.0
BUMPS = RadialBasisFeatures(low=[0.0], high=[FULL], centres=6)


class Tank(gymnasium.Env[Any, Any]):
    """A tank whose level falls by a random demand and rises by a pump; sound."""

    observation_space: gymnasium.Space[Any] = gymnasium.spaces.Box(0.0, FULL, (1,), np.float64)
    action_space: gymnasium.Space[Any] = gymnasium.spaces.Discrete(2)

    def __init__(self, demand: float = 1.0) -> None:
        self.demand, self.level, self.closed = demand, FULL, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.level = FULL
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        level = self.level + 2.0 * int(action) - self.np_random.exponential(self.demand)
        self.level = min(max(level, 0.0), FULL)
        return self.seen(), -float(action) - 10.0 * max(0.0, -level), False, False, {}

    def seen(self) -> Any:
        return np.array([self.level])

    def save_state(self) -> Mapping[str, Any]:
        return {"level": self.level}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.level = float(state["level"])

    def close(self) -> None:
        self.closed += 1


def switch(observation: Any, rng: np.random.Generator) -> int:
    return int(observation[0] < 5.0)


def workload(
    env: Callable[[], Any] = Tank, features: FeatureMap = BUMPS, policy: Any = switch, **more: Any
) -> Workload:
    """Sites with their own demands, each part of which can be replaced."""

    def make_site(index: int, seed: int) -> Site:
        made = env()
        made.demand = float(np.random.default_rng((seed, index)).uniform(0.6, 1.2))
        return Site(made, features, policy)

    return Workload(make_site, **({"name": "tanks", "rank": 1} | more))
