"""Checks of single values that a peer has sent; all raise InvalidMessageError."""

from enum import Enum
from typing import Any, TypeVar

from cospan.core.specification import unprintable_problem
from cospan.wire.errors import InvalidMessageError
from cospan.wire.text import MAX_TEXT

_E = TypeVar("_E", bound=Enum)


def from_enum(table: dict[_E, Any], number: int, field: str) -> _E:
    """The member whose number in the protocol this is."""
    for value, wire_number in table.items():
        if wire_number == number:
            return value
    raise InvalidMessageError(f"{field} is {number}, which is not a value of this protocol")


def require(ok: bool, text: str) -> None:
    """Refuses the message with this text where something does not hold."""
    if not ok:
        raise InvalidMessageError(text)


def bounded_text(value: str, field: str, most: int = MAX_TEXT) -> str:
    """A text that has at most `most` characters."""
    if len(value) > most:
        raise InvalidMessageError(f"{field} has {len(value)} characters; at most {most} are allowed")
    return value


def identifier(value: str, field: str, most: int) -> str:
    """A text that identifies something: bounded, and printable as it is; see `cospan.wire.text`."""
    problem = unprintable_problem(field, bounded_text(value, field, most))
    require(problem is None, problem or "")
    return value
