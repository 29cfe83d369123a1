"""Gradients that are read by the layout of the one before: what comes of it is what the plain codec reads."""

import math
from dataclasses import replace

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from property.wire_values import SPEC, arrays, counts64, specifications, uploads
from values import same

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire import messages as m
from cospan.wire.codec import fast_path
from cospan.wire.codec.fast_path import PIECES, AgentMessageReader, MessageLayout, message_reader
from cospan.wire.codec.matrices import narrowest
from cospan.wire.codec.messages import (
    decode_agent_message,
    encode_agent_message,
)
from cospan.wire.errors import InvalidMessageError

switched = pytest.mark.parametrize("pieces", [PIECES, frozenset()], ids=["fast path", "plain codec"])


@st.composite
def successive(draw: st.DrawFn) -> tuple[RunSpecification, list[m.GradientUpload]]:
    """Gradients of one stream: the first, and others that differ from it in round, numbers and TD error."""
    spec = draw(specifications())
    first = draw(uploads(spec))
    contribution = first.contribution
    if spec.method.has_head_covariance or draw(st.booleans()):
        length = spec.method.pooled_length(spec.feature_dim) or spec.feature_dim
        sums = np.abs(draw(arrays(length, 1, most=2.0**90))[:, 0])
        pooled = sums.astype(np.float64)
        if spec.method.has_head_covariance:
            pooled[-1] = contribution.weight
        contribution = replace(contribution, pooled=pooled)
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
