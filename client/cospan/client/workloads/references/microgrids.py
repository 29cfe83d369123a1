"""Makes the reference solutions of the microgrids that are shipped as package data.

    python -m cospan.client.workloads.references.microgrids [FILE]

For every site many chains are simulated side by side under the fleet's policy; the system is in `solutions`.
"""

import multiprocessing
from collections.abc import Callable, Iterator
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
from cospan.client.workloads.references.solutions import (
    Transitions,
    pooled_batches,
    pooled_solution,
    summed,
    write_references,
)

SEED = 20_260_301
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


def transitions(
    index: int,
    rng: np.random.Generator,
    features: Callable[[Float[np.ndarray, "n 5"]], Float[np.ndarray, "n d"]],
    *,
    chains: int = CHAINS,
    days: int = DAYS,
    burn_in_days: int = BURN_IN_DAYS,
) -> Iterator[Transitions]:
    """The transitions of `simulate`, hour after hour, from the last hour of the burn-in on."""
    before = None
    for number, (observations, rewards) in enumerate(simulate(index, chains, burn_in_days + days, rng)):
        if number < burn_in_days * HOURS - 1:
            continue
        seen = features(observations)
        if before is not None:
            yield *before, seen
        before = seen, rewards


def least_squares(index: int, rng: np.random.Generator, **sizes: int) -> dict[str, Any]:
    """The sums of one batch; `sizes` are those of `transitions`."""
    return summed(transitions(index, rng, FEATURES.batch, **sizes), FEATURES.dim)


def reference_of(index: int) -> dict[str, Any]:
    """The pooled solution of a site, and its standard errors from the batches."""
    return pooled_solution(pooled_batches(index, least_squares, seed=SEED))


def main() -> None:
    """Makes the file, one site after another on every core."""
    with multiprocessing.get_context("spawn").Pool() as pool:
        write_references(REFERENCE_FILE, pool.imap(reference_of, range(site_count())), FEATURES, SEED)


if __name__ == "__main__":
    main()
