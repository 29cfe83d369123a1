"""Policies made from all logged steps are better than those that took the steps."""

import numpy as np
import pytest
from stores import Store

from cospan.client.decisions import logged_values
from cospan.client.decisions.acting_env import ActingEnv, StepLog
from cospan.client.decisions.logged_values import action_values, planned_values, prior_of_plans
from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.workloads import queues
from cospan.core.learning.learner_state import LearnerState
from cospan.core.learning.posterior import FleetPrior
from cospan.experiments.optima import queue_gain, queue_optimum


def log_of(env: ActingEnv, steps: int) -> StepLog:
    env.reset(seed=3)
    env.act(steps)
    return env.take_log()


def test_a_store_buys_cheaply_and_sells_dearly() -> None:
    site = Store().site()
    policy = GreedyPolicy.given(site)
    log = log_of(ActingEnv(site, policy, 0.1), 300)
    values = planned_values(policy, log, 10, None)
    assert values is not None
    better = policy.learnt(*values, 0.0)
    assert better.batch(np.array([[1.0, 0.0], [1.0, 1.0], [3.0, 1.0], [3.0, 2.0]])).tolist() == [2, 2, 0, 0]


def test_a_log_that_is_too_short_gives_none() -> None:
    policy = Store().policy()
    assert planned_values(policy, StepLog(), 10, None) is None
    assert planned_values(policy, StepLog([np.zeros(2)] * 20, [1] * 20, [0.0] * 20), 10, None) is None


def test_an_agent_that_has_learnt_of_no_plan_has_no_prior() -> None:
    assert prior_of_plans(LearnerState.initial(1), FleetPrior(np.eye(2)[:, :1], np.eye(1), 3)) is None


def test_a_queue_comes_close_to_its_optimum_from_steps_of_the_uniform_policy() -> None:
    site = queues.make_site(0, 1)
    policy = GreedyPolicy.given(site)
    log = log_of(ActingEnv(site, policy, 0.1), 2000)
    better = policy.learnt(*action_values(policy, log, None), 0.0)
    accepts = better.batch(np.arange(44)).astype(float)
    assert queue_gain(0, 1, accepts) > 0.97 * queue_optimum(0, 1)[0]


def test_action_values_need_two_steps() -> None:
    policy = GreedyPolicy.given(queues.make_site(0, 1))
    with pytest.raises(ValueError, match="there must be two"):
        action_values(policy, StepLog([np.array(1)], [0], [0.0]), None)


def test_of_many_steps_the_newest_are_made_use_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of the newest steps are those of a log that has no others."""
    site = queues.make_site(0, 1)
    policy = GreedyPolicy.given(site)
    log = log_of(ActingEnv(site, policy, 0.1), 300)
    monkeypatch.setattr(logged_values, "MOST_NUMBERS", 100 * 2 * 14)
    np.testing.assert_array_equal(
        action_values(policy, log, None)[0], action_values(policy, log.tail(100), None)[0]
    )
    store = Store().policy()
    log = StepLog([np.array([1.0 + 2.0 * (step % 3 == 0), 0.0]) for step in range(60)], [1] * 60, [0.0] * 60)
    monkeypatch.setattr(logged_values, "MOST_STEPS", 30)
    newest, all_kept = planned_values(store, log.tail(30), 5, None), planned_values(store, log, 5, None)
    assert newest is not None
    assert all_kept is not None
    np.testing.assert_array_equal(all_kept[0], newest[0])
