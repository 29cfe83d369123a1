"""A reference solution measures estimates as `relative_value_error` does (the numbers themselves: tests/golden)."""

import numpy as np
import pytest
from values import read_only

from cospan.core.targets import ReferenceSolution


def test_value_error_by_hand() -> None:
    """C = diag(1, 4), z = (2, 1), ẑ = (1, 1.5): (1 + 4·0.25) / (4 + 4) = 1/4."""
    reference = ReferenceSolution(
        gain=0.5, weights=read_only([2.0, 1.0]), covariance=read_only([[1.0, 0.0], [0.0, 4.0]])
    )
    assert reference.value_error(read_only([1.0, 1.5])) == pytest.approx(0.25, rel=1e-15)
    assert reference.value_error(reference.weights) == 0.0
    assert reference.value_error(np.zeros(2)) == 1.0
    assert (reference.weights_uncertainty, reference.gain_uncertainty) == (0.0, 0.0)
