"""Twenty-five real microgrids: load, sun and grid of one year, hour by hour, and a battery-first policy.

Each site has a load, solar panels, a battery, and a grid connection, a generator, or both. The data and their
origin are described in data/README.md; the physics and the costs are those of `models.microgrids`. At every
midnight a day is drawn at random from the site's own 365 real days, hours within a day staying in order:
played in calendar order, a year would be a chain that mixes over a year, in which all sites see the same
season.
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from jaxtyping import Float

from cospan.client.features import BatchFeatures, fingerprint
from cospan.client.workload import Decisions, Site, Workload
from cospan.client.workloads.models.microgrids import (
    DATA,
    HOURS,
    MANY,
    ONE,
    Microgrid,
    Profiles,
    battery_first,
    dispatch,
    hourly_cost,
    load_site,
    site_count,
)
from cospan.client.workloads.references.solutions import read_references, shared_basis
from cospan.core.exact_solutions import ReferenceSolution

EXPLORATION = 0.1
"""Share of hours in which the policy makes a random move with the battery instead."""

HOUR, CHARGE, OUTLOOK, NET_LOAD, GRID_UP = range(5)
"""The coordinates of an observation."""

NET_LOAD_BOUND = 5.0
"""No hour of any site brings more than 3.9 times its mean load, or less than minus that."""
REFERENCE_FILE = DATA / "microgrids_reference.npz"

_HOUR_KNOTS = np.array([0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0, 23.0])
_CHARGE_KNOTS = np.array([0.0, 1.0])
_OUTLOOK_KNOTS = np.array([0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0])
_OUTLOOK_NUMBERS = np.arange(float(_OUTLOOK_KNOTS.size))


def outlook(profiles: Profiles) -> Float[np.ndarray, "days 24"]:
    """How much net load the rest of each day brings, as its rank among the site's days, 0 to 1.

    It stands for the forecast that every operator has. Entry (day, hour) is the share of the site's days
    whose net load from that hour to midnight is smaller (ties counted half).
    """
    rest = np.cumsum(profiles.net_load[:, ::-1], axis=1)[:, ::-1]
    ordered = np.sort(rest, axis=0)
    days = rest.shape[0]
    ranks = np.empty(rest.shape)
    for hour in range(HOURS):
        below = np.searchsorted(ordered[:, hour], rest[:, hour], side="left")
        upto = np.searchsorted(ordered[:, hour], rest[:, hour], side="right")
        ranks[:, hour] = (below + upto) / (2.0 * days)
    return np.asarray(ranks)


def hats(values: Float[np.ndarray, " n"], knots: Float[np.ndarray, " k"]) -> Float[np.ndarray, "n k"]:
    """The hat functions of linear interpolation between knots; values within them; rows sum to one."""
    return np.stack([np.interp(values, knots, unit) for unit in np.eye(knots.size)], axis=1)


_HATS_OF_HOURS = hats(np.arange(float(HOURS)), _HOUR_KNOTS)
"""An hour is a whole number, so its hats are looked up."""


class MicrogridFeatures(BatchFeatures):
    """Products of hat functions over hour of day, state of charge and outlook; d = 12 · 2 · 4 − 1 = 95.

    Hats are not negative and sum to one, so ‖φ‖ ≤ 1. They are linearly independent, and the sum of all is the
    only way to a constant, so with the first left out none is in the span. The same map serves every site.
    """

    dim = _HOUR_KNOTS.size * _CHARGE_KNOTS.size * _OUTLOOK_KNOTS.size - 1
    fingerprint = fingerprint(
        "microgrid-hats", *(knots.astype("<f8").tobytes() for knots in (_HOUR_KNOTS, _CHARGE_KNOTS, _OUTLOOK_KNOTS))
    )

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several observations, one per row; values outside the knots count as at the nearest one."""
        values = np.asarray(observations, dtype=np.float64)
        hour = _HATS_OF_HOURS[values[:, HOUR].clip(0, HOURS - 1).astype(np.intp)]
        charge = values[:, CHARGE, None].clip(0.0, 1.0)
        # These knots have equal gaps, which makes their hats one expression.
        from_knots = values[:, OUTLOOK, None].clip(0.0, 1.0) * (_OUTLOOK_KNOTS.size - 1.0) - _OUTLOOK_NUMBERS
        ahead = np.maximum(0.0, 1.0 - np.abs(from_knots))
        charged = ahead * charge
        inner = np.concatenate([ahead - charged, charged], axis=1)
        return np.asarray((hour[:, :, None] * inner[:, None, :]).reshape(len(values), -1)[:, 1:])


FEATURES = MicrogridFeatures()


class MicrogridEnv(gymnasium.Env[Any, Any]):
    """One site; a step is an hour, and it never ends.

    Observation: Box of five: hour of the day (0 to 23), state of charge (0 to 1), outlook for the rest of the day
    (0 to 1, `outlook`), net load of this hour in units of the mean load, whether the grid is up (0 or 1). Action:
    Box of one: the battery's power as a fraction of its largest charge (above 0) or discharge (below 0); what is
    not feasible is cut off. Reward: minus the hour's cost, in currency per mean-load kWh.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium declares it so
    observation_names = ("hour", "charge", "outlook", "net_load", "grid_up")

    def __init__(self, grid: Microgrid, profiles: Profiles) -> None:
        """`grid` and `profiles` as `load_site` gives them."""
        self.grid = grid
        low = np.array([0.0, 0.0, 0.0, -NET_LOAD_BOUND, 0.0])
        high = np.array([HOURS - 1.0, 1.0, 1.0, NET_LOAD_BOUND, 1.0])
        self.observation_space = Box(low, high, dtype=np.float64)
        self.action_space = Box(-1.0, 1.0, shape=(1,), dtype=np.float64)
        # Tuples of floats: reading one entry of an array costs as much as the rest of the step.
        series = (profiles.net_load, profiles.grid_up, profiles.import_cost, profiles.export_price)
        self._hours: list[list[tuple[float, ...]]] = [
            list(zip(*(row.tolist() for row in rows), strict=True)) for rows in zip(*series, strict=True)
        ]
        self._observations = np.zeros((*profiles.net_load.shape, 5))
        self._observations[..., HOUR] = np.arange(float(HOURS))
        self._observations[..., OUTLOOK] = outlook(profiles)
        self._observations[..., NET_LOAD] = profiles.net_load
        self._observations[..., GRID_UP] = profiles.grid_up
        self._day = 0
        self._hour = 0
        self._level: float | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, "5"], dict[str, Any]]:
        """Midnight of a random day, the battery charged to a random level. `options` has no use."""
        super().reset(seed=seed, options=options)
        self._hour = 0
        self._day = self._draw_day()
        self._level = float(self.np_random.random()) * self.grid.usable
        return self._observation(self._level), {}

    def step(self, action: Any) -> tuple[Float[np.ndarray, "5"], float, bool, bool, dict[str, Any]]:
        """One hour.

        Raises:
            ResetNeeded: the environment was never reset.
        """
        if self._level is None:
            raise ResetNeeded("reset the microgrid before its first step")
        wish = min(1.0, max(-1.0, float(action[0])))
        net_load, grid_up, import_cost, export_price = self._hours[self._day][self._hour]
        flows = dispatch(self.grid, self._level, wish, net_load, grid_up, by=ONE)
        reward = -hourly_cost(self.grid, flows, import_cost, export_price)
        self._level = level = min(self.grid.usable, max(0.0, self._level + flows.stored_change))
        self._hour += 1
        if self._hour == HOURS:
            self._hour = 0
            self._day = self._draw_day()
        return self._observation(level), reward, False, False, {}

    def save_state(self) -> dict[str, Any]:
        """Day of the records, hour, and the battery's level."""
        return {"day": self._day, "hour": self._hour, "level": self._level}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what `save_state` gave. Raises ValueError where there is no such hour or level."""
        day, hour, level = int(state["day"]), int(state["hour"]), float(state["level"])
        if not (0 <= day < len(self._hours) and 0 <= hour < HOURS and 0.0 <= level <= self.grid.usable):
            raise ValueError(f"hour {hour} of day {day} with a level of {level}")
        self._day, self._hour, self._level = day, hour, level

    def _draw_day(self) -> int:
        return int(self.np_random.integers(len(self._hours)))

    def _observation(self, level: float) -> Float[np.ndarray, "5"]:
        observation: np.ndarray = self._observations[self._day, self._hour].copy()
        observation[CHARGE] = level / self.grid.usable
        return observation


class BatteryFirst:
    """Charge with the surplus, discharge for the deficit; in a share of the hours a random move instead."""

    def __init__(self, grid: Microgrid) -> None:
        self._grid = grid

    def __call__(
        self, observation: Float[np.ndarray, "5"], generator: np.random.Generator
    ) -> Float[np.ndarray, "1"]:
        """The action of one hour."""
        if generator.random() < EXPLORATION:
            return np.array([2.0 * generator.random() - 1.0])
        return np.array([battery_first(self._grid, float(observation[NET_LOAD]), by=ONE)])


class MicrogridDecisions:
    """What an operator knows of the battery's moves: what they cost in this hour, and the charge that they leave.

    Tariffs are known by the hour of the day. What the grid's CO2 adds in an hour differs from day to day by up to
    0.035 and is not in the observation, so its mean at that hour is taken.
    """

    def __init__(self, grid: Microgrid, profiles: Profiles) -> None:
        """`grid` and `profiles` as `load_site` gives them."""
        self._grid = grid
        self._import_cost, self._export_price = (
            profiles.import_cost.mean(axis=0),
            profiles.export_price.mean(axis=0),
        )

    def rule(self, observations: Float[np.ndarray, "m 5"]) -> Float[np.ndarray, "m 1"]:
        """Battery-first, without its random moves."""
        return battery_first(self._grid, observations[:, NET_LOAD], by=MANY)[:, None]

    def afterstates(
        self, observations: Float[np.ndarray, "m 5"], actions: Float[np.ndarray, "m 1"]
    ) -> Float[np.ndarray, "m 5"]:
        """The observations with the charge that the moves leave."""
        level, wish = observations[:, CHARGE] * self._grid.usable, np.clip(actions[:, 0], -1.0, 1.0)
        flows = dispatch(self._grid, level, wish, observations[:, NET_LOAD], observations[:, GRID_UP], by=MANY)
        after = observations.copy()
        after[:, CHARGE] = np.clip(level + flows.stored_change, 0.0, self._grid.usable) / self._grid.usable
        return after

    def step_rewards(
        self, observations: Float[np.ndarray, "m 5"], actions: Float[np.ndarray, "m 1"]
    ) -> Float[np.ndarray, " m"]:
        """Minus the hour's cost at the mean CO2 of that hour of the day."""
        level, wish = observations[:, CHARGE] * self._grid.usable, np.clip(actions[:, 0], -1.0, 1.0)
        flows = dispatch(self._grid, level, wish, observations[:, NET_LOAD], observations[:, GRID_UP], by=MANY)
        hour = observations[:, HOUR].astype(np.intp)
        return np.asarray(-hourly_cost(self._grid, flows, self._import_cost[hour], self._export_price[hour]))

    @staticmethod
    def replayed(
        observed: Float[np.ndarray, "m 5"], afterstates: Float[np.ndarray, "m 5"]
    ) -> Float[np.ndarray, "m 5"]:
        """What was observed, with the charge of these afterstates: load, sun and grid do not heed the battery."""
        following = observed.copy()
        following[:, CHARGE] = afterstates[:, CHARGE]
        return following


def decisions_of(grid: Microgrid, profiles: Profiles) -> Decisions:
    """What is known of a site's actions."""
    known = MicrogridDecisions(grid, profiles)
    return Decisions(
        rule=known.rule, afterstates=known.afterstates, step_rewards=known.step_rewards, replayed=known.replayed
    )


@cache
def _references() -> tuple[ReferenceSolution, ...]:
    """The shipped reference solutions; `references.microgrids` makes them."""
    return read_references(REFERENCE_FILE, FEATURES, f"{__package__}.references.microgrids")


def make_site(index: int, seed: int) -> Site:
    """Site `index` of the records. `seed` plays no part in what the site is; its days are drawn by `reset`.

    Raises:
        ValueError: there is no such site.
    """
    if not 0 <= index < site_count() or seed < 0:
        raise ValueError(
            f"microgrid {index} with seed {seed}: there are sites 0 to {site_count() - 1}, and seeds from 0 on"
        )
    grid, profiles = load_site(index)
    supply = [name for name, there in (("grid", grid.max_import), ("generator", grid.genset_max)) if there > 0.0]
    return Site(
        env=MicrogridEnv(grid, profiles),
        features=FEATURES,
        policy=BatteryFirst(grid),
        reference=_references()[index],
        label=f"{_power(grid.mean_load)}, {' + '.join(supply) or 'alone'}",
        decisions=decisions_of(grid, profiles),
    )


def _power(kilowatts: float) -> str:
    """Two significant digits and a unit: 480 kW, 16 MW."""
    megawatts = kilowatts >= 1000.0
    value = kilowatts / 1000.0 if megawatts else kilowatts
    digits = max(0, 1 - math.floor(math.log10(value)))
    return f"{round(value, 1 - math.floor(math.log10(value))):.{digits}f} {'MW' if megawatts else 'kW'}"


def fleet_basis(agents: int, rank: int, seed: int) -> Float[np.ndarray, "d r"]:
    """The best r-dimensional subspace of the reference weights of sites 0 … agents − 1, whatever the seed."""
    del seed
    return shared_basis(_references()[:agents], rank)


workload = Workload(
    make_site=make_site,
    name="microgrids",
    rank=12,
    steps_per_round=24,
    max_agents=25,
    fleet_basis=fleet_basis,
    exogenous=(HOUR, OUTLOOK, NET_LOAD, GRID_UP),
)
"""The 25 sites."""
