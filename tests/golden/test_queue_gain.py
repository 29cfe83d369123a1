"""The gain of one access-control queue, and the timing convention it settles.

Origin of the numbers: the transition matrix of the queue of Sutton and Barto 2018, example 10.2 (ten servers,
p = 0.06, priorities 1, 2, 4 and 8 equally likely, accepted with probability one half) written down independently of
this package, and its stationary distribution solved for. With the just-taken server also getting its chance of
becoming free in the same step the gain is 1.6982, without it 1.6573. The fleet's queues use the first.

Here the gain comes from the chain of busy servers alone, whose distribution does not depend on priorities: a step
accepts with probability one half if a server is free, and then each busy server becomes free with probability p.
"""

from math import comb

import numpy as np
import pytest

from cospan.client.workloads.queues import QueueEnv, markov_chain
from cospan.core.exact_solutions import gain, stationary_distribution

EQUAL = np.full(4, 0.25)
GAIN = 1.6982
GAIN_OF_THE_OTHER_TIMING = 1.6573


def gain_from_busy_servers(*, taken_may_free: bool) -> float:
    """J = ½ · mean priority · P(a server is free), from the chain of 0 … 10 busy servers."""
    chain = np.zeros((11, 11))
    for busy in range(11):
        for taken, chance in ((1, 0.5), (0, 0.5)) if busy < 10 else ((0, 1.0),):
            candidates = busy + taken if taken_may_free else busy
            for freed in range(candidates + 1):
                probability = comb(candidates, freed) * 0.06**freed * 0.94 ** (candidates - freed)
                chain[busy, busy + taken - freed] += chance * probability
    stationary = np.linalg.matrix_power(chain, 4096)[0]
    return float(0.5 * np.mean([1.0, 2.0, 4.0, 8.0]) * (1.0 - stationary[10]))


def test_gain_of_the_transition_matrix() -> None:
    transition, rewards = markov_chain(0.06, EQUAL, 0.5)
    assert gain(stationary_distribution(transition), rewards) == pytest.approx(GAIN, abs=5e-5)


def test_gain_from_busy_servers_tells_the_timings_apart() -> None:
    assert gain_from_busy_servers(taken_may_free=True) == pytest.approx(GAIN, abs=5e-5)
    assert gain_from_busy_servers(taken_may_free=False) == pytest.approx(GAIN_OF_THE_OTHER_TIMING, abs=5e-5)


def test_gain_of_the_simulated_queue() -> None:
    """60,000 steps leave a standard error of about 0.013; the other timing is three of them away."""
    env = QueueEnv(0.06, EQUAL)
    env.reset(seed=7)
    actions = np.random.default_rng(8).integers(2, size=60_000).tolist()
    mean = sum(env.step(action)[1] for action in actions) / len(actions)
    assert mean == pytest.approx(GAIN, abs=0.02)
