"""A store that buys cheaply and sells dearly: the smallest site that can be planned for."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.features import BatchFeatures
from cospan.client.workload import Decisions, Site

PRICE, STOCK = range(2)
CAPACITY = 2.0


class StoreFeatures(BatchFeatures):
    """Stock, and stock where the price is high."""

    dim = 2
    fingerprint = "store"

    def batch(self, observations: Any) -> np.ndarray:
        """Of several observations."""
        seen = np.asarray(observations, dtype=np.float64)
        stock = seen[:, STOCK] / CAPACITY
        return np.stack([stock, stock * (seen[:, PRICE] > 2.0)], axis=1) / 2.0


class StoreEnv(gymnasium.Env[Any, Any]):
    """Prices are drawn; the stock follows the actions."""

    observation_space = Box(0.0, 10.0, shape=(2,), dtype=np.float64)
    action_space = Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Empty."""
        super().reset(seed=seed, options=options)
        self._seen = np.array([self._price(), 0.0])
        return self._seen, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One trade."""
        seen, taken = self._seen[None], np.array([action])
        reward, after = float(rewarded(seen, taken)[0]), stocked(seen, taken)[0]
        self._seen = np.array([self._price(), after[STOCK]])
        return self._seen, reward, False, False, {}

    def _price(self) -> float:
        return float(self.np_random.choice([1.0, 3.0]))


def stocked(seen: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """The stock after a trade: actions are sell, wait, buy."""
    after = seen.copy()
    after[:, STOCK] = np.clip(seen[:, STOCK] + actions - 1.0, 0.0, CAPACITY)
    return after


def rewarded(seen: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """What a trade earns."""
    return np.asarray(-(stocked(seen, actions)[:, STOCK] - seen[:, STOCK]) * seen[:, PRICE])


def replayed(seen: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The price that was observed, with this stock."""
    following = seen.copy()
    following[:, STOCK] = after[:, STOCK]
    return following


def waits(seen: np.ndarray) -> np.ndarray:
    """The rule: no trade."""
    return np.ones(len(seen), dtype=np.int64)


@dataclass
class Store:
    """One store."""

    env: StoreEnv = field(default_factory=StoreEnv)

    def site(self, **changes: Any) -> Site:
        """With some of its functions replaced."""
        known = {"rule": waits, "afterstates": stocked, "step_rewards": rewarded, "replayed": replayed} | changes
        return Site(env=self.env, features=StoreFeatures(), policy=lambda *_: 1, decisions=Decisions(**known))

    def policy(self, **changes: Any) -> GreedyPolicy:
        """The given one."""
        return GreedyPolicy.given(self.site(**changes))


def observed(prices: list[float]) -> np.ndarray:
    """Of an empty store."""
    return np.array([[price, 0.0] for price in prices])
