"""Makes the reference solutions of the acrobots that are shipped as package data.

    python -m cospan.client.workloads.references.acrobot [FILE]

For every site many whole episodes are simulated side by side under the fleet's policy. Every start renews the
chain, so sums over whole episodes have the proportions of the stationary distribution, and no steps have to be
thrown away. What is solved for stands in `solutions`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.workloads.acrobot import FEATURES, REFERENCE_FILE, fleet_policy
from cospan.client.workloads.models.acrobot import LINK_1, LINK_2, Motion, observed, reached, starts
from cospan.client.workloads.references.solutions import pooled_batches, pooled_solution, summed, write_references

SEED = 20_260_303
EPISODES = 1500
"""In each batch."""

Step = tuple[np.ndarray, Float[np.ndarray, " n"], np.ndarray]


def simulate(index: int, episodes: int, rng: np.random.Generator) -> Iterator[Step]:
    """Step after step of the episodes of one site that are not over: observations, rewards, next observations.

    The same environment and policy as a site's; after the goal comes the observation of another start.
    """
    motion, policy = Motion(LINK_1[index], LINK_2[index]), fleet_policy()
    states = starts(episodes, rng)
    observations = observed(states)
    while observations.size:
        states = motion.after(states, policy.actions(observations, rng))
        over = reached(states)
        after = observed(states)
        after[over] = observed(starts(int(over.sum()), rng))
        yield observations, over - 1.0, after
        states, observations = states[:, ~over], after[~over]


def least_squares(index: int, rng: np.random.Generator, episodes: int = EPISODES) -> dict[str, Any]:
    """The sums of one batch."""
    steps = simulate(index, episodes, rng)
    return summed(
        ((FEATURES.batch(seen), rewards, FEATURES.batch(after)) for seen, rewards, after in steps), FEATURES.dim
    )


def reference_of(index: int) -> dict[str, Any]:
    """The pooled solution of a site, and its standard errors from the batches."""
    batches = pooled_batches(index, least_squares, seed=SEED)
    mean = sum(batch["phi"] for batch in batches) / sum(batch["n"] for batch in batches)
    return {**pooled_solution(batches), "feature_mean": mean}


if __name__ == "__main__":
    write_references(REFERENCE_FILE, map(reference_of, range(len(LINK_1))), FEATURES, SEED)
