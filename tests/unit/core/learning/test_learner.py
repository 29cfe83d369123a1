"""An agent's round: what it reads, what it leaves alone, and what it hands on."""

import dataclasses
import math
import os

import numpy as np
import pytest
from values import read_only

from cospan.core.learning.blocked_td import BLOCK
from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import LearnerState, RoundOutcome, Trajectory
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import HeadUpdate, Method

D, R, L = 6, 2, 4


def method(head_update: HeadUpdate = HeadUpdate.END_OF_ROUND, **changes: object) -> Method:
    values: dict[str, object] = {
        "steps_per_round": L,
        "head_update": head_update,
        "head_step": 0.3,
        "gain_step": 0.1,
        "head_radius": 10.0,
        "basis_step": 0.5,
    }
    return Method(**(values | changes))  # type: ignore[arg-type]


def trajectory(seed: int = 0, steps: int = L) -> Trajectory:
    rng = np.random.default_rng(seed)
    features = rng.uniform(-1.0, 1.0, (steps + 1, D)) / math.sqrt(D)
    return Trajectory(features=read_only(features), rewards=read_only(rng.standard_normal(steps)))


def state(seed: int = 1) -> LearnerState:
    head = np.random.default_rng(seed).standard_normal(R)
    return LearnerState(head=read_only(head), gain_estimate=0.25, steps=40)


BASIS = read_only(random_basis(D, R, np.random.default_rng(2)))


def same_outcome(one: RoundOutcome, other: RoundOutcome, tolerance: float = 0.0) -> None:
    pairs = [
        (one.state.head, other.state.head),
        (one.state.gain_estimate, other.state.gain_estimate),
        (one.state.steps, other.state.steps),
        (to_dense(one.gradient), to_dense(other.gradient)),
        (one.head_second_moment, other.head_second_moment),
        (one.mean_squared_error, other.mean_squared_error),
        (one.weights, other.weights),
    ]
    for left, right in pairs:
        np.testing.assert_allclose(left, right, rtol=0.0, atol=tolerance)


def test_the_initial_state_knows_nothing() -> None:
    initial = LearnerState.initial(3)
    np.testing.assert_array_equal(initial.head, np.zeros(3))
    assert (initial.gain_estimate, initial.steps) == (0.0, 0)


@pytest.mark.parametrize("head_update", list(HeadUpdate))
def test_nothing_is_written_to(head_update: HeadUpdate) -> None:
    """All inputs are read-only here; and the state before is the same after."""
    before = state()
    head = before.head.tobytes()
    first = learn_round(before, BASIS, trajectory(), method(head_update), head_covariance=np.eye(R))
    assert (before.head.tobytes(), before.gain_estimate, before.steps) == (head, 0.25, 40)
    again = learn_round(before, BASIS, trajectory(), method(head_update), head_covariance=np.eye(R))
    same_outcome(first, again)


@pytest.mark.parametrize("head_update", list(HeadUpdate))
def test_the_outcome_shares_no_memory_with_its_inputs(head_update: HeadUpdate) -> None:
    """A gradient is sent, and sent again, while its agent keeps learning in the same buffers."""
    features, rewards, head = np.full((L + 1, D), 0.1), np.ones(L), np.ones(R)
    features[1:] *= 2.0
    outcome = learn_round(
        LearnerState(head=head),
        np.array(BASIS),
        Trajectory(features=features, rewards=rewards),
        method(head_update),
        head_covariance=np.eye(R),
    )
    before = (
        to_dense(outcome.gradient).tobytes(),
        outcome.head_second_moment.tobytes(),
        outcome.state.head.tobytes(),
    )
    features[:], rewards[:], head[:] = 9.0, 9.0, 9.0
    after = to_dense(outcome.gradient).tobytes(), outcome.head_second_moment.tobytes(), outcome.state.head.tobytes()
    assert before == after


def test_one_correction_of_algorithm_1_by_hand() -> None:
    """d = 2, r = 1, B = e_1, w = 2, η = 1, L = 2, φ_0 = (1, 1)/2, φ_2 = (−1, 1)/2, rewards 3 and 5.

    δ = (3 − 1) + (5 − 1) + (−1)·2 = 4; G = 4/2·φ_0·2 = (2, 2); w = 2 + 0.3/2·4·(1/2) = 2.3; η = 1 + 0.1·(4 − 1).
    """
    outcome = learn_round(
        LearnerState(head=read_only([2.0]), gain_estimate=1.0, steps=10),
        read_only([[1.0], [0.0]]),
        Trajectory(read_only([[0.5, 0.5], [0.0, 0.0], [-0.5, 0.5]]), read_only([3.0, 5.0])),
        method(steps_per_round=2),
    )
    assert isinstance(outcome.gradient, FactoredMatrix)
    np.testing.assert_allclose(to_dense(outcome.gradient), [[2.0], [2.0]], rtol=1e-15)
    np.testing.assert_allclose(outcome.state.head, [2.3], rtol=1e-15)
    assert outcome.state.gain_estimate == pytest.approx(1.3, rel=1e-15)
    assert outcome.state.steps == 12
    np.testing.assert_array_equal(outcome.head_second_moment, [[4.0]])
    assert outcome.mean_squared_error == 16.0


def test_two_head_updates_of_every_step_by_hand() -> None:
    """d = r = 1, B = 1, w = 0, η = 0, φ = 1/2, −1/2, 1/2, rewards 2 and 1, β = 0.5, γ = 0.5.

    δ_0 = 2, w = 0.5·2·(1/2) = 0.5, η = 1; δ_1 = 1 − 1 + (1/2 + 1/2)·0.5 = 0.5, w = 0.5 + 0.5·0.5·(−1/2) = 0.375,
    η = 1. G = 2·(1/2)·0 + 0.5·(−1/2)·0.5 = −0.125.
    """
    outcome = learn_round(
        LearnerState.initial(1),
        read_only([[1.0]]),
        Trajectory(read_only([[0.5], [-0.5], [0.5]]), read_only([2.0, 1.0])),
        method(HeadUpdate.EVERY_STEP, steps_per_round=2, head_step=0.5, gain_step=0.5),
    )
    assert isinstance(outcome.gradient, DenseMatrix)
    np.testing.assert_array_equal(to_dense(outcome.gradient), [[-0.125]])
    np.testing.assert_array_equal(outcome.state.head, [0.375])
    assert outcome.state.gain_estimate == 1.0
    np.testing.assert_array_equal(outcome.head_second_moment, [[0.125]])
    assert outcome.mean_squared_error == (4.0 + 0.25) / 2


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("horizon", [0.0, 60.0])
def test_both_schedules_agree_on_rounds_of_one_step(implicit: bool, horizon: float) -> None:
    options = {"steps_per_round": 1, "implicit_head_step": implicit, "decay_horizon": horizon, "decay_power": 0.5}
    one_step = trajectory(steps=1)
    at_end = learn_round(state(), BASIS, one_step, method(HeadUpdate.END_OF_ROUND, **options))
    every_step = learn_round(state(), BASIS, one_step, method(HeadUpdate.EVERY_STEP, **options))
    same_outcome(at_end, every_step, tolerance=1e-15)


def test_rounds_of_every_step_can_be_cut_anywhere() -> None:
    """With the basis frozen H steps in one round are the same as H rounds of one step: G summed, w wᵀ averaged."""
    options = {"decay_horizon": 60.0, "decay_power": 0.5, "implicit_head_step": True, "head_radius": 1.5}
    long = trajectory(seed=5, steps=12)
    whole = learn_round(state(), BASIS, long, method(HeadUpdate.EVERY_STEP, **options))
    current, gradient, moment, squares = state(), np.zeros((D, R)), np.zeros((R, R)), 0.0
    for t in range(12):
        piece = Trajectory(features=long.features[t : t + 2], rewards=long.rewards[t : t + 1])
        outcome = learn_round(current, BASIS, piece, method(HeadUpdate.EVERY_STEP, **options))
        current = outcome.state
        gradient += to_dense(outcome.gradient)
        moment += outcome.head_second_moment / 12
        squares += outcome.mean_squared_error / 12
    same_outcome(
        whole,
        RoundOutcome(current, DenseMatrix(gradient), moment, squares, current.head @ BASIS.T),
        tolerance=1e-13,
    )


def test_the_gradient_is_taken_at_the_old_head() -> None:
    """Simultaneous updates: with a new head it would depend on β."""
    small = learn_round(state(), BASIS, trajectory(), method(head_step=1e-3))
    large = learn_round(state(), BASIS, trajectory(), method(head_step=2.0))
    np.testing.assert_array_equal(to_dense(small.gradient), to_dense(large.gradient))
    assert np.linalg.norm(small.state.head - large.state.head) > 1e-3


def test_a_head_of_zero_gives_no_gradient() -> None:
    """Every run begins so: the first round moves heads only."""
    outcome = learn_round(LearnerState.initial(R), BASIS, trajectory(), method())
    np.testing.assert_array_equal(to_dense(outcome.gradient), np.zeros((D, R)))
    assert np.linalg.norm(outcome.state.head) > 0.0


@pytest.mark.parametrize("head_update", [each for each in HeadUpdate if each is not HeadUpdate.POSTERIOR])
def test_the_head_stays_in_its_ball(head_update: HeadUpdate) -> None:
    current = LearnerState.initial(R)
    lengths = []
    for seed in range(20):
        rough = trajectory(seed)
        rough = dataclasses.replace(rough, rewards=read_only(50.0 * rough.rewards))
        current = learn_round(current, BASIS, rough, method(head_update, head_radius=0.5)).state
        lengths.append(float(np.linalg.norm(current.head)))
    assert max(lengths) <= 0.5 * (1 + 1e-15)
    assert max(lengths) == pytest.approx(0.5, rel=1e-15)


def test_steps_decay_with_the_agents_own_count_of_steps() -> None:
    """β (c/(c + 40))^p and γ (c/(c + 40))^p with c = 40/3, p = 1/2: half of each."""
    decaying = method(decay_horizon=40.0 / 3.0, decay_power=0.5)
    halved = method(head_step=0.15, gain_step=0.05)
    same_outcome(
        learn_round(state(), BASIS, trajectory(), decaying),
        learn_round(state(), BASIS, trajectory(), halved),
        tolerance=1e-15,
    )


def test_the_implicit_step_at_the_end_of_a_round() -> None:
    """β/(1 + β‖Bᵀφ_0‖²), then divided by L."""
    walk = trajectory()
    coordinates = BASIS.T @ walk.features[0]
    shrunk = 2.0 / (1.0 + 2.0 * float(coordinates @ coordinates))
    assert shrunk < 1.999
    same_outcome(
        learn_round(state(), BASIS, walk, method(head_step=2.0, implicit_head_step=True)),
        learn_round(state(), BASIS, walk, method(head_step=shrunk)),
        tolerance=1e-15,
    )


@pytest.mark.skipif(os.environ.get("SHAPE_CHECKS") == "0", reason="`make unit` leaves the checks of shapes out")
@pytest.mark.parametrize(("features", "rewards"), [((L + 1, D), (L, 1)), ((L + 1,), (L,))])
def test_shapes_are_checked_at_run_time_in_tests(features: tuple[int, ...], rewards: tuple[int, ...]) -> None:
    """That the hook of conftest.py works, and would notice a transposed or flattened array."""
    with pytest.raises(TypeError, match="Trajectory"):
        Trajectory(features=np.zeros(features), rewards=np.zeros(rewards))
    with pytest.raises(TypeError, match="typechecking"):
        learn_round(state(), BASIS[:, 0], trajectory(), method())


@pytest.mark.parametrize("steps", [1, 4, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
@pytest.mark.parametrize("radius", [math.inf, 1.2])
def test_a_round_of_td_lambda_against_loops(steps: int, radius: float) -> None:
    """TD(λ) in the frozen basis, written out: e ← λe + φ, w ← Π[w + β δ Bᵀe / (1 + β max(0, zᵀe))], G = Σ δ e wᵀ.

    Rounds longer than a block carry the trace on; a small ball is reached in some steps and not in others.
    """
    rng = np.random.default_rng(21)
    basis = np.linalg.qr(rng.standard_normal((6, 2)))[0]
    features, rewards = 0.4 * rng.standard_normal((steps + 1, 6)), rng.standard_normal(steps)
    head, gain, trace, gradient = np.array([0.5, -0.8]), 0.3, np.zeros(6), np.zeros((6, 2))
    rule = Method(steps, HeadUpdate.EVERY_STEP, 2.0, 0.1, radius, 1.0, implicit_head_step=True, trace_decay=0.75)
    outcome = learn_round(LearnerState(head, gain, 7), basis, Trajectory(features, rewards), rule)
    for step in range(steps):
        error = rewards[step] - gain + (features[step + 1] - features[step]) @ basis @ head
        trace = 0.75 * trace + features[step]
        gradient += error * np.outer(trace, head)
        along = basis.T @ trace
        head = head + 2.0 / (1.0 + 2.0 * max(0.0, (basis.T @ features[step]) @ along)) * error * along
        head *= min(1.0, radius / np.linalg.norm(head))
        gain += 0.1 * (rewards[step] - gain)
    np.testing.assert_allclose(to_dense(outcome.gradient), gradient, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(outcome.state.head, head, rtol=1e-11)
    assert outcome.state.gain_estimate == pytest.approx(gain, rel=1e-13)


def test_a_step_that_overflows_is_held_by_the_ball() -> None:
    """Without the ball the errors of this round would grow past every float; with it the head stays finite."""
    rng = np.random.default_rng(3)
    walk = Trajectory(rng.uniform(-0.4, 0.4, (BLOCK + 1, D)), rng.standard_normal(BLOCK))
    rule = method(HeadUpdate.EVERY_STEP, steps_per_round=BLOCK, head_step=1e30, head_radius=3.0)
    outcome = learn_round(LearnerState.initial(R), BASIS, walk, rule)
    assert np.linalg.norm(outcome.state.head) == pytest.approx(3.0, rel=1e-12)
    assert np.isfinite(to_dense(outcome.gradient)).all()
