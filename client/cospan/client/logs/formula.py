"""Arithmetic on columns: the reward of a log, such as `-cost` or `price * energy - 0.1 * wear`.

The text is parsed by `ast` and never evaluated as Python: only numbers, columns, + − * / **, abs, min and max are
known. A column whose name is no identifier is quoted: `-"cost (EUR)"`.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.wire.errors import InvalidValueError

_MOST_CHARACTERS = 1000
Column: TypeAlias = Float[np.ndarray, " n"]
_Value: TypeAlias = Callable[[Mapping[str, Column]], Column | float]

_TWO: dict[type[ast.operator], Callable[[Column, Column], Column]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.divide,
    ast.Pow: np.power,
}
_CALLS: dict[str, tuple[int, Callable[..., Column]]] = {
    "abs": (1, np.abs),
    "min": (2, np.minimum),
    "max": (2, np.maximum),
}


@dataclass(frozen=True, eq=False, slots=True)
class Formula:
    """A formula over columns.

    Attributes:
        text: as it was written.
        columns: the names in it, in the order of their first use.
    """

    text: str
    columns: tuple[str, ...]
    _value: _Value

    @classmethod
    def parsed(cls, text: str, what: str) -> "Formula":
        """The formula of a text.

        Args:
            text: the formula.
            what: it stands for, for error messages: "reward".

        Raises:
            InvalidValueError: it is not arithmetic on columns; the text says where.
        """
        if len(text) > _MOST_CHARACTERS:
            raise InvalidValueError(f"{what} has {len(text)} characters; a formula has at most {_MOST_CHARACTERS}")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as failure:
            raise InvalidValueError(
                f"{what} = {text!r} is no formula ({failure}); write arithmetic on columns, as in "
                '"-cost" or "price * energy", and quote names with blanks: "-\'cost (EUR)\'"'
            ) from failure
        found: list[str] = []
        try:
            value = _compiled(tree.body, found, f"{what} = {text!r}")
        except RecursionError as failure:
            raise InvalidValueError(f"{what} is nested too deeply; write a shorter formula") from failure
        return cls(text, tuple(dict.fromkeys(found)), value)

    def __call__(self, columns: Mapping[str, Column], rows: int) -> Column:
        """The value of each row; not finite where it is unknown, as after a division by zero.

        Args:
            columns: by name, each of n numbers.
            rows: n.
        """
        with np.errstate(all="ignore"):
            value = np.asarray(self._value(columns), dtype=np.float64)
        return value if value.ndim else np.full(rows, float(value))


def _compiled(node: ast.expr, found: list[str], where: str) -> _Value:
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number):
            constant = float(number) if abs(number) < 1e300 else np.inf
            return lambda _: constant
        case ast.Constant(value=str() as name) | ast.Name(id=name):
            found.append(name)
            return lambda columns: columns[name]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            negated = _compiled(inner, found, where)
            return lambda columns: -negated(columns)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _compiled(inner, found, where)
        case ast.BinOp(op=op) if type(op) in _TWO:
            left, right = _compiled(node.left, found, where), _compiled(node.right, found, where)
            both = _TWO[type(op)]
            return lambda columns: both(
                np.asarray(left(columns), np.float64), np.asarray(right(columns), np.float64)
            )
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if (
            name in _CALLS and len(arguments) == _CALLS[name][0]
        ):
            values = [_compiled(argument, found, where) for argument in arguments]
            function = _CALLS[name][1]
            return lambda columns: function(*(value(columns) for value in values))
        case _:
            pass
    raise InvalidValueError(
        f"{where} has {ast.unparse(node)!r}, which is not arithmetic; numbers, columns, + - * / **, abs(a), "
        "min(a, b) and max(a, b) may be used"
    )
