"""Protobuf's varints."""

from cospan.wire.codec.basis_bytes import varint


def test_varints_by_hand() -> None:
    assert [varint(0), varint(127), varint(300)] == [b"\x00", b"\x7f", b"\xac\x02"]
