"""The codec's part of the fast path (ADR 12): reads a gradient by the layout of the stream's previous one.

Successive gradients of a stream differ only in the round, the numbers and the TD error. So a gradient that was
decoded in full gives the offsets of these in the next one. All other bytes must be equal, and the variable fields
are checked as in full; the numbers are not copied. A message that does not fit is left to
`cospan.wire.codec.messages`, which raises the error. `message_reader` is the interface; `COSPAN_FAST_PATH=0` turns
this part and the server's (`cospan.server.runtime.fast_path`) off.
"""

import math
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec.bounds import check_contribution, is_within, most_of
from cospan.wire.codec.messages import decode_agent_message
from cospan.wire.errors import InvalidMessageError
from cospan.wire.messages import AgentMessage, GradientUpload

PIECES = frozenset({"read", "gather"})
"""What can be turned off on its own, to measure its share."""


def _enabled(setting: str) -> frozenset[str]:
    """The pieces that a value of COSPAN_FAST_PATH turns on: all for 1 or nothing, else those that it lists."""
    return PIECES if setting in ("", "1") else PIECES.intersection(setting.split(","))


ENABLED = _enabled(os.environ.get("COSPAN_FAST_PATH", ""))
"""The pieces that this process uses; the environment is read once."""

# Keys of the wire format: the number of a field, times 8, and how its value is written.
_GRADIENT = 0x12
_ROUND = 0x08
_AGENT_ID, _WEIGHT, _DENSE, _FACTORED, _MOMENT, _POOLED, _TD_ERROR = 0x12, 0x19, 0x22, 0x2A, 0x32, 0x3A, 0x41
_LEFT, _RIGHT = 0x0A, 0x12
_ROWS, _COLUMNS, _DATA_TYPE, _DATA = 0x08, 0x10, 0x18, 0x22
_MATRICES = {_DENSE: "dense", _MOMENT: "moment", _POOLED: "pooled"}
_FACTORS = {_LEFT: "left", _RIGHT: "right"}

_LONGEST_HEAD = 22
"""Two keys, a length and a round."""
_ALIGNMENT = 8
_SINGLE: np.dtype[np.float32] = np.dtype("<f4")
_READ = struct.Struct("<d").unpack_from
_MISSES_MEASURED = 8
_MISSES_BETWEEN = 32
"""Of the gradients of a stream that were decoded in full, the first 8 and then every 32nd give a new layout: a
stream without a stable one costs little, and a relay's, which changes with every agent that joins, is found."""


class _OddLayoutError(Exception):
    """The bytes do not have the frequent layout; they may still be valid."""


@dataclass(frozen=True, slots=True)
class _Blank:
    """Position of a matrix's numbers, in bytes from the end of the head."""

    start: int
    count: int
    dtype: np.dtype[np.float64] | np.dtype[np.float32]
    shape: tuple[int, ...]
    widened: bool = False
    """Whether float32 numbers are taken as float64: those that are pooled."""

    def values(self, request: bytes, offset: int) -> Float[np.ndarray, "..."]:
        """A read-only view of the bytes; a copy where they are not aligned, as arithmetic would be slow."""
        start = offset + self.start
        values: np.ndarray = np.frombuffer(request, self.dtype, self.count, start).reshape(self.shape)
        if self.widened:
            return values.astype(np.float64)
        return values.copy() if start % _ALIGNMENT else values


@dataclass(slots=True)
class MessageLayout:
    """The layout of a gradient: offsets of the variable fields, and the bytes between them."""

    _specification: RunSpecification
    _agent_ids: tuple[str, ...]
    _weight: float
    _length: int
    """Bytes after the head."""
    _literals: tuple[tuple[int, bytes], ...]
    _blanks: dict[str, _Blank]
    _td_error: int | None
    """Its offset from the end of the head."""
    _dense_alone: _Blank | None
    """The gradient's, if it is the only matrix."""
    _most: float
    """Largest absolute value of an entry."""

    @classmethod
    def of(cls, request: bytes, upload: GradientUpload, specification: RunSpecification) -> "MessageLayout | None":
        """The layout of a request that was decoded to this upload; None if it is not a frequent one."""
        masked = not isinstance(upload.contribution, Contribution)
        if masked or specification.method.brings_estimates_in(upload.round):
            return None
        try:
            offset = _end_of_head(request)
            rest = request[offset:]
            spans = _spans(rest)
            arrays = _arrays(upload)
            blanks = {name: _blank(span, arrays[name]) for name, span in spans.items() if name != "td_error"}
        except (_OddLayoutError, KeyError, IndexError):
            return None
        weight = upload.contribution.weight
        return cls(
            specification,
            upload.agent_ids,
            weight,
            len(rest),
            tuple(_literals(rest, sorted(spans.values()))),
            blanks,
            spans["td_error"][0] if "td_error" in spans else None,
            blanks["dense"] if blanks.keys() == {"dense"} else None,
            most_of(weight),
        )

    def read(self, request: bytes) -> GradientUpload | None:
        """The gradient, equal to that decoded in full; None if the layout differs or a check fails."""
        offset = len(request) - self._length
        if not 0 < offset <= _LONGEST_HEAD:
            return None
        number = _round_of(request[:offset], self._length)
        if number is None or self._specification.method.brings_estimates_in(number):
            return None
        if "pooled" not in self._blanks and self._specification.sends_pooled_in(number):
            return None
        for start, literal in self._literals:
            if not request.startswith(literal, offset + start):
                return None
        td_error = None
        if self._td_error is not None:
            (td_error,) = _READ(request, offset + self._td_error)
            if not 0.0 <= td_error < math.inf:
                return None
        contribution = self._contribution(request, offset)
        return None if contribution is None else GradientUpload(number, contribution, self._agent_ids, td_error)

    def _contribution(self, request: bytes, offset: int) -> Contribution | None:
        """The contribution; None if a number is out of range. No bound includes NaN and infinities."""
        blanks, weight, alone = self._blanks, self._weight, self._dense_alone
        if alone is not None:  # nearly always; a round may take a millisecond, so each call matters
            values = alone.values(request, offset)
            return Contribution(DenseMatrix(values), weight) if is_within(values, self._most) else None
        dense, moment, pooled = blanks.get("dense"), blanks.get("moment"), blanks.get("pooled")
        contribution = Contribution(
            DenseMatrix(dense.values(request, offset))
            if dense is not None
            else FactoredMatrix(blanks["left"].values(request, offset), blanks["right"].values(request, offset)),
            weight,
            None if moment is None else moment.values(request, offset),
            None if pooled is None else pooled.values(request, offset),
        )
        try:
            check_contribution(
                contribution,
                pooled_is_nonnegative=self._specification.method.pooled_is_nonnegative,
                pools_weight=self._specification.method.has_head_covariance,
            )
        except InvalidMessageError:
            return None
        return contribution


def message_reader(specification: RunSpecification) -> Callable[[bytes], AgentMessage]:
    """Reads the messages of one stream after its join.

    The function raises InvalidMessageError if a field is malformed or out of range, DecodeError if the bytes are no
    CollaborateRequest.
    """
    if "read" in ENABLED:
        return AgentMessageReader(specification).read
    return lambda request: decode_agent_message(pb.CollaborateRequest.FromString(request), specification)


@dataclass(slots=True)
class AgentMessageReader:
    """Decodes messages in full, and gradients by their layout once that is known."""

    specification: RunSpecification
    _layout: MessageLayout | None = field(default=None, init=False)
    _misses: int = field(default=0, init=False)

    def read(self, request: bytes) -> AgentMessage:
        """See `message_reader`."""
        if self._layout is not None:
            upload = self._layout.read(request)
            if upload is not None:
                return upload
        message = decode_agent_message(pb.CollaborateRequest.FromString(request), self.specification)
        if isinstance(message, GradientUpload):
            if self._misses < _MISSES_MEASURED or self._misses % _MISSES_BETWEEN == 0:
                self._layout = MessageLayout.of(request, message, self.specification) or self._layout
            self._misses += 1
        return message


# The layout -----------------------------------------------------------------------------------------------------


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    """A varint in its shortest form, and the offset after it."""
    value = shift = 0
    while True:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    if (byte == 0 and shift) or value >= 1 << 64:
        raise _OddLayoutError
    return value, offset


@lru_cache(maxsize=16)
def _round_of(head: bytes, length: int) -> int | None:
    """The round in a head that `length` bytes follow; None if it is no head. Cached: agents send the same heads."""
    try:
        offset = _end_of_head(head, length)
        begun = _varint(head, 1)[1]
        return None if offset != len(head) else _varint(head, begun + 1)[0] if begun < offset else 0
    except (_OddLayoutError, IndexError):
        return None


def _end_of_head(request: bytes, more: int = 0) -> int:
    """The offset after the round, which ends the head; the request continues with `more` bytes."""
    if request[0] != _GRADIENT:
        raise _OddLayoutError
    length, offset = _varint(request, 1)
    if length != len(request) + more - offset:
        raise _OddLayoutError
    if offset < len(request) and request[offset] == _ROUND:
        _, offset = _varint(request, offset + 1)
    return offset


def _spans(rest: bytes) -> dict[str, tuple[int, int]]:
    """Name → start and end of each variable field of a SubspaceGradient without its round."""
    spans: dict[str, tuple[int, int]] = {}
    for key, start, stop in _fields(rest, 0, len(rest)):
        if key in _MATRICES:
            _put(spans, _MATRICES[key], _data_of(rest, start, stop))
        elif key == _FACTORED:
            for factor, begin, end in _fields(rest, start, stop):
                _put(spans, _FACTORS[factor], _data_of(rest, begin, end))
        elif key == _TD_ERROR:
            _put(spans, "td_error", (start, stop))
        elif key not in (_AGENT_ID, _WEIGHT):
            raise _OddLayoutError
    return spans


def _data_of(rest: bytes, start: int, stop: int) -> tuple[int, int]:
    """Start and end of the numbers of a Matrix."""
    spans: dict[str, tuple[int, int]] = {}
    for key, begin, end in _fields(rest, start, stop):
        if key == _DATA:
            _put(spans, "data", (begin, end))
        elif key not in (_ROWS, _COLUMNS, _DATA_TYPE):
            raise _OddLayoutError
    return spans["data"]


def _put(spans: dict[str, tuple[int, int]], name: str, span: tuple[int, int]) -> None:
    if name in spans:  # protobuf would take the last one, or merge both
        raise _OddLayoutError
    spans[name] = span


def _fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The key of each field of a message, and start and end of its value."""
    while start < stop:
        key, start = _varint(data, start)
        kind = key & 7
        if kind == 2:
            length, start = _varint(data, start)
            end = start + length
        elif kind == 1:
            end = start + 8
        elif kind == 0:
            _, end = _varint(data, start)
        else:
            raise _OddLayoutError
        if end > stop:
            raise _OddLayoutError
        yield key, start, end
        start = end


def _arrays(upload: GradientUpload) -> dict[str, Float[np.ndarray, "..."]]:
    """Name → matrix, as decoded in full."""
    contribution = upload.plain
    gradient, moment, pooled = contribution.gradient, contribution.head_second_moment, contribution.pooled
    found = {"moment": moment, "pooled": pooled}
    if isinstance(gradient, DenseMatrix):
        found["dense"] = gradient.values
    else:
        found |= {"left": gradient.left, "right": gradient.right}
    return {name: values for name, values in found.items() if values is not None}


def _blank(span: tuple[int, int], values: Float[np.ndarray, "..."]) -> _Blank:
    if span[1] - span[0] == values.size * _SINGLE.itemsize < values.nbytes:
        return _Blank(span[0], values.size, _SINGLE, values.shape, widened=True)
    if span[1] - span[0] != values.nbytes:
        raise _OddLayoutError
    return _Blank(span[0], values.size, values.dtype, values.shape)


def _literals(rest: bytes, spans: list[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each section between the variable fields."""
    begun = 0
    for start, stop in [*spans, (len(rest), len(rest))]:
        if start > begun:
            yield begun, rest[begun:start]
        begun = stop
