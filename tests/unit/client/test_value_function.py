"""What was learnt, as something to ask: the same numbers after a file, its own feature map only, and no network."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import announced

from cospan.client import ValueFunction, load_workload
from cospan.client.environment.workload_loader import make_site
from cospan.client.features import OneHotFeatures
from cospan.client.files.group_file import GROUP
from cospan.client.files.result_file import save_result
from cospan.client.learning.group_blocks import GroupSites
from cospan.client.learning.group_learner import GroupLearner
from cospan.client.learning.site_learner import SiteLearner
from cospan.core.method import PRESETS
from cospan.core.specification import RunSpecification
from cospan.wire.errors import (
    CospanError,
    IntervalUnknownError,
    InvalidValueError,
    RunFileError,
    WorkloadBehaviourError,
)
from cospan.wire.files import npz

SEED, STATES = 5, np.arange(44)


def queue(index: int = 2, rounds: int = 4, workload: str = "queues", preset: str = "practical") -> SiteLearner:
    """A queue that has learnt, at the first basis throughout."""
    spec = RunSpecification(workload, 43, 3, agents=3, rounds=9, seed=SEED, method=PRESETS[preset](20))
    learner = SiteLearner(make_site(load_workload("queues"), index, SEED), spec, name=f"site-{index}", index=index)
    for number in range(rounds):
        learner.learn(number, *announced(spec))
    return learner


def of(learner: SiteLearner) -> ValueFunction:
    return ValueFunction.of_learner(learner, learner.site.features)


def facts(value: ValueFunction) -> tuple[Any, ...]:
    names = ("gain", "agent_id", "index", "label", "workload", "seed", "steps", "mean_reward", "value_error")
    intervals = value.intervals(STATES[:-1], STATES[1:]).tobytes(), value.intervals(STATES).tobytes()
    return *(getattr(value, name) for name in names), value.gain_error, value.weights.tobytes(), intervals


def test_it_says_what_the_learner_has_learnt_and_stays_as_it_is() -> None:
    learner = queue()
    value, weights = of(learner), learner.weights.mean.copy()
    expected = learner.site.features.batch(STATES) @ weights
    assert value.values(STATES) == pytest.approx(expected, abs=1e-15)
    assert value.gain == learner.gain.mean[0]
    assert (value.steps, value.index, value.agent_id) == (80, 2, "site-2")
    assert (value.value_error, value.gain_error) == (learner.value_error(), learner.gain_error())
    learner.learn(4, *announced(learner.specification))
    assert not np.array_equal(learner.weights.mean, weights)
    assert value.weights.tobytes() == weights.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        value.weights[0] = 1.0


def test_many_at_once_are_the_same_numbers_as_one_by_one() -> None:
    value = of(queue())
    assert value.values(STATES).tolist() == [value.value(state) for state in STATES.tolist()]
    assert value.values([]).shape == (0,)


def test_a_state_that_is_none() -> None:
    with pytest.raises(WorkloadBehaviourError, match=r"feature map of site-2 .* observation 44 is not a state"):
        of(queue()).value(44)


@pytest.mark.parametrize("way", ["its own file", "the agent's file"])
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, way: str) -> None:
    learner = queue()
    path = tmp_path / "site-2.npz"
    if way == "its own file":
        of(learner).save(path)
    else:
        save_result(path, learner, run_id="run-1")
    loaded = ValueFunction.load(path)
    assert facts(loaded) == facts(of(learner))
    assert loaded.values(STATES).tobytes() == of(learner).values(STATES).tobytes()
    assert facts(ValueFunction.load(path, learner.site.features)) == facts(loaded)


def test_a_file_from_before_seeds_were_in_it(tmp_path: Path) -> None:
    path = tmp_path / "site-2.npz"
    of(queue()).save(path)
    values = npz.load_npz(path, "a test")
    del values["seed"]
    npz.save_npz(path, **values)
    assert ValueFunction.load(path).seed == 0
    assert ValueFunction.load(path, seed=SEED).weights.shape == (43,)


def test_the_agents_of_a_group_are_those_that_are_alone() -> None:
    learners = [queue(index) for index in (0, 1, 2)]
    spec = learners[0].specification
    sites = GroupSites.of(load_workload("queues"), (0, 1, 2), 43, SEED)
    group = GroupLearner(sites, spec, names=("site-0", "site-1", "site-2"))
    for number in range(4):
        group.learn(number, *announced(spec))
    for alone, together in zip(learners, group.agents(), strict=True):
        value = ValueFunction.of_learner(together, group.features)
        np.testing.assert_allclose(value.values(STATES), of(alone).values(STATES), rtol=1e-6, atol=1e-9)
        assert (value.agent_id, value.label, value.steps) == (alone.name, alone.label, 80)
        np.testing.assert_allclose(value.intervals(STATES), of(alone).intervals(STATES), rtol=1e-4, atol=1e-6)


def test_an_interval_lies_about_the_estimated_difference() -> None:
    value = of(queue(rounds=9))
    lower, upper = value.interval(3, 17)
    assert lower < upper
    assert (lower + upper) / 2.0 == pytest.approx(value.value(3) - value.value(17))
    wider = value.interval(3, 17, coverage=0.99)
    assert (wider.upper - wider.lower) / (upper - lower) == pytest.approx(2.575829 / 1.644854, rel=1e-5)
    assert value.interval(17, 3) == pytest.approx((-upper, -lower))
    assert value.interval(3, 3) == (0.0, 0.0), "the difference of a state to itself is known"
    many = value.intervals([3, 4], [17, 18])
    assert many[0].tolist() == [lower, upper]
    assert value.intervals([3, 4], [17])[0].tolist() == [lower, upper]
    assert value.intervals([]).shape == (0, 2)


def test_the_interval_of_one_observation_is_against_the_visited_states() -> None:
    learner = queue(rounds=9)
    value = of(learner)
    sums = learner.state.statistics
    assert sums is not None
    mean = sums.traces / sums.steps @ learner.weights.mean
    lower, upper = value.interval(5)
    assert (lower + upper) / 2.0 == pytest.approx(value.value(5) - mean)


def test_a_state_that_was_never_visited_has_a_wide_interval() -> None:
    value = of(queue(rounds=9))
    widths = np.diff(value.intervals(STATES), axis=1)[:-1, 0]  # of one-hot features of all states but the last
    visits = value.uncertainty.spread("").visited
    assert visits.min() == 0.0
    assert widths[visits == 0.0].max() > 50.0 * widths[visits.argmax()]


def test_more_data_give_a_narrower_interval() -> None:
    early, late = (np.diff(of(queue(rounds=rounds)).interval(0, 4)) for rounds in (3, 9))
    assert late < early


def test_the_interval_of_the_gain_is_that_of_batch_means() -> None:
    learner = queue(rounds=9)
    value, half = of(learner), float(learner.reward_batches.half_width(20))
    found = value.gain_interval(coverage=0.95)
    assert found == pytest.approx((value.mean_reward - half, value.mean_reward + half))
    assert value.gain_interval().lower > found.lower
    assert value.gain == pytest.approx(value.mean_reward)


@pytest.mark.parametrize("preset", ["paper", "compact", "full-history"])
def test_other_presets_have_an_interval_of_the_gain_alone(tmp_path: Path, preset: str) -> None:
    learner = queue(rounds=9, preset=preset)
    value, path = of(learner), tmp_path / "a.npz"
    assert value.gain_interval().lower < value.mean_reward
    for save in (lambda: value.save(path), lambda: save_result(path, learner, run_id="run-1")):
        save()
        loaded = ValueFunction.load(path)
        assert loaded.gain_interval() == value.gain_interval()
        for each in (value, loaded):
            with pytest.raises(
                IntervalUnknownError, match=r"site-2 has no intervals of values: only preset practical"
            ):
                each.interval(3, 4)


def test_an_interval_that_cannot_be() -> None:
    value = of(queue())
    for coverage in (0.0, 1.0, 90.0, np.nan):
        with pytest.raises(InvalidValueError, match=r"coverage is .*; it must be above 0 and below 1, as 0\.9"):
            value.interval(3, 4, coverage=coverage)
        with pytest.raises(InvalidValueError, match="coverage is"):
            value.gain_interval(coverage=coverage)
    with pytest.raises(InvalidValueError, match="there are 3 observations and 2 others; give as many, or one"):
        value.intervals([1, 2, 3], [1, 2])
    with pytest.raises(IntervalUnknownError, match="site-2 has fewer than 8 rounds of rewards"):
        value.gain_interval()
    with pytest.raises(IntervalUnknownError, match="it has learnt from no round yet; run one"):
        of(queue(rounds=0)).interval(1, 2)


def test_no_file_names_code_to_be_run(tmp_path: Path) -> None:
    """One that came by mail might name any module of this machine."""
    path, named = tmp_path / "a.npz", "antigravity:fly"
    of(queue(workload=named)).save(path)
    with pytest.raises(
        RunFileError, match=r"antigravity:fly', which does not come with Cospan; name it to have it imported"
    ):
        ValueFunction.load(path)
    assert "antigravity" not in sys.modules
    assert ValueFunction.load(path, workload="queues").workload == named
    assert ValueFunction.load(path, workload=load_workload("queues")).workload == named


def test_another_feature_map(tmp_path: Path) -> None:
    path, value = tmp_path / "a.npz", of(queue())
    value.save(path)
    with pytest.raises(RunFileError, match=r"was learnt with the feature map 'one-hot-.*give the features"):
        ValueFunction.load(path, OneHotFeatures(44))
    with pytest.raises(RunFileError, match="was learnt with the feature map"):
        ValueFunction.load(path, workload="microgrids")


def test_files_that_are_none(tmp_path: Path) -> None:
    learner = queue()
    path = tmp_path / "a.npz"
    for damage in ({"weights": np.zeros(42)}, {"gain": np.array([np.nan])}, {"steps": -1}, {"index": "two"}):
        of(learner).save(path)
        npz.save_npz(path, **{**npz.load_npz(path, "a test"), **damage})
        with pytest.raises(RunFileError, match="the file is damaged"):
            ValueFunction.load(path)
    for damage in (
        {"value_spread": np.zeros((43, 43))},
        {"value_spread": np.full((43, 43), np.nan, np.float32)},
        {"visited_features": np.zeros(42)},
        {"mean_reward_freedom": -2},
    ):
        of(learner).save(path)
        npz.save_npz(path, **{**npz.load_npz(path, "a test"), **damage})
        with pytest.raises(RunFileError, match="the file is damaged"):
            ValueFunction.load(path)
    for damage in ({"posterior_rounds": np.array([4, 1, 5, 3])}, {"posterior_head_covariance": np.zeros((2, 3))}):
        save_result(path, learner, run_id="run-1")
        npz.save_npz(path, **{**npz.load_npz(path, "a test"), **damage})
        with pytest.raises(RunFileError, match="the file is damaged"):
            ValueFunction.load(path)
    of(learner).save(path)
    npz.save_npz(path, **{**npz.load_npz(path, "a test"), "format": "cospan-value-function-1"})
    with pytest.raises(
        RunFileError, match=r"format cospan-value-function-1, and this version .* cospan-value-function-2"
    ):
        ValueFunction.load(path)
    with pytest.raises(RunFileError, match=r"there is no file .*none\.npz"):
        ValueFunction.load(tmp_path / "none.npz")
    spec = replace(learner.specification, agents=1)
    group = GroupLearner(GroupSites.of(load_workload("queues"), (0,), 43, SEED), spec, names=("site-0",))
    npz.save_npz(path, **GROUP.contents(group, "run-1"))
    with pytest.raises(RunFileError, match=r"is the file of a group; name one of its agents"):
        ValueFunction.load(path)
    with pytest.raises(RunFileError, match=r"has no agent 'site-7'"):
        ValueFunction.load(path, agent="site-7")
    save_result(path, learner, run_id="run-1")
    npz.save_npz(path, **{**npz.load_npz(path, "a test"), "format": "cospan-agent-3"})
    with pytest.raises(RunFileError, match=r"format cospan-agent-3, and this version .* cospan-agent-4"):
        ValueFunction.load(path)
    with pytest.raises(CospanError, match="cannot write"):
        of(learner).save(tmp_path / "no" / "a.npz")


def test_how_it_looks() -> None:
    assert repr(of(queue())).startswith("<ValueFunction of site-2: d = 43, gain ")
    assert repr(of(queue())).endswith(", after 80 steps>")
