"""What tests of several kinds need: equality of values that hold arrays, and read-only arrays."""

import dataclasses
from typing import Any

import numpy as np


def same(a: Any, b: Any) -> bool:
    """Whether two values are of one type and equal in every field, arrays bit for bit and of one element type."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def read_only(values: Any) -> np.ndarray:
    """A float64 array that raises when it is written to."""
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array
