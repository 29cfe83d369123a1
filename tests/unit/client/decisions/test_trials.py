"""Trials: a replay gives what the environment gives, and neither trial favours a policy that is no better."""

from dataclasses import replace

import numpy as np
import pytest

from cospan.client.decisions.acting_env import ActingEnv, disagreement
from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.decisions.trials import SEGMENT_BLOCKS, Turns, replayed_gains
from cospan.client.workload import Decisions, Site
from cospan.client.workloads import microgrids, queues

HOURS = 24


def acting(site: int = 1, explore: float = 0.1, days: int = 31) -> ActingEnv:
    made = microgrids.make_site(site, 0)
    env = ActingEnv(made, GreedyPolicy.given(made, index=site), explore)
    env.reset(seed=5)
    env.take_log()
    env.act(days * HOURS)
    return env


def test_a_replay_of_what_was_done_is_what_happened() -> None:
    env = acting(explore=0.0)
    log = env.take_log()
    (gains,) = replayed_gains([env.policy], log, HOURS, np.random.default_rng(0))
    assert len(gains) == 3 * SEGMENT_BLOCKS
    decisions = env.policy.decisions
    assert decisions.step_rewards is not None
    expected = decisions.step_rewards(np.stack(log.observations), np.stack(log.actions)).reshape(-1, HOURS)
    np.testing.assert_allclose(gains, expected.mean(axis=1)[1:], atol=1e-12)
    # What was paid differs by the CO2 of the hour alone.
    assert gains.mean() == pytest.approx(np.mean(log.rewards[HOURS:]), rel=0.02)


def test_a_replay_of_another_policy_is_what_it_would_have_done() -> None:
    log = acting(explore=0.5).take_log()
    held = GreedyPolicy.given(microgrids.make_site(1, 0), index=1)
    (gains,) = replayed_gains([held], log, HOURS, np.random.default_rng(0))
    level = float(log.observations[0][microgrids.CHARGE])
    decisions, rewards = held.decisions, []
    assert decisions.step_rewards is not None
    assert decisions.afterstates is not None
    for seen in log.observations[: 11 * HOURS]:
        standing = seen.copy()
        standing[microgrids.CHARGE] = level
        action = held.batch(standing[None])
        rewards.append(float(decisions.step_rewards(standing[None], action)[0]))
        level = float(decisions.afterstates(standing[None], action)[0, microgrids.CHARGE])
    np.testing.assert_allclose(gains[:10], np.reshape(rewards, (11, HOURS)).mean(axis=1)[1:], atol=1e-12)


def test_segments_of_any_length_replay_the_same_blocks() -> None:
    env = acting(explore=0.0)
    log, generator = env.take_log(), np.random.default_rng(0)
    (long,) = replayed_gains([env.policy], log, HOURS, generator)
    (short,) = replayed_gains([env.policy], log, HOURS, generator, segment_blocks=2)
    np.testing.assert_allclose(short, long, atol=1e-12)


def test_too_short_a_log_has_no_blocks() -> None:
    env = acting(days=1)
    assert replayed_gains([env.policy], env.take_log(), HOURS, np.random.default_rng(0)).shape == (1, 0)


def test_a_trial_in_turn_finds_the_better_policy_and_keeps_the_held_one() -> None:
    site = queues.make_site(0, 1)
    held = GreedyPolicy.given(site)
    always = held.learnt(np.array([0.0] * 10 + [1.0] * 4), None, 0.0)  # letting in has a value, and servers none
    env = ActingEnv(site, held, 0.1)
    env.reset(seed=1)
    env.take_log()
    differences = in_turn(env, held, always, Turns(12, 100))
    assert differences.mean() > 0.0  # with this queue, accepting all is better than one half
    same = in_turn(env, held, held, Turns(40, 100))
    assert abs(same.mean()) < 3.5 * same.std(ddof=1) / np.sqrt(40)


def in_turn(env: ActingEnv, held: GreedyPolicy, new: GreedyPolicy, turns: Turns) -> np.ndarray:
    for steps, is_new in turns.spans(0, 2 * turns.pairs * turns.block):
        env.policy = new if is_new else held
        env.act(steps)
    return turns.differences(env.take_log().rewards)


def test_turns_are_the_same_however_they_are_cut_into_rounds() -> None:
    turns = Turns.of(500)
    assert turns == Turns(12, 20)
    whole = turns.spans(0, 500)
    cut = [span for first in range(0, 500, 7) for span in turns.spans(first, min(7, 500 - first))]
    assert [is_new for count, is_new in whole for _ in range(count)] == [
        is_new for count, is_new in cut for _ in range(count)
    ]
    assert whole[:4] == [(20, False), (20, True), (20, True), (20, False)]
    assert whole[-1] == (20, False)  # left over
    assert sum(count for count, is_new in whole if is_new) == 240


def test_differences_are_of_second_halves_and_of_complete_pairs_alone() -> None:
    turns = Turns(3, 4)
    rewards = [9.0, 9.0, 1.0, 1.0, 9.0, 9.0, 3.0, 3.0, 9.0, 9.0, 5.0, 5.0, 9.0, 9.0, 1.0, 1.0, 7.0]
    np.testing.assert_array_equal(turns.differences(rewards), [2.0, 4.0])
    assert turns.differences(rewards[:5]).shape == (0,)


def test_rewards_follow_the_afterstate_they_belong_to() -> None:
    made = microgrids.make_site(1, 0)
    env = ActingEnv(made, GreedyPolicy.given(made, index=1), 0.1)
    first, _ = env.reset(seed=3)
    second, reward, *_ = env.step(0)
    log = env.log
    assert reward == log.rewards[1]  # of the action after the first afterstate
    decisions = env.policy.decisions
    assert decisions.afterstates is not None
    for after, place in ((first, 0), (second, 1)):
        seen, action = log.observations[place][None], np.asarray(log.actions[place])[None]
        np.testing.assert_array_equal(after, decisions.afterstates(seen, action)[0])
    assert env.reset(seed=9)[0] is second  # the chain continues


def test_pairs_have_the_reward_of_their_own_action() -> None:
    site = queues.make_site(0, 1)
    env = ActingEnv(site, GreedyPolicy.given(site), 0.1)
    env.reset(seed=3)
    found = [env.step(0)[1] for _ in range(30)]
    assert found == env.log.rewards[:30]


def test_an_afterstate_that_disagrees_is_named() -> None:
    env = acting(days=3)
    assert disagreement(env.policy, env.log) == ""
    decisions = env.policy.decisions
    assert decisions.afterstates is not None
    lossless = replace(decisions, afterstates=lambda seen, _: seen)
    assert "steps disagree" in disagreement(replace(env.policy, decisions=lossless), env.log)
    wrong = replace(decisions, step_rewards=lambda seen, _: np.sin(1e4 * seen[:, microgrids.NET_LOAD]))
    assert "unexplained" in disagreement(replace(env.policy, decisions=wrong), env.log)


def test_pairs_have_nothing_to_disagree_with() -> None:
    site = queues.make_site(0, 1)
    assert isinstance(site, Site)
    assert isinstance(site.decisions, Decisions)
    env = ActingEnv(site, GreedyPolicy.given(site), 0.1)
    env.reset(seed=3)
    assert disagreement(env.policy, env.log) == ""
