"""The codec over everything it can be given: what is sent comes back, and garbage is refused in one way only."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from values import same

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix
from cospan.core.method import Aggregation, HeadUpdate, Method
from cospan.core.run_fields import MAX_AGENTS, MAX_SECONDS, MIN_SESSION_TIMEOUT_SECONDS
from cospan.core.specification import MAX_NAME, RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1 import matrix_pb2, run_pb2
from cospan.wire import messages as m
from cospan.wire.codec import fast_path
from cospan.wire.codec.fast_path import PIECES, AgentMessageReader, MessageLayout, message_reader
from cospan.wire.codec.matrices import decode_matrix, encode_matrix, narrowest
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
from cospan.wire.limits import MAX_ROUND
from cospan.wire.text import printable

# Domain values --------------------------------------------------------------------------------------------------

counts64 = st.integers(0, 2**64 - 1)
counts63 = st.integers(0, MAX_ROUND)
any_float = st.floats(allow_nan=False)
positive = st.floats(0.0, 1e300, exclude_min=True)
seconds = st.floats(MIN_SESSION_TIMEOUT_SECONDS, MAX_SECONDS)
quantities = st.floats(0.0, allow_infinity=False)
printables = st.characters(exclude_categories=("C", "Zl", "Zp"))
tokens = st.text(printables, max_size=128)
names = st.text(printables, max_size=MAX_NAME)
agent_ids = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", fullmatch=True)
agent_sets = st.sets(agent_ids, max_size=5).map(lambda ids: tuple(sorted(ids)))
precisions = st.sampled_from([np.float64, np.float32])


@st.composite
def arrays(
    draw: st.DrawFn, rows: int | None = None, columns: int | None = None, most: float | None = None
) -> np.ndarray:
    """A finite matrix of either precision, with entries of at most this size."""
    dtype = draw(precisions)
    shape = (rows or draw(st.integers(1, 4)), columns or draw(st.integers(1, 4)))
    width = 64 if dtype is np.float64 else 32
    least = None if most is None else -most
    numbers = st.floats(least, most, allow_nan=False, allow_infinity=False, width=width)
    return draw(hnp.arrays(dtype, shape, elements=numbers))


@st.composite
def second_moments(draw: st.DrawFn, rank: int) -> np.ndarray:
    """Σ w wᵀ of some heads, in either precision."""
    heads = draw(arrays(rank, most=2.0**60))
    wide = heads.astype(np.float64)
    return (wide @ wide.T).astype(heads.dtype)


@st.composite
def specifications(draw: st.DrawFn) -> RunSpecification:
    """Any specification without problems."""
    feature_dim = draw(st.integers(1, 6))
    method = Method(
        steps_per_round=draw(st.integers(1, 2**32 - 1)),
        head_update=draw(st.sampled_from(HeadUpdate)),
        head_step=draw(positive),
        gain_step=draw(st.floats(0.0, 1.0, exclude_min=True)),
        head_radius=draw(positive | st.just(math.inf)),
        basis_step=draw(st.floats(0.0, 1e300)),
        implicit_head_step=draw(st.booleans()),
        preconditioned=draw(st.booleans()),
        preconditioner_floor=draw(positive),
        decay_horizon=draw(st.floats(0.0, 1e300)),
        decay_power=draw(st.floats(0.0, 1.0)),
        trace_decay=draw(st.floats(0.0, 0.999)),
        warm_up_rounds=draw(st.sampled_from([0, 2, 5])),
        aggregation=draw(st.sampled_from(Aggregation)),
        trimmed_share=draw(st.floats(0.0, 0.5, exclude_min=True, exclude_max=True)),
        clip_norm=draw(st.floats(0.0, 1e300)),
        largest_turn=draw(st.floats(0.01, 90.0)),
        first_turn=draw(st.one_of(st.just(0.0), st.floats(0.01, 90.0))),
    )
    return RunSpecification(
        workload=draw(names),
        feature_dim=feature_dim,
        rank=draw(st.integers(1, feature_dim)),
        agents=draw(st.integers(1, MAX_AGENTS)),
        rounds=draw(st.just(0) | st.integers(6, 2**63 - 1)),  # above the rounds of a warm-up
        seed=draw(st.integers(0, 2**63 - 1)),
        method=method,
        feature_fingerprint=draw(names),
        session_timeout_seconds=draw(seconds),
        round_timeout_seconds=draw(seconds),
    )


stamps = st.builds(m.Stamp, tokens, counts63, counts63, counts63)
joins = st.builds(
    m.Join,
    instance_id=st.text(printables, min_size=1, max_size=64),
    agent_ids=agent_sets.filter(bool),
    feature_dim=st.integers(0, 2**32 - 1),
    feature_fingerprint=names,
    workload=names,
    client_version=st.text(printables, max_size=64),
    resumption=st.none() | st.builds(m.Resumption, tokens, tokens, counts64),
)


@st.composite
def uploads(draw: st.DrawFn, spec: RunSpecification) -> m.GradientUpload:
    d, r = spec.feature_dim, spec.rank
    gradient: DenseMatrix | FactoredMatrix = DenseMatrix(draw(arrays(d, r, most=2.0**90)))
    if draw(st.booleans()):
        factors = draw(st.integers(1, r))
        gradient = FactoredMatrix(draw(arrays(d, factors, most=2.0**90)), draw(arrays(r, factors, most=2.0**90)))
    moments = second_moments(r) if spec.method.preconditioned else st.none() | second_moments(r)
    weight, number = draw(positive), draw(counts64 | st.integers(0, 5))
    if spec.method.brings_estimates_in(number):
        gradient, weight = DenseMatrix(draw(arrays(d, 2, most=2.0**90))), 1.0
    return m.GradientUpload(number, Contribution(gradient, weight, draw(moments)), draw(agent_sets))


@st.composite
def said_by_agents(draw: st.DrawFn) -> tuple[RunSpecification, m.AgentMessage]:
    spec = draw(specifications())
    leaves = st.builds(m.Leave, st.text(max_size=512).map(printable))
    return spec, draw(uploads(spec) | joins | leaves | st.just(m.Heartbeat()))


@st.composite
def welcomes(draw: st.DrawFn) -> m.Welcome:
    spec = draw(specifications())
    basis = draw(arrays(spec.feature_dim, spec.rank, most=1.0))
    site = draw(st.none() | st.integers(0, 2**32 - 1))
    return m.Welcome(
        draw(stamps), draw(tokens), spec, basis, draw(counts64), draw(st.booleans()), draw(agent_sets), site
    )


bases = arrays(most=1.0)
said_by_coordinators = (
    welcomes()
    | st.builds(m.BasisUpdate, stamps, bases)
    | st.builds(m.Receipt, stamps, counts64, st.sampled_from(m.Disposition))
    | st.builds(m.Finish, stamps, st.sampled_from(m.FinishCause), st.text().map(printable), bases)
    | st.builds(m.Drain, stamps, st.floats(0.0, 1e300))
)
durations = st.floats(0.0, MAX_SECONDS)
agent_reports = st.builds(
    m.AgentReport,
    agent_ids,
    st.sampled_from(m.AgentPhase),
    durations,
    st.booleans(),
    counts63,
    counts63,
    st.none() | counts63,
    st.text(max_size=50).map(printable),
)
run_reports = st.builds(
    m.RunReport,
    stamps,
    specifications(),
    st.sampled_from(m.RunPhase),
    durations,
    st.lists(agent_reports, max_size=3).map(tuple),
    st.none() | st.sampled_from(m.FinishCause),
    quantities,
)
round_reports = st.builds(
    m.RoundReport,
    stamps,
    counts63,
    quantities,
    st.integers(0, 2**32 - 1),
    agent_sets,
    quantities,
    quantities,
    st.none() | bases,
    st.booleans(),
)


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

SPEC = RunSpecification(
    workload="w",
    feature_dim=3,
    rank=2,
    agents=2,
    rounds=5,
    seed=1,
    method=Method(4, HeadUpdate.EVERY_STEP, 0.1, 0.1, 10.0, 0.5, preconditioned=True),
)
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


switched = pytest.mark.parametrize("pieces", [PIECES, frozenset()], ids=["fast path", "plain codec"])

# By the layout of the one before -------------------------------------------------------------------------------


@st.composite
def successive(draw: st.DrawFn) -> tuple[RunSpecification, list[m.GradientUpload]]:
    """Gradients of one stream: the first, and others that differ from it in round, numbers and TD error."""
    spec = draw(specifications())
    first = draw(uploads(spec))
    contribution = first.contribution
    if draw(st.booleans()):
        sums = np.abs(draw(arrays(spec.feature_dim, 1, most=2.0**90))[:, 0])
        contribution = replace(contribution, pooled=sums.astype(np.float64))
    td_errors = st.floats(0.0, 1e300) if draw(st.booleans()) else st.none()
    others = [
        m.GradientUpload(draw(counts64), shrunk(contribution, share), first.agent_ids, draw(td_errors))
        for share in (1.0, 0.5, 0.25)
    ]
    return spec, [replace(others[0], round=first.round), *others[1:]]


def shrunk(contribution: Contribution, share: float) -> Contribution:
    """The same with smaller numbers."""

    def times(values: np.ndarray) -> np.ndarray:
        return (values * share).astype(values.dtype)

    match contribution.gradient:
        case DenseMatrix(values=values):
            gradient: DenseMatrix | FactoredMatrix = DenseMatrix(times(values))
        case FactoredMatrix(left=left, right=right):
            gradient = FactoredMatrix(times(left), right)
    moment, sums = contribution.head_second_moment, contribution.pooled
    return Contribution(
        gradient,
        contribution.weight,
        None if moment is None else times(moment),
        None if sums is None else times(sums),
    )


def in_full(request: bytes, spec: RunSpecification) -> m.AgentMessage | None:
    try:
        return decode_agent_message(pb.CollaborateRequest.FromString(request), spec)
    except (DecodeError, InvalidMessageError):
        return None


@given(successive())
def test_a_gradient_is_read_by_the_layout_of_the_one_before(
    said: tuple[RunSpecification, list[m.GradientUpload]],
) -> None:
    spec, gradients = said
    requests = [encode_agent_message(upload).SerializeToString() for upload in gradients]
    first = in_full(requests[0], spec)
    assert isinstance(first, m.GradientUpload)
    layout = MessageLayout.of(requests[0], first, spec)
    estimates = [spec.method.brings_estimates_in(upload.round) for upload in gradients]
    assert (layout is None) == estimates[0]
    if layout is not None:
        for request, upload, brings_estimates in zip(requests, gradients, estimates, strict=True):
            read = layout.read(request)
            other = brings_estimates or width_of_pooled(upload) != width_of_pooled(gradients[0])
            assert read is None if other else same(read, upload)


def width_of_pooled(upload: m.GradientUpload) -> int | None:
    """Bytes of a pooled number on the wire: 4 where float32 holds all of them."""
    pooled = upload.contribution.pooled
    return None if pooled is None else narrowest(pooled).itemsize


@switched
@given(successive(), st.data())
def test_a_stream_is_read_as_each_message_alone(
    pieces: frozenset[str], said: tuple[RunSpecification, list[m.GradientUpload]], data: st.DataObject
) -> None:
    """With the fast path and without: gradients, damaged ones, and other messages between them."""
    spec, gradients = said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_path, "ENABLED", pieces)
        read = message_reader(spec)
    requests = [encode_agent_message(upload).SerializeToString() for upload in gradients]
    for request in data.draw(st.permutations([*requests, *requests])):
        place = data.draw(st.integers(0, len(request)))
        damaged = request[:place] + data.draw(st.binary(max_size=1)) + request[place + 1 :]
        for sent_request in (request, damaged):
            expected = in_full(sent_request, spec)
            if expected is not None:
                assert same(read(sent_request), expected)
                continue
            with pytest.raises((DecodeError, InvalidMessageError)):
                read(sent_request)


@given(successive(), st.data())
def test_what_is_laid_out_otherwise_is_not_read_by_a_layout(
    said: tuple[RunSpecification, list[m.GradientUpload]], data: st.DataObject
) -> None:
    """Bytes that are changed, missing or too many give nothing, or what they are in full."""
    spec, gradients = said
    first, second = (encode_agent_message(upload).SerializeToString() for upload in gradients[:2])
    upload = in_full(first, spec)
    assert isinstance(upload, m.GradientUpload)
    layout = MessageLayout.of(first, upload, spec)
    if layout is None:
        return
    for _ in range(5):
        place = data.draw(st.integers(0, 6) | st.integers(0, len(second)))  # the lengths are at the front
        gone = data.draw(st.binary(max_size=3))
        put = data.draw(st.binary(max_size=3)) if data.draw(st.booleans()) else gone  # of one length, mostly
        odd = second[:place] + put + second[place + len(gone) :]
        read = layout.read(odd)
        assert read is None or same(read, in_full(odd, spec))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e61])
@pytest.mark.parametrize("part", ["gradient", "pooled", "td_error"])
@switched
def test_numbers_out_of_range_are_refused(
    pieces: frozenset[str], part: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_path, "ENABLED", pieces)
    values = {"gradient": np.ones((SPEC.feature_dim, SPEC.rank)), "pooled": np.ones(SPEC.feature_dim)}
    read = message_reader(SPEC)
    contribution = Contribution(DenseMatrix(values["gradient"]), 1.0, np.eye(SPEC.rank), values["pooled"])
    good = m.GradientUpload(3, contribution, (), 0.5)
    for _ in range(2):
        assert same(read(encode_agent_message(good).SerializeToString()), good)
    odd = replace(good, td_error=-value if value == 1e61 else value)
    if part != "td_error":
        odd = good
        values[part].flat[-1] = value
    with pytest.raises(InvalidMessageError):
        read(encode_agent_message(odd).SerializeToString())
    values["pooled"][:], values["gradient"][:] = 2.0, 3.0
    assert same(read(encode_agent_message(good).SerializeToString()), good)


def test_a_stream_without_a_layout_is_not_measured_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    of = MessageLayout.of
    monkeypatch.setattr(MessageLayout, "of", lambda *arguments: measured.append(1) or of(*arguments))
    reader = AgentMessageReader(SPEC)
    for number in range(40):
        gradient = np.ones((SPEC.feature_dim, SPEC.rank), np.float32 if number % 2 else np.float64)
        upload = m.GradientUpload(number, Contribution(DenseMatrix(gradient), 1.0, np.eye(SPEC.rank)))
        assert same(reader.read(encode_agent_message(upload).SerializeToString()), upload)
    assert len(measured) == 8


def test_a_layout_that_settles_late_is_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay's sums weigh something else with every agent that joins, and the same once all are there."""
    in_full = []
    monkeypatch.setattr(
        "cospan.wire.codec.fast_path.decode_agent_message",
        lambda *said: in_full.append(1) or decode_agent_message(*said),
    )
    reader = AgentMessageReader(SPEC)
    gradient = np.ones((SPEC.feature_dim, SPEC.rank))
    for number in range(300):
        weight = float(min(number + 1, 20))
        upload = m.GradientUpload(number + 10, Contribution(DenseMatrix(gradient), weight, np.eye(SPEC.rank)))
        assert same(reader.read(encode_agent_message(upload).SerializeToString()), upload)
    assert len(in_full) <= 20 + 32
