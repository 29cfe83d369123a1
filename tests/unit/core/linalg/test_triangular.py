"""Inverses of many small matrices at once, against numpy's."""

import numpy as np
import pytest

from cospan.core.linalg.triangular import lower_inverse, small_inverse


@pytest.mark.parametrize("size", [1, 2, 5, 6, 11, 21])
def test_the_inverse_of_lower_triangular_matrices(size: int) -> None:
    """What is above the diagonal is not looked at, and the matrices are not written to."""
    generator = np.random.default_rng(size)
    noise = generator.standard_normal((4, size, size))
    lower = np.linalg.cholesky(noise @ noise.swapaxes(-1, -2) + np.eye(size))
    given = lower + np.triu(generator.standard_normal((size, size)), 1)
    before = given.copy()
    np.testing.assert_allclose(lower_inverse(given), np.linalg.inv(lower), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e8])
def test_the_inverse_of_positive_definite_matrices(size: int, scale: float) -> None:
    generator = np.random.default_rng(size)
    root = generator.standard_normal((5, size, size))
    matrices = np.eye(size) + scale * (root @ root.swapaxes(-1, -2))
    before = matrices.copy()
    products = small_inverse(matrices) @ matrices
    condition = float(np.linalg.cond(matrices).max())
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(size), products.shape), atol=1e-14 * condition)
    np.testing.assert_array_equal(matrices, before)
