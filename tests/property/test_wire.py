"""The codec over everything it can be given: what is sent comes back, and garbage is refused in one way only."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st
from property.wire_values import (
    SPEC,
    arrays,
    joins,
    round_reports,
    run_reports,
    said_by_agents,
    said_by_coordinators,
    specifications,
    stamps,
    uploads,
)
from values import same

from cospan.core.linalg.matrices import FactoredMatrix
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1 import matrix_pb2, run_pb2
from cospan.wire import messages as m
from cospan.wire.codec.matrices import decode_matrix, encode_matrix
from cospan.wire.codec.messages import (
    decode_agent_message,
    decode_coordinator_message,
    decode_stamp,
    encode_agent_message,
    encode_coordinator_message,
    encode_stamp,
)
from cospan.wire.codec.reports import decode_round_report, decode_run_report, encode_round_report, encode_run_report
from cospan.wire.codec.specification import decode_specification, encode_specification
from cospan.wire.errors import InvalidMessageError

# There and back -------------------------------------------------------------------------------------------------


def sent(message: Any) -> Any:
    """A protobuf message after a trip over the wire."""
    return type(message).FromString(message.SerializeToString())


@given(arrays())
def test_matrices_come_back(values: np.ndarray) -> None:
    assert same(decode_matrix(sent(encode_matrix(values)), "m"), values)


@given(stamps)
def test_stamps_come_back(stamp: m.Stamp) -> None:
    assert decode_stamp(sent(encode_stamp(stamp))) == stamp


@given(specifications())
def test_every_specification_without_problems_comes_back(spec: RunSpecification) -> None:
    assert spec.problems() == []
    back = decode_specification(sent(encode_specification(spec)))
    assert back == spec
    assert back.digest() == spec.digest()


@given(said_by_agents())
def test_what_agents_say_comes_back(said: tuple[RunSpecification, m.AgentMessage]) -> None:
    spec, message = said
    assert same(decode_agent_message(sent(encode_agent_message(message)), spec), message)


@given(said_by_coordinators)
def test_what_coordinators_say_comes_back(message: m.CoordinatorMessage) -> None:
    assert same(decode_coordinator_message(sent(encode_coordinator_message(message))), message)


@given(run_reports)
def test_run_reports_come_back(report: m.RunReport) -> None:
    assert same(decode_run_report(sent(encode_run_report(report))), report)


@given(round_reports)
def test_round_reports_come_back(report: m.RoundReport) -> None:
    assert same(decode_round_report(sent(encode_round_report(report, include_basis=True))), report)


# Garbage --------------------------------------------------------------------------------------------------------


DECODERS: dict[type[Message], Callable[[Any], Any]] = {
    pb.CollaborateRequest: lambda message: decode_agent_message(message, SPEC),
    pb.CollaborateResponse: decode_coordinator_message,
    pb.GetRunResponse: decode_run_report,
    pb.WatchRoundsResponse: decode_round_report,
    run_pb2.RunSpecification: decode_specification,
}
ENCODERS: dict[type[Message], Callable[[Any], Message]] = {
    pb.CollaborateRequest: encode_agent_message,
    pb.CollaborateResponse: encode_coordinator_message,
    pb.GetRunResponse: encode_run_report,
    pb.WatchRoundsResponse: lambda report: encode_round_report(report, include_basis=True),
    run_pb2.RunSpecification: encode_specification,
}


@st.composite
def odd_matrices(draw: st.DrawFn) -> matrix_pb2.Matrix:
    """Matrices that are right, nearly right, or not at all."""
    rows, columns = draw(st.sampled_from([(3, 2), (2, 2), (3, 1), (2, 1), (0, 2), (2**32 - 1, 2**32 - 1), (1, 3)]))
    data_type = draw(st.sampled_from([0, 1, 1, 1, 2, 3]))
    size = 4 if data_type == 2 else 8
    if rows < 10 and draw(st.booleans()):
        values = draw(st.lists(st.floats(width=32), min_size=rows * columns, max_size=rows * columns))
        data = np.array(values, dtype=f"<f{size}").tobytes()
    else:
        data = draw(st.binary(max_size=60))
    return matrix_pb2.Matrix(rows=rows, columns=columns, data_type=data_type, data=data)


_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_UINT32: st.sampled_from([0, 1, 2, 3, 2**32 - 1]) | st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.sampled_from([0, 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: st.sampled_from([0.0, 0.5, 1.0, -1.0, math.nan, math.inf]) | st.floats(),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(0, 3) | st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_STRING: st.sampled_from(["", "a", "b-2", "../up", "x" * 600]) | st.text(max_size=20),
}


def _value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return protobuf(field.message_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=60)
    return _SCALARS[field.cpp_type]


def _repeated(kind: Descriptor) -> set[str]:
    proto = DescriptorProto()
    kind.CopyToProto(proto)
    return {field.name for field in proto.field if field.label == FieldDescriptorProto.LABEL_REPEATED}


def protobuf(kind: Descriptor) -> st.SearchStrategy[Any]:
    """Any message of a type: every field left out or set to anything that its type allows."""
    if kind.full_name == matrix_pb2.Matrix.DESCRIPTOR.full_name:
        return odd_matrices()
    repeated = _repeated(kind)
    fields = {
        field.name: st.lists(_value(field), max_size=3) if field.name in repeated else _value(field)
        for field in kind.fields
    }
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: GetMessageClass(kind)(**chosen))


def decoded_or_refused(message: Message) -> Any:
    """The value, or None after the one error that may be raised, with a sentence short enough for a status."""
    try:
        return DECODERS[type(message)](message)
    except InvalidMessageError as error:
        refusal = error
    assert type(refusal) is InvalidMessageError
    assert 0 < len(str(refusal)) < 2000
    return None


def check_total(message: Message) -> None:
    """Decoding refuses, or gives a value that survives the way back."""
    value = decoded_or_refused(message)
    if value is None:
        return
    again = sent(ENCODERS[type(message)](value))
    twice = DECODERS[type(message)](again)
    assert sent(ENCODERS[type(message)](twice)).SerializeToString(deterministic=True) == again.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("kind", DECODERS, ids=lambda kind: kind.DESCRIPTOR.name)
@given(data=st.data())
def test_any_message_is_decoded_or_refused(kind: type[Message], data: st.DataObject) -> None:
    check_total(data.draw(protobuf(kind.DESCRIPTOR)))


@pytest.mark.parametrize("kind", DECODERS, ids=lambda kind: kind.DESCRIPTOR.name)
@given(data=st.data())
def test_any_bytes_are_decoded_or_refused(kind: type[Message], data: st.DataObject) -> None:
    """Bytes that protobuf itself cannot parse never reach the codec: gRPC refuses them."""
    try:
        message = kind.FromString(data.draw(st.binary(max_size=80)))
    except DecodeError:
        return
    check_total(message)


valid = {
    pb.CollaborateRequest: (uploads(SPEC) | joins).map(encode_agent_message),
    pb.CollaborateResponse: said_by_coordinators.map(encode_coordinator_message),
    pb.GetRunResponse: run_reports.map(encode_run_report),
    pb.WatchRoundsResponse: round_reports.map(lambda report: encode_round_report(report, include_basis=True)),
    run_pb2.RunSpecification: specifications().map(encode_specification),
}


@st.composite
def corrupted(draw: st.DrawFn, kind: type[Message]) -> Message:
    """A valid message of which some fields, at any depth, are cleared or set to anything that their type allows."""
    message = draw(valid[kind])
    for _ in range(draw(st.integers(1, 3))):
        node = message
        while inner := [value for _, value in node.ListFields() if isinstance(value, Message)]:
            if draw(st.booleans()):
                break
            node = draw(st.sampled_from(inner))
        if not node.DESCRIPTOR.fields:
            continue
        field = draw(st.sampled_from(list(node.DESCRIPTOR.fields)))
        node.ClearField(field.name)
        if draw(st.integers(0, 3)) > 0:
            value = draw(_value(field))
            several = field.name in _repeated(node.DESCRIPTOR)
            node.MergeFrom(type(node)(**{field.name: [value] * draw(st.integers(1, 2)) if several else value}))
    return message


@pytest.mark.parametrize("kind", DECODERS, ids=lambda kind: kind.DESCRIPTOR.name)
@given(data=st.data())
def test_a_message_with_other_fields_is_decoded_or_refused(kind: type[Message], data: st.DataObject) -> None:
    check_total(data.draw(corrupted(kind)))


@pytest.mark.parametrize("kind", DECODERS, ids=lambda kind: kind.DESCRIPTOR.name)
@given(data=st.data())
def test_a_message_with_flipped_bytes_is_decoded_or_refused(kind: type[Message], data: st.DataObject) -> None:
    wire = bytearray(data.draw(valid[kind]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        if wire:
            wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = kind.FromString(bytes(wire))
    except DecodeError:
        return
    check_total(message)


@given(corrupted(pb.CollaborateRequest))
def test_what_is_accepted_is_what_the_arithmetic_needs(message: pb.CollaborateRequest) -> None:
    """No gradient reaches the mean unless its shape is the run's and all its numbers are finite."""
    upload = decoded_or_refused(message)
    if not isinstance(upload, m.GradientUpload):
        return
    contribution = upload.contribution
    assert contribution.gradient.shape == (3, 2)
    assert 0.0 < contribution.weight < math.inf
    assert contribution.head_second_moment is not None
    assert contribution.head_second_moment.shape == (2, 2)
    gradient = contribution.gradient
    parts = (gradient.left, gradient.right) if isinstance(gradient, FactoredMatrix) else (gradient.values,)
    assert all(np.isfinite(part).all() for part in (*parts, contribution.head_second_moment))
