"""Independent TD learns from the same transitions, with several step sizes side by side."""

import math

import numpy as np
import pytest
from golden.straight_line import Constants, plain_td
from values import read_only

from cospan.core.learning.baselines import INDEPENDENT_STEPS, IndependentTD
from cospan.core.learning.learner import LearnerState, Trajectory, learn_round
from cospan.core.learning.schedules import AveragedIterate
from cospan.core.method import HeadUpdate, Method

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
