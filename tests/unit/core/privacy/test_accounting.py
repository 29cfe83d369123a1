"""ε by the formula that every process has, against the package that chooses the noise."""

import pytest

from cospan.core.privacy.accounting import epsilon_of_vectors
from cospan.wire.privacy_budget import Budget, epsilon_of


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize(("multiplier", "vectors"), [(0.7, 1), (2.02, 10), (5.0, 100), (40.0, 12), (1.0, 1000)])
def test_it_is_that_of_the_package(multiplier: float, vectors: int, delta: float) -> None:
    assert epsilon_of_vectors(multiplier, vectors, delta) == pytest.approx(
        epsilon_of(multiplier, vectors, delta), rel=1e-9
    )


def test_noise_that_the_package_has_chosen_is_enough_by_the_formula() -> None:
    for epsilon in (0.5, 2.0, 8.0):
        budget = Budget.of(epsilon, 1e-5, 10)
        assert epsilon_of_vectors(budget.multiplier, 10, 1e-5) <= epsilon * (1.0 + 1e-9)
        assert epsilon_of_vectors(budget.multiplier, 11, 1e-5) > epsilon


def test_nothing_sent_costs_nothing_and_every_vector_more() -> None:
    spent = [epsilon_of_vectors(2.0, vectors, 1e-5) for vectors in range(12)]
    assert spent[0] == 0.0
    assert spent == sorted(set(spent))


@pytest.mark.parametrize(
    ("multiplier", "vectors", "delta"), [(0.0, 1, 0.1), (1.0, -1, 0.1), (1.0, 1, 0.0), (1.0, 1, 1.0)]
)
def test_what_has_no_epsilon_is_refused(multiplier: float, vectors: int, delta: float) -> None:
    with pytest.raises(ValueError, match="no ε for a multiplier"):
        epsilon_of_vectors(multiplier, vectors, delta)
