"""Values as JSON and arrays: the same types and bits come back, and what cannot is refused."""

import enum
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from cospan.client.environment.plain_values import packed, unpacked

PLAIN = [
    None,
    True,
    7,
    -(2**127),
    0.1,
    math.inf,
    "text with ü and \\ud800",
    [1, [2.0, None]],
    (1, ("a", [])),
    {"a": {"array": 3}, "tuple": (1,), "dict": {}},
    np.int64(3),
    np.float32(0.1),
    np.bool_(True),
    np.arange(6, dtype=np.uint8).reshape(2, 3),
    np.zeros((0, 4), dtype=np.float32),
    {"image": np.ones((2, 2)), "more": [np.array(5.0), (np.int8(1), np.arange(3))]},
]


def same(found: Any, value: Any) -> bool:
    """The same types all the way down, and the same bits."""
    if type(found) is not type(value):
        return False
    if isinstance(value, np.ndarray | np.generic):
        return bool(
            found.dtype == value.dtype and found.shape == value.shape and found.tobytes() == value.tobytes()
        )
    if isinstance(value, dict):
        return list(found) == list(value) and all(same(found[key], value[key]) for key in value)
    if isinstance(value, list | tuple):
        return len(found) == len(value) and all(map(same, found, value))
    return bool(found == value)


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_a_plain_value_comes_back_as_it_was(value: Any) -> None:
    assert same(unpacked(*packed(value)), value)


def test_a_number_that_is_none_comes_back() -> None:
    assert math.isnan(unpacked(*packed(math.nan)))


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_the_state_of_a_generator_comes_back(kind: Callable[[int], Any]) -> None:
    generator, other = np.random.Generator(kind(1)), np.random.Generator(kind(2))
    generator.random(7)
    generator.integers(5, dtype=np.int32)
    other.bit_generator.state = unpacked(*packed(generator.bit_generator.state))
    assert (
        other.integers(2**31, size=50, dtype=np.int32).tolist()
        == generator.integers(2**31, size=50, dtype=np.int32).tolist()
    )


def test_arrays_are_copied() -> None:
    array = np.zeros(2)
    text, arrays = packed([array])
    array[:] = 1.0
    assert unpacked(text, arrays)[0].tolist() == [0.0, 0.0]


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int


class Endless(list[Any]):
    pass


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (object(), "it has a builtins.object"),
        ([Colour.RED], "Colour"),
        ((Point(1),), "Point"),
        (Endless(), "Endless"),
        ({1: 2}, "keys that are not text"),
        (np.array([None]), "an array of objects"),
        ({"a": b"x"}, "builtins.bytes"),
        (endless(), "nested deeper than 32"),
    ],
)
def test_anything_else_is_refused(value: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        packed(value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", '{"array": 1}', '{"array": "a"}', '{"set": [1]}', '{"dict": []}', '{"tuple": 3}', "[" * 5000],
)
def test_what_was_not_packed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no packed value|Expecting"):
        unpacked(text, [np.zeros(1)])
