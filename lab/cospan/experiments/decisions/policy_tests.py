"""What a policy costs on test days that no learning used: many chains of the environment itself, side by side."""

import numpy as np

from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.workloads.microgrids import MicrogridEnv
from cospan.client.workloads.models.microgrids import HOURS, load_site

CHAINS, DAYS, BURN_IN_DAYS = 20, 30, 2


def microgrid_cost(index: int, policy: GreedyPolicy, seed: int, *, chains: int = CHAINS, days: int = DAYS) -> float:
    """The mean cost of a day of one site under a policy, without exploration, in currency per mean-load day.

    The same seed gives the same days for every policy, so differences of policies are not of the weather.

    Args:
        index: of the site.
        policy: of it.
        seed: of the test days; the days of a run come from other seeds.
        chains: environments that start at charges of their own.
        days: of each chain that count, after `BURN_IN_DAYS`.
    """
    grid, profiles = load_site(index)
    envs = [MicrogridEnv(grid, profiles) for _ in range(chains)]
    seeds = np.random.SeedSequence((seed, index, 0x74657374)).generate_state(chains)
    seen = np.stack([env.reset(seed=int(each))[0] for env, each in zip(envs, seeds, strict=True)])
    total = 0.0
    for step in range((BURN_IN_DAYS + days) * HOURS):
        found = [env.step(action) for env, action in zip(envs, policy.batch(seen), strict=True)]
        seen = np.stack([each[0] for each in found])
        if step >= BURN_IN_DAYS * HOURS:
            total -= sum(each[1] for each in found)
    return total / (chains * days)
