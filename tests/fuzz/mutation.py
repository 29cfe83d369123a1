"""Valid messages made into others: field by field, so that most of them still parse, and byte by byte.

Everything follows from the generator that is handed in.
"""

import functools
import math
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.message import DecodeError, Message

from cospan.rpc.v1 import matrix_pb2

_MOST_FIELDS = 3
_MOST_BYTES = 4
_MOST_TEXT = 600
_MOST_DATA = 512
_INTEGERS = (0, 1, 2, 3, 4, 5, 6, 7, 127, 128, 255, 256, 4096, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_LARGE_INTEGERS = (2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
_USUAL = (0.0, -0.0, 0.5, 1.0, 2.0, 3.0, -1.0, 0.1, 1e-3, 1e3, 1e6)
_ODD = (math.nan, math.inf, -math.inf, 5e-324, 2.2250738585072014e-308, 1e-300)
_HUGE = (9.9e59, -9.9e59, 1e-60, 1e61, 1e38, 3.5e38, 1e150, 1e200, -1e300, 1.7976931348623157e308)
_LETTERS = ("a", "Z", "0", ".", "-", "_", "/", "\\", "\x00", "\n", " ", "é", "\u202e", "🦀", "%s", "{}", "'")
_TEXTS = ("", "a", "b", "c", "a-2", "site-0", "site-1", "site-00", "../up", ".hidden", "map-1", "token-1", "run-1")

Mutator = Callable[[bytes], bytes]


def mutated(wire: bytes, kind: type[Message], rng: random.Random, of_bytes: Mutator | None = None) -> bytes:
    """A message like this one, which need be no message at all.

    Args:
        wire: a serialised message; any bytes will do.
        kind: of which type it is, or should be.
        rng: all chance.
        of_bytes: another way to change bytes, such as a fuzzer's own.
    """
    if rng.random() < 0.7:
        try:
            message = kind.FromString(wire)
        except DecodeError:
            message = kind()
        for _ in range(rng.randint(1, _MOST_FIELDS)):
            _change_somewhere(message, rng)
        return message.SerializeToString()
    if of_bytes is not None and rng.random() < 0.7:
        return of_bytes(wire)
    return changed_bytes(wire, rng)


def changed_bytes(wire: bytes, rng: random.Random) -> bytes:
    """Bytes of which some are changed, taken out, put in or repeated."""
    changed = bytearray(wire)
    for _ in range(rng.randint(1, _MOST_BYTES)):
        at = rng.randrange(len(changed) + 1)
        length = min(rng.choice((1, 1, 2, 4, 8, 32)), len(changed) - at)
        match rng.randrange(6):
            case 0 if length:
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if length:
                changed[at] = rng.randrange(256)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
            case 4 if len(changed) < _MOST_DATA:
                changed[at:at] = changed[at : at + length] * rng.randint(1, 3)
            case 5 if rng.random() < 0.2:
                del changed[at:]
    return bytes(changed)


# Fields -------------------------------------------------------------------------------------------------------


def _change_somewhere(message: Message, rng: random.Random) -> None:
    """Changes one field, at any depth."""
    node = message
    while (inner := _inner(node)) and rng.random() < 0.8:
        node = rng.choice(inner)
    fields = node.DESCRIPTOR.fields
    if not fields:
        return
    if isinstance(node, matrix_pb2.Matrix) and rng.random() < 0.5:
        _change_matrix(node, rng)
        return
    present = [field for field, _ in node.ListFields()]
    _change_field(node, rng.choice(present if present and rng.random() < 0.5 else fields), rng)


def _inner(node: Message) -> list[Message]:
    found: list[Message] = []
    for field, value in node.ListFields():
        if field.message_type is not None:
            found += value if field.name in _repeated(node.DESCRIPTOR) else [value]
    return found


@functools.cache
def _repeated(kind: Descriptor) -> frozenset[str]:
    proto = DescriptorProto()
    kind.CopyToProto(proto)
    return frozenset(field.name for field in proto.field if field.label == FieldDescriptorProto.LABEL_REPEATED)


def _change_field(node: Message, field: FieldDescriptor, rng: random.Random) -> None:
    if rng.random() < 0.15:
        node.ClearField(field.name)
    elif field.name in _repeated(node.DESCRIPTOR):
        _change_list(getattr(node, field.name), field, rng)
    elif field.message_type is not None:
        getattr(node, field.name).SetInParent()
        _change_somewhere(getattr(node, field.name), rng)
    else:
        setattr(node, field.name, _value(field, getattr(node, field.name), rng))


def _change_list(values: Any, field: FieldDescriptor, rng: random.Random) -> None:
    at = rng.randrange(len(values)) if values else None
    match rng.randrange(4):
        case 0 if at is not None:
            del values[at]
        case 1 if at is not None and field.message_type is None:
            values[at] = _value(field, values[at], rng)
        case 2 if at is not None:
            values.extend([values[at]] * rng.choice((1, 1, 2, 70)))
        case _ if field.message_type is None:
            values.append(_value(field, "", rng))
        case _:
            _change_somewhere(values.add(), rng)


def _value(field: FieldDescriptor, before: Any, rng: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_UINT32:
            return _integer(before, 32, rng)
        case FieldDescriptor.CPPTYPE_UINT64:
            return _integer(before, 64, rng)
        case FieldDescriptor.CPPTYPE_ENUM:
            return rng.choice((0, 1, 2, 3, 4, 5, 6, -1, 2**31 - 1, -(2**31)))
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return _number(before, rng)
        case FieldDescriptor.CPPTYPE_BOOL:
            return not before
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return changed_bytes(before, rng)[:_MOST_DATA]
        case FieldDescriptor.CPPTYPE_STRING:
            return _text(before, rng)
        case other:
            raise NotImplementedError(f"the protocol has a field of a type that it had not before: {other}")


def _integer(before: int, bits: int, rng: random.Random) -> int:
    match rng.randrange(4):
        case 0:
            value = before + rng.choice((-2, -1, 1, 2))
        case 1:
            value = rng.choice(_INTEGERS + (_LARGE_INTEGERS if bits == 64 else ()))
        case 2:
            value = rng.randrange(8)
        case _:
            value = rng.getrandbits(bits)
    return value % 2**bits


def _number(before: float, rng: random.Random) -> float:
    match rng.randrange(4):
        case 0:
            return before * rng.choice((-1.0, 0.5, 2.0, 1e3, 1e-3))
        case 1:
            return rng.uniform(-2.0, 2.0)
        case 2:
            return float(struct.unpack("<d", rng.randbytes(8))[0])
        case _:
            return rng.choice(_USUAL + _ODD + _HUGE)


def _text(before: str, rng: random.Random) -> str:
    match rng.randrange(4):
        case 0:
            return rng.choice(_TEXTS)
        case 1:
            return "".join(rng.choice(_LETTERS) for _ in range(rng.choice((1, 3, 10, 64, 65, 128, 129, 257))))
        case 2:
            return before[: rng.randrange(len(before) + 1)] + rng.choice(_LETTERS)
        case _:
            return (before * rng.choice((2, 2, 3, 40)))[:_MOST_TEXT]


# Matrices -----------------------------------------------------------------------------------------------------


def _change_matrix(matrix: matrix_pb2.Matrix, rng: random.Random) -> None:
    """Another shape, with as many bytes as it needs; or other numbers in the same one."""
    single = matrix.data_type == matrix_pb2.DATA_TYPE_FLOAT32
    letter, size = ("f", 4) if single else ("d", 8)
    if rng.random() < 0.3:
        matrix.rows, matrix.columns = rng.randrange(9), rng.randrange(5)
        if rng.random() < 0.3:
            matrix.rows, matrix.columns = matrix.columns, matrix.rows
    count = min(matrix.rows * matrix.columns, _MOST_DATA // size)
    if rng.random() < 0.2:
        single = not single
        matrix.data_type = matrix_pb2.DATA_TYPE_FLOAT32 if single else matrix_pb2.DATA_TYPE_FLOAT64
        letter, size = ("f", 4) if single else ("d", 8)
    data = (matrix.data + bytes(count * size))[: count * size]
    values = list(struct.unpack(f"<{count}{letter}", data))
    if values:
        _change_numbers(values, single, rng)
    matrix.data = struct.pack(f"<{count}{letter}", *values)


def _change_numbers(values: list[float], single: bool, rng: random.Random) -> None:
    scale = rng.choice((1.0, 1.0, 1.0, 0.0, -1.0, 1e3, 1e-3, 1e100, 1e-100))
    values[:] = [_fitting(scale * value, single) for value in values]
    for _ in range(rng.choice((0, 1, 1, 2, len(values)))):
        values[rng.randrange(len(values))] = _fitting(_number(1.0, rng), single)


def _fitting(value: float, single: bool) -> float:
    """What `struct` can pack: it refuses numbers beyond float32 instead of making them infinite."""
    return math.copysign(math.inf, value) if single and math.isfinite(value) and abs(value) > 3.4e38 else value


# Sequences ----------------------------------------------------------------------------------------------------


def shuffled(items: Sequence[Any], fresh: Callable[[], Any], most: int, rng: random.Random) -> list[Any]:
    """The items with one put in, taken out, repeated, or exchanged with another; at most `most`."""
    changed = list(items)
    at = rng.randrange(len(changed) + 1)
    match rng.randrange(4):
        case 0 if at < len(changed) and len(changed) > 1:
            del changed[at]
        case 1 if at < len(changed):
            changed.insert(rng.randrange(len(changed) + 1), changed[at])
        case 2 if at < len(changed):
            other = rng.randrange(len(changed))
            changed[at], changed[other] = changed[other], changed[at]
        case _:
            changed.insert(at, fresh())
    return changed[:most]
