"""What a round was opened with, as one digest: the masks of members that were told different things do not cancel.

Without it a coordinator could tell all members but one a basis, a head covariance or a specification with which
their uploads are known in advance (zero, for instance, in the rounds of a trial), and read the one from the sum.
"""

import hashlib
import struct
from dataclasses import fields
from enum import Enum

import numpy as np
from jaxtyping import Float

from cospan.core.specification import RunSpecification

_CONTEXT = b"cospan secure sums 1: announcement"


def specification_digest(specification: RunSpecification) -> bytes:
    """SHA-256, 32 bytes, of the fields that are not 0, empty or false, in the order of their names.

    A field is its name and its value, each preceded by its length as 8 little-endian bytes; the name of a constant
    of the method begins with `method.`. A value is a text in UTF-8 (of an enumeration: its value), or a number as
    float64 or, where the field is an integer, as an integer of 8 bytes, little-endian; true is the integer 1.
    """
    digest = hashlib.sha256(_CONTEXT)
    for name, value in sorted(_flat(specification).items()):
        for part in (name.encode(), _bytes(value)):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def announcement_digest(
    specification: bytes,
    round_number: int,
    basis: Float[np.ndarray, "d r"],
    head_covariance: Float[np.ndarray, "r r"] | None = None,
) -> bytes:
    """SHA-256, 32 bytes, of a round's number, basis and head covariance, and of the specification.

    Args:
        specification: `specification_digest`.
        round_number: t.
        basis: B_t, as it was received; its digest is of float64, little-endian, in C order.
        head_covariance: W_t, likewise; None where the method has none.
    """
    digest = hashlib.sha256(_CONTEXT + specification + round_number.to_bytes(8, "little"))
    digest.update(np.ascontiguousarray(basis, dtype="<f8").data.cast("B"))
    if head_covariance is not None:
        digest.update(np.ascontiguousarray(head_covariance, dtype="<f8").data.cast("B"))
    return digest.digest()


def _flat(specification: RunSpecification) -> dict[str, object]:
    values: dict[str, object] = {}
    for prefix, part in (("", specification), ("method.", specification.method)):
        for field in fields(part):
            value = getattr(part, field.name)
            value = value.value if isinstance(value, Enum) else value
            value = float(value) if field.type is float else value
            if field.name != "method" and value:
                values[prefix + field.name] = value
    return values


def _bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, float):
        return struct.pack("<d", value)
    assert isinstance(value, int)
    return value.to_bytes(8, "little")
