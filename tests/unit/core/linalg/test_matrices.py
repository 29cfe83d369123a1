"""The two forms of a gradient."""

import numpy as np
from values import read_only

from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, to_dense


def test_factors_by_hand() -> None:
    """(1, 2)ᵀ(5, 7, 11) + (0, 1)ᵀ(1, 0, −1)."""
    matrix = FactoredMatrix(
        left=read_only([[1.0, 0.0], [2.0, 1.0]]), right=read_only([[5.0, 1.0], [7.0, 0.0], [11.0, -1.0]])
    )
    assert matrix.shape == (2, 3)
    np.testing.assert_array_equal(to_dense(matrix), [[5.0, 7.0, 11.0], [11.0, 14.0, 21.0]])


def test_a_dense_matrix_is_its_values() -> None:
    values = read_only([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert DenseMatrix(values).shape == (2, 3)
    np.testing.assert_array_equal(to_dense(DenseMatrix(values)), values)


def test_single_precision_is_widened_before_it_is_multiplied() -> None:
    """(1 + 2^-20)² needs 40 bits: exact in float64, not in float32."""
    factor = np.full((1, 1), 1.0 + 2.0**-20, dtype=np.float32)
    product = to_dense(FactoredMatrix(left=factor, right=factor))
    assert product.dtype == np.float64
    assert product[0, 0] == (1.0 + 2.0**-20) ** 2
    assert to_dense(DenseMatrix(factor)).dtype == np.float64


def test_rank_one_is_exact() -> None:
    """One product an entry, so the factors carry the very bits of the matrix."""
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((30, 1)), rng.standard_normal((4, 1))
    np.testing.assert_array_equal(to_dense(FactoredMatrix(left=u, right=v)), np.outer(u, v))
