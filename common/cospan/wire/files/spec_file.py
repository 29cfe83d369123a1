"""Run specifications as TOML files: everything that is needed to run a run again."""

import tomllib
from dataclasses import MISSING, Field, fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast

import tomli_w

from cospan.core.method import Method
from cospan.core.specification import RunSpecification
from cospan.wire.errors import RunFileError
from cospan.wire.files.safe_files import MAX_TOML_BYTES, read_text

FORMAT = "cospan-spec-1"

_T = TypeVar("_T", RunSpecification, Method)
_KINDS: dict[type[Any], str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    Method: "a table",
}


_MOST_DOTS = 100
"""In one line. The time to parse a key grows with the square of its parts, and faster."""


class NestedTooDeeplyError(ValueError):
    """A TOML document is nested more deeply than any of ours."""


def toml_values(text: str) -> dict[str, Any]:
    """What a TOML text says, with or without a byte-order mark.

    Raises:
        NestedTooDeeplyError: its keys have too many parts, or its values too many levels.
        ValueError: it is not TOML.
    """
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise NestedTooDeeplyError("it is nested too deeply")
    try:
        return tomllib.loads(text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}"))
    except RecursionError as failure:
        raise NestedTooDeeplyError("it is nested too deeply") from failure


def to_toml(specification: RunSpecification) -> str:
    """The TOML text of a specification; floats are written with all their digits."""
    return tomli_w.dumps({"format": FORMAT, **specification.as_dict()})


def from_toml(text: str, *, name: str) -> RunSpecification:
    """The specification that a TOML text describes.

    Args:
        text: as `to_toml` writes it. Fields that have a default may be left out.
        name: of the file, for error messages.

    Raises:
        RunFileError: the text is no TOML, lacks a field, or has one that is unknown or out of range.
    """
    try:
        values = toml_values(text)
    except NestedTooDeeplyError as failure:
        raise RunFileError(f"{name} is nested too deeply for a run specification") from failure
    except ValueError as failure:  # TOMLDecodeError is one, and so is what `int` says of thousands of digits
        raise RunFileError(f"{name} is not TOML: {failure}") from failure
    try:
        specification = _specification(values, name=name)
        problems = specification.problems()
    except (OverflowError, ValueError) as failure:  # it becomes no float, or has too many digits to be shown
        raise RunFileError(
            f"{name} has a number that no field of a run specification takes: {failure}"
        ) from failure
    if problems:
        raise RunFileError(f"{name}: {'; '.join(problems)}")
    return specification


def _specification(values: dict[str, Any], *, name: str) -> RunSpecification:
    found = values.pop("format", None)
    if found != FORMAT:
        raise RunFileError(
            f"{name} has format = {found!r}, and a run specification has format = {FORMAT!r}; "
            "take the spec.toml of a run"
        )
    return _build(RunSpecification, values, name=name, prefix="")


def load_spec(path: Path) -> RunSpecification:
    """Reads a specification.

    Raises:
        RunFileError: the file is missing, unreadable, or no specification.
    """
    try:
        text = read_text(path, MAX_TOML_BYTES)
    except FileNotFoundError as failure:
        raise RunFileError(f"there is no file {path}; name the spec.toml of a run") from failure
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise RunFileError(f"cannot read {path}: {reason}") from failure
    return from_toml(text, name=str(path))


def _build(kind: type[_T], values: dict[str, Any], *, name: str, prefix: str) -> _T:
    """A dataclass from a TOML table, every value checked against its field's type."""
    known = {field.name: field for field in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise RunFileError(
            f"{name} has {prefix}{unknown[0]} = {values[unknown[0]]!r}, which is no field of a run specification; "
            f"allowed are {', '.join(prefix + field for field in known)}"
        )
    missing = [field.name for field in known.values() if field.default is MISSING and field.name not in values]
    if missing:
        raise RunFileError(f"{name} lacks {prefix}{missing[0]}; add it, or take the spec.toml of a run")
    built = {key: _value(known[key], value, name=name, prefix=prefix) for key, value in values.items()}
    return kind(**built)


def _value(field: Field[Any], value: Any, *, name: str, prefix: str) -> Any:
    kind = cast("type[Any]", field.type)
    if issubclass(kind, Enum):
        allowed = [member.value for member in kind]
        if value not in allowed:
            raise RunFileError(
                f"{name} has {prefix}{field.name} = {value!r}; it must be {' or '.join(map(repr, allowed))}"
            )
        return kind(value)
    if kind is Method and isinstance(value, dict):
        return _build(Method, value, name=name, prefix=f"{prefix}{field.name}.")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:  # a bool is an int to isinstance
        raise RunFileError(f"{name} has {prefix}{field.name} = {value!r}; it must be {_KINDS[kind]}")
    return value
