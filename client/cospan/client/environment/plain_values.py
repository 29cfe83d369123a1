"""Values of an environment as JSON and arrays, and back: every type and bit as it was, and no pickle.

Plain are None, truth values, numbers, text, NumPy's scalars and arrays (but of objects), and lists, tuples and
dictionaries, with text as keys, of plain values: what observations, states and generators are made of.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

SavedState: TypeAlias = tuple[str, list[np.ndarray]]
"""A packed value: JSON text, and the arrays that it refers to by number."""
_DEEPEST = 32
"""Values nested deeper than that are refused, so that one that holds itself is."""


def packed(value: Any) -> SavedState:
    """A value as a JSON text and the arrays that it refers to by number; arrays are copied.

    Raises:
        TypeError: there is something in it that is not plain.
    """
    arrays: list[np.ndarray] = []
    return json.dumps(_pack(value, arrays, _DEEPEST)), arrays


def unpacked(text: str, arrays: Sequence[np.ndarray]) -> Any:
    """The value that `packed` has made these of.

    Raises:
        ValueError: they are not of its making.
    """
    try:
        return _unpack(json.loads(text), arrays)
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as failure:
        raise ValueError(f"no packed value: {type(failure).__name__}: {failure}") from failure


def _pack(value: Any, arrays: list[np.ndarray], depth: int) -> Any:
    if depth == 0:
        raise TypeError(f"it is nested deeper than {_DEEPEST} levels")
    # Exact types: a subclass, as an enumeration or a named tuple, would come back as something else.
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        array = np.array(value, subok=False)
        if array.dtype.hasobject:
            raise TypeError("it has an array of objects")
        arrays.append(array)
        return {"array" if isinstance(value, np.ndarray) else "scalar": len(arrays) - 1}
    if kind is list:
        return [_pack(entry, arrays, depth - 1) for entry in value]
    if kind is tuple:
        return {"tuple": [_pack(entry, arrays, depth - 1) for entry in value]}
    if isinstance(value, Mapping):
        if not all(type(key) is str for key in value):
            raise TypeError("it has a dictionary with keys that are not text")
        return {"dict": {key: _pack(entry, arrays, depth - 1) for key, entry in value.items()}}
    raise TypeError(f"it has a {kind.__module__}.{kind.__qualname__}")


def _unpack(tree: Any, arrays: Sequence[np.ndarray]) -> Any:
    if isinstance(tree, list):
        return [_unpack(entry, arrays) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) != 1:
        raise ValueError(f"no packed value: an object of {len(tree)} entries")
    ((kind, content),) = tree.items()
    match kind:
        case "array":
            return arrays[content]
        case "scalar":
            return arrays[content][()]
        case "tuple":
            return tuple(_unpack(entry, arrays) for entry in content)
        case "dict":
            return {key: _unpack(entry, arrays) for key, entry in content.items()}
        case _:
            raise ValueError(f"no packed value: {kind!r} is no kind of value")
