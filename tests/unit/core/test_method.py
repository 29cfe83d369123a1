"""Ranges of the constants, and what the presets promise."""

import dataclasses
import math
from typing import Any

import pytest

from cospan.core.method import PRESETS, HeadUpdate, Method, compact, full_history, paper, practical

VALID = Method(
    steps_per_round=5,
    head_update=HeadUpdate.EVERY_STEP,
    head_step=0.1,
    gain_step=0.1,
    head_radius=10.0,
    basis_step=0.5,
    implicit_head_step=True,
    preconditioned=True,
    preconditioner_floor=0.05,
    decay_horizon=100.0,
    decay_power=0.7,
)
NOT_IN_RANGE = {
    "steps_per_round": [0, -1, 2**32],
    "head_step": [0.0, -0.1, math.inf, math.nan],
    "gain_step": [0.0, -0.1, 1.0000001, math.inf, math.nan],
    "head_radius": [0.0, -1.0, math.nan],
    "basis_step": [-1e-9, math.inf, math.nan],
    "preconditioner_floor": [0.0, -0.05, math.inf, math.nan],
    "decay_horizon": [-1.0, math.inf, math.nan],
    "decay_power": [-0.1, 1.1, math.nan],
    "trace_decay": [-0.1, 1.0, math.nan],
    "forgetting": [-0.1, math.inf, math.nan],
    "explained_power": [-0.1, math.inf, math.nan],
    "warm_up_rounds": [-1, 1, 2**32],
    "trimmed_share": [0.0, 0.5, -0.1, math.nan],
    "clip_norm": [-1e-9, math.inf, math.nan],
    "largest_turn": [0.0, 0.0099, 90.01, -5.0, math.nan],
    "first_turn": [0.0099, 90.01, -5.0, math.nan],
    "refresh_growth": [0.999, 16.1, -1.0, math.nan],
    "refresh_sample": [-1, 2**32],
}
AT_THE_EDGE = {
    "steps_per_round": [1, 2**32 - 1],
    "head_step": [5e-324, 1e300],
    "gain_step": [1e-9, 1.0],
    "head_radius": [1e-9, math.inf],
    "basis_step": [0.0, 1e300],
    "preconditioner_floor": [1e-9, 1e9],
    "decay_horizon": [0.0, 1e12],
    "decay_power": [0.0, 1.0],
    "trace_decay": [0.0, 0.999999],
    "forgetting": [0.0, 1e12],
    "explained_power": [0.0, 1e12],
    "warm_up_rounds": [0, 2, 2**32 - 1],
    "trimmed_share": [1e-9, 0.499],
    "clip_norm": [0.0, 1e300],
    "largest_turn": [0.01, 90.0],
    "first_turn": [0.0, 0.01, 90.0],
    "refresh_growth": [0.0, 1.0, 16.0],
    "refresh_sample": [0, 1, 2**32 - 1],
}
WITHOUT_A_RANGE = {
    "head_update",
    "aggregation",
    "implicit_head_step",
    "preconditioned",
    "row_scaled",
    "reward_scaled",
}


def test_every_field_is_considered_here() -> None:
    names = {field.name for field in dataclasses.fields(Method)}
    assert names == set(NOT_IN_RANGE) | WITHOUT_A_RANGE
    assert set(AT_THE_EDGE) == set(NOT_IN_RANGE)


def test_a_good_method_has_no_problems() -> None:
    assert VALID.problems() == []


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in NOT_IN_RANGE.items() for v in values])
def test_a_value_out_of_range_is_named(name: str, value: float) -> None:
    problems = dataclasses.replace(VALID, **{name: value}).problems()
    assert len(problems) == 1
    assert problems[0].startswith(f"{name} is {value!r}; it must be ")


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in AT_THE_EDGE.items() for v in values])
def test_the_edges_are_allowed(name: str, value: float) -> None:
    assert dataclasses.replace(VALID, **{name: value}).problems() == []


def test_all_problems_are_told_at_once() -> None:
    worst = dataclasses.replace(VALID, **{name: values[0] for name, values in NOT_IN_RANGE.items()})
    assert [text.split()[0] for text in worst.problems()] == list(NOT_IN_RANGE)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_in_range(name: str) -> None:
    preset = PRESETS[name](17)
    assert preset.problems() == []
    assert preset.steps_per_round == 17
    assert preset.warm_up_rounds == 0


def test_the_rounds_of_a_warm_up() -> None:
    warming = dataclasses.replace(VALID, warm_up_rounds=3)
    assert [warming.warms_up_in(t) for t in range(5)] == [True, True, True, False, False]
    assert [warming.brings_estimates_in(t) for t in range(5)] == [False, False, True, False, False]
    assert not any(VALID.warms_up_in(t) or VALID.brings_estimates_in(t) for t in range(3))


def test_paper_is_algorithm_1_and_nothing_else() -> None:
    preset = paper(4)
    assert PRESETS["paper"] is paper
    assert preset.head_update is HeadUpdate.END_OF_ROUND
    assert not preset.implicit_head_step
    assert not preset.preconditioned
    assert preset.decay_horizon == 0.0
    assert math.isfinite(preset.head_radius), "eq. 7 projects onto a ball"
    assert preset.basis_step > 0.0


def test_practical_is_the_posterior_under_the_fleets_prior() -> None:
    preset = practical(4)
    assert PRESETS["practical"] is practical
    assert preset.head_update is HeadUpdate.POSTERIOR
    assert preset.has_head_covariance
    assert preset.sends_pooled
    assert not preset.pooled_is_nonnegative
    assert preset.pooled_length(6) == 22
    assert not preset.basis_step_decays
    assert preset.keeps_history
    assert preset.reward_scaled
    assert preset.averaging_power == math.inf, "the newest posterior counts alone"
    assert (preset.head_step, preset.decay_horizon) == (compact(4).head_step, compact(4).decay_horizon), (
        "of TD alone"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trace_decay": 0.5}, "trace_decay is 0.5; with posterior head updates it must be 0"),
        ({"forgetting": 2.0}, "forgetting is 2.0; with posterior head updates it must be 0"),
        ({"warm_up_rounds": 3}, "warm_up_rounds is 3; with posterior head updates it must be 0"),
        ({"head_radius": 5.0}, "head_radius is 5.0; with posterior head updates it must be inf"),
        ({"explained_power": 2.0}, "explained_power is 2.0; with posterior head updates it must be 0"),
        ({"preconditioned": True}, "preconditioned is true; with posterior head updates it must be false"),
        ({"row_scaled": True}, "row_scaled is true; with posterior head updates it must be false"),
        ({"reward_scaled": False}, "reward_scaled is false; posterior head updates are in each agent's own units"),
    ],
)
def test_what_a_posterior_cannot_be_combined_with_is_named(changes: dict[str, Any], says: str) -> None:
    (problem,) = dataclasses.replace(practical(4), **changes).problems()
    assert problem.startswith(says)
    assert not dataclasses.replace(full_history(4), **changes).problems()


def test_full_history_has_the_options_on() -> None:
    preset = full_history(4)
    assert PRESETS["full-history"] is full_history
    assert preset.head_update is HeadUpdate.FULL_HISTORY
    assert preset.sends_pooled
    assert not preset.basis_step_decays
    assert preset.reward_scaled
    assert preset.explained_power > 0.0
    assert preset.averaging_power > compact(4).averaging_power
    assert compact(4).head_update is HeadUpdate.LEAST_SQUARES
    assert compact(4).row_scaled
    assert not compact(4).sends_pooled
    assert compact(4).basis_step_decays
    assert preset.implicit_head_step, "independent TD, the baseline, takes it too"
    assert preset.preconditioned
    assert preset.decay_horizon > 0.0
    assert preset.decay_power > 0.0
