"""Heads by least squares: the sums, their move to another basis, and the system that they make."""

import dataclasses
import math

import numpy as np
import pytest
from values import read_only

from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.learning.least_squares import EXPLAINED_FLOOR, PRIOR_STEPS, TransitionSums
from cospan.core.learning.reward_moments import NO_REWARDS
from cospan.core.linalg.matrices import FactoredMatrix, to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import HeadUpdate, Method

D, R, L = 7, 3, 5


def method(**changes: object) -> Method:
    values: dict[str, object] = {
        "steps_per_round": L,
        "head_update": HeadUpdate.LEAST_SQUARES,
        "head_step": 0.3,
        "gain_step": 0.1,
        "head_radius": math.inf,
        "basis_step": 0.5,
        "trace_decay": 0.6,
        "forgetting": 2.0,
    }
    return Method(**(values | changes))  # type: ignore[arg-type]


def chain(rounds: int, seed: int = 0) -> list[Trajectory]:
    rng = np.random.default_rng(seed)
    features = rng.uniform(-1.0, 1.0, (rounds * L + 1, D)) / math.sqrt(D)
    rewards = 2.0 + rng.standard_normal(rounds * L)
    return [
        Trajectory(read_only(features[t * L : (t + 1) * L + 1]), read_only(rewards[t * L : (t + 1) * L]))
        for t in range(rounds)
    ]


BASIS = read_only(random_basis(D, R, np.random.default_rng(2)))


def by_loops(
    walks: list[Trajectory], bases: list[np.ndarray], rule: Method
) -> tuple[list[np.ndarray], list[float]]:
    """The heads and gains after each round, written out; a round's sums are turned with every later basis."""
    heads, gains = [], []
    system, rewards, traces = np.zeros((R, R)), np.zeros(R), np.zeros(R)
    squares = total = steps = 0.0
    for t, (walk, basis) in enumerate(zip(walks, bases, strict=True)):
        turn = basis.T @ bases[max(t - 1, 0)]
        keep = t / (t + rule.forgetting) if t else 0.0
        system, rewards, traces = keep * turn @ system @ turn.T, keep * turn @ rewards, keep * turn @ traces
        squares, total, steps = keep * squares, keep * total, keep * steps
        trace = np.zeros(R)
        for h in range(L):
            here, there = basis.T @ walk.features[h], basis.T @ walk.features[h + 1]
            trace = rule.trace_decay * trace + here
            system = system + np.outer(trace, here - there)
            rewards, traces = rewards + trace * walk.rewards[h], traces + trace
            squares, total, steps = squares + here @ here, total + walk.rewards[h], steps + 1.0
        ridge = PRIOR_STEPS * squares / steps / R
        gains.append(total / steps)
        heads.append(np.linalg.inv(system + ridge * np.eye(R)) @ (rewards - gains[-1] * traces))
    return heads, gains


@pytest.mark.parametrize("forgetting", [0.0, 2.0])
@pytest.mark.parametrize("trace_decay", [0.0, 0.6])
def test_rounds_of_least_squares_against_loops(trace_decay: float, forgetting: float) -> None:
    rule, walks = method(trace_decay=trace_decay, forgetting=forgetting), chain(6)
    rng = np.random.default_rng(5)
    bases = [np.linalg.qr(BASIS + 0.1 * t * rng.standard_normal((D, R)))[0] for t in range(6)]
    heads, gains = by_loops(walks, bases, rule)
    state = LearnerState.initial(R)
    for t, (walk, basis) in enumerate(zip(walks, bases, strict=True)):
        state = learn_round(state, basis, walk, rule).state
        np.testing.assert_allclose(state.head, heads[t], rtol=1e-9, atol=1e-12)
        assert state.gain_estimate == pytest.approx(gains[t], rel=1e-13)
        assert state.steps == (t + 1) * L


def test_the_gradient_is_that_of_the_head_from_before_the_round_and_of_rank_one() -> None:
    rule, (first, second) = method(), chain(2)
    state = learn_round(LearnerState.initial(R), BASIS, first, rule).state
    outcome = learn_round(state, BASIS, second, rule)
    trace, expected, squares = np.zeros(D), np.zeros((D, R)), 0.0
    for h in range(L):
        step = second.features[h + 1] - second.features[h]
        error = second.rewards[h] - state.gain_estimate + step @ BASIS @ state.head
        trace = rule.trace_decay * trace + second.features[h]
        expected += error * np.outer(trace, state.head)
        squares += error * error / L
    assert isinstance(outcome.gradient, FactoredMatrix)
    assert outcome.gradient.left.shape == (D, 1)
    np.testing.assert_allclose(to_dense(outcome.gradient), expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(outcome.head_second_moment, np.outer(state.head, state.head), rtol=1e-14)
    assert outcome.mean_squared_error == pytest.approx(squares, rel=1e-12)


def test_the_first_round_knows_no_head() -> None:
    outcome = learn_round(LearnerState.initial(R), BASIS, chain(1)[0], method())
    np.testing.assert_array_equal(to_dense(outcome.gradient), np.zeros((D, R)))
    assert np.linalg.norm(outcome.state.head) > 0.0


def test_a_turn_within_the_subspace_changes_no_value() -> None:
    """The sums move with the basis exactly as long as the subspace stays: B w is the same."""
    rule, walks = method(), chain(4)
    turn = np.linalg.qr(np.random.default_rng(9).standard_normal((R, R)))[0]
    still = turned = LearnerState.initial(R)
    for t, walk in enumerate(walks):
        still = learn_round(still, BASIS, walk, rule).state
        turned = learn_round(turned, BASIS @ (turn if t % 2 else np.eye(R)), walk, rule).state
    np.testing.assert_allclose(BASIS @ turn @ turned.head, BASIS @ still.head, rtol=1e-10)


def test_much_data_is_the_fixed_point_of_td() -> None:
    """Without forgetting and in the whole space the head tends to the least-squares solution: the ridge fades."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal(D)
    features = rng.uniform(-1.0, 1.0, (20_001, D)) / math.sqrt(D)
    rewards = 3.0 + (features[:-1] - features[1:]) @ weights
    rule = method(steps_per_round=20_000, trace_decay=0.0, forgetting=0.0)
    head = learn_round(LearnerState.initial(D), np.eye(D), Trajectory(features, rewards), rule).state.head
    assert np.linalg.norm(head - weights) < 0.02 * np.linalg.norm(weights)


def test_the_head_is_drawn_back_into_the_ball() -> None:
    free = learn_round(LearnerState.initial(R), BASIS, chain(1)[0], method()).state.head
    held = learn_round(LearnerState.initial(R), BASIS, chain(1)[0], method(head_radius=0.01)).state.head
    assert np.linalg.norm(free) > 0.02
    np.testing.assert_allclose(held, 0.01 * free / np.linalg.norm(free), rtol=1e-12)


def test_the_full_history_against_loops() -> None:
    """Head and gradient are those of all transitions in the basis of today, whatever the bases before were."""
    rule, walks = method(head_update=HeadUpdate.FULL_HISTORY, forgetting=0.0), chain(6)
    rng = np.random.default_rng(5)
    state = LearnerState.initial(R)
    for t, walk in enumerate(walks):
        basis = np.linalg.qr(rng.standard_normal((D, R)))[0]
        outcome = learn_round(state, basis, walk, rule)
        state = outcome.state
        gain = float(np.mean([reward for w in walks[: t + 1] for reward in w.rewards]))
        assert state.gain_estimate == pytest.approx(gain, rel=1e-13)
        system, mean_error = np.zeros((D, D)), np.zeros(D)
        squares = 0.0
        for past in walks[: t + 1]:
            trace = np.zeros(D)
            for h in range(L):
                here, there = past.features[h], past.features[h + 1]
                trace = rule.trace_decay * trace + here
                error = past.rewards[h] - gain + (there - here) @ basis @ state.head
                system = system + np.outer(trace, here - there)
                mean_error = mean_error + error * trace / ((t + 1) * L)
                squares += float(here @ here) / ((t + 1) * L)
        assert isinstance(outcome.gradient, FactoredMatrix)
        np.testing.assert_allclose(outcome.gradient.left[:, 0], mean_error, rtol=1e-9, atol=1e-13)
        np.testing.assert_array_equal(outcome.gradient.right[:, 0], state.head)
        # The head leaves the ridge's pull alone in the basis: Bᵀ Σ δ e = κ w.
        ridge = PRIOR_STEPS * squares / D
        np.testing.assert_allclose(basis.T @ mean_error * (t + 1) * L, ridge * state.head, rtol=1e-7, atol=1e-11)
        np.testing.assert_allclose(outcome.pooled, np.abs(system).sum(axis=1) / ((t + 1) * L), rtol=1e-11)


def test_an_agent_counts_by_the_share_that_the_basis_explains() -> None:
    """With the whole space all but the ridge's pull is explained; with another subspace next to nothing."""
    rng = np.random.default_rng(3)
    weights = rng.standard_normal(D)
    features = rng.uniform(-1.0, 1.0, (5001, D)) / math.sqrt(D)
    walk = Trajectory(features, 1.0 + (features[:-1] - features[1:]) @ weights)
    rule = method(head_update=HeadUpdate.FULL_HISTORY, trace_decay=0.0, forgetting=0.0, explained_power=2.0)
    own = weights[:, None] / np.linalg.norm(weights)
    away = np.linalg.qr(own, mode="complete")[0][:, 1:3]
    for basis, least, most in ((np.eye(D), 0.99, 1.0), (own, 0.99, 1.0), (away, 0.01, 0.05)):
        fresh = LearnerState.initial(basis.shape[1])
        counted = learn_round(fresh, basis, walk, rule)
        plain = learn_round(fresh, basis, walk, dataclasses.replace(rule, explained_power=0.0))
        factor = float(np.trace(counted.head_second_moment) / np.trace(plain.head_second_moment))
        assert least <= factor <= most
        np.testing.assert_allclose(to_dense(counted.gradient), factor * to_dense(plain.gradient), rtol=1e-9)
        np.testing.assert_array_equal(counted.state.head, plain.state.head)
    assert TransitionSums.of_features(D).explained_share(np.zeros(D)) == EXPLAINED_FLOOR


def test_dividing_by_the_row_sums_never_overshoots() -> None:
    rule = method(head_update=HeadUpdate.FULL_HISTORY)
    outcome = learn_round(LearnerState.initial(R), BASIS, chain(1)[0], rule)
    assert outcome.state.statistics is not None
    scaled = outcome.state.statistics.system / L / np.maximum(outcome.pooled, 1e-300)[:, None]
    assert np.abs(np.linalg.eigvals(scaled)).max() <= 1.0 + 1e-12


@pytest.mark.parametrize("head_update", HeadUpdate)
def test_rewards_in_other_units_are_one_gradient_where_they_are_scaled(head_update: HeadUpdate) -> None:
    """A thousand times the rewards: a thousand times the head, and the same upload."""
    rule = method(head_update=head_update, reward_scaled=True)
    one = other = LearnerState.initial(R)
    for walk in chain(5):
        larger = Trajectory(walk.features, 1000.0 * walk.rewards)
        ours = learn_round(one, BASIS, walk, rule, head_covariance=np.eye(R))
        theirs = learn_round(other, BASIS, larger, rule, head_covariance=np.eye(R))
        one, other = ours.state, theirs.state
        np.testing.assert_allclose(other.head, 1000.0 * one.head, rtol=1e-8)
        np.testing.assert_allclose(to_dense(theirs.gradient), to_dense(ours.gradient), rtol=1e-8, atol=1e-15)
        np.testing.assert_allclose(theirs.head_second_moment, ours.head_second_moment, rtol=1e-8)


@pytest.mark.parametrize("head_update", [each for each in HeadUpdate if each is not HeadUpdate.POSTERIOR])
def test_an_upload_is_that_of_rewards_and_features_divided_by_their_size(head_update: HeadUpdate) -> None:
    """Where they are scaled: rewards less the first one, by σ; features by the root mean square of ‖φ‖."""
    first, second = chain(2)
    rewards, visited = np.concatenate([first.rewards, second.rewards]), np.stack([first.features, second.features])
    scaled, plain = method(head_update=head_update, reward_scaled=True), method(head_update=head_update)
    ours = learn_round(LearnerState.initial(R), BASIS, first, scaled)
    # Units are those of all data so far, so of the second round's upload all but the head before can be divided.
    sizes = [np.std(rewards), np.sqrt(np.mean(np.sum(visited[:, :-1] ** 2, axis=2)))]
    rule = dataclasses.replace(plain, head_step=plain.head_step / sizes[1] ** 2)
    before = dataclasses.replace(
        ours.state, gain_estimate=ours.state.gain_estimate - rewards[0], rewards=NO_REWARDS
    )
    theirs = learn_round(before, BASIS, Trajectory(second.features, second.rewards - rewards[0]), rule)
    ours = learn_round(ours.state, BASIS, second, scaled)
    np.testing.assert_allclose(ours.state.head, theirs.state.head, rtol=1e-11)
    np.testing.assert_allclose(to_dense(ours.gradient) * sizes[0] ** 2, to_dense(theirs.gradient), rtol=1e-10)
    unit = sizes[0] / sizes[1]
    np.testing.assert_allclose(ours.head_second_moment * unit**2, theirs.head_second_moment, rtol=1e-10)
    if ours.pooled is not None:
        np.testing.assert_allclose(ours.pooled * sizes[1] ** 2, theirs.pooled, rtol=1e-12)


@pytest.mark.parametrize("head_update", HeadUpdate)
def test_rewards_that_never_vary_give_no_gradient(head_update: HeadUpdate) -> None:
    """Nor one of rounding: the mean of 60 times 0.1 is not 0.1."""
    state, rule = LearnerState.initial(R), method(head_update=head_update, reward_scaled=True)
    for walk in chain(3):
        flat = Trajectory(walk.features, np.full(L, 0.1))
        outcome = learn_round(state, BASIS, flat, rule, head_covariance=np.eye(R))
        state = outcome.state
        assert not to_dense(outcome.gradient).any()
    assert state.gain_estimate == 0.1


def test_no_features_and_no_data_give_no_head() -> None:
    empty = TransitionSums.initial(BASIS)
    np.testing.assert_array_equal(empty.head(1.0), np.zeros(R))
    assert empty.gain_estimate == 0.0
    np.testing.assert_array_equal(TransitionSums.of_features(R).residual(np.ones(R)), np.zeros(R))
    np.testing.assert_array_equal(empty.row_sums, np.zeros(R))
    blank = empty.updated(np.zeros((L + 1, R)), np.zeros((L, R)), np.ones(L), 1.0)
    np.testing.assert_array_equal(blank.head(1.0), np.zeros(R))
    assert blank.gain_estimate == 1.0


def test_a_singular_system_gives_a_head_all_the_same() -> None:
    """A is not symmetric, so a ridge may meet an eigenvalue of the other sign: −κ here, exactly."""
    sums = TransitionSums(
        np.eye(2), np.diag([-5.0, 1.0]), np.ones(2), np.zeros(2), squares=1.0, steps=1.0, rounds=1
    )
    np.testing.assert_allclose(sums.head(math.inf), [0.0, 1.0 / 6.0], atol=1e-15)


def test_a_head_that_is_not_finite_is_none() -> None:
    sums = TransitionSums(np.eye(1), np.zeros((1, 1)), np.array([1e300]), np.zeros(1), 1e-300, steps=1.0, rounds=1)
    np.testing.assert_array_equal(sums.head(1.0), [0.0])
