"""What a comparison makes of its runs."""

import dataclasses
import math

import numpy as np
import pytest

from cospan.core.method import PRESETS, practical
from cospan.core.specification import RunSpecification
from cospan.experiments.comparison import LSTD_ALONE, TD_ALONE, methods_of_run, summaries, worse_than_alone
from cospan.experiments.estimates import interval
from cospan.experiments.methods.catalogue import JOINT, Stage
from cospan.experiments.runner import WHOLE_FLEET, Point, checkpoints

SPEC = RunSpecification("toy", feature_dim=4, rank=2, agents=3, rounds=10, seed=1, method=practical(5))


def point(method: str, seed: int, error: float, rounds: int = 10, sent: int = 400) -> Point:
    return Point("", method, seed, WHOLE_FLEET, rounds, rounds * 5, sent, error)


@pytest.mark.parametrize("rounds", [1, 2, 40, 5000])
def test_checkpoints_begin_with_the_first_round_and_end_with_the_last(rounds: int) -> None:
    shown = checkpoints(rounds)
    assert {1, rounds} <= shown
    assert len(shown) <= 40
    assert max(shown) == rounds


def test_the_summary_is_of_the_last_round_and_best_first() -> None:
    points = [
        point(TD_ALONE, 1, 0.2),
        point(TD_ALONE, 2, 0.6),
        point(LSTD_ALONE, 1, 0.5),
        point(LSTD_ALONE, 2, 0.4),
        point(JOINT, 1, 9.0, rounds=5),
        point(JOINT, 1, 0.1),
        point(JOINT, 2, 0.1),
        point("diverged", 1, math.inf),
        point("diverged", 2, 1.0),
    ]
    joint, td, lstd, diverged = summaries(points)
    assert (joint.method, joint.value_error, joint.low, joint.high) == (JOINT, 0.1, 0.1, 0.1)
    assert joint.ratio == pytest.approx((0.5 + 0.25) / 2)
    assert joint.bytes_per_round == 40.0
    assert (td.ratio, lstd.ratio) == (pytest.approx(1.25), pytest.approx(1.75))
    assert td.low is not None
    assert td.high is not None
    assert td.low <= 0.4 <= td.high
    assert (diverged.value_error, diverged.low) == (math.inf, None)


def test_sites_are_worse_than_alone_where_the_best_alone_has_a_smaller_error_at_the_end() -> None:
    def of_agents(method: str, seed: int, *errors: float, rounds: int = 10) -> list[Point]:
        return [replace_agent(point(method, seed, each, rounds), agent) for agent, each in enumerate(errors)]

    points = [
        point(JOINT, 1, 9.0),
        *of_agents(JOINT, 1, 9.0, 9.0, 9.0, rounds=5),
        *of_agents(JOINT, 1, 0.3, 0.3, 0.3),
        *of_agents(JOINT, 2, 0.3, 0.3, 0.3),
        *of_agents(LSTD_ALONE, 1, 0.2, 0.4, 0.4),
        *of_agents(LSTD_ALONE, 2, 0.4, 0.4, 0.4),
        *of_agents(TD_ALONE, 1, 0.5, 0.1, 0.5),
        *of_agents(TD_ALONE, 2, 0.5, 0.3, 0.5),
    ]
    assert worse_than_alone(points) == (2, 6)


def replace_agent(whole: Point, agent: int) -> Point:
    return dataclasses.replace(whole, agent=agent)


def test_an_interval_needs_two_runs_and_is_the_same_every_time() -> None:
    assert interval(np.array([0.5])) == (None, None)
    values = np.random.default_rng(0).standard_normal(20)
    low, high = interval(values)
    assert low is not None
    assert high is not None
    assert low < values.mean() < high
    assert interval(values) == (low, high)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_method_has_the_same_fleet(preset: str) -> None:
    spec = dataclasses.replace(SPEC, method=PRESETS[preset](5))
    basis = np.eye(4)[:, :2]
    fleets = {each.name: each.fleets(Stage(3, basis, 5, basis)) for each in methods_of_run(spec)}
    unknown = {each.name for each in methods_of_run(spec) if not each.fleets(Stage(3, basis, 5))}
    assert unknown == {"joint, B* known"}
    assert fleets[JOINT][0].method == spec.method  # type: ignore[attr-defined]
    for variants in fleets.values():
        assert all(variant.weights.shape[1:] == (3, 4) for variant in variants)
