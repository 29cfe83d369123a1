"""The optimum of a finite process: that of every policy tried, where there are few."""

import itertools

import numpy as np
import pytest

from cospan.core.decisions.finite_optimum import optimal_gain
from cospan.core.exact_solutions import gain, stationary_distribution


def test_it_is_the_best_of_all_policies() -> None:
    rng = np.random.default_rng(4)
    transitions, rewards = rng.dirichlet(np.ones(4), size=(3, 4)), rng.normal(size=(3, 4))
    gains = {}
    for chosen in itertools.product(range(3), repeat=4):
        states = np.arange(4)
        chain = transitions[chosen, states]
        gains[chosen] = gain(stationary_distribution(chain), rewards[chosen, states])
    best, policy = optimal_gain(transitions, rewards)
    assert best == pytest.approx(max(gains.values()), abs=1e-9)
    assert gains[tuple(policy.tolist())] == pytest.approx(best, abs=1e-9)


def test_a_periodic_chain_is_named() -> None:
    swap = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    with pytest.raises(ValueError, match="is the chain periodic"):
        optimal_gain(swap, np.array([[0.0, 1.0]]), most_sweeps=50)
