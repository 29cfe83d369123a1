"""What must hold of the mathematics for every basis, gradient, head and trajectory."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cospan.core.aggregation.basis_update import Contribution, aggregate, mean_gradient, next_basis
from cospan.core.exact_solutions import differential_value, gain, stationary_distribution
from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.learning.schedules import AveragedIterate, decay
from cospan.core.learning.td import effective_step, head_update, project_to_ball
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, Gradient, to_dense
from cospan.core.linalg.subspace import (
    basis_step,
    orthonormalise,
    orthonormality_error,
    precondition,
    principal_angle_sine,
    random_basis,
    sine_of_step,
    tangent_projection,
)
from cospan.core.method import HeadUpdate, Method, paper

shapes = st.integers(1, 8).flatmap(lambda d: st.tuples(st.just(d), st.integers(1, d)))
moderate = st.floats(-1e3, 1e3)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def matrices(draw: st.DrawFn, elements: st.SearchStrategy[float] = moderate) -> np.ndarray:
    """Tall matrices, many of them rank-deficient: hypothesis likes zeros and repeated values."""
    return draw(hnp.arrays(np.float64, draw(shapes), elements=elements))


@st.composite
def bases(draw: st.DrawFn) -> np.ndarray:
    d, r = draw(shapes)
    return random_basis(d, r, np.random.default_rng(draw(seeds)))


@st.composite
def based(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A basis, and a matrix of its shape."""
    basis = draw(bases())
    return basis, draw(hnp.arrays(np.float64, basis.shape, elements=moderate))


def rotation(rank: int, seed: int) -> np.ndarray:
    """An orthogonal matrix, reflections included."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((rank, rank)))[0]


# Orthonormalisation ---------------------------------------------------------------------------------------------


@given(matrices(st.floats(-1e150, 1e150)))
@example(np.array([[5e-324, 1.0], [0.0, 5e-324]]))
@example(np.array([[1.0, 1.0], [1.0, 1.0 + 2**-52], [1.0, 1.0]]))
def test_q_is_orthonormal_and_r_is_upper_triangular_with_no_negative_diagonal(matrix: np.ndarray) -> None:
    q = orthonormalise(matrix)
    assert q.shape == matrix.shape
    assert orthonormality_error(q) < 1e-14
    largest = np.abs(matrix).max() + 1e-290  # products of subnormal numbers round to multiples of 5e-324
    upper = q.T @ matrix
    assert np.diagonal(upper).min() >= -1e-14 * largest
    assert np.abs(np.tril(upper, -1)).max() <= 1e-13 * largest


@given(matrices())
def test_orthonormalisation_keeps_the_span(matrix: np.ndarray) -> None:
    """Every column of the matrix lies in span(Q), rank-deficient matrices included."""
    q = orthonormalise(matrix)
    np.testing.assert_allclose(q @ (q.T @ matrix), matrix, atol=1e-13 * max(1.0, np.abs(matrix).max()))


@given(
    rank=st.integers(8, 32),
    rows_per_column=st.integers(8, 80),
    condition=st.floats(0.0, 7.0),
    scale=st.integers(-300, 300),
    seed=seeds,
)
def test_tall_matrices_up_to_a_condition_of_1e7_are_orthonormalised_to_1e_14(
    rank: int, rows_per_column: int, condition: float, scale: int, seed: int
) -> None:
    """By columns; `condition` is its decimal logarithm, and `scale` a power of two of the whole matrix."""
    rng = np.random.default_rng(seed)
    shape = max(rows_per_column * rank, 16_384 // rank + 1), rank
    matrix = orthonormalise(rng.standard_normal(shape)) * 10.0 ** -np.linspace(0.0, condition, rank)
    matrix = np.ldexp(matrix @ rotation(rank, seed), scale)
    matrix.flags.writeable = False
    q = orthonormalise(matrix)
    assert np.linalg.norm(q.T @ q - np.eye(rank), axis=0).max() < 1e-14
    upper = q.T @ matrix
    assert np.diagonal(upper).min() > 0.0
    assert np.linalg.norm(matrix - q @ np.triu(upper)) < 1e-8 * np.ldexp(1.0, scale)


@given(bases())
def test_orthonormalisation_does_nothing_to_a_basis(basis: np.ndarray) -> None:
    np.testing.assert_allclose(orthonormalise(basis), basis, atol=1e-14)


@given(matrices(), st.floats(1e-6, 1e6))
def test_orthonormalisation_knows_no_scale(matrix: np.ndarray, scale: float) -> None:
    assume(np.abs(matrix).max() > 1e-100)
    assume(np.linalg.cond(matrix) < 1e6)
    np.testing.assert_allclose(orthonormalise(scale * matrix), orthonormalise(matrix), atol=1e-8)


# The tangent step -----------------------------------------------------------------------------------------------


@given(based())
def test_the_tangent_projection_is_a_projection_orthogonal_to_the_basis(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    basis, gradient = pair
    tangent = tangent_projection(basis, gradient)
    scale = max(1.0, np.abs(gradient).max())
    np.testing.assert_allclose(basis.T @ tangent, 0.0, atol=1e-13 * scale)
    np.testing.assert_allclose(tangent_projection(basis, tangent), tangent, atol=1e-13 * scale)
    assert np.linalg.norm(tangent) <= np.linalg.norm(gradient) * (1 + 1e-13)


@given(based(), seeds)
def test_projecting_the_mean_is_the_mean_of_projections(pair: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    """Why the coordinator may project once what the paper lets every agent project."""
    basis, first = pair
    second = np.random.default_rng(seed).standard_normal(basis.shape)
    together = tangent_projection(basis, 0.5 * (first + second))
    apart = 0.5 * (tangent_projection(basis, first) + tangent_projection(basis, second))
    np.testing.assert_allclose(together, apart, atol=1e-12 * max(1.0, np.abs(first).max()))


@given(based(), st.floats(0.0, 10.0))
def test_no_step_turns_a_column_by_a_right_angle(pair: tuple[np.ndarray, np.ndarray], step: float) -> None:
    """Bᵀ Q = R⁻¹: upper triangular, its diagonal 1/R_ii positive."""
    basis, gradient = pair
    moved = basis_step(basis, gradient, step)[0]
    assert orthonormality_error(moved) < 1e-14
    length = np.linalg.norm(basis + step * tangent_projection(basis, gradient), axis=0)
    assert np.all(np.einsum("ij,ij->j", basis, moved) >= (1.0 - 1e-9) / length - 1e-12)


@given(based(), st.floats(0.0, 10.0))
def test_the_movement_of_a_step_has_a_closed_form(pair: tuple[np.ndarray, np.ndarray], step: float) -> None:
    """The tangent of the largest angle is ‖ζ (I − BBᵀ) Ḡ‖₂, since the step is orthogonal to B."""
    basis, gradient = pair
    moved, added = basis_step(basis, gradient, step)
    tangent = np.linalg.norm(step * tangent_projection(basis, gradient), ord=2)
    expected = tangent / np.sqrt(1.0 + tangent**2)
    assert sine_of_step(added) == pytest.approx(expected, abs=1e-9)
    assert principal_angle_sine(basis, moved) == pytest.approx(expected, abs=1e-9)


@given(based(), seeds)
def test_preconditioning_is_undone_by_its_matrix(pair: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    basis, gradient = pair
    rank = basis.shape[1]
    heads = np.random.default_rng(seed).standard_normal((3, rank))
    moment = heads.T @ heads / 3
    result = precondition(gradient, moment, 0.05)
    regularised = moment + 0.05 * np.trace(moment) / rank * np.eye(rank)
    np.testing.assert_allclose(result @ regularised, gradient, atol=1e-10 * max(1.0, np.abs(gradient).max()))


# Distances ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 8), st.data())
def test_the_largest_angle_is_a_distance_of_subspaces(d: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, d))
    rng = np.random.default_rng(data.draw(seeds))
    a, b, c = (random_basis(d, rank, rng) for _ in range(3))
    assert principal_angle_sine(a, a @ rotation(rank, 1)) < 1e-14
    assert -1e-14 <= principal_angle_sine(a, b) <= 1 + 1e-14
    assert principal_angle_sine(a, b) == pytest.approx(principal_angle_sine(b, a), abs=1e-13)
    assert principal_angle_sine(a, c) <= principal_angle_sine(a, b) + principal_angle_sine(b, c) + 1e-13


# Steps of an agent ----------------------------------------------------------------------------------------------


vectors = hnp.arrays(np.float64, st.integers(1, 6), elements=st.floats(-1e6, 1e6))


@given(vectors, st.floats(1e-3, 1e6))
def test_the_ball_projection_is_the_nearest_point(vector: np.ndarray, radius: float) -> None:
    projected = project_to_ball(vector, radius)
    assert np.linalg.norm(projected) <= radius * (1 + 1e-12)
    distance = max(0.0, float(np.linalg.norm(vector)) - radius)
    assert np.linalg.norm(vector - projected) == pytest.approx(distance, abs=1e-9 * (1 + np.linalg.norm(vector)))
    np.testing.assert_allclose(project_to_ball(projected, radius), projected, rtol=1e-12)


@given(vectors, st.floats(1e-6, 1e6), st.floats(-1e6, 1e6))
def test_an_implicit_step_never_passes_its_target(coordinates: np.ndarray, step: float, error: float) -> None:
    """The correction moves the prediction zᵀw by a share of δ below one."""
    applied = effective_step(step, float(coordinates @ coordinates), implicit=True)
    assert 0.0 < applied <= step
    moved = head_update(np.zeros_like(coordinates), error, coordinates, applied, np.inf) @ coordinates
    assert abs(moved) <= abs(error) * (1 + 1e-9) + 1e-300


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0.0, 1e6), st.floats(0.0, 1.0))
def test_step_sizes_never_grow(earlier: int, more: int, horizon: float, power: float) -> None:
    assume(horizon == 0.0 or horizon > 1e-3)
    assert 1.0 >= decay(earlier, horizon, power) >= decay(earlier + more, horizon, power) >= 0.0


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(1, 3)), elements=moderate))
def test_an_average_lies_among_its_iterates(iterates: np.ndarray) -> None:
    average = AveragedIterate(mean=np.zeros(iterates.shape[1]))
    for value in iterates:
        average = average.updated(value)
    slack = 1e-12 * max(1.0, np.abs(iterates).max())
    assert np.all(average.mean >= iterates.min(axis=0) - slack)
    assert np.all(average.mean <= iterates.max(axis=0) + slack)


# A whole round --------------------------------------------------------------------------------------------------


@st.composite
def methods(draw: st.DrawFn) -> Method:
    return Method(
        steps_per_round=4,
        head_update=(head_update := draw(st.sampled_from(HeadUpdate))),
        reward_scaled=head_update is HeadUpdate.POSTERIOR,
        head_step=draw(st.floats(0.01, 2.0)),
        gain_step=draw(st.floats(0.01, 1.0)),
        head_radius=draw(st.sampled_from([0.5, 2.0, np.inf])),
        basis_step=draw(st.floats(0.0, 0.5)),
        implicit_head_step=draw(st.booleans()),
        preconditioned=draw(st.booleans()),
        preconditioner_floor=0.05,
        decay_horizon=draw(st.sampled_from([0.0, 50.0])),
        decay_power=0.7,
    )


class Fleet:
    """A few agents with heads of their own in one basis, and one round's trajectory for each."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.d = int(rng.integers(2, 8))
        self.rank = int(rng.integers(1, self.d))
        self.basis = random_basis(self.d, self.rank, rng)
        self.covariance = np.diag(np.linspace(0.5, 2.0, self.rank))
        self.states, self.trajectories = [], []
        for _ in range(int(rng.integers(1, 5))):
            features = rng.uniform(-1.0, 1.0, (5, self.d)) / np.sqrt(self.d)
            self.trajectories.append(Trajectory(features=features, rewards=rng.standard_normal(4)))
            self.states.append(LearnerState(head=rng.standard_normal(self.rank), gain_estimate=0.1, steps=8))

    def round(
        self, method: Method, gauge: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """The next basis, the heads, and the values B w of every agent at the basis of the round."""
        turn = np.eye(self.rank) if gauge is None else gauge
        basis = self.basis @ turn
        covariance = turn.T @ self.covariance @ turn if method.has_head_covariance else None
        contributions, heads = [], []
        for state, trajectory in zip(self.states, self.trajectories, strict=True):
            turned = LearnerState(head=turn.T @ state.head, gain_estimate=state.gain_estimate, steps=state.steps)
            outcome = learn_round(turned, basis, trajectory, method, head_covariance=covariance)
            heads.append(outcome.state.head)
            pooled = outcome.pooled if method.has_head_covariance else None
            contributions.append(Contribution(outcome.gradient, 1.0, outcome.head_second_moment, pooled))
        move = next_basis(basis, contributions, method, 2, head_covariance=covariance)
        return move.basis, heads, np.array([basis @ head for head in heads])


@given(seeds, methods(), seeds)
def test_a_round_does_not_depend_on_the_coordinates(seed: int, method: Method, turn: int) -> None:
    """Gauge invariance: with B O for B and Oᵀ w for w, O orthogonal: the same values and the same next subspace."""
    fleet = Fleet(seed)
    basis, _, values = fleet.round(method)
    turned_basis, _, turned_values = fleet.round(method, rotation(fleet.rank, turn))
    np.testing.assert_allclose(turned_values, values, atol=1e-10)
    assert principal_angle_sine(basis, turned_basis) < 1e-9


@given(seeds, methods(), st.integers(0, 255))
def test_signs_of_columns_carry_over_to_the_next_basis(seed: int, method: Method, bits: int) -> None:
    """Of all gauges the signs are those that QR keeps exactly: column by column, and B_{t+1} w with them."""
    fleet = Fleet(seed)
    signs = np.array([-1.0 if bits >> j & 1 else 1.0 for j in range(fleet.rank)])
    basis, heads, _ = fleet.round(method)
    turned_basis, turned_heads, _ = fleet.round(method, np.diag(signs))
    np.testing.assert_allclose(turned_basis, basis * signs, atol=1e-9)
    for head, turned_head in zip(heads, turned_heads, strict=True):
        np.testing.assert_allclose(turned_basis @ turned_head, basis @ head, atol=1e-9)


@given(seeds, seeds)
def test_values_in_the_next_basis_depend_on_the_coordinates_to_second_order_only(seed: int, turn: int) -> None:
    """Heads are not rotated when B moves: Q of B̄ O is Q O up to ‖ζ (I − BBᵀ) Ḡ‖², since RᵀR = I + ζ²(…)."""
    fleet = Fleet(seed)
    gauge = rotation(fleet.rank, turn)
    rng = np.random.default_rng(seed)
    gradient, head = rng.standard_normal(fleet.basis.shape), rng.standard_normal(fleet.rank)
    gradient /= max(np.linalg.norm(tangent_projection(fleet.basis, gradient), ord=2), 1e-3)
    for step in (1e-1, 1e-2, 1e-3):
        value = basis_step(fleet.basis, gradient, step)[0] @ head
        turned = basis_step(fleet.basis @ gauge, gradient @ gauge, step)[0] @ (gauge.T @ head)
        assert np.linalg.norm(turned - value) <= 3.0 * step**2 * fleet.rank * np.linalg.norm(head) + 1e-14


@given(seeds, methods())
def test_a_round_keeps_its_promises(seed: int, method: Method) -> None:
    fleet = Fleet(seed)
    basis, heads, _ = fleet.round(method)
    assert orthonormality_error(basis) < 1e-14
    if not method.has_head_covariance:  # which holds heads in place of a ball
        assert max(np.linalg.norm(head) for head in heads) <= method.head_radius * (1 + 1e-12)
    again, _, _ = fleet.round(method)
    assert again.tobytes() == basis.tobytes(), "the same gradients in the same order give the same bits"


# Contributions --------------------------------------------------------------------------------------------------


@st.composite
def contributions(draw: st.DrawFn) -> list[Contribution]:
    """2 to 6 gradients of one shape, in either form, with weights and second moments."""
    d, r = draw(shapes)
    rng = np.random.default_rng(draw(seeds))
    made = []
    for weight in draw(st.lists(st.floats(0.5, 100.0), min_size=2, max_size=6)):
        gradient: Gradient = DenseMatrix(rng.standard_normal((d, r)))
        if draw(st.booleans()):
            factors = draw(st.integers(1, r))
            gradient = FactoredMatrix(rng.standard_normal((d, factors)), rng.standard_normal((r, factors)))
        heads = rng.standard_normal((2, r))
        made.append(Contribution(gradient, weight, heads.T @ heads))
    return made


def mean_head_second_moment(made: list[Contribution]) -> np.ndarray:
    return aggregate(made, replace(paper(1), preconditioned=True)).head_second_moment


@given(contributions())
def test_factors_and_matrix_are_the_same_gradient(made: list[Contribution]) -> None:
    plain = [Contribution(DenseMatrix(to_dense(c.gradient)), c.weight, c.head_second_moment) for c in made]
    np.testing.assert_allclose(mean_gradient(made), mean_gradient(plain), atol=1e-14)
    for contribution in made:
        gradient = contribution.gradient
        assert to_dense(gradient).shape == gradient.shape
        if isinstance(gradient, FactoredMatrix):
            columns = range(gradient.left.shape[1])
            outer = sum(np.outer(gradient.left[:, m], gradient.right[:, m]) for m in columns)
            np.testing.assert_allclose(to_dense(gradient), outer, atol=1e-13)


@given(contributions(), st.randoms(use_true_random=False))
def test_the_mean_does_not_depend_on_the_order_but_for_rounding(made: list[Contribution], random: object) -> None:
    shuffled = list(made)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    np.testing.assert_allclose(mean_gradient(shuffled), mean_gradient(made), atol=1e-13)
    np.testing.assert_allclose(mean_head_second_moment(shuffled), mean_head_second_moment(made), atol=1e-13)


@given(contributions(), st.data())
def test_any_grouping_gives_the_same_mean(made: list[Contribution], data: st.DataObject) -> None:
    """The mean is linear: sums with their weights can be formed anywhere on the way (groups, relays)."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(made) - 1))))
    groups = [made[a:b] for a, b in itertools.pairwise([0, *cuts, len(made)])]
    summed = [
        Contribution(
            DenseMatrix(sum(to_dense(c.gradient) for c in group)),
            sum(c.weight for c in group),
            sum(c.head_second_moment for c in group),
        )
        for group in groups
    ]
    np.testing.assert_allclose(mean_gradient(summed), mean_gradient(made), atol=1e-13)
    np.testing.assert_allclose(mean_head_second_moment(summed), mean_head_second_moment(made), atol=1e-13)


# Targets --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 8), seeds)
def test_the_poisson_equation_holds(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    transition, rewards = rng.dirichlet(np.full(size, 0.5), size=size) * 0.9 + 0.1 / size, rng.standard_normal(size)
    stationary = stationary_distribution(transition)
    np.testing.assert_allclose(stationary @ transition, stationary, atol=1e-13)
    assert stationary.min() > 0.0
    assert stationary.sum() == pytest.approx(1.0, abs=1e-14)
    value = differential_value(transition, rewards)
    np.testing.assert_allclose(rewards - gain(stationary, rewards) + transition @ value, value, atol=1e-11)
    assert stationary @ value == pytest.approx(0.0, abs=1e-12)
