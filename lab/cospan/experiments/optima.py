"""What no learnt policy can do better than: the optimum of each queue, and of each microgrid with foresight.

    python -m cospan.experiments.optima [SITE …]

prints for each microgrid the cost of the rule, of the optimum that knows the whole current day at midnight, and of
model predictive control that knows the next 24 hours, in currency per mean-load day.
"""

import sys
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cospan.client.workloads.models.microgrids import (
    HOURS,
    MANY,
    Microgrid,
    Profiles,
    battery_first,
    dispatch,
    hourly_cost,
    load_site,
    site_count,
)
from cospan.client.workloads.queues import PRIORITIES, SERVERS, markov_chain, queue_parameters
from cospan.core.decisions.finite_optimum import optimal_gain
from cospan.core.exact_solutions import gain, stationary_distribution

LEVELS = 61
"""Charges of a battery that the planning moves between."""
_MPC_DAYS, _MPC_SEED = 200, 20_260_301
_MOST_SWEEPS = 200


def queue_optimum(index: int, seed: int) -> tuple[float, Int[np.ndarray, " s"]]:
    """J* of queue `index`, exact, and whether it is best to accept in each state (0 or 1)."""
    free_probability, mix = queue_parameters(index, seed)
    chains = [markov_chain(free_probability, mix, float(accept)) for accept in (0, 1)]
    return optimal_gain(np.stack([each[0] for each in chains]), np.stack([each[1] for each in chains]))


def queue_gain(index: int, seed: int, accept: Float[np.ndarray, " s"]) -> float:
    """J of a policy that accepts with these probabilities, one for each state; exact."""
    free_probability, mix = queue_parameters(index, seed)
    transition, rewards = markov_chain(free_probability, mix, accept)
    return gain(stationary_distribution(transition), rewards)


def uniform_queue_policy() -> Float[np.ndarray, " s"]:
    """Accepts with probability one half."""
    return np.full((SERVERS + 1) * len(PRIORITIES), 0.5)


@dataclass(frozen=True, eq=False, slots=True)
class Moves:
    """What it costs to move a battery from one level to another, in each hour of each recorded day.

    Attributes:
        costs: shape (days, 24, levels, levels), float32, per mean-load kWh; inf where the battery cannot.
    """

    costs: Float[np.ndarray, "days 24 k k"]

    @classmethod
    def of(cls, grid: Microgrid, profiles: Profiles, levels: int = LEVELS) -> "Moves":
        """Of one site, with evenly spaced levels from empty to full."""
        charges = np.linspace(0.0, grid.usable, levels)
        change = charges[None, :] - charges[:, None]
        action = np.where(
            change > 0.0,
            change / grid.efficiency / grid.max_charge,
            change * grid.efficiency / grid.max_discharge,
        )
        possible = np.abs(action) <= 1.0 + 1e-9
        costs = np.empty((len(profiles.net_load), HOURS, levels, levels), dtype=np.float32)
        for hour in range(HOURS):
            net_load, grid_up, price, paid = (
                series[:, hour, None, None]
                for series in (profiles.net_load, profiles.grid_up, profiles.import_cost, profiles.export_price)
            )
            level = np.broadcast_to(charges[:, None], action.shape)
            flows = dispatch(grid, level, np.clip(action, -1.0, 1.0), net_load, grid_up, by=MANY)
            costs[:, hour] = np.where(possible, hourly_cost(grid, flows, price, paid), np.inf)
        return cls(costs)

    def day_foresight(self, tolerance: float = 1e-4) -> float:
        """The least mean cost of a day, where each day is drawn at midnight and then known as a whole.

        A bound that no policy without foresight reaches, but for the rounding of the charge to the levels. Relative
        value iteration over the charge at midnight, a day's hours by dynamic programming.

        Args:
            tolerance: within which it is found, as a share of its size.

        Raises:
            ValueError: it does not converge.
        """
        value: np.ndarray = np.zeros(self.costs.shape[-1])
        for _ in range(_MOST_SWEEPS):
            ahead = np.broadcast_to(value.astype(np.float32), (len(self.costs), len(value)))
            for hour in reversed(range(HOURS)):
                ahead = (self.costs[:, hour] + ahead[:, None, :]).min(axis=2)
            change = ahead.mean(axis=0, dtype=np.float64) - value
            value = value + change - (value + change)[0]
            middle = float(change.max() + change.min()) / 2.0
            if np.ptp(change) < tolerance * abs(middle):
                return middle
        raise ValueError(f"the mean cost of a day has not converged after {_MOST_SWEEPS} sweeps")

    def predictive_control(self, days: Int[np.ndarray, " n"], horizon: int = HOURS) -> float:
        """The mean cost of a day of model predictive control that knows the next hours of these days in a row.

        Each hour it takes the first move of the cheapest plan over the horizon, whose end has no value of its own.
        The days at the end, for which the horizon is cut off, are left out, and the first two.
        """
        hours = self.costs[days].reshape(-1, *self.costs.shape[2:])
        place, spent = self.costs.shape[-1] // 2, np.zeros(len(hours))
        for now in range(len(hours)):
            ahead: np.ndarray = np.zeros(self.costs.shape[-1], dtype=np.float32)
            for later in reversed(range(now + 1, min(now + horizon, len(hours)))):
                ahead = (hours[later] + ahead).min(axis=1)
            following = int((hours[now, place] + ahead).argmin())
            spent[now] = hours[now, place, following]
            place = following
        return float(spent.reshape(-1, HOURS)[2:-2].sum(axis=1).mean())


def rule_cost(grid: Microgrid, profiles: Profiles, days: Int[np.ndarray, " n"]) -> float:
    """The mean cost of a day of battery-first on these days in a row, the first two left out."""
    level, spent = grid.usable / 2.0, np.zeros((len(days), HOURS))
    for number, day in enumerate(days):
        for hour in range(HOURS):
            net_load, grid_up, price, paid = (
                np.array([series[day, hour]])
                for series in (profiles.net_load, profiles.grid_up, profiles.import_cost, profiles.export_price)
            )
            action = battery_first(grid, net_load, by=MANY)
            flows = dispatch(grid, np.array([level]), action, net_load, grid_up, by=MANY)
            spent[number, hour] = hourly_cost(grid, flows, price, paid)[0]
            level = float(np.clip(level + flows.stored_change[0], 0.0, grid.usable))
    return float(spent[2:-2].sum(axis=1).mean())


def main() -> None:
    """Prints the table."""
    chosen = [int(text) for text in sys.argv[1:]] or list(range(site_count()))
    print("site   rule  foresight  control  foresight/rule  control/rule")
    for index in chosen:
        grid, profiles = load_site(index)
        moves = Moves.of(grid, profiles)
        days = np.random.default_rng((_MPC_SEED, index)).integers(len(profiles.net_load), size=_MPC_DAYS)
        # The rule on all days in many orders, so that the foresight bound is of the same days.
        everything = np.random.default_rng((_MPC_SEED, index, 1)).permutation(len(profiles.net_load))
        rule, same = rule_cost(grid, profiles, everything), rule_cost(grid, profiles, days)
        foresight, control = moves.day_foresight(), moves.predictive_control(days)
        print(
            f"{index:4d} {rule:6.3f} {foresight:10.3f} {control:8.3f} {foresight / rule:15.3f} "
            f"{control / same:13.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
