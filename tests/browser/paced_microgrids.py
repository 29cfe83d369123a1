"""The microgrids at a pace that leaves the machine to the browser; one of them is slow."""

import time
from dataclasses import replace
from typing import Any

import gymnasium

from cospan.client.workload import Site
from cospan.client.workloads import microgrids

SLOW = 4
"""Index of the slow site."""
_STEP_SECONDS, _SLOW_STEP_SECONDS = 0.0015, 0.008
"""With 24 steps a round takes 40 ms of waiting, and 190 ms at the slow site."""


class Paced(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Takes its time for every step."""

    def __init__(self, env: gymnasium.Env[Any, Any], seconds: float) -> None:
        super().__init__(env)
        self._seconds = seconds

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        time.sleep(self._seconds)
        return self.env.step(action)


def make_site(index: int, seed: int) -> Site:
    site = microgrids.make_site(index, seed)
    return replace(site, env=Paced(site.env, _SLOW_STEP_SECONDS if index == SLOW else _STEP_SECONDS))


workload = replace(microgrids.workload, make_site=make_site, make_fleet=None)
