"""With K = 1, r = d, B = I, L = 1 and no ball the method is average-reward TD(0).

Tsitsiklis and Van Roy, "Average cost temporal-difference learning", Automatica 35 (1999), sections 2 and 3.
"""

import math

import numpy as np
import pytest
from golden.straight_line import Constants, plain_td

from cospan.core.aggregation.basis_update import Contribution, next_basis
from cospan.core.exact_solutions import gain, stationary_distribution, td_fixed_point
from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.method import HeadUpdate, Method

STATES, D, STEPS = 7, 4, 250


def chain() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features without a constant in their span, a kernel, and expected rewards."""
    rng = np.random.default_rng(11)
    features = rng.standard_normal((STATES, D))
    features /= np.linalg.norm(features, axis=1).max()
    return features, rng.dirichlet(np.ones(STATES), size=STATES), rng.standard_normal(STATES)


def walk(transition: np.ndarray, steps: int) -> list[int]:
    rng = np.random.default_rng(12)
    states = [0]
    for _ in range(steps):
        states.append(int(rng.choice(STATES, p=transition[states[-1]])))
    return states


@pytest.mark.parametrize("head_update", [HeadUpdate.END_OF_ROUND, HeadUpdate.EVERY_STEP])
def test_one_agent_with_every_direction_is_td0(head_update: HeadUpdate) -> None:
    features, transition, rewards = chain()
    states = walk(transition, STEPS)
    method = Method(
        steps_per_round=1,
        head_update=head_update,
        head_step=0.2,
        gain_step=0.01,
        head_radius=math.inf,
        basis_step=0.7,
    )
    expected = plain_td(
        [0.0] * D,
        0.0,
        features[states].tolist(),
        rewards[states[:-1]].tolist(),
        Constants(0.2, 0.01, math.inf, 0.7),
    )

    state, basis = LearnerState.initial(D), np.eye(D)
    for t in range(STEPS):
        trajectory = Trajectory(features=features[states[t : t + 2]], rewards=rewards[states[t : t + 1]])
        outcome = learn_round(state, basis, trajectory, method)
        basis = next_basis(basis, [Contribution(gradient=outcome.gradient)], method, t).basis
        state = outcome.state
        weights, gain_estimate = expected[t]
        np.testing.assert_allclose(basis @ state.head, weights, rtol=0, atol=1e-12)
        assert abs(state.gain_estimate - gain_estimate) <= 1e-12
    np.testing.assert_array_equal(basis, np.eye(D), "all of R^d is spanned, so there is nowhere to turn to")


def test_its_mean_update_vanishes_at_the_fixed_point() -> None:
    """The expectation of a TD(0) correction under μ is b + A z, zero at z* with η = J (eq. 6 averaged)."""
    features, transition, rewards = chain()
    stationary = stationary_distribution(transition)
    target = td_fixed_point(features, transition, rewards)
    method = Method(
        steps_per_round=1,
        head_update=HeadUpdate.END_OF_ROUND,
        head_step=1.0,
        gain_step=0.01,
        head_radius=math.inf,
        basis_step=0.0,
    )
    at_target = LearnerState(head=target, gain_estimate=gain(stationary, rewards))
    drift = np.zeros(D)
    for here in range(STATES):
        for there in range(STATES):
            trajectory = Trajectory(features=features[[here, there]], rewards=rewards[[here]])
            after = learn_round(at_target, np.eye(D), trajectory, method).state.head
            drift += stationary[here] * transition[here, there] * (after - target)
    np.testing.assert_allclose(drift, 0.0, atol=1e-13)
