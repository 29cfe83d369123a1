"""Independent TD learns from the same transitions, with several step sizes side by side."""

import itertools
import math

import numpy as np
import pytest
from golden.straight_line import Constants, plain_td
from values import read_only

from cospan.core.learning.baselines import (
    INDEPENDENT_STEPS,
    MOST_LSTD_FEATURES,
    IndependentTD,
    holds_lstd_sums,
    lstd_alone,
    lstd_is_due,
    separate_lstd_sums,
    with_transitions,
)
from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.learning.schedules import AveragedIterate
from cospan.core.method import HeadUpdate, Method, compact, full_history, paper, practical

D, L, ROUNDS = 4, 5, 12


def method(**changes: object) -> Method:
    values: dict[str, object] = {
        "steps_per_round": L,
        "head_update": HeadUpdate.EVERY_STEP,
        "head_step": 1.0,
        "gain_step": 0.05,
        "head_radius": math.inf,
        "basis_step": 0.0,
    }
    return Method(**(values | changes))  # type: ignore[arg-type]


def trajectories() -> list[Trajectory]:
    """One chain of features, ‖φ‖ ≤ 1, cut into rounds."""
    rng = np.random.default_rng(0)
    features = rng.uniform(-1.0, 1.0, (ROUNDS * L + 1, D)) / (2.0 * math.sqrt(D))
    rewards = rng.standard_normal(ROUNDS * L)
    return [
        Trajectory(read_only(features[t * L : (t + 1) * L + 1]), read_only(rewards[t * L : (t + 1) * L]))
        for t in range(ROUNDS)
    ]


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("horizon", [0.0, 30.0])
@pytest.mark.parametrize("index", range(len(INDEPENDENT_STEPS)))
def test_it_is_the_joint_method_with_every_direction_of_its_own(index: int, horizon: float, implicit: bool) -> None:
    """So the comparison differs in the number of unknowns and in nothing else."""
    rule = method(
        head_step=INDEPENDENT_STEPS[index],
        implicit_head_step=implicit,
        decay_horizon=horizon,
        decay_power=0.7,
    )
    baseline, joint = IndependentTD.initial(D), LearnerState.initial(D)
    for trajectory in trajectories():
        baseline = baseline.learning_from(trajectory, rule)
        joint = learn_round(joint, np.eye(D), trajectory, rule).state
        np.testing.assert_allclose(baseline.weights[index], joint.head, rtol=1e-12, atol=1e-12)
        assert baseline.gain_estimate == pytest.approx(joint.gain_estimate, rel=1e-14)
        assert baseline.steps == joint.steps


def test_it_is_plain_td() -> None:
    walk = trajectories()[0]
    baseline = IndependentTD.initial(D).learning_from(walk, method())
    for index, step in enumerate(INDEPENDENT_STEPS):
        constants = Constants(step, 0.05, math.inf, 0.0)
        history = plain_td([0.0] * D, 0.0, walk.features.tolist(), walk.rewards.tolist(), constants)
        np.testing.assert_allclose(baseline.weights[index], history[-1][0], atol=1e-13)
        assert baseline.gain_estimate == pytest.approx(history[-1][1], rel=1e-14)


def test_the_average_is_over_the_rounds() -> None:
    baseline, expected = IndependentTD.initial(D), AveragedIterate(mean=np.zeros((len(INDEPENDENT_STEPS), D)))
    for trajectory in trajectories():
        baseline = baseline.learning_from(trajectory, method())
        expected = expected.updated(baseline.weights)
    np.testing.assert_array_equal(baseline.averaged.mean, expected.mean)
    assert baseline.averaged.count == ROUNDS


def test_a_state_is_not_changed_by_learning_from_it() -> None:
    first = IndependentTD.initial(D).learning_from(trajectories()[0], method())
    before = first.weights.tobytes(), first.averaged.mean.tobytes(), first.gain_estimate, first.steps
    first.learning_from(trajectories()[1], method())
    assert (first.weights.tobytes(), first.averaged.mean.tobytes(), first.gain_estimate, first.steps) == before
    np.testing.assert_array_equal(IndependentTD.initial(D).weights, np.zeros((len(INDEPENDENT_STEPS), D)))


def test_its_steps_are_different_and_above_zero() -> None:
    """Whatever they are tuned to: a baseline is run with several, and none twice."""
    assert len(set(INDEPENDENT_STEPS)) == len(INDEPENDENT_STEPS) > 1
    assert min(INDEPENDENT_STEPS) > 0.0


# LSTD alone -----------------------------------------------------------------------------------------------------


def lstd_by_hand(prior_steps: float) -> np.ndarray:
    """(Σ φ (φ − φ')ᵀ + κ I)⁻¹ Σ φ (r − r̄), with κ = prior_steps · (mean ‖φ‖²) / d."""
    played = trajectories()
    rewards = np.concatenate([each.rewards for each in played])
    system, right, squares = np.zeros((D, D)), np.zeros(D), 0.0
    for each in played:
        for before, after, reward in zip(each.features, each.features[1:], each.rewards, strict=False):
            system += np.outer(before, before - after)
            right += before * (reward - rewards.mean())
            squares += before @ before
    return np.linalg.solve(system + prior_steps * squares / len(rewards) / D * np.eye(D), right)


@pytest.mark.parametrize("prior_steps", [3.0, 10.0])
def test_lstd_alone_solves_the_system_of_all_transitions_whatever_the_rewards_are_counted_from(
    prior_steps: float,
) -> None:
    for reference in (0.0, 1.0e3):
        sums = separate_lstd_sums(compact(L), D)
        assert sums is not None
        for trajectory in trajectories():
            sums = with_transitions(sums, trajectory, reference)
        np.testing.assert_allclose(lstd_alone(sums, prior_steps), lstd_by_hand(prior_steps), rtol=1e-9)


@pytest.mark.parametrize("rule", [practical(L), full_history(L)])
def test_sums_kept_to_compare_with_are_those_that_the_learner_holds_itself(rule: Method) -> None:
    state, sums = LearnerState.initial(2), separate_lstd_sums(paper(L), D)
    assert sums is not None
    for trajectory in trajectories():
        state = learn_round(state, np.eye(D)[:, :2], trajectory, rule, head_covariance=np.eye(2)).state
        sums = with_transitions(sums, trajectory, state.rewards.reference)
    assert state.statistics is not None
    np.testing.assert_array_equal(lstd_alone(state.statistics), lstd_alone(sums))


def test_lstd_alone_of_a_group_is_that_of_each_of_its_agents() -> None:
    first = trajectories()
    second = [Trajectory(-each.features, 2.0 * each.rewards) for each in first]
    group = separate_lstd_sums(compact(L), D, (2,))
    assert group is not None
    assert lstd_alone(group).tolist() == [[0.0] * D] * 2, "before the first round"
    singles = [separate_lstd_sums(compact(L), D) for _ in range(2)]
    for one, other in zip(first, second, strict=True):
        both = Trajectory(np.stack([one.features, other.features]), np.stack([one.rewards, other.rewards]))
        group = with_transitions(group, both, np.array([0.5, -0.5]))
        for place, (each, reference) in enumerate([(one, 0.5), (other, -0.5)]):
            before = singles[place]
            assert before is not None
            singles[place] = with_transitions(before, each, reference)
    expected = [lstd_alone(single) for single in singles if single is not None]
    np.testing.assert_allclose(lstd_alone(group), expected, rtol=1e-12)


def test_sums_of_their_own_are_kept_only_where_the_learner_has_others_and_d_is_not_too_large() -> None:
    for own in (practical(L), full_history(L)):
        assert holds_lstd_sums(own)
        assert separate_lstd_sums(own, D) is None
    for other in (
        paper(L),
        compact(L),
        method(head_update=HeadUpdate.FULL_HISTORY, trace_decay=0.5),
        method(head_update=HeadUpdate.FULL_HISTORY, forgetting=1.0),
    ):
        assert not holds_lstd_sums(other)
        assert separate_lstd_sums(other, MOST_LSTD_FEATURES) is not None
        assert separate_lstd_sums(other, MOST_LSTD_FEATURES + 1) is None


def test_a_curve_has_errors_of_lstd_alone_in_few_rounds_that_a_thinned_curve_keeps() -> None:
    due = [number for number in range(2**15) if lstd_is_due(number)]
    assert due[:16] == [*range(8), 8, 10, 12, 14, 16, 20, 24, 28]
    assert len(due) < 60
    assert all(later <= 1.25 * number for number, later in itertools.pairwise(due[4:]))
    # By then every sixteenth is kept.
    assert all(number % 16 == 0 for number in due if number >= 64)
