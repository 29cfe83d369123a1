"""A control loop as people have it: it steps a site itself, and tells an agent what it sees.

    python control_loop.py WORKLOAD INDEX SEED ADDRESS STEPS [FOLDER]

The site, its seeds and its policy are those of the agent that steps the environment by itself.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from cospan.client.agent import Agent, ClientSettings
from cospan.client.environment.rollout import origin_of_chain
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.feeds.told import FeedSettings
from cospan.client.workload import Site

SECONDS = 120.0


def loop(workload: str, index: int, seed: int, steps: int) -> Iterator[tuple[np.ndarray, float | None]]:
    """Observation and reward of each step; the last observation has no reward yet."""
    site = make_site(load_workload(workload), index, seed)
    assert isinstance(site, Site)
    environment_seed, generator = origin_of_chain(seed, index, 0, 0)
    observation: Any = np.array(site.env.reset(seed=environment_seed)[0])
    for _ in range(steps):
        action = site.policy(observation, generator)
        after, reward, terminated, _, _ = site.env.step(action)
        yield observation, float(reward)
        observation = np.array(site.env.reset()[0] if terminated else after)
    yield observation, None


def main(workload: str, index: int, seed: int, address: str, steps: int) -> None:
    """Tells all steps, and waits for the end of the run."""
    with Agent(workload, index=index, coordinator=address, settings=ClientSettings(), feed=FeedSettings()) as agent:
        for number, (observation, reward) in enumerate(loop(workload, index, seed, steps)):
            agent.observe(observation, reward, sequence=number)
        end = agent.wait_until_over(SECONDS)
    print(end)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
