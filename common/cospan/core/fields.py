"""The table of a run's constants: what each one means, which values it takes, and how it is set.

A dataclass field carries its `Entry` as `field(metadata=about(…))`. The range check (`range_problems`), the
settings, options and help of the command line and the tables of docs/notation.md read it, so that a constant is
described once. Nothing heavy is imported: `cospan --help` reads the table.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass
from enum import Enum
from typing import Any

FLEET = "The fleet"
RULE = "The learning rule"
ROUNDS = "Whom a round waits for"
LIMITS = "Time limits, in seconds"
IMPROVEMENT = "Better policies"
"""The groups in which `--help` shows options."""
_KEY = "entry"
_FAR = 2**16
"""Upper ends from here on bound what a field can hold, and tell people nothing."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Range:
    """An interval of numbers with at least one end; NaN is in none.

    Attributes:
        least: the lower end, included. At most one of `least` and `above` is given.
        above: the lower end, excluded.
        most: the upper end, included; a text names the field of the same object that holds it.
        below: the upper end, excluded; infinity means finite.
        or_zero: whether 0 is allowed as well.
        note: what special values mean, for people.
    """

    least: float | None = None
    above: float | None = None
    most: float | str | None = None
    below: float | None = None
    or_zero: bool = False
    note: str = ""

    def holds(self, value: float, most: float | None = None) -> bool:
        """Whether a value is within; `most` stands for an upper end that is another field's value."""
        upper = most if isinstance(self.most, str) else self.most
        inside = (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (upper is None or value <= upper)
            and (self.below is None or value < self.below)
        )
        return inside or (self.or_zero and value == 0)

    def __str__(self) -> str:
        return self.words()

    @property
    def brief(self) -> str:
        """The range in words, without an upper end that is far from any sensible value."""
        is_far = isinstance(self.most, int | float) and self.most >= _FAR
        below = None if self.below == math.inf else self.below
        return dataclasses.replace(self, most=None if is_far else self.most, below=below).words()

    def words(self, most: float | None = None) -> str:
        """The range in words, as "above 0, at most 1"; `most` as in `holds`."""
        upper = self.most if most is None else f"{self.most} = {_number(most)}"
        text = "" if self.least is None else _number(self.least)
        if self.above is not None:
            text = f"above {_number(self.above)}"
        if upper is not None:
            text += f"{', at most' if self.above is not None else ' to'} {_number(upper)}"
        elif self.least is not None:
            text += " or more"
        if self.below is not None:
            text += " and finite" if self.below == math.inf else f" and below {_number(self.below)}"
        return f"{'0, or ' if self.or_zero else ''}{text}{f' ({self.note})' if self.note else ''}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Entry:
    """What is known of one field beside its name, type and default.

    Attributes:
        meaning: a phrase that says what it is; help and notation page show it.
        symbol: the letter in formulas, if it has one.
        unit: of its values; empty for a pure number.
        range: of its values; None for texts, enumerations and truth values.
        group: the heading of its option in `--help`; None if it has no option.
        setting: its name as a setting; empty for the field's own name, None if it is not a setting.
        metavar: stands for the value in `--help`; made from the type where empty.
        unset: what holds where the setting is not given; the field's default where empty.
    """

    meaning: str
    symbol: str = ""
    unit: str = ""
    range: Range | None = None
    group: str | None = None
    setting: str | None = ""
    metavar: str = ""
    unset: str = ""

    @property
    def help(self) -> str:
        """Symbol, meaning and range as one sentence."""
        start = f"{self.symbol}, {self.meaning}" if self.symbol else self.meaning[:1].upper() + self.meaning[1:]
        return f"{start}{f': {self.range.brief}' if self.range else ''}."


@dataclass(frozen=True, eq=False)
class FieldEntry:
    """A field of a dataclass with its entry."""

    name: str
    type: type[Any]
    default: Any
    entry: Entry

    @property
    def metavar(self) -> str:
        """What stands for its value in `--help`."""
        if self.entry.metavar:
            return self.entry.metavar
        if issubclass(self.type, Enum):
            return "|".join(member.value for member in self.type)
        return {bool: "true|false", int: "N", float: "X"}.get(self.type, "TEXT")

    @property
    def unset(self) -> str:
        """What holds where it is not set, in words."""
        if self.entry.unset or self.default is MISSING:
            return self.entry.unset
        return f"{self.default:g}" if isinstance(self.default, int | float) else str(self.default)

    @property
    def allowed(self) -> str:
        """Its values in words, as "a number above 0"."""
        if issubclass(self.type, Enum):
            *names, last = (member.value for member in self.type)
            return f"{', '.join(names)} or {last}"
        kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(self.type, "a text")
        if self.entry.range is None:
            return kind
        text = str(self.entry.range)
        return f"{kind}{'' if text.startswith('above') else ','} {text}"


def about(meaning: str, **more: Any) -> Mapping[str, Entry]:
    """The metadata of a field: its `Entry`."""
    return {_KEY: Entry(meaning=meaning, **more)}


def entries(kind: type[Any]) -> tuple[FieldEntry, ...]:
    """The described fields of a dataclass, in their order."""
    return tuple(
        FieldEntry(field.name, _type_of(field), field.default, field.metadata[_KEY])
        for field in dataclasses.fields(kind)
        if _KEY in field.metadata
    )


def settings(kind: type[Any]) -> dict[str, FieldEntry]:
    """The fields of a dataclass that can be set, by their names in cospan.toml."""
    return {field.entry.setting or field.name: field for field in entries(kind) if field.entry.setting is not None}


def range_problems(values: Any, without: Collection[str] = ()) -> list[str]:
    """Every field that is out of its range, one sentence each; empty when all are within.

    Args:
        values: a dataclass object whose fields have entries.
        without: fields that are not looked at.
    """
    found = []
    for field in entries(type(values)):
        allowed = field.entry.range
        if allowed is None or field.name in without:
            continue
        most = None
        if isinstance(allowed.most, str):  # at least the lower end, or no value of this field would be right
            most = max(allowed.least or 0, getattr(values, allowed.most))
        value = getattr(values, field.name)
        if not allowed.holds(value, most):
            found.append(f"{field.name} is {value!r}; it must be {allowed.words(most)}")
    return found


def value_problems(kind: type[Any], values: Mapping[str, Any]) -> list[str]:
    """Every value that is out of its field's range, one sentence each, where not all of an object is known.

    An upper end that is another field is not looked at, and the default of a field is right.

    Args:
        kind: a dataclass whose fields have entries.
        values: some of its fields, by name.
    """
    return [
        f"{field.name} is {values[field.name]!r}; it must be {field.entry.range.words()}"
        for field in entries(kind)
        if field.name in values
        and field.entry.range is not None
        and values[field.name] != field.default
        and not field.entry.range.holds(values[field.name], math.inf)
    ]


def _type_of(field: dataclasses.Field[Any]) -> type[Any]:
    assert isinstance(field.type, type), f"{field.name} has an annotation that is no class"
    return field.type


def _number(value: float | str) -> str:
    """A number for people: 2^32 − 1 for the largest of 32 bits, else its digits."""
    if isinstance(value, int) and value >= _FAR and (value + 1) & value == 0:
        return f"2^{value.bit_length()} − 1"
    return str(value) if isinstance(value, int | str) else f"{value:g}".replace("+0", "")
