"""What becomes of a noisy sum before the step."""

import numpy as np
import pytest

from cospan.core.aggregation.basis_update import BasisMove, Contribution, next_basis
from cospan.core.aggregation.evidence_step import packed, unpacked
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import compact, full_history, practical
from cospan.core.privacy.clipping import Bounds
from cospan.core.privacy.repair import limited, repaired

D, R = 6, 2
SIGMA = Bounds(gradient=0.1, moment=0.3, pooled=0.5, influence=0.2)


def noisy(pooled: np.ndarray | None = None, moment: np.ndarray | None = None) -> Contribution:
    return Contribution(DenseMatrix(np.ones((D, R))), 30.0, moment, pooled)


def of_curvature(matrix: np.ndarray, weight: float) -> Contribution:
    return noisy(np.concatenate([packed(matrix), [weight]]))


def test_an_indefinite_curvature_becomes_one_of_which_a_step_is_made() -> None:
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((D, D))
    total = of_curvature(matrix + matrix.T, -3.0)
    fixed = repaired(total, practical(10), SIGMA)
    assert fixed.pooled is not None
    eigenvalues = np.linalg.eigvalsh(unpacked(fixed.pooled[:-1], D))
    assert eigenvalues[0] == pytest.approx(0.5 * np.sqrt(D))
    assert fixed.pooled[-1] == SIGMA.influence
    basis = random_basis(D, R, rng)
    move = next_basis(basis, [fixed], practical(10), 0, head_covariance=np.eye(R))
    assert np.isfinite(move.basis).all()
    with pytest.raises(np.linalg.LinAlgError):
        next_basis(basis, [total], practical(10), 0, head_covariance=np.eye(R))


def test_what_is_well_above_the_noise_stays() -> None:
    total = of_curvature(100.0 * np.eye(D) + 3.0, 20.0)
    fixed = repaired(total, practical(10), SIGMA)
    assert fixed.pooled == pytest.approx(total.pooled)
    assert fixed.gradient is total.gradient
    assert fixed.weight == total.weight


def test_row_sums_are_not_negative() -> None:
    fixed = repaired(noisy(np.array([-2.0, 0.1, 5.0, 0.6, 0.5, 0.0])), full_history(10), SIGMA)
    assert fixed.pooled is not None
    assert fixed.pooled.tolist() == [0.5, 0.5, 5.0, 0.6, 0.5, 0.5]


def test_second_moments_are_positive() -> None:
    fixed = repaired(noisy(moment=np.array([[1.0, 2.0], [2.0, 1.0]])), compact(10), SIGMA)
    assert fixed.head_second_moment is not None
    assert np.linalg.eigvalsh(fixed.head_second_moment) == pytest.approx([0.3 * np.sqrt(2.0), 3.0])


def test_a_round_that_pools_nothing() -> None:
    assert repaired(noisy(), practical(10), SIGMA).pooled is None


def test_a_head_covariance_beyond_the_noise_is_limited_and_another_is_the_same_object() -> None:
    """σ of the mean gradient is 0.1 / (30 · 0.5), so the largest eigenvalue is 10 · 150."""
    basis = random_basis(D, R, np.random.default_rng(1))
    turned = np.array([[0.6, -0.8], [0.8, 0.6]])
    large = turned @ np.diag([1e9, 3.0]) @ turned.T
    move = BasisMove(basis, basis, np.array([1.0, 1.0, 0.5]), head_covariance=large)
    found = limited(move, SIGMA, 30.0).head_covariance
    assert found is not None
    assert np.array_equal(found, found.T)
    np.testing.assert_allclose(np.linalg.eigvalsh(found), [3.0, 1500.0], rtol=1e-6)
    small = BasisMove(basis, basis, np.array([1.0, 1.0, 0.5]), head_covariance=np.eye(R))
    assert limited(small, SIGMA, 30.0) is small
    without = BasisMove(basis, basis)
    assert limited(without, SIGMA, 30.0) is without
