"""Matrices on the wire: they keep their bits, and a wrong size costs nothing."""

import numpy as np
import pytest
from codec_examples import matrix, sent
from values import same

from cospan.rpc.v1 import matrix_pb2
from cospan.wire.codec.matrices import decode_matrix, encode_matrix
from cospan.wire.errors import InvalidMessageError

# There and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_matrices_keep_their_bits(dtype: type) -> None:
    values = np.array([[0.1, -0.0, 5e-324], [1e38, -1e-45, 3.0]]).astype(dtype)
    for array in (values, np.asfortranarray(values), values[::-1, ::-1], values[:1]):
        back = decode_matrix(sent(encode_matrix(array)), "m")
        assert same(back, np.ascontiguousarray(array))
        assert not back.flags.writeable


def test_bytes_are_little_endian_in_rows() -> None:
    message = encode_matrix(np.array([[1.0, 2.0]]).astype(">f8"))
    assert message.data == bytes.fromhex("000000000000f03f 0000000000000040")
    assert (message.rows, message.columns) == (1, 2)
    assert message.data_type == matrix_pb2.DATA_TYPE_FLOAT64


# What agents may not say ----------------------------------------------------------------------------------------


def test_a_huge_shape_costs_nothing() -> None:
    """2^32 × 2^32 entries are refused by their number, before anything is allocated."""
    with pytest.raises(InvalidMessageError, match=r"m\.data has 8 bytes"):
        decode_matrix(matrix([[1.0]], rows=2**32 - 1, columns=2**32 - 1), "m")
