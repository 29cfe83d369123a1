"""Matrices as messages, and back."""

from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.rpc.v1 import matrix_pb2
from cospan.wire.errors import InvalidMessageError

_DTYPES: dict[int, np.dtype[Any]] = {
    matrix_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    matrix_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
}


def encode_matrix(values: Float[np.ndarray, "rows columns"]) -> matrix_pb2.Matrix:
    """A float64 or float32 array as a Matrix message of the same element type."""
    message = matrix_pb2.Matrix()
    fill_matrix(message, values)
    return message


def fill_matrix(message: matrix_pb2.Matrix, values: Float[np.ndarray, "rows columns"]) -> None:
    """Writes an array into a message where that lies: a message put into another is copied, with its numbers."""
    single = values.dtype == np.float32
    message.rows, message.columns = values.shape
    message.data_type = matrix_pb2.DATA_TYPE_FLOAT32 if single else matrix_pb2.DATA_TYPE_FLOAT64
    message.data = np.ascontiguousarray(values, dtype="<f4" if single else "<f8").tobytes()


def narrowest(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The values as float32 if that holds each of them exactly, else as they are."""
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not equal
        single = values.astype(np.float32)
    return single if np.array_equal(single, values) else values


def decode_matrix(message: matrix_pb2.Matrix, field: str) -> Float[np.ndarray, "rows columns"]:
    """A read-only view of the message's bytes.

    Raises:
        InvalidMessageError: unknown element type, an empty or wrong size, or an entry that is not finite.
    """
    dtype = _DTYPES.get(message.data_type)
    if dtype is None:
        raise InvalidMessageError(f"{field}.data_type is {message.data_type}; it must be float64 or float32")
    # Not by `require`: its texts, made whether they are needed or not, would cost more than all the rest here.
    rows, columns, data = message.rows, message.columns, message.data
    if rows == 0 or columns == 0:
        raise InvalidMessageError(f"{field} is {rows} × {columns}; both must be 1 or more")
    expected = rows * columns * dtype.itemsize
    if len(data) != expected:
        raise InvalidMessageError(
            f"{field}.data has {len(data)} bytes; {rows} × {columns} of {dtype.name} are {expected}"
        )
    values: np.ndarray = np.frombuffer(data, dtype=dtype).reshape(rows, columns)
    if not np.isfinite(values).all():
        raise InvalidMessageError(f"{field} has an entry that is not finite")
    return values


def decode_shaped(message: matrix_pb2.Matrix, field: str, rows: int, columns: int) -> Float[np.ndarray, "a b"]:
    """A matrix whose shape is known beforehand; the shape is checked before the bytes are looked at."""
    if message.rows != rows or message.columns != columns:
        raise InvalidMessageError(
            f"{field} is {message.rows} × {message.columns}; this run needs {rows} × {columns}"
        )
    return decode_matrix(message, field)
