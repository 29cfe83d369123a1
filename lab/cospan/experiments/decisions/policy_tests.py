"""What a policy is worth: exactly, of a queue; of a microgrid, on test days that no learning used."""

import numpy as np

from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.workloads import microgrids, queues
from cospan.client.workloads.models.microgrids import HOURS, MANY, dispatch, hourly_cost, load_site
from cospan.experiments.optima import queue_gain, queue_optimum, uniform_queue_policy

CHAINS, DAYS, BURN_IN_DAYS = 20, 30, 2


def queue_worth(policy: GreedyPolicy, seed: int) -> tuple[float, float]:
    """Exact gain of the policy of a queue, as a share of the optimum; and itself."""
    states = np.arange(queues.FEATURES.states)
    accepts = np.where(policy.draws(states), uniform_queue_policy(), policy.batch(states))
    gain = queue_gain(policy.index, seed, accepts)
    return gain / queue_optimum(policy.index, seed)[0], gain


def microgrid_cost(index: int, policy: GreedyPolicy, seed: int, *, chains: int = CHAINS, days: int = DAYS) -> float:
    """The mean cost of a day of one site under a policy, without exploration, in currency per mean-load day.

    The same seed gives the same days for every policy, so differences of policies are not of the weather. The
    numbers are those of as many `MicrogridEnv`, to the bit, in a fraction of the time.

    Args:
        index: of the site.
        policy: of it.
        seed: of the test days; the days of a run come from other seeds.
        chains: environments that start at charges of their own.
        days: of each chain that count, after `BURN_IN_DAYS`.
    """
    grid, profiles = load_site(index)
    seeds = np.random.SeedSequence((seed, index, 0x74657374)).generate_state(chains)
    # As an environment draws: the first day, the charge, and a day at each midnight.
    generators = [np.random.default_rng(int(each)) for each in seeds]
    records = len(profiles.net_load)
    first = [int(each.integers(records)) for each in generators]
    level = np.array([float(each.random()) for each in generators]) * grid.usable
    drawn = np.array([first, *([int(each.integers(records)) for each in generators] for _ in range(days + 1))])
    outlook, seen, total = microgrids.outlook(profiles), np.zeros((chains, 5)), 0.0
    for step in range((BURN_IN_DAYS + days) * HOURS):
        day, hour = drawn[step // HOURS], step % HOURS
        seen[:, microgrids.HOUR] = hour
        seen[:, microgrids.CHARGE] = level / grid.usable
        seen[:, microgrids.OUTLOOK] = outlook[day, hour]
        seen[:, microgrids.NET_LOAD] = profiles.net_load[day, hour]
        seen[:, microgrids.GRID_UP] = profiles.grid_up[day, hour]
        wish = np.clip(policy.batch(seen)[:, 0], -1.0, 1.0)
        net_load, grid_up = seen[:, microgrids.NET_LOAD], seen[:, microgrids.GRID_UP]
        flows = dispatch(grid, level, wish, net_load, grid_up, by=MANY)
        costs = hourly_cost(grid, flows, profiles.import_cost[day, hour], profiles.export_price[day, hour])
        level = np.clip(level + flows.stored_change, 0.0, grid.usable)
        if step >= BURN_IN_DAYS * HOURS:
            total += sum(costs.tolist())
    return total / (chains * days)
