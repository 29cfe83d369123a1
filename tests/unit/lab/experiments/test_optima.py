"""What bounds learnt policies: the optimum of a queue, and a microgrid's cost with foresight."""

import numpy as np
import pytest

from cospan.client.workloads.models.microgrids import Profiles, load_site
from cospan.client.workloads.queues import fleet_policy, markov_chain
from cospan.core.decisions.finite_optimum import optimal_gain
from cospan.core.exact_solutions import gain, stationary_distribution
from cospan.experiments.optima import Moves, queue_gain, queue_optimum, rule_cost, uniform_queue_policy


def test_the_optimum_of_a_queue_is_that_of_its_best_policy() -> None:
    best, accept = queue_optimum(3, 1)
    assert queue_gain(3, 1, accept.astype(float)) == pytest.approx(best, abs=1e-9)
    assert queue_gain(3, 1, uniform_queue_policy()) < queue_gain(3, 1, fleet_policy()) < best


def test_the_textbooks_queue() -> None:
    chains = [markov_chain(0.06, np.full(4, 0.25), float(accept)) for accept in (0, 1)]
    best, accept = optimal_gain(np.stack([each[0] for each in chains]), np.stack([each[1] for each in chains]))
    half = markov_chain(0.06, np.full(4, 0.25), 0.5)
    assert gain(stationary_distribution(half[0]), half[1]) == pytest.approx(1.6982, abs=1e-4)
    # The policy that is found has exactly this gain, and every single change of it has less.
    chain, rewards = markov_chain(0.06, np.full(4, 0.25), accept.astype(float))
    assert gain(stationary_distribution(chain), rewards) == pytest.approx(best, abs=1e-9)
    for state in range(4, 44):
        other = accept.astype(float)
        other[state] = 1.0 - other[state]
        chain, rewards = markov_chain(0.06, np.full(4, 0.25), other)
        assert gain(stationary_distribution(chain), rewards) <= best + 1e-12


def test_foresight_and_control_cost_less_than_the_rule_and_not_less_than_each_other_can() -> None:
    grid, profiles = load_site(9)
    few = Profiles(*(series[:12] for series in (
        profiles.net_load, profiles.grid_up, profiles.import_cost, profiles.export_price
    )))  # fmt: skip
    moves = Moves.of(grid, few, levels=31)
    days = np.random.default_rng(0).integers(12, size=40)
    rule, control, foresight = rule_cost(grid, few, days), moves.predictive_control(days), moves.day_foresight()
    assert control < rule
    assert foresight < rule_cost(grid, few, np.tile(np.arange(12), 4))
    finer = Moves.of(grid, few, levels=61).day_foresight()
    assert finer <= foresight  # every move of the coarser levels is one of the finer
    assert foresight - finer < 0.02 * finer
