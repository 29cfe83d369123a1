"""Rewards as formulas: arithmetic on columns, and nothing else."""

import numpy as np
import pytest

from cospan.client.logs.formula import Formula
from cospan.wire.errors import InvalidValueError

COLUMNS = {"price": np.array([1.0, 2.0]), "energy": np.array([3.0, 0.0]), "cost (EUR)": np.array([5.0, 6.0])}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("price", [1.0, 2.0]),
        ("-price", [-1.0, -2.0]),
        ("price * energy - 0.5 * price", [2.5, -1.0]),
        ("-'cost (EUR)' / 2", [-2.5, -3.0]),
        ("max(price, energy) ** 2", [9.0, 4.0]),
        ("abs(-price) + min(price, 1.5)", [2.0, 3.5]),
        ("3", [3.0, 3.0]),
    ],
)
def test_arithmetic_on_columns(text: str, value: list[float]) -> None:
    assert Formula.parsed(text, "reward")(COLUMNS, 2).tolist() == value


def test_the_columns_are_those_in_the_formula() -> None:
    assert Formula.parsed("price * energy - price / 'cost (EUR)'", "reward").columns == (
        "price",
        "energy",
        "cost (EUR)",
    )


def test_a_division_by_zero_is_not_finite_and_no_error() -> None:
    assert not np.isfinite(Formula.parsed("price / energy", "reward")(COLUMNS, 2)[1])
    assert not np.isfinite(Formula.parsed("1 / 0", "reward")(COLUMNS, 2)).any()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "price.__class__",
        "[price]",
        "price if energy else 0",
        "lambda: 0",
        "price and energy",
        "open('x')",
        "max(price)",
        "abs(price, key=1)",
        "True",
        "price @ energy",
        "price > 1",
        "",
        "price +",
        "9" * 2000,
        "(" * 400 + "price" + ")" * 400,
        "f'{price}'",
    ],
)
def test_anything_else_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InvalidValueError, match="reward"):
        Formula.parsed(text, "reward")
