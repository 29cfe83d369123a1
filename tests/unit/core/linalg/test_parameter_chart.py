"""Parameters as a basis of rank one: the coordinator's orthonormalised step moves them by the mean displacement."""

from dataclasses import replace

import numpy as np
import pytest

from cospan.core.aggregation.basis_update import Contribution, next_basis
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.linalg.parameter_chart import ParameterChart
from cospan.core.linalg.subspace import orthonormality_error, random_basis
from cospan.core.method import Aggregation, paper

P, SCALE = 40, 10.0


def chart(seed: int = 0) -> tuple[ParameterChart, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    origin, first = rng.standard_normal(P), random_basis(P + 1, 1, rng)
    return ParameterChart(origin, first, SCALE), first, rng


def test_the_first_basis_stands_for_the_origin() -> None:
    made, first, _ = chart()
    np.testing.assert_allclose(made.parameters(first), made.origin, atol=1e-12)
    np.testing.assert_allclose(made.basis(made.origin), first, atol=1e-12)


@pytest.mark.parametrize("size", [1e-6, 1.0, 100.0])
def test_basis_and_parameters_are_inverses(size: float) -> None:
    made, _, rng = chart()
    parameters = made.origin + size * rng.standard_normal(P)
    basis = made.basis(parameters)
    assert orthonormality_error(basis) < 1e-14
    np.testing.assert_allclose(made.parameters(basis), parameters, atol=1e-9 * max(size, 1.0))


def test_a_round_moves_the_parameters_by_the_mean_displacement() -> None:
    """The factor is 1 / (1 − α) of the module's docstring: here within 1 %, and exactly that."""
    made, first, rng = chart()
    method = replace(paper(50), basis_step=1.0)
    parameters, basis = made.parameters(first), first
    for number in range(100):
        moves = 0.02 * rng.standard_normal((6, P)) + 0.01
        sent = [Contribution(DenseMatrix(made.gradient(parameters, move))) for move in moves]
        basis = next_basis(basis, sent, method, number).basis
        mean, y = moves.mean(axis=0), (parameters - made.origin) / SCALE
        alpha = y @ mean / SCALE / (1.0 + y @ y)
        assert abs(alpha) < 0.01
        np.testing.assert_allclose(made.parameters(basis), parameters + mean / (1.0 - alpha), atol=1e-12)
        parameters = made.parameters(basis)
    assert np.linalg.norm(parameters - made.origin) > 5.0


def test_robust_aggregation_keeps_a_wild_agent_from_moving_the_parameters() -> None:
    made, first, rng = chart()
    method = replace(paper(50), basis_step=1.0, aggregation=Aggregation.GEOMETRIC_MEDIAN)
    moves = 0.1 + 0.01 * rng.standard_normal((6, P))
    moves[3] = -1e6
    sent = [Contribution(DenseMatrix(made.gradient(made.origin, move))) for move in moves]
    moved = made.parameters(next_basis(first, sent, method, 0).basis) - made.origin
    np.testing.assert_allclose(moved, 0.1, atol=0.03)


def test_a_quarter_turn_stands_for_no_parameters() -> None:
    made, first, rng = chart()
    across = rng.standard_normal((P + 1, 1))
    across -= first * (first.T @ across)
    for basis in (across / np.linalg.norm(across), -first):
        with pytest.raises(ValueError, match="quarter turn"):
            made.parameters(basis)


def test_shapes_and_scales_that_do_not_fit() -> None:
    first = random_basis(P + 1, 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="a basis of 39 parameters is 40 × 1"):
        ParameterChart(np.zeros(P - 1), first, SCALE)
    with pytest.raises(ValueError, match="scale is 0"):
        ParameterChart(np.zeros(P), first, 0.0)
