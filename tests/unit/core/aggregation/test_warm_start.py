"""The spectral warm start: what an agent sums and sends, and the basis that follows from it."""

import dataclasses
import math

import numpy as np
import pytest
from runs import ring_site, specification
from values import read_only

from cospan.client.learning.site_learner import SiteLearner
from cospan.core.aggregation.basis_update import Contribution, next_basis
from cospan.core.aggregation.warm_start import cross_eigenvalues, cross_spectrum, spectral_basis
from cospan.core.learning.learner import contribution_of, learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, to_dense
from cospan.core.linalg.subspace import orthonormality_error, principal_angle_sine, random_basis
from cospan.core.method import PRESETS, HeadUpdate, Method, compact, full_history, paper
from cospan.experiments.methods.compared_methods import LstdFleet

D, R, L, W = 6, 2, 8, 5
BASIS = read_only(random_basis(D, R, np.random.default_rng(2)))
STEPPING = dataclasses.replace(paper(L), head_update=HeadUpdate.EVERY_STEP)


def walk(seed: int, rounds: int) -> list[Trajectory]:
    """Consecutive rounds of one chain."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(-1.0, 1.0, (rounds * L + 1, D)) / math.sqrt(D)
    rewards = 5.0 + 3.0 * rng.standard_normal(rounds * L)
    return [
        Trajectory(read_only(features[t * L : (t + 1) * L + 1]), read_only(rewards[t * L : (t + 1) * L]))
        for t in range(rounds)
    ]


def lstd(trajectories: list[Trajectory]) -> np.ndarray:
    """LSTD(0) of one agent alone, by the baseline's code."""
    fleet = LstdFleet.initial(D, 1, ridges=(10.0,))
    for trajectory in trajectories:
        fleet = fleet.learning_from([trajectory])
    return fleet.weights[0, 0]


def played(method: Method, rounds: int, first: int = 0) -> list:
    """The outcomes of rounds `first` to `rounds` − 1, the basis being BASIS throughout."""
    state, outcomes = LearnerState.initial(R), []
    for t, trajectory in enumerate(walk(3, rounds - first), start=first):
        outcomes.append(learn_round(state, BASIS, trajectory, method, t))
        state = outcomes[-1].state
    return outcomes


# The agent's part -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", [paper(L), full_history(L), compact(L), STEPPING])
def test_a_warm_up_sends_zeros_and_then_two_estimates(preset: Method) -> None:
    method = dataclasses.replace(preset, warm_up_rounds=W, trace_decay=0.0)
    outcomes = played(method, W)
    for outcome in outcomes[:-1]:
        assert isinstance(outcome.gradient, FactoredMatrix)
        assert (outcome.gradient.left.shape, outcome.gradient.right.shape) == ((D, 1), (R, 1))
        assert not to_dense(outcome.gradient).any()
    rewards = np.concatenate([trajectory.rewards for trajectory in walk(3, W)])
    visited = np.concatenate([trajectory.features[:-1] for trajectory in walk(3, W)])
    scale = rewards.std() / np.sqrt(np.mean(np.sum(visited**2, axis=1))) if method.reward_scaled else 1.0
    pair = to_dense(outcomes[-1].gradient)
    np.testing.assert_allclose(pair[:, 0], lstd(walk(3, W)[:2]) / scale, rtol=1e-10)
    np.testing.assert_allclose(pair[:, 1], lstd(walk(3, W)[2:]) / scale, rtol=1e-10)
    state = outcomes[-1].state
    assert not state.head.any()
    assert state.steps == W * L
    assert state.gain_estimate == pytest.approx(rewards.mean(), rel=1e-12)
    assert outcomes[-1].mean_squared_error == pytest.approx(np.mean((rewards[-L:] - rewards.mean()) ** 2))
    assert contribution_of(outcomes[0], method).gradient is outcomes[0].gradient


def test_rewards_in_another_unit_give_the_same_estimates_where_they_are_scaled() -> None:
    method = dataclasses.replace(full_history(L), warm_up_rounds=2)
    pairs = []
    for unit in (1.0, 1000.0):
        state = LearnerState.initial(R)
        for t, trajectory in enumerate(walk(3, 2)):
            larger = Trajectory(trajectory.features, unit * trajectory.rewards)
            outcome = learn_round(state, BASIS, larger, method, t)
            state = outcome.state
        pairs.append(to_dense(outcome.gradient))
    np.testing.assert_allclose(pairs[0], pairs[1], rtol=1e-10)


def test_rewards_that_never_vary_are_divided_by_nothing() -> None:
    method = dataclasses.replace(full_history(L), warm_up_rounds=2)
    state = LearnerState.initial(R)
    for t, trajectory in enumerate(walk(3, 2)):
        outcome = learn_round(state, BASIS, Trajectory(trajectory.features, np.ones(L)), method, t)
        state = outcome.state
    np.testing.assert_allclose(to_dense(outcome.gradient), 0.0, atol=1e-12)


def test_the_full_history_holds_the_warm_up_too() -> None:
    """After it an agent is where it would be without one: sums, head and gradient are those of all transitions."""
    method = dataclasses.replace(full_history(L), warm_up_rounds=W)
    warm, plain = played(method, W + 2)[-1], played(full_history(L), W + 2)[-1]
    np.testing.assert_allclose(warm.state.statistics.system, plain.state.statistics.system, rtol=1e-12)
    np.testing.assert_allclose(warm.state.head, plain.state.head, rtol=1e-9)
    np.testing.assert_allclose(to_dense(warm.gradient), to_dense(plain.gradient), rtol=1e-9, atol=1e-12)
    assert warm.state.gain_estimate == pytest.approx(plain.state.gain_estimate)
    assert warm.state.statistics.rounds == W + 2
    assert warm.state.warm_up is None


def test_heads_by_least_squares_begin_with_the_projection_of_the_warm_up() -> None:
    """What they would have had were the basis of round W theirs from the beginning; nothing forgotten."""
    method = dataclasses.replace(compact(L), forgetting=0.0)
    warm = played(dataclasses.replace(method, warm_up_rounds=W), W + 1)[-1]
    plain = played(method, W + 1)[-1]
    assert warm.state.statistics.basis is BASIS
    np.testing.assert_allclose(warm.state.statistics.system, plain.state.statistics.system, rtol=1e-10)
    np.testing.assert_allclose(warm.state.statistics.rewards, plain.state.statistics.rewards, rtol=1e-10)
    assert warm.state.statistics.rounds == W + 1


def test_other_head_updates_begin_at_its_end() -> None:
    method = dataclasses.replace(STEPPING, warm_up_rounds=W)
    *_, last, after = played(method, W + 1)
    assert not last.state.head.any()
    assert after.state.head.any()
    assert after.state.statistics is None
    assert after.state.warm_up is None


@pytest.mark.parametrize(("first", "halves"), [(1, (2, 2)), (2, (1, 2)), (3, (1, 1)), (4, (0, 1))])
def test_who_comes_late_halves_its_own_rounds(first: int, halves: tuple[int, int]) -> None:
    method = dataclasses.replace(full_history(L), warm_up_rounds=W)
    outcome = played(method, W, first)[-1]
    sums = outcome.state.warm_up
    assert (sums.first.rounds, sums.second.rounds) == halves
    assert to_dense(outcome.gradient).shape == (D, 2)
    assert to_dense(outcome.gradient).any() == (min(halves) > 0), "of one round there are no two halves"


def test_who_comes_after_it_or_missed_its_end_learns_as_ever() -> None:
    method = dataclasses.replace(full_history(L), warm_up_rounds=W)
    fresh = learn_round(LearnerState.initial(R), BASIS, walk(3, 1)[0], method, W + 3)
    plain = learn_round(LearnerState.initial(R), BASIS, walk(3, 1)[0], full_history(L))
    np.testing.assert_array_equal(to_dense(fresh.gradient), to_dense(plain.gradient))
    missed = learn_round(played(method, W - 1)[-1].state, BASIS, walk(4, 1)[0], method, W + 3)
    assert missed.state.statistics.rounds == W
    assert to_dense(missed.gradient).shape == (D, R)


@pytest.mark.parametrize("preset", ["paper", "compact", "full-history"])
@pytest.mark.parametrize("first_round", [0, 1, 2, 3, 5])
def test_a_site_learner_averages_from_the_end_of_the_warm_up_on(preset: str, first_round: int) -> None:
    method = dataclasses.replace(PRESETS[preset](3), warm_up_rounds=3)
    spec = specification(method, rounds=8, feature_fingerprint="map-1")
    learner = SiteLearner(ring_site(1, 1), spec, name="site-1", index=1, first_round=first_round)
    for number in range(first_round, 7):
        shape = learner.learn(number, spec.initial_basis()).contribution.gradient.shape
        assert shape == (spec.feature_dim, 2 if number == 2 else spec.rank)
        after = max(number + 1 - max(first_round, 3), 0)
        assert (learner.weights.count, learner.rounds) == (after, number + 1 - first_round)
        assert learner.gain.count == learner.rounds
        assert after or not learner.weights.mean.any()


# The coordinator's part -----------------------------------------------------------------------------------------


def pairs(agents: int, dim: int = D, noise: float = 1.0, seed: int = 0) -> list[np.ndarray]:
    """Estimates of weights in a two-dimensional subspace, that of the first two coordinates."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((agents, dim, 1))
    weights[:, :2, 0] = rng.standard_normal((agents, 2))
    return [read_only(weights[k] + noise * rng.standard_normal((dim, 2))) for k in range(agents)]


def dense(estimates: list[np.ndarray]) -> np.ndarray:
    """½ Σ (a bᵀ + b aᵀ) / K as it is written."""
    return sum(0.5 * (np.outer(p[:, 0], p[:, 1]) + np.outer(p[:, 1], p[:, 0])) for p in estimates) / len(estimates)


@pytest.mark.parametrize(("agents", "dim"), [(1, 6), (2, 6), (3, 6), (4, 6), (40, 6), (5, 11), (6, 11)])
def test_the_spectrum_is_that_of_the_dense_matrix(agents: int, dim: int) -> None:
    """numpy's eigh of the d × d matrix, whether it was formed or not."""
    estimates = pairs(agents, dim)
    stacked = np.stack(estimates, axis=2)
    values, vectors = cross_spectrum(stacked[:, 0], stacked[:, 1])
    assert values.shape == (min(dim, 2 * agents),)
    expected = np.linalg.eigh(dense(estimates))[0][::-1]
    kept = np.sort(np.concatenate([values, np.zeros(dim - len(values))]))[::-1]
    np.testing.assert_allclose(kept, expected, atol=1e-13)
    np.testing.assert_allclose(dense(estimates) @ vectors, vectors * values, atol=1e-13)
    largest = np.abs(vectors).argmax(axis=0)
    assert (vectors[largest, np.arange(len(values))] > 0.0).all()


def test_the_basis_is_the_leading_eigenvectors() -> None:
    estimates = pairs(200, noise=0.3)
    basis = spectral_basis(estimates, BASIS)
    expected = np.linalg.eigh(dense(estimates))[1][:, :-3:-1]
    assert principal_angle_sine(basis, expected) < 1e-12
    assert orthonormality_error(basis) < 1e-14
    assert principal_angle_sine(basis, np.eye(D)[:, :2]) < 0.15, "and they are the subspace of the fleet"


def test_noise_that_is_alike_in_size_everywhere_leaves_no_bias() -> None:
    """The second moment of one estimate alone would have the noise on its diagonal."""
    values, _ = cross_spectrum(*np.moveaxis(np.stack(pairs(4000, noise=1.0), axis=2), 1, 0))
    np.testing.assert_allclose(values, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0], atol=0.15)


def test_of_one_agent_it_is_the_bisector() -> None:
    (pair,) = pairs(1)
    units = pair / np.linalg.norm(pair, axis=0)
    basis = spectral_basis([pair], BASIS)
    bisector = units.sum(axis=1)
    assert abs(basis[:, 0] @ bisector) == pytest.approx(np.linalg.norm(bisector))


def test_what_the_estimates_leave_open_is_filled_up() -> None:
    """Rank one, and no estimate at all: the rest of the basis is the one that there was."""
    direction = np.arange(1.0, D + 1.0)
    basis = spectral_basis([np.stack([direction, 2.0 * direction], axis=1)] * 3, BASIS)
    assert orthonormality_error(basis) < 1e-14
    assert abs(basis[:, 0] @ direction) == pytest.approx(np.linalg.norm(direction))
    rest = BASIS[:, 0] - basis[:, 0] * (basis[:, 0] @ BASIS[:, 0])
    np.testing.assert_allclose(np.abs(basis[:, 1] @ rest), np.linalg.norm(rest))
    np.testing.assert_allclose(spectral_basis([np.zeros((D, 2))] * 2, BASIS), BASIS, atol=1e-15)
    opposite = spectral_basis([np.stack([direction, -direction], axis=1)], BASIS)
    np.testing.assert_allclose(
        opposite, BASIS, atol=1e-15, err_msg="negative is noise, and no direction of the fleet"
    )


def test_all_of_the_space() -> None:
    basis = spectral_basis(pairs(1), np.eye(D))
    assert basis.shape == (D, D)
    assert orthonormality_error(basis) < 1e-14


@pytest.mark.parametrize("agents", [1, 9])
def test_estimates_too_large_for_float64_are_named(agents: int) -> None:
    with pytest.raises(np.linalg.LinAlgError, match="estimates of the warm-up are too large"):
        spectral_basis([np.full((D, 2), 1e300)] * agents, BASIS)


def test_the_coordinator_moves_the_basis_once() -> None:
    method = dataclasses.replace(full_history(L), warm_up_rounds=3)
    nonsense = [Contribution(DenseMatrix(np.ones((D, R))))]
    for t in (0, 1):
        move = next_basis(BASIS, nonsense, method, t)
        assert move.basis is BASIS
        assert move.movement < 1e-15
    estimates = [Contribution(DenseMatrix(pair)) for pair in pairs(5)]
    move = next_basis(BASIS, estimates, method, 2)
    np.testing.assert_array_equal(move.basis, spectral_basis(pairs(5), BASIS))
    assert move.movement == principal_angle_sine(BASIS, move.basis)
    assert move.step_memory is None


def test_sums_are_joined() -> None:
    first, second = walk(3, 2)
    sums = TransitionSums.of_features(D)
    one = sums.updated(first.features, first.features[:-1], first.rewards, 0.0)
    two = sums.updated(second.features, second.features[:-1], second.rewards, 0.0)
    both, expected = one.joined_with(two), one.updated(second.features, second.features[:-1], second.rewards, 0.0)
    for field in dataclasses.fields(TransitionSums):
        if field.name != "basis":
            np.testing.assert_allclose(getattr(both, field.name), getattr(expected, field.name), rtol=1e-13)


@pytest.mark.parametrize("agents", [3, 9])
def test_eigenvalues_alone_are_those_that_come_with_vectors(agents: int) -> None:
    first, second = np.random.default_rng(agents).normal(size=(2, 10, agents))
    np.testing.assert_allclose(cross_eigenvalues(first, second), cross_spectrum(first, second)[0], atol=1e-14)
