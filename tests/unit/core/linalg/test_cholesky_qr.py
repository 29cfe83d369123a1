"""Q by way of the Gram matrix: as orthonormal as by reflections, the same Q, and given up where it is not safe."""

import numpy as np
import pytest
from values import read_only

from cospan.core.linalg.cholesky_qr import cholesky_qr
from cospan.core.linalg.subspace import orthonormalise, orthonormality_error

TALL = [(2048, 8), (4097, 8), (20_000, 9), (1024, 16), (1999, 33), (512, 64)]
HALVED = (131_072, 8)
SMALL = [(623, 8), (20, 3), (1024, 15), (16_384, 7), (128, 128), (1000, 126)]


def conditioned(shape: tuple[int, int], condition: float, rng: np.random.Generator) -> np.ndarray:
    """A matrix of this condition number, with singular values spaced evenly in their logarithms."""
    d, r = shape
    left = np.linalg.qr(rng.standard_normal((d, r)))[0]
    right = np.linalg.qr(rng.standard_normal((r, r)))[0]
    return read_only(left * np.geomspace(1.0, 1.0 / condition, r) @ right.T)


def by_reflections(matrix: np.ndarray) -> np.ndarray:
    """The textbook's way, with the rule of signs."""
    q, upper = np.linalg.qr(matrix)
    return q * np.where(np.diagonal(upper) < 0.0, -1.0, 1.0)


@pytest.mark.parametrize("condition", [1.0, 2.9, 3.1, 1e3, 1e5, 1e7])
@pytest.mark.parametrize("shape", TALL)
def test_it_gives_the_q_of_reflections_up_to_a_condition_of_1e7(shape: tuple[int, int], condition: float) -> None:
    rng = np.random.default_rng(1)
    matrix = conditioned(shape, condition, rng)
    q = cholesky_qr(matrix)
    assert q is not None
    assert np.linalg.norm(q.T @ q - np.eye(shape[1]), axis=0).max() < 1e-14
    upper = q.T @ matrix
    assert np.diagonal(upper).min() > 0.0
    assert np.linalg.norm(matrix - q @ upper) < 1e-14
    assert np.abs(q - by_reflections(matrix)).max() < 4e-15 * condition


@pytest.mark.parametrize("condition", [1.5, 1e7])
def test_so_does_it_where_the_rows_are_taken_in_halves(condition: float) -> None:
    matrix = conditioned(HALVED, condition, np.random.default_rng(10))
    q = cholesky_qr(matrix)
    assert q is not None
    assert np.linalg.norm(q.T @ q - np.eye(HALVED[1]), axis=0).max() < 1e-14
    assert np.abs(q - by_reflections(matrix)).max() < 4e-15 * condition
    again = cholesky_qr(matrix)
    assert again is not None
    assert again.tobytes() == q.tobytes()


@pytest.mark.parametrize("condition", [1e10, 1e12, 1e16])
@pytest.mark.parametrize("shape", TALL)
def test_beyond_that_reflections_do_it(shape: tuple[int, int], condition: float) -> None:
    matrix = conditioned(shape, condition, np.random.default_rng(2))
    assert cholesky_qr(matrix) is None
    q = orthonormalise(matrix)
    assert q.tobytes() == by_reflections(matrix).tobytes()
    assert orthonormality_error(q) < 1e-14


@pytest.mark.parametrize("condition", [5e8, 2e9, 5e9])
def test_in_between_whatever_is_given_is_orthonormal(condition: float) -> None:
    """Here the first Cholesky factor exists for some matrices and is worth little: that is found out."""
    given = 0
    for seed in range(40):
        q = cholesky_qr(conditioned((2048, 8), condition, np.random.default_rng(seed)))
        if q is not None:
            given += 1
            assert orthonormality_error(q) < 1e-14
    assert given < 40


@pytest.mark.parametrize("shape", SMALL)
def test_small_matrices_are_left_to_reflections_bit_for_bit(shape: tuple[int, int]) -> None:
    matrix = read_only(np.random.default_rng(3).standard_normal(shape))
    assert orthonormalise(matrix).tobytes() == by_reflections(matrix).tobytes()


@pytest.mark.parametrize("shape", TALL)
def test_tall_matrices_take_the_quicker_way(shape: tuple[int, int]) -> None:
    matrix = read_only(np.random.default_rng(4).standard_normal(shape))
    expected = cholesky_qr(matrix)
    assert expected is not None
    assert orthonormalise(matrix).tobytes() == expected.tobytes()
    assert orthonormalise(matrix).flags.c_contiguous


def test_the_lengths_of_the_columns_do_not_count() -> None:
    """Columns of lengths 1e-100 to 1e100 are no harder than columns of length 1."""
    rng = np.random.default_rng(5)
    matrix = rng.standard_normal((2048, 16))
    scales = 2.0 ** rng.integers(-330, 330, size=16)
    q = cholesky_qr(read_only(matrix * scales))
    assert q is not None
    np.testing.assert_allclose(q, by_reflections(matrix), atol=1e-15)


@pytest.mark.parametrize("scale", [1e-300, 1e-145, 1e145, 1e300])
def test_squares_out_of_range_are_left_to_reflections(scale: float) -> None:
    matrix = np.random.default_rng(6).standard_normal((2048, 16))
    matrix[:, 5] *= scale
    assert cholesky_qr(read_only(matrix)) is None
    assert orthonormality_error(orthonormalise(read_only(matrix))) < 1e-14


def test_dependent_columns_are_left_to_reflections() -> None:
    matrix = np.random.default_rng(7).standard_normal((2048, 16))
    for dependent in (np.zeros(2048), matrix[:, 0], matrix[:, 0] - 3.0 * matrix[:, 1]):
        matrix[:, 9] = dependent
        assert cholesky_qr(read_only(matrix)) is None
        assert orthonormality_error(orthonormalise(read_only(matrix))) < 1e-14


@pytest.mark.parametrize("entry", [np.nan, np.inf, -np.inf])
def test_an_entry_that_is_not_finite_is_a_named_failure_of_tall_matrices_too(entry: float) -> None:
    matrix = np.random.default_rng(8).standard_normal((4096, 16))
    matrix[4000, 7] = entry
    assert cholesky_qr(read_only(matrix)) is None
    with pytest.raises(np.linalg.LinAlgError, match="non-finite"):
        orthonormalise(matrix)


@pytest.mark.parametrize("rows", [3000, 88_000])
def test_the_layout_of_the_matrix_changes_no_bit(rows: int) -> None:
    """The same numbers as rows, as columns, with gaps, and at an odd address; in one piece and in halves."""
    matrix = np.random.default_rng(9).standard_normal((rows, 12))
    expected = orthonormalise(read_only(matrix)).tobytes()
    gapped = np.zeros((rows, 30))[:, 3:27:2]
    gapped[:] = matrix
    shifted = np.frombuffer(b"\0" * 4 + matrix.tobytes(), dtype=np.uint8)[4:].view(np.float64).reshape(rows, 12)
    for same in (np.asfortranarray(matrix), gapped, shifted):
        assert orthonormalise(same).tobytes() == expected
