"""A learnt policy: greedy beyond its error bars only, the same from a file, and able to say why."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cospan.client import GreedyPolicy
from cospan.client.decisions.pair_features import OneHotPairs
from cospan.client.workload import Decisions, Site
from cospan.client.workloads import microgrids, queues
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.files.npz import save_npz

RNG = np.random.default_rng(3)


def microgrid(site: int = 9) -> GreedyPolicy:
    made = microgrids.make_site(site, 0)
    given = GreedyPolicy.given(made, index=site, workload="microgrids")
    return given.learnt(RNG.normal(size=95), 0.1 * np.eye(95), 1.0)


def observations(number: int = 40) -> np.ndarray:
    env = microgrids.make_site(9, 0).env
    found = [env.reset(seed=1)[0]]
    while len(found) < number:
        found.append(env.step(RNG.uniform(-1, 1, 1))[0])
    return np.stack(found)


def test_many_observations_give_what_each_gives() -> None:
    policy, seen = microgrid(), observations()
    np.testing.assert_array_equal(policy.batch(seen), [policy(each) for each in seen])


def test_the_chosen_action_has_the_largest_value_where_nothing_is_uncertain() -> None:
    policy = replace(microgrid(), root=None, caution=0.0)
    decisions, seen = policy.decisions, observations(1)
    assert decisions.afterstates is not None
    assert decisions.step_rewards is not None
    many = np.repeat(seen, len(policy.actions), axis=0)
    after = decisions.afterstates(many, policy.actions)
    values = decisions.step_rewards(many, policy.actions) + policy.features.batch(after) @ policy.weights
    best = policy.explain(seen[0])[0]
    assert best.chosen
    rule = next(each for each in policy.explain(seen[0]) if each.is_rule)
    assert rule.advantage == pytest.approx(0.0, abs=1e-12)
    (taken,) = (each for each in policy.explain(seen[0]) if each.chosen)
    if not taken.is_rule:
        assert values.max() == pytest.approx(values[np.abs(policy.actions - taken.action).argmin()])


def test_without_caution_the_error_bars_play_no_part() -> None:
    seen, policy = observations(), microgrid()
    unknown = replace(policy, root=np.full((policy.features.dim,) * 2, np.nan), caution=0.0)
    np.testing.assert_array_equal(unknown.batch(seen), replace(policy, root=None).batch(seen))
    assert [each.chosen for each in unknown.explain(seen[0])] == [
        each.chosen for each in replace(policy, caution=0.0).explain(seen[0])
    ]


def test_within_the_error_bars_the_rule_is_kept() -> None:
    seen, policy = observations(), microgrid()
    rule = policy.decisions.rule
    assert rule is not None
    departs = [
        np.mean(replace(policy, caution=caution).batch(seen) != rule(seen)) for caution in (0.0, 1.0, 10.0, 1e6)
    ]
    assert departs[0] > 0.5
    assert departs == sorted(departs, reverse=True)
    assert departs[-1] == 0.0


def test_its_intervals_hold_the_advantage_and_none_is_claimed_without_a_covariance() -> None:
    seen = observations(1)[0]
    told = microgrid().explain(seen)
    assert all(each.low <= each.advantage <= each.high for each in told)
    rule = next(each for each in told if each.is_rule)
    assert (rule.low, rule.high) == (0.0, 0.0)
    assert all(math.isnan(each.low) for each in replace(microgrid(), root=None).explain(seen))


def test_a_file_gives_the_same_policy(tmp_path: Path) -> None:
    policy, seen = microgrid(), observations()
    policy.save(tmp_path / "site-9.npz")
    again = GreedyPolicy.load(tmp_path / "site-9.npz")
    np.testing.assert_array_equal(again.batch(seen), policy.batch(seen))
    assert again.explain(seen[0]) == policy.explain(seen[0])


def test_the_given_policy_is_the_rule_and_is_saved_as_that(tmp_path: Path) -> None:
    given, seen = GreedyPolicy.given(microgrids.make_site(2, 0), index=2, workload="microgrids"), observations()
    assert given.decisions.rule is not None
    np.testing.assert_array_equal(given.batch(seen), given.decisions.rule(seen))
    given.save(tmp_path / "p.npz")
    assert GreedyPolicy.load(tmp_path / "p.npz").is_given
    with pytest.raises(InvalidValueError, match="no values to explain"):
        given.explain(seen[0])


ONE_HOT = OneHotPairs(states=44, actions=2, reference=10)


def one_hot_queue(index: int, seed: int) -> Site:
    """A queue of whose actions nothing is known: each pair of state and action has a value of its own."""
    return replace(queues.make_site(index, seed), decisions=Decisions(action_features=ONE_HOT))


ONE_HOT_QUEUES = replace(queues.workload, make_site=one_hot_queue)


def queue(caution: float = 1.0, *, uncertain: int = 20) -> GreedyPolicy:
    """Accepts in the first states, surely; from `uncertain` on it would rather turn away, and knows nothing."""
    features, weights, root = ONE_HOT, np.zeros(87), np.zeros((87, 87))
    for state in range(44):
        accept, turn_away = features((state, 1)), features((state, 0))
        weights += accept if state < uncertain else turn_away
        root += 0.0 if state < uncertain else 10.0 * np.diag(accept + turn_away)
    given = GreedyPolicy.given(one_hot_queue(3, 2), index=3, workload="queues", seed=2)
    return given.learnt(weights, root, caution)


def test_without_a_rule_the_given_policy_is_uniform() -> None:
    given, states = GreedyPolicy.given(queues.make_site(0, 0)), np.zeros(4000, dtype=np.int64)
    assert np.mean(given.batch(states, np.random.default_rng(0))) == pytest.approx(0.5, abs=0.03)
    assert np.mean(given.batch(states)) == pytest.approx(0.5, abs=0.03)
    assert given.draws(states).all()


def test_without_a_rule_it_draws_where_no_action_is_better_beyond_the_error_bars() -> None:
    policy, states = queue(), np.arange(44)
    np.testing.assert_array_equal(policy.draws(states), states >= 20)
    many = np.stack([policy.batch(states) for _ in range(400)])
    assert np.all(many[:, :20] == 1)
    assert np.all(np.abs(many[:, 20:].mean(axis=0) - 0.5) < 0.13)  # five deviations
    assert [each.chosen for each in policy.explain(7)] == [True, False]
    assert not any(each.chosen for each in policy.explain(30))
    # Without error bars, whatever is better is taken.
    assert not queue(caution=0.0).draws(states).any()
    assert not replace(policy, root=None).draws(states).any()
    assert not microgrid().draws(observations()).any()


def test_its_draws_are_the_same_from_a_file_one_by_one_and_from_a_generator(tmp_path: Path) -> None:
    states = np.tile(np.arange(44), 5)
    policy = queue()
    policy.save(tmp_path / "site-3.npz")
    first = policy.batch(states)
    again = GreedyPolicy.load(tmp_path / "site-3.npz", workload=ONE_HOT_QUEUES)
    again.explain(30)
    again.draws(states)
    np.testing.assert_array_equal([again(state) for state in states], first)
    assert np.any(policy.batch(states) != first)
    passed = [queue().batch(states, np.random.default_rng(4)) for _ in range(2)]
    np.testing.assert_array_equal(*passed)
    generator = np.random.default_rng(4)
    np.testing.assert_array_equal([policy(state, generator) for state in states], passed[0])
    assert np.any(replace(policy, index=4).batch(states) != first)


def test_values_that_only_rounding_separates_are_equal() -> None:
    policy, seen = microgrid(), observations()
    decisions = replace(policy.decisions, rule=None, step_rewards=lambda seen, _: seen.sum(axis=1))
    assert replace(policy, decisions=decisions, weights=np.zeros(95), root=None).draws(seen).all()


def test_action_values_choose_the_action() -> None:
    weights = np.zeros(87)
    weights[int(ONE_HOT((7, 1)).argmax())], weights[int(ONE_HOT((8, 0)).argmax())] = 1.0, 1.0
    policy = GreedyPolicy.given(one_hot_queue(0, 0)).learnt(weights, None, 0.0)
    assert (policy(7), policy(8)) == (1, 0)


def test_one_by_one_it_does_in_a_finite_space_what_it_does_at_once() -> None:
    policy, states = queue(), [*range(44), *range(44)]  # the second time each action is known
    together = queue().batch(np.array(states), np.random.default_rng(1))
    generator = np.random.default_rng(1)
    np.testing.assert_array_equal([policy(state, generator) for state in states], together)
    other = policy.learnt(-np.asarray(policy.weights), None, 0.0)
    assert [other(state) for state in range(20)] != [policy(state) for state in range(20)]


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    save_npz(path, format="other")
    with pytest.raises(RunFileError, match="a policy has cospan-policy-1"):
        GreedyPolicy.load(path)
    replace(microgrid(), workload="mine:workload").save(path)
    with pytest.raises(RunFileError, match=r"pass workload="):
        GreedyPolicy.load(path)
    microgrid().save(path)
    with pytest.raises(RunFileError, match="was learnt with the features"):
        GreedyPolicy.load(path, workload=queues.workload)
    policy = microgrid()
    replace(policy, caution=-1.0).save(path)
    with pytest.raises(RunFileError, match="caution of -1"):
        GreedyPolicy.load(path)


def test_a_site_without_decisions_is_refused() -> None:
    site = queues.make_site(0, 0)
    bare = Site(env=site.env, features=site.features, policy=site.policy)
    with pytest.raises(InvalidValueError, match="does not say what its actions lead to"):
        GreedyPolicy.given(bare)


def test_decisions_are_of_one_kind() -> None:
    with pytest.raises(ValueError, match="belong together"):
        Decisions(afterstates=lambda seen, _: seen)
    with pytest.raises(ValueError, match="either afterstates"):
        Decisions()
    with pytest.raises(ValueError, match="replayed needs afterstates"):
        Decisions(action_features=queues.ACTION_FEATURES, replayed=lambda seen, _: seen)
