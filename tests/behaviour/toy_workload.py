"""A workload small enough for tests of the command line, and the ways in which a user's workload may be broken.

Four states in a ring: a step moves forward with a probability that differs between sites; state 0 pays.
Named on the command line as `toy_workload:NAME`, from this folder.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete

from cospan.client.features import OneHotFeatures
from cospan.client.workload import Site, Workload
from cospan.core.exact_solutions import (
    ReferenceSolution,
    common_subspace,
    differential_value,
    feature_covariance,
    gain,
    stationary_distribution,
)

STATES = 4
FEATURES = OneHotFeatures(STATES)
SIGNAL_STEP = 40
FIFO = "TOY_FIFO"
"""Names the pipe into which site 1 of `signalling` and `stuck` writes its process id at SIGNAL_STEP."""


class RingEnv(gymnasium.Env[Any, Any]):
    """The ring; `at_step` may do mischief at any step."""

    def __init__(self, forward: float, at_step: Callable[[int], None] = lambda step: None) -> None:
        self.observation_space, self.action_space = Discrete(STATES), Discrete(1)
        self._forward, self._at_step, self._state, self._steps = forward, at_step, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._state = 0
        return self._state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self._at_step(self._steps)
        self._steps += 1
        if self.np_random.random() < self._forward:
            self._state = (self._state + 1) % STATES
        return self._state, float(self._state == 0), False, False, {}


def reference(forward: float) -> ReferenceSolution:
    """J, z* and C, exact."""
    transition = (1.0 - forward) * np.eye(STATES) + forward * np.roll(np.eye(STATES), 1, axis=1)
    rewards = transition[:, 0]
    stationary, value = stationary_distribution(transition), differential_value(transition, rewards)
    covariance = feature_covariance(FEATURES.batch(np.arange(STATES)), stationary)
    return ReferenceSolution(gain(stationary, rewards), value[1:] - value[0], covariance)


def forward_probability(index: int) -> float:
    return 0.4 + 0.05 * (index % 10)


def make_site(index: int, seed: int, at_step: Callable[[int], None] = lambda step: None) -> Site:
    forward = forward_probability(index)
    return Site(
        env=RingEnv(forward, at_step),
        features=FEATURES,
        policy=lambda observation, generator: 0,
        reference=reference(forward),
        label=f"ring {index}",
    )


def fleet_basis(agents: int, rank: int, seed: int) -> np.ndarray:
    return common_subspace(
        np.stack([reference(forward_probability(index)).weights for index in range(agents)]), rank
    )[0]


workload = Workload(
    make_site=make_site, name="toy", rank=1, steps_per_round=5, max_agents=10, fleet_basis=fleet_basis
)


def unknown_truth(index: int, seed: int) -> Site:
    """A plain function, with nothing known to be true; it also prints, as a user's code may."""
    print(f"making site {index}")
    return replace(make_site(index, seed), reference=None, label="")


# Broken -----------------------------------------------------------------------------------------------------


def _raise(step: int) -> None:
    raise RuntimeError("the pump is on fire")


def raises_at_once(index: int, seed: int) -> Site:
    return make_site(index, seed, _raise)


def one_raises_at_once(index: int, seed: int) -> Site:
    return make_site(index, seed, _raise) if index == 1 else make_site(index, seed)


def one_raises_later(index: int, seed: int) -> Site:
    def at_step(step: int) -> None:
        if index == 1 and step == SIGNAL_STEP:
            _raise(step)

    return make_site(index, seed, at_step)


def site_raises(index: int, seed: int) -> Site:
    raise RuntimeError("no plan of this site")


@dataclass(frozen=True)
class WrongFeatures:
    """The ring's features, spoilt."""

    spoil: Callable[[np.ndarray], np.ndarray]
    dim: int = FEATURES.dim
    fingerprint: str = "spoilt"

    def __call__(self, observation: Any) -> np.ndarray:
        return self.batch([observation])[0]

    def batch(self, observations: Any) -> np.ndarray:
        return self.spoil(FEATURES.batch(observations))


def wrong_length(index: int, seed: int) -> Site:
    return replace(make_site(index, seed), features=WrongFeatures(lambda rows: rows[:, :-1]))


def not_finite(index: int, seed: int) -> Site:
    return replace(make_site(index, seed), features=WrongFeatures(lambda rows: rows * math.nan))


def too_long(index: int, seed: int) -> Site:
    return replace(make_site(index, seed), features=WrongFeatures(lambda rows: 3.0 * rows))


@dataclass(frozen=True)
class AllStates:
    """One-hot features of every state, none left out: they sum to the constant."""

    dim: int = STATES
    fingerprint: str = "all-states"

    def __call__(self, observation: Any) -> np.ndarray:
        return self.batch([observation])[0]

    def batch(self, observations: Any) -> np.ndarray:
        return np.eye(STATES)[np.asarray(observations)]


def with_constant(index: int, seed: int) -> Site:
    return replace(make_site(index, seed), features=AllStates(), reference=None)


not_a_workload = 7


# Told when to act -------------------------------------------------------------------------------------------


def _tell() -> None:
    with Path(os.environ[FIFO]).open("w", encoding="ascii") as pipe:
        pipe.write(f"{os.getpid()}\n")


def signalling(index: int, seed: int) -> Site:
    """Site 1 prints that it has reached SIGNAL_STEP, and continues."""

    def at_step(step: int) -> None:
        if index == 1 and step == SIGNAL_STEP:
            _tell()

    return make_site(index, seed, at_step)


def stuck(index: int, seed: int) -> Site:
    """Site 1 says that it has come to SIGNAL_STEP, and then waits for ever."""

    def at_step(step: int) -> None:
        if index == 1 and step == SIGNAL_STEP:
            _tell()
            with Path(os.environ[FIFO]).open(encoding="ascii") as pipe:
                pipe.read()

    return make_site(index, seed, at_step)


def leisurely(index: int, seed: int) -> Site:
    """Takes a tenth of a second for each round of `workload`, so that its progress is seen."""
    return make_site(index, seed, lambda step: time.sleep(0.02))


def _wait_once_a_round(step: int) -> None:
    if step % workload.steps_per_round == 0:
        time.sleep(0.03)


unhurried = replace(workload, make_site=lambda index, seed: make_site(index, seed, _wait_once_a_round))
"""`workload`, with so much time in a round that few rounds are enough to be killed in the middle of."""


def ends_the_process(index: int, seed: int) -> Site:
    def at_step(step: int) -> None:
        if step == SIGNAL_STEP:
            sys.stderr.flush()
            os._exit(77)

    return make_site(index, seed, at_step)
