"""Each formula of eqs. 6-8 against numbers worked by hand."""

import math

import numpy as np
import pytest
from values import read_only

from cospan.core.learning.td import (
    effective_step,
    gain_update,
    head_update,
    l_step_error,
    project_to_ball,
    subspace_gradient,
)


def test_l_step_error_by_hand() -> None:
    """(1 − 0.5) + (2 − 0.5) + (4 − 0.5) = 5.5, and (φ_L − φ_0)·z = (1 − 0)·2 + (0 − 1)·(−3) = 5."""
    error = l_step_error(
        rewards=read_only([1.0, 2.0, 4.0]),
        gain_estimate=0.5,
        first_features=read_only([0.0, 1.0]),
        last_features=read_only([1.0, 0.0]),
        weights=read_only([2.0, -3.0]),
    )
    assert error == 10.5
    assert type(error) is float


def test_l_step_error_is_zero_at_the_truth() -> None:
    """Two states in turn with rewards 1 and 0: J = 1/2, V = ±1/4 = φᵀz with φ = ±1, so every δ vanishes."""
    for length in range(1, 6):
        rewards = np.array([1.0 if t % 2 == 0 else 0.0 for t in range(length)])
        last = np.array([1.0 if length % 2 == 0 else -1.0])
        assert l_step_error(rewards, 0.5, np.array([1.0]), last, np.array([0.25])) == 0.0


@pytest.mark.parametrize(
    ("vector", "radius", "expected"),
    [
        ([3.0, 4.0], 10.0, [3.0, 4.0]),
        ([3.0, 4.0], 5.0, [3.0, 4.0]),
        ([3.0, 4.0], 2.5, [1.5, 2.0]),
        ([0.0, 0.0], 1.0, [0.0, 0.0]),
        ([3.0, 4.0], math.inf, [3.0, 4.0]),
    ],
)
def test_project_to_ball_by_hand(vector: list[float], radius: float, expected: list[float]) -> None:
    np.testing.assert_allclose(project_to_ball(read_only(vector), radius), expected, rtol=1e-15)


def test_a_point_within_the_ball_keeps_its_bits() -> None:
    inside = read_only([0.1, 0.2, 0.3])
    assert project_to_ball(inside, 1.0).tobytes() == inside.tobytes()


def test_effective_step_by_hand() -> None:
    """0.5 / (1 + 0.5·(1 + 4)) = 1/7."""
    coordinates = read_only([1.0, 2.0])
    assert effective_step(0.5, float(coordinates @ coordinates), implicit=False) == 0.5
    assert effective_step(0.5, float(coordinates @ coordinates), implicit=True) == pytest.approx(1 / 7, rel=1e-15)


def test_an_implicit_step_never_overshoots() -> None:
    """The correction along z is βδ‖z‖²/(1 + β‖z‖²): below δ however large β is."""
    coordinates = read_only([0.6, 0.8])
    for step in (1e-3, 1.0, 1e3, 1e9):
        moved = effective_step(step, float(coordinates @ coordinates), implicit=True) * float(
            coordinates @ coordinates
        )
        assert 0.0 < moved < 1.0


def test_head_update_by_hand() -> None:
    """(1, 0) + 0.1·5·(2, −4) = (2, −2); its length √8 exceeds 2, so it is brought back to (√2, −√2)."""
    head, coordinates = read_only([1.0, 0.0]), read_only([2.0, -4.0])
    np.testing.assert_allclose(head_update(head, 5.0, coordinates, 0.1, math.inf), [2.0, -2.0], rtol=1e-15)
    np.testing.assert_allclose(
        head_update(head, 5.0, coordinates, 0.1, 2.0), [math.sqrt(2), -math.sqrt(2)], rtol=1e-15
    )


def test_gain_update_by_hand() -> None:
    assert gain_update(2.0, 6.0, 0.25) == 3.0
    assert gain_update(2.0, 6.0, 1.0) == 6.0


def test_a_gain_step_of_one_over_t_is_the_running_mean() -> None:
    rewards = [3.0, -1.0, 4.0, 1.0, 5.0]
    estimate = 100.0
    for index, reward in enumerate(rewards):
        estimate = gain_update(estimate, reward, 1.0 / (index + 1))
    assert estimate == pytest.approx(sum(rewards) / len(rewards), rel=1e-14)


def test_subspace_gradient_by_hand() -> None:
    """G = δ/L·φ wᵀ = 6/3·(1, 2)ᵀ(5, 7): with the 1/L that the body of the paper omits."""
    left, right = subspace_gradient(6.0, read_only([1.0, 2.0]), read_only([5.0, 7.0]), steps=3)
    np.testing.assert_array_equal(np.outer(left, right), [[10.0, 14.0], [20.0, 28.0]])


def test_subspace_gradient_keeps_nothing_of_its_inputs() -> None:
    """It is sent later, when the head has moved on."""
    features, head = np.array([1.0, 2.0]), np.array([5.0, 7.0])
    left, right = subspace_gradient(6.0, features, head, steps=3)
    features[:], head[:] = -1.0, -1.0
    np.testing.assert_array_equal(np.outer(left, right), [[10.0, 14.0], [20.0, 28.0]])


def test_a_trace_against_the_state_does_not_enlarge_the_step() -> None:
    assert effective_step(0.5, -2.0, implicit=True) == 0.5
    assert effective_step(0.5, 2.0, implicit=True) == 0.25


def test_many_step_sizes_at_once_are_those_one_by_one() -> None:
    steps, curvatures = read_only([0.5, 2.0, 1.0]), read_only([2.0, -1.0, 0.0])
    together = effective_step(steps, curvatures, implicit=True)
    alone = [effective_step(float(s), float(c), implicit=True) for s, c in zip(steps, curvatures, strict=True)]
    np.testing.assert_array_equal(together, alone)
    assert effective_step(steps, curvatures, implicit=False) is steps
