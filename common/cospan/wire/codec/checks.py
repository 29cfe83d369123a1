"""Enumerations as numbers, and checks of values that a peer has sent, which raise InvalidMessageError."""

from collections.abc import Sequence
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import EnumDescriptor

from cospan.core.specification import agent_id_problem, unprintable_problem
from cospan.wire.errors import InvalidMessageError
from cospan.wire.limits import MAX_GROUP
from cospan.wire.text import MAX_TEXT

_E = TypeVar("_E", bound=Enum)


@cache
def numbers_of(kind: type[_E], described: EnumDescriptor) -> dict[_E, Any]:
    """The numbers of an enumeration's members: `LATE` is `GRADIENT_DISPOSITION_LATE` of its descriptor."""
    prefix = described.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {member: described.values_by_name[prefix + member.name].number for member in kind}


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


def sorted_agent_ids(names: Sequence[str], field: str) -> tuple[str, ...]:
    """The names in sorted order, so that a set of agents has one spelling."""
    if not names:
        return ()  # of a gradient: all agents of the process
    require(len(names) <= MAX_GROUP, f"{field} has {len(names)} names; a process hosts at most {MAX_GROUP}")
    listed = sorted(names)
    require(len(set(listed)) == len(listed), f"{field} names an agent twice")
    for name in listed:
        problem = agent_id_problem(name)
        require(problem is None, f"{field}: {problem}")
    return tuple(listed)
