"""Where a site goes under its policy: the observations of a simulated stretch, and the most typical of them."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.environment.ownership import user_code
from cospan.client.environment.rollout import origin_of_chain
from cospan.client.workload import Site

STREAM = 0x9E3779B1
"""Stands in the place of the round in the seed, so that what is drawn is not the run's own data."""
_MOST_VALUES = 48
_GRID = 73


def visited(site: Site, steps: int, *, index: int, seed: int) -> list[Any]:
    """Observations of consecutive steps, with data of their own.

    Args:
        site: is stepped.
        steps: how many.
        index: of the site.
        seed: of the run; the same seed and index give the same observations.

    Raises:
        WorkloadBehaviourError: the environment or the policy raised.
    """
    environment_seed, rng = origin_of_chain(seed, index, STREAM, 0)
    found: list[Any] = []
    with user_code(f"the environment or policy of site {index} failed"):
        observation = copy.deepcopy(site.env.reset(seed=environment_seed)[0])
        for _ in range(steps):
            found.append(observation)
            observation, _, terminated, _, _ = site.env.step(site.policy(observation, rng))
            if terminated:
                observation, _ = site.env.reset()
            observation = copy.deepcopy(observation)  # the environment may go on to write into the same array
    return found


def typical(numbers: Float[np.ndarray, "n k"]) -> int:
    """The row that is nearest to all medians, each coordinate in units of its mean distance from its median."""
    middle = np.median(numbers, axis=0)
    distances = np.abs(numbers - middle)
    scale = distances.mean(axis=0)
    return int((distances / np.where(scale > 0.0, scale, 1.0)).sum(axis=1).argmin())


def grid_of(numbers: Float[np.ndarray, " n"], *, is_whole: bool) -> Float[np.ndarray, " m"]:
    """Numbers of one coordinate to draw at: all that were met where these are few, else evenly between the ends."""
    met = np.unique(numbers)
    if len(met) <= _MOST_VALUES:
        return met
    even = np.linspace(met[0], met[-1], _GRID)
    return np.unique(np.round(even)) if is_whole else even


def ranges_of(names: Sequence[str], numbers: Float[np.ndarray, "n k"]) -> dict[str, tuple[float, float]]:
    """The smallest and the largest number of each coordinate."""
    return {name: (float(column.min()), float(column.max())) for name, column in zip(names, numbers.T, strict=True)}
