"""Your own fleet, in one file: copy it, and change the three marked parts.

Here it is a chain of shops. Each shop sells one product, has its own demand, orders by its own rule, and never
closes. Cospan learns, for every shop, the mean profit per day and how good each stock level is in the long run.

    cospan run examples.my_own_environment:shops --agents 8 --rounds 200

(or, from the folder that this file is in: `cospan run my_own_environment:shops`)
"""

from typing import Any

import gymnasium
import numpy as np

from cospan.client.features import RadialBasisFeatures
from cospan.client.workload import Site, Workload

CAPACITY = 40


# 1. The environment: Gymnasium's API. It never ends, so `terminated` is always False.
class Shop(gymnasium.Env[Any, Any]):
    """One shop. The observation is the stock at closing time, the action how many pieces to order overnight."""

    observation_space = gymnasium.spaces.Box(0.0, CAPACITY, shape=(1,), dtype=np.float64)
    action_space = gymnasium.spaces.Discrete(CAPACITY + 1)

    def __init__(self, mean_demand: float, price: float) -> None:
        self._mean_demand, self._price = mean_demand, price
        self._stock = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Opens the shop with an empty store."""
        super().reset(seed=seed)
        self._stock = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One day: the order arrives, customers buy, what is left costs its storage. The reward is the profit."""
        on_hand = min(CAPACITY, self._stock + int(action))
        sold = min(on_hand, int(self.np_random.poisson(self._mean_demand)))
        profit = self._price * sold - 1.0 * int(action) - 0.05 * on_hand
        self._stock = on_hand - sold
        return self._observation(), profit, False, False, {}

    # These two may be left out. With them a restarted agent continues the same chain, to the bit.
    # The generator `np_random` is taken care of; save what else the next days depend on: numbers, text, arrays.
    def save_state(self) -> dict[str, Any]:
        """What the next days depend on."""
        return {"stock": self._stock}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues from what `save_state` gave; called after a `reset`."""
        self._stock = int(state["stock"])

    def _observation(self) -> np.ndarray:
        return np.array([float(self._stock)])


# 2. The features: bounded by 1, no constant among them, and the same map for every agent of the fleet.
FEATURES = RadialBasisFeatures(low=[0.0], high=[CAPACITY], centres=12)


# 3. A site: environment, features and policy of one agent. Its own numbers come from (seed, index) alone.
def make_shop(index: int, seed: int) -> Site:
    """Shop `index`: it orders up to a level of its own whenever the stock has fallen below half of it."""
    rng = np.random.default_rng((seed, index))
    mean_demand = rng.uniform(4.0, 12.0)
    level = round(mean_demand * rng.uniform(1.5, 2.5))

    def policy(observation: np.ndarray, _rng: np.random.Generator) -> int:
        stock = int(observation[0])
        return level - stock if stock < level / 2 else 0

    return Site(
        env=Shop(mean_demand, price=rng.uniform(1.5, 3.0)),
        features=FEATURES,
        policy=policy,
        label=f"{mean_demand:.1f} sales a day",
    )


shops = Workload(make_site=make_shop, name="shops", rank=3, steps_per_round=20)
