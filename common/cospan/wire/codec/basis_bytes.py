"""A basis for all agents, as bytes: what protobuf would write, with one copy of the numbers in place of four."""

from functools import lru_cache

import numpy as np

from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1 import matrix_pb2
from cospan.wire.codec.messages import encode_stamp
from cospan.wire.messages import BasisUpdate

_UPDATE, _BASIS, _DATA = b"\x1a", b"\x0a", b"\x22"
"""Keys of `CollaborateResponse.basis_update`, `BasisUpdate.basis` and `Matrix.data`: number and wire type."""


def serialise_basis_update(message: BasisUpdate) -> bytes:
    """The bytes of `cospan.wire.codec.messages.encode_coordinator_message`."""
    basis = message.basis
    single = basis.dtype == np.float32
    data = np.ascontiguousarray(basis, dtype="<f4" if single else "<f8").data.cast("B")
    stamp = pb.CollaborateResponse(stamp=encode_stamp(message.stamp)).SerializeToString()
    return b"".join((stamp, _head(*basis.shape, single=single), data))


@lru_cache(maxsize=4)
def _head(rows: int, columns: int, *, single: bool) -> bytes:
    """Everything between stamp and numbers: the same in every round."""
    data_type = matrix_pb2.DATA_TYPE_FLOAT32 if single else matrix_pb2.DATA_TYPE_FLOAT64
    size = rows * columns * (4 if single else 8)
    head = matrix_pb2.Matrix(rows=rows, columns=columns, data_type=data_type).SerializeToString()
    head += _DATA + varint(size)
    for key in (_BASIS, _UPDATE):
        head = key + varint(len(head) + size) + head
    return head


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
