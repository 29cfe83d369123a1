"""A reference solution measures estimates as `relative_value_error` does (the numbers themselves: tests/golden)."""

import numpy as np
import pytest
from values import read_only

from cospan.core.exact_solutions import (
    ReferenceSolution,
    ReferenceStack,
    relative_value_error,
    relative_value_errors,
)


def test_value_error_by_hand() -> None:
    """C = diag(1, 4), z = (2, 1), ẑ = (1, 1.5): (1 + 4·0.25) / (4 + 4) = 1/4."""
    reference = ReferenceSolution(
        gain=0.5, weights=read_only([2.0, 1.0]), covariance=read_only([[1.0, 0.0], [0.0, 4.0]])
    )
    assert reference.value_error(read_only([1.0, 1.5])) == pytest.approx(0.25, rel=1e-15)
    assert reference.value_error(reference.weights) == 0.0
    assert reference.value_error(np.zeros(2)) == 1.0
    assert (reference.weights_uncertainty, reference.gain_uncertainty) == (0.0, 0.0)


def test_weights_that_diverged_spoil_no_other_error() -> None:
    """Independent TD with a step that is too large stands in one row; warnings are errors here."""
    target, covariance = np.array([1.0, -2.0]), np.array([[2.0, 0.5], [0.5, 1.0]])
    rows = np.array([[0.0, 0.0], [np.inf, 0.0], [1e200, 1e200], [np.nan, 1.0], [1.0, -2.0]])
    errors = relative_value_errors(rows, target, covariance)
    assert errors[[0, 4]].tolist() == [1.0, 0.0]
    assert not np.isfinite(errors[1:4]).any()
    assert relative_value_error(rows[0], target, covariance) == 1.0


# The share of a value's variance that a basis holds -------------------------------------------------------------


def test_a_basis_holds_what_the_best_fit_in_it_explains() -> None:
    """By hand: independent features of variances 4, 1, 1; V = φ₁ + 2 φ₂ has variance 8, of which φ₁ holds half."""
    covariance, target = np.diag([4.0, 1.0, 1.0]), np.array([1.0, 2.0, 0.0])
    reference = ReferenceSolution(0.0, target, covariance)
    assert reference.held_share(np.eye(3)[:, :1]) == pytest.approx(0.5)
    assert reference.held_share(np.eye(3)[:, 2:]) == 0.0
    assert reference.held_share(np.eye(3)[:, :2]) == pytest.approx(1.0)


def test_it_is_one_less_the_smallest_value_error_in_the_basis() -> None:
    rng = np.random.default_rng(7)
    factor, target = rng.normal(size=(6, 6)), rng.normal(size=6)
    basis = np.linalg.qr(rng.normal(size=(6, 2)))[0]
    reference = ReferenceSolution(0.0, target, factor @ factor.T)
    best = np.linalg.lstsq(factor.T @ basis, factor.T @ target, rcond=None)[0]
    assert reference.held_share(basis) == pytest.approx(1.0 - reference.value_error(basis @ best))
    stack = ReferenceStack.of([reference, None], 6)
    np.testing.assert_allclose(stack.held_shares(basis), [reference.held_share(basis), np.nan])


def test_features_that_never_vary_in_the_basis_hold_nothing() -> None:
    reference = ReferenceSolution(0.0, np.array([1.0, 0.0]), np.diag([1.0, 0.0]))
    assert reference.held_share(np.eye(2)[:, 1:]) == 0.0
