"""The sign rule of the QR step, the tangent step, and distances between subspaces."""

import numpy as np
import pytest
from values import read_only

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

D, R = 12, 3


def random_step(basis: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """B̄ of a round with a random gradient."""
    return basis + size * tangent_projection(basis, rng.standard_normal(basis.shape))


# The sign rule --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-6, 0.05, 1.0, 30.0])
def test_no_column_flips_in_many_rounds(size: float) -> None:
    """BᵀQ = R⁻¹ has a positive diagonal, since BᵀB̄ = I: however long the step, no column turns by 90°."""
    rng = np.random.default_rng(1)
    basis = random_basis(D, R, rng)
    for _ in range(1000):
        moved = orthonormalise(random_step(basis, rng, size))
        assert np.einsum("ij,ij->j", basis, moved).min() > 0.0
        basis = moved


def test_lapack_alone_flips_columns() -> None:
    """Why there is a rule: the same rounds with LAPACK's signs, which follow the sign of each pivot entry."""
    rng = np.random.default_rng(1)
    basis = random_basis(D, R, rng)
    flips = 0
    for _ in range(1000):
        moved = np.linalg.qr(random_step(basis, rng, 0.05))[0]
        overlap = np.einsum("ij,ij->j", basis, moved)
        assert np.abs(overlap).min() > 0.9, "the subspace itself hardly turns in one round"
        flips += int(np.sum(overlap < 0.0))
        basis = moved
    assert flips > 100


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (5, 2), (6, 6), (40, 7)])
def test_diagonal_of_r_is_positive(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        matrix = read_only(rng.standard_normal(shape) * 10.0 ** rng.uniform(-6, 6, size=shape[1]))
        q = orthonormalise(matrix)
        upper = q.T @ matrix
        assert np.diagonal(upper).min() > 0.0
        assert np.abs(np.tril(upper, -1)).max() <= 1e-14 * np.abs(matrix).max()
        assert orthonormality_error(q) < 1e-14


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((4, 2)),
        np.ones((4, 3)),
        np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [3.0, 0.0, 6.0]]),
        np.array([[0.0, 1.0], [0.0, -1.0], [0.0, 2.0]]),
        np.array([[-1.0, -2.0], [-1.0, -2.0], [-1.0, -2.0]]),
        np.array([[-0.0, 0.0], [0.0, -0.0], [0.0, 0.0]]),
    ],
    ids=["zero", "equal columns", "zero and dependent", "zero first", "negative multiples", "signed zeros"],
)
def test_rank_deficient_matrices_have_no_gap(matrix: np.ndarray) -> None:
    """A zero on the diagonal of R must not give a zero column, as multiplying by sign(0) would."""
    q = orthonormalise(read_only(matrix))
    assert orthonormality_error(q) < 1e-14
    assert np.diagonal(q.T @ matrix).min() >= -1e-15
    np.testing.assert_allclose(q @ (q.T @ matrix), matrix, atol=1e-14)
    assert orthonormalise(read_only(matrix)).tobytes() == q.tobytes()


def test_an_orthonormal_basis_stays_as_it_is() -> None:
    basis = random_basis(D, R, np.random.default_rng(3))
    np.testing.assert_allclose(orthonormalise(basis), basis, atol=1e-15)
    np.testing.assert_array_equal(orthonormalise(np.eye(4)), np.eye(4))


@pytest.mark.parametrize("entry", [np.nan, np.inf, -np.inf])
def test_an_entry_that_is_not_finite_is_a_named_failure(entry: float) -> None:
    matrix = np.ones((4, 2))
    matrix[2, 1] = entry
    with pytest.raises(np.linalg.LinAlgError, match="non-finite"):
        orthonormalise(matrix)


def test_a_column_whose_length_overflows_is_a_named_failure() -> None:
    """Every entry is finite; LAPACK's norm is not, and its Q is full of NaN."""
    with pytest.raises(np.linalg.LinAlgError, match="too long"):
        orthonormalise(np.full((4, 2), 1.7e308))


def test_random_bases_are_orthonormal_and_follow_from_the_seed() -> None:
    basis = random_basis(D, R, np.random.default_rng(4))
    assert basis.shape == (D, R)
    assert basis.flags.c_contiguous
    assert orthonormality_error(basis) < 1e-14
    assert random_basis(D, R, np.random.default_rng(4)).tobytes() == basis.tobytes()
    assert random_basis(D, R, np.random.default_rng(5)).tobytes() != basis.tobytes()


def test_random_bases_prefer_no_direction() -> None:
    """E[B Bᵀ] = (r/d) I for the uniform distribution."""
    rng = np.random.default_rng(6)
    mean = sum(b @ b.T for b in (random_basis(4, 2, rng) for _ in range(2000))) / 2000
    np.testing.assert_allclose(mean, 0.5 * np.eye(4), atol=0.03)


# The step -------------------------------------------------------------------------------------------------------


def test_tangent_projection_by_hand() -> None:
    basis = read_only([[1.0], [0.0], [0.0]])
    np.testing.assert_array_equal(
        tangent_projection(basis, read_only([[5.0], [2.0], [-3.0]])), [[0.0], [2.0], [-3.0]]
    )


def test_basis_step_by_hand() -> None:
    """From e_1 with gradient (9, 3, 4) and ζ = 0.2: (1, 0.6, 0.8)/√2."""
    moved = basis_step(read_only([[1.0], [0.0], [0.0]]), read_only([[9.0], [3.0], [4.0]]), 0.2)[0]
    np.testing.assert_allclose(moved, np.array([[1.0], [0.6], [0.8]]) / np.sqrt(2), rtol=1e-15)


def test_a_gradient_within_the_subspace_moves_nothing() -> None:
    basis = random_basis(D, R, np.random.default_rng(7))
    mixing = np.random.default_rng(8).standard_normal((R, R))
    np.testing.assert_allclose(basis_step(basis, basis @ mixing, 100.0)[0], basis, atol=1e-12)


def test_precondition_by_hand() -> None:
    """W̄ = diag(3, 1), ε = 0.5: tr/r = 2, so (W̄ + 1·I)⁻¹ = diag(1/4, 1/2)."""
    gradient = read_only([[4.0, 2.0], [8.0, -6.0]])
    result = precondition(gradient, read_only([[3.0, 0.0], [0.0, 1.0]]), 0.5)
    np.testing.assert_allclose(result, [[1.0, 1.0], [2.0, -3.0]], rtol=1e-15)


def test_precondition_multiplies_from_the_right() -> None:
    """With a moment that is not diagonal: result · (W̄ + ε tr/r I) gives the gradient back."""
    rng = np.random.default_rng(9)
    heads, gradient = rng.standard_normal((5, R)), read_only(rng.standard_normal((D, R)))
    moment = read_only(heads.T @ heads / 5)
    result = precondition(gradient, moment, 0.05)
    regularised = moment + 0.05 * np.trace(moment) / R * np.eye(R)
    np.testing.assert_allclose(result @ regularised, gradient, atol=1e-12)


def test_preconditioning_makes_the_step_free_of_the_scale_of_the_heads() -> None:
    """Rewards c times as large make δ and w c times, G and w wᵀ c² times as large: the direction is the same."""
    rng = np.random.default_rng(10)
    heads, gradient = rng.standard_normal((5, R)), rng.standard_normal((D, R))
    moment = heads.T @ heads / 5
    expected = precondition(gradient, moment, 0.05)
    for scale in (1e-6, 1e6):
        np.testing.assert_allclose(precondition(scale * gradient, scale * moment, 0.05), expected, rtol=1e-9)


def test_zero_heads_precondition_nothing() -> None:
    gradient = read_only(np.zeros((D, R)))
    np.testing.assert_array_equal(precondition(gradient, read_only(np.zeros((R, R))), 0.05), gradient)


# Distances ------------------------------------------------------------------------------------------------------


def rotated(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Two planes of R^5 that share one direction and differ by an angle in the other."""
    one, other = np.zeros((5, 2)), np.zeros((5, 2))
    one[0, 0] = one[1, 1] = other[0, 0] = 1.0
    other[1, 1], other[2, 1] = np.cos(angle), np.sin(angle)
    return one, other


@pytest.mark.parametrize("angle", [0.0, 1e-15, 1e-12, 1e-9, 1e-6, 1e-3, 0.5, 1.5, np.pi / 2])
def test_principal_angle_is_precise(angle: float) -> None:
    one, other = rotated(angle)
    assert principal_angle_sine(one, other) == pytest.approx(np.sin(angle), rel=1e-12, abs=1e-300)
    assert principal_angle_sine(other, one) == pytest.approx(np.sin(angle), rel=1e-12, abs=1e-16)


@pytest.mark.parametrize("angle", [1e-9, 1e-12])
def test_the_textbook_formula_is_not(angle: float) -> None:
    """sqrt(1 − σ²) loses every digit of a small angle: why it is not used."""
    one, other = rotated(angle)
    smallest_cosine = np.linalg.svd(one.T @ other)[1].min()
    naive = np.sqrt(max(0.0, 1.0 - smallest_cosine**2))
    assert abs(naive - angle) > 0.9 * angle
    assert abs(principal_angle_sine(one, other) - angle) < 1e-12 * angle


def test_principal_angle_is_that_of_the_subspaces_and_not_of_the_bases() -> None:
    rng = np.random.default_rng(11)
    one, other = random_basis(D, R, rng), random_basis(D, R, rng)
    expected = principal_angle_sine(one, other)
    turned = one @ random_basis(R, R, rng), other @ random_basis(R, R, rng)
    assert principal_angle_sine(*turned) == pytest.approx(expected, rel=1e-13)
    assert 0.0 < expected < 1.0
    assert principal_angle_sine(one, turned[0]) < 1e-15


def test_principal_angle_of_a_smaller_target() -> None:
    """span(B*) may have fewer dimensions: contained is 0, orthogonal is 1."""
    basis = np.eye(4)[:, :3]
    assert principal_angle_sine(basis, np.eye(4)[:, [1]]) == 0.0
    assert principal_angle_sine(basis, np.eye(4)[:, [3]]) == 1.0


@pytest.mark.parametrize("angle", [0.0, 1e-200, 1e-150, 1e-12, 1e-6, 0.5, np.pi / 2])
def test_principal_angle_of_tall_bases_is_as_precise(angle: float) -> None:
    """Taken from the Gram matrix of what lies outside; where its squares underflow, from the singular values."""
    one, other = np.eye(2048, 8), np.eye(2048, 8)
    other[7, 7], other[2047, 7] = np.cos(angle), np.sin(angle)
    assert principal_angle_sine(one, other) == pytest.approx(np.sin(angle), rel=1e-12, abs=1e-300)


def test_principal_angle_of_tall_bases_is_the_largest() -> None:
    one, other = (random_basis(2048, 8, np.random.default_rng(seed)) for seed in (12, 13))
    outside = np.linalg.svd(tangent_projection(one, other))[1]
    assert principal_angle_sine(one, other) == pytest.approx(outside[0], rel=1e-14)
    assert outside[0] > 1.0001 * outside[1]


def test_orthonormality_error_by_hand() -> None:
    assert orthonormality_error(np.eye(3)[:, :2]) == 0.0
    assert orthonormality_error(read_only([[1.0, 0.25], [0.0, 1.0]])) == 0.25
    assert orthonormality_error(read_only([[1.5], [0.0]])) == 1.25


@pytest.mark.parametrize(("length", "sine"), [(0.0, 0.0), (1e-200, 1e-200), (1.0, 0.5**0.5), (1e200, 1.0)])
def test_the_sine_of_a_step_keeps_its_digits(length: float, sine: float) -> None:
    """Also where the angle itself is lost in 1 − cos², or the square of the step overflows."""
    assert sine_of_step(read_only([[0.0, 0.0], [length, 0.0], [0.0, length / 2]])) == pytest.approx(sine, rel=1e-15)
