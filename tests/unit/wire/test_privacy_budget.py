"""What rounds cost, against computations that do not use `dp-accounting`."""

import builtins
import math
from typing import Any

import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

from cospan.wire.errors import InvalidValueError
from cospan.wire.privacy_budget import (
    MAX_ROUNDS,
    Budget,
    affordable_rounds,
    budget_problem,
    epsilon_of,
    noise_multiplier,
)

CASES = [(0.8, 1, 1e-5), (2.0, 10, 1e-5), (2.0, 10, 1e-8), (10.0, 300, 1e-6), (40.0, 12, 1e-5), (1.0, 100, 1e-5)]


def by_hand(multiplier: float, rounds: int, delta: float) -> float:
    """ε by Rényi divergences, α T / 2z², at the best of all orders α.

    Canonne, Kamath and Steinke 2020, proposition 12: ε = ρ_α + log(1 − 1/α) − (log δ + log α) / (α − 1).
    """
    rho = rounds / (2.0 * multiplier**2)

    def epsilon(log_excess: float) -> float:
        order = 1.0 + math.exp(log_excess)
        return order * rho + math.log1p(-1.0 / order) - (math.log(delta) + math.log(order)) / (order - 1.0)

    found: Any = minimize_scalar(epsilon, bounds=(-8.0, 9.0), method="bounded", options={"xatol": 1e-10})
    return max(0.0, float(found.fun))


def exact(multiplier: float, rounds: int, delta: float) -> float:
    """The ε of T continuous Gaussians, which no other account falls below.

    Balle and Wang 2018, theorem 8, with sensitivity √T / z: δ = Φ(s/2 − ε/s) − e^ε Φ(−s/2 − ε/s).
    """
    size = math.sqrt(rounds) / multiplier

    def excess(epsilon: float) -> float:
        first = norm.cdf(size / 2.0 - epsilon / size)
        return float(first - math.exp(epsilon + norm.logcdf(-size / 2.0 - epsilon / size))) - delta

    return 0.0 if excess(0.0) <= 0.0 else float(brentq(excess, 0.0, 1e3))


@pytest.mark.parametrize(("multiplier", "rounds", "delta"), CASES)
def test_epsilon_is_that_of_a_computation_by_hand(multiplier: float, rounds: int, delta: float) -> None:
    """To four digits, for the orders of the accountant are a grid; and never below."""
    found, expected = epsilon_of(multiplier, rounds, delta), by_hand(multiplier, rounds, delta)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found >= expected * (1.0 - 1e-9)


@pytest.mark.parametrize(("multiplier", "rounds", "delta"), CASES)
def test_epsilon_is_a_little_above_the_exact_one(multiplier: float, rounds: int, delta: float) -> None:
    found, least = epsilon_of(multiplier, rounds, delta), exact(multiplier, rounds, delta)
    assert least <= found <= 1.12 * least


@pytest.mark.parametrize(("epsilon", "rounds"), [(8.0, 1), (8.0, 12), (1.0, 300), (0.1, 5), (50.0, 2)])
def test_the_multiplier_is_the_least_that_keeps_the_promise(epsilon: float, rounds: int) -> None:
    multiplier = noise_multiplier(epsilon, 1e-5, rounds)
    assert by_hand(multiplier, rounds, 1e-5) <= epsilon
    assert by_hand(multiplier * (1.0 - 1e-3), rounds, 1e-5) > epsilon


def test_the_rounds_that_a_multiplier_affords() -> None:
    multiplier = noise_multiplier(8.0, 1e-5, 12)
    assert affordable_rounds(multiplier, 8.0, 1e-5) == 12
    assert affordable_rounds(2.0 * multiplier, 8.0, 1e-5) in (48, 47)  # rounding may cost the last one
    assert affordable_rounds(0.1, 1.0, 1e-5) == 0
    assert affordable_rounds(1e6, 1.0, 1e-5) == MAX_ROUNDS


def test_a_budget_is_spent_by_what_is_sent() -> None:
    budget = Budget.of(8.0, 1e-5, 12)
    spent = [budget.spent(sent) for sent in range(13)]
    assert spent[0] == 0.0
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(8.0, rel=1e-5)
    assert spent[-1] <= 8.0
    assert [budget.allows(sent) for sent in (0, 11, 12, 13)] == [True, True, False, False]
    assert budget.spent(13) > 8.0


@pytest.mark.parametrize(
    ("epsilon", "delta", "rounds", "word"),
    [
        (0.0, 1e-5, 1, "epsilon"),
        (101.0, 1e-5, 1, "epsilon"),
        (math.nan, 1e-5, 1, "epsilon"),
        (1.0, 0.0, 1, "delta"),
        (1.0, 1.0, 1, "delta"),
        (1.0, 1e-5, 0, "rounds"),
        (1.0, 1e-5, MAX_ROUNDS + 1, "rounds"),
    ],
)
def test_budgets_that_there_are_not(epsilon: float, delta: float, rounds: int, word: str) -> None:
    assert word in budget_problem(epsilon, delta, rounds)
    with pytest.raises(ValueError, match=word):
        noise_multiplier(epsilon, delta, rounds)
    assert budget_problem(1.0, 1e-5, 1) == ""


@pytest.mark.parametrize(("multiplier", "rounds", "delta"), [(0.0, 1, 1e-5), (1.0, -1, 1e-5), (1.0, 1, 0.0)])
def test_no_epsilon_for_arguments_out_of_range(multiplier: float, rounds: int, delta: float) -> None:
    with pytest.raises(ValueError, match="no ε"):
        epsilon_of(multiplier, rounds, delta)


def test_affordable_rounds_of_no_budget() -> None:
    with pytest.raises(ValueError, match="epsilon"):
        affordable_rounds(1.0, -1.0, 1e-5)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "dp_accounting":
            raise ImportError(name)
        return found(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InvalidValueError, match=r"cospan\[dp\]"):
        epsilon_of(3.21, 7, 1e-5)  # not computed before: results are kept
