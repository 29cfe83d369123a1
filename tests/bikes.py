"""A fleet of bike stations whose values are mostly a matter of the hour, and whose decisions are not.

The stock of a station changes by customers and by a van; the hour of day by nothing that anyone does. The demand of
the whole city carries nearly all variance of the values, and it is alike at every station; what one more bike is
worth differs by hour and station. So few dimensions hold the values, and more the decisions.
"""

from functools import cache
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float
from scipy.stats import poisson

from cospan.client.features import BatchFeatures, fingerprint
from cospan.client.workload import Site, Workload
from cospan.core.exact_solutions import ReferenceSolution, feature_covariance, stationary_distribution

HOURS, BIKES = 24, 20
CLOCK = 0
"""The place of the hour in an observation; the other one is the stock."""
_KNOTS = np.array([0.0, 3.0, 8.0, 14.0, 20.0])
_LEFT_OUT = 3 * len(_KNOTS) + 2
_CITY = 40.0
"""What the city pays a station by the hour, whatever its stock."""


class StationFeatures(BatchFeatures):
    """One-hot hours times hats over the stock, less one of the hour after the van's; d = 24 · 5 − 1 = 119."""

    dim = HOURS * len(_KNOTS) - 1
    fingerprint = fingerprint("bike-stations", _KNOTS.tobytes())

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several observations, (hour, stock) in each row."""
        values = np.asarray(observations, dtype=np.float64)
        hours = np.eye(HOURS)[values[:, CLOCK].astype(int)]
        stock = np.stack([np.interp(values[:, 1], _KNOTS, unit) for unit in np.eye(len(_KNOTS))], axis=1)
        products = (hours[:, :, None] * stock[:, None, :]).reshape(len(values), -1)
        return np.delete(products, _LEFT_OUT, axis=1)


FEATURES = StationFeatures()


class Station(gymnasium.Env[Any, Any]):
    """One station; a step is an hour. The van comes at night and moves the stock half way to ten bikes."""

    observation_space = gymnasium.spaces.MultiDiscrete([HOURS, BIKES + 1])
    action_space = gymnasium.spaces.Discrete(1)

    def __init__(self, transition: Float[np.ndarray, "s s"], rewards: Float[np.ndarray, " s"]) -> None:
        self._cumulative, self._rewards, self._state = np.cumsum(transition, axis=1), rewards, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Midnight, ten bikes."""
        super().reset(seed=seed)
        self._state = BIKES // 2
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One hour."""
        reward, row = float(self._rewards[self._state]), self._cumulative[self._state]
        self._state = min(int(np.searchsorted(row, self.np_random.random())), len(row) - 1)
        return self._observation(), reward, False, False, {}

    def _observation(self) -> np.ndarray:
        return np.array(divmod(self._state, BIKES + 1))


def _limited(rate: float) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, " s"]]:
    """What is left of 0 to 20 pieces (columns) after a Poisson demand, and how many of it are served on average."""
    pieces, demand = np.arange(BIKES + 1), np.arange(4 * BIKES)
    chances = poisson.pmf(demand, rate)
    left = np.maximum(pieces[:, None] - demand, 0)
    return (left[:, :, None] == pieces).swapaxes(1, 2) @ chances, np.minimum(pieces[:, None], demand) @ chances


@cache
def station_chain(index: int, seed: int) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, " s"]]:
    """P and R of a station; state = hour · 21 + stock."""
    rng = np.random.default_rng((seed, index, 0x62696B65))
    hours = np.arange(HOURS)
    peaks = rng.uniform([6.0, 15.0], [10.0, 20.0]), rng.uniform(0.5, 5.0, (2, 2)), rng.uniform(1.0, 3.0, 2)

    def rate(which: int) -> Float[np.ndarray, "24"]:
        return 0.2 + sum(
            peaks[1][which, k] * np.exp(-0.5 * ((hours - peaks[0][k]) / peaks[2][k]) ** 2) for k in range(2)
        )

    out, back = rate(0), rate(1)
    fare, stock = rng.uniform(1.0, 3.0), np.arange(BIKES + 1)
    transition = np.zeros((HOURS, BIKES + 1, HOURS, BIKES + 1))
    rewards = np.zeros((HOURS, BIKES + 1))
    city = _CITY * np.maximum(0.0, np.sin(2.0 * np.pi * (hours - 6) / 24.0))
    for hour in range(HOURS):
        begin = (stock + BIKES // 2) // 2 if hour == 2 else stock
        taken, served = _limited(out[hour])
        brought, parked = _limited(back[hour])
        after = (
            taken[begin][:, ::-1] @ brought[:, ::-1]
        )  # free places are to those who return what bikes are to others
        transition[hour, :, (hour + 1) % HOURS] = after
        rewards[hour] = city[hour] + fare * (3.0 * served[begin] - 2.0 * out[hour])
        rewards[hour] -= fare * (back[hour] - taken[begin][:, ::-1] @ parked)
    flat = transition.reshape(HOURS * (BIKES + 1), -1)
    return flat / flat.sum(axis=1, keepdims=True), rewards.reshape(-1)


def states() -> Float[np.ndarray, "504 2"]:
    """All observations, in the order of the states."""
    return np.stack(np.divmod(np.arange(HOURS * (BIKES + 1)), BIKES + 1), axis=1).astype(np.float64)


def _stationary(transition: Float[np.ndarray, "s s"]) -> Float[np.ndarray, " s"]:
    """That of the chain: the stock's at midnight, and from there hour by hour."""
    hourly = transition.reshape(HOURS, BIKES + 1, HOURS, BIKES + 1)
    moves = [hourly[hour, :, (hour + 1) % HOURS] for hour in range(HOURS)]
    stock = [stationary_distribution(np.linalg.multi_dot(moves))]
    for move in moves[:-1]:
        stock.append(stock[-1] @ move)
    return np.concatenate(stock) / HOURS


def within_hours(index: int, seed: int) -> Float[np.ndarray, "24 d d"]:
    """The exact covariance of the features of each hour, over the stock."""
    weights = _stationary(station_chain(index, seed)[0]).reshape(HOURS, BIKES + 1)
    weights = weights / weights.sum(axis=1, keepdims=True)
    features = FEATURES.batch(states()).reshape(HOURS, BIKES + 1, -1)
    centred = features - (features * weights[:, :, None]).sum(axis=1, keepdims=True)
    return np.einsum("hsd,hs,hse->hde", centred, weights, centred)


def make_station(index: int, seed: int) -> Site:
    """Station `index`."""
    transition, rewards = station_chain(index, seed)
    features, stationary = FEATURES.batch(states()), _stationary(transition)
    mean = float(stationary @ rewards)
    visited = features.T * stationary
    weights = np.linalg.solve(visited @ (features - transition @ features), visited @ (rewards - mean))
    return Site(
        env=Station(transition, rewards),
        features=FEATURES,
        policy=lambda _observation, _generator: 0,
        reference=ReferenceSolution(mean, weights, feature_covariance(features, stationary)),
        label=f"station {index}",
    )


blind = Workload(make_site=make_station, name="bikes", rank=3, steps_per_round=24)
"""The stations, without a word on what no action changes."""
bikes = Workload(make_site=make_station, name="bikes", rank=3, steps_per_round=24, exogenous=(CLOCK,))
"""The same, with the hour declared."""
