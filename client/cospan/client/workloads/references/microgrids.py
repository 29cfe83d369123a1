"""Makes the reference solutions of the microgrids that are shipped as package data.

    python -m cospan.client.workloads.references.microgrids [FILE]

For every site many chains are simulated side by side under the fleet's policy; what is solved for stands in
`reference_solutions`.
"""

import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.workloads.microgrids import EXPLORATION, FEATURES, REFERENCE_FILE, outlook
from cospan.client.workloads.models.microgrids import (
    HOURS,
    MANY,
    battery_first,
    dispatch,
    hourly_cost,
    load_site,
    site_count,
)
from cospan.client.workloads.references.solutions import Transitions, pooled_solution, summed, write_references

SEED = 20_260_301
BATCHES = 8
CHAINS = 500
"""In each batch."""
DAYS = 40
"""Of each chain, after `BURN_IN_DAYS` that bring it to its stationary distribution."""
BURN_IN_DAYS = 10

Hour = tuple[Float[np.ndarray, "n 5"], Float[np.ndarray, " n"]]


def simulate(index: int, chains: int, days: int, rng: np.random.Generator) -> Iterator[Hour]:
    """Hour after hour: the observations of many chains of one site, and the rewards of that hour.

    The same environment and policy as `MicrogridEnv` and `BatteryFirst`, for many chains at once.
    """
    grid, profiles = load_site(index)
    ranks = outlook(profiles)
    level = rng.random(chains) * grid.usable
    for _ in range(days):
        day = rng.integers(len(ranks), size=chains)
        for hour in range(HOURS):
            net_load, grid_up = profiles.net_load[day, hour], profiles.grid_up[day, hour]
            observations = np.column_stack(
                [np.full(chains, float(hour)), level / grid.usable, ranks[day, hour], net_load, grid_up]
            )
            action = np.where(
                rng.random(chains) < EXPLORATION,
                2.0 * rng.random(chains) - 1.0,
                battery_first(grid, net_load, by=MANY),
            )
            flows = dispatch(grid, level, action, net_load, grid_up, by=MANY)
            cost = hourly_cost(grid, flows, profiles.import_cost[day, hour], profiles.export_price[day, hour])
            level = np.clip(level + flows.stored_change, 0.0, grid.usable)
            yield observations, -cost


def least_squares(
    index: int, chains: int, days: int, burn_in_days: int, rng: np.random.Generator
) -> dict[str, Any]:
    """The sums of one batch."""
    return summed(_transitions(index, chains, days, burn_in_days, rng), FEATURES.dim)


def _transitions(
    index: int, chains: int, days: int, burn_in_days: int, rng: np.random.Generator
) -> Iterator[Transitions]:
    before = None
    for number, (observations, rewards) in enumerate(simulate(index, chains, burn_in_days + days, rng)):
        if number < burn_in_days * HOURS - 1:
            continue
        features = FEATURES.batch(observations)
        if before is not None:
            phi, reward = before
            yield phi, reward, features
        before = features, rewards


def reference_of(index: int) -> dict[str, Any]:
    """The pooled solution of a site, and its standard errors from the batches."""
    seeds = np.random.SeedSequence((SEED, index)).spawn(BATCHES)
    return pooled_solution(
        [least_squares(index, CHAINS, DAYS, BURN_IN_DAYS, np.random.default_rng(seed)) for seed in seeds]
    )


def main() -> None:
    """Makes the file, one site after another on every core."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(str(REFERENCE_FILE))
    with multiprocessing.get_context("spawn").Pool() as pool:
        write_references(path, pool.imap(reference_of, range(site_count())), FEATURES, SEED)


if __name__ == "__main__":
    main()
