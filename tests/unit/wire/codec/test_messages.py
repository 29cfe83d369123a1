"""What the codec gives back, and what it refuses, field by field."""

import dataclasses
import math
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc._cython import cygrpc
from values import same

from cospan.core.aggregation.basis_update import Contribution, next_basis
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import Aggregation, HeadUpdate, Method
from cospan.core.run_fields import Participation
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1 import matrix_pb2, run_pb2
from cospan.wire import limits
from cospan.wire import messages as m
from cospan.wire.codec import messages as codec
from cospan.wire.codec.checks import numbers_of
from cospan.wire.codec.fast_path import MessageLayout
from cospan.wire.codec.matrices import decode_matrix, encode_matrix
from cospan.wire.codec.messages import (
    decode_agent_message,
    decode_coordinator_message,
    encode_agent_message,
    encode_coordinator_message,
)
from cospan.wire.codec.reports import decode_round_report, decode_run_report, encode_round_report, encode_run_report
from cospan.wire.codec.specification import decode_specification, encode_specification
from cospan.wire.errors import InvalidMessageError
from cospan.wire.text import MAX_TEXT

D, R = 3, 2
METHOD = Method(
    steps_per_round=5,
    head_update=HeadUpdate.EVERY_STEP,
    head_step=0.1,
    gain_step=0.2,
    head_radius=math.inf,
    basis_step=0.5,
    implicit_head_step=True,
    preconditioned=True,
    preconditioner_floor=0.06,
    decay_horizon=100.0,
    decay_power=0.7,
    trace_decay=0.75,
    forgetting=3.5,
    row_scaled=True,
    reward_scaled=True,
    explained_power=1.5,
    warm_up_rounds=4,
    aggregation=Aggregation.TRIMMED,
    trimmed_share=0.125,
    clip_norm=2.5,
    largest_turn=12.5,
    first_turn=45.0,
)
SPEC = RunSpecification(
    workload="synthetic",
    feature_dim=D,
    rank=R,
    agents=3,
    rounds=10,
    seed=2**63 - 1,
    method=METHOD,
    feature_fingerprint="tabular-0123",
    session_timeout_seconds=4.5,
    round_timeout_seconds=61.0,
    participation=Participation.QUORUM,
    quorum=0.75,
    deadline_seconds=1.5,
    max_staleness=2,
    min_agents=2,
)
PLAIN = dataclasses.replace(SPEC, method=dataclasses.replace(METHOD, preconditioned=False))
BASIS = np.linspace(-1.0, 1.0, D * R).reshape(D, R)
MOMENT = np.array([[2.0, -1.0], [-1.0, 3.0]])
STAMP = m.Stamp(run_id="run-1", incarnation=2, round=2**63 - 1, durable_round=7)
JOIN = m.Join(
    instance_id="instance",
    agent_ids=("a", "b-2", "c.3"),
    feature_dim=D,
    feature_fingerprint="tabular-0123",
    workload="synthetic",
    client_version="0.1.0",
    resumption=m.Resumption(session_token="token", run_id="run-1", last_round=9),
)
FACTORED = FactoredMatrix(left=np.ones((D, 1)), right=np.full((R, 1), -0.0))


def upload(gradient: Any, moment: Any = MOMENT, **changes: Any) -> m.GradientUpload:
    contribution = Contribution(gradient=gradient, weight=3.0, head_second_moment=moment)
    return m.GradientUpload(**({"round": 4, "contribution": contribution, "agent_ids": ("a", "b-2")} | changes))


ROW_SCALED = dataclasses.replace(SPEC, method=dataclasses.replace(METHOD, head_update=HeadUpdate.FULL_HISTORY))
WITH_ROW_SUMS = m.GradientUpload(4, Contribution(FACTORED, 3.0, MOMENT, pooled=np.array([0.0, 1.5, 2.0])))


AGENT_MESSAGES: dict[str, m.AgentMessage] = {
    "join": JOIN,
    "join again": dataclasses.replace(JOIN, resumption=None, workload="", client_version=""),
    "join without a site": dataclasses.replace(JOIN, agent_ids=(), site_claim_id="container-1", resumption=None),
    "dense": upload(DenseMatrix(BASIS)),
    "dense, single precision": upload(DenseMatrix(BASIS.astype(np.float32)), MOMENT.astype(np.float32)),
    "factored": upload(FACTORED, agent_ids=()),
    "factored, r factors": upload(FactoredMatrix(left=BASIS, right=MOMENT)),
    "with row sums": WITH_ROW_SUMS,
    "with a TD error": upload(FACTORED, td_error=0.0),
    "with bounded heads": upload(FACTORED, agent_ids=(), bounded=("site-1", "site-2")),
    "heartbeat": m.Heartbeat(),
    "leave": m.Leave(cause="maintenance"),
    "leave without a cause": m.Leave(),
    "leave for a while": m.Leave("an upgrade", returning=True),
}
COORDINATOR_MESSAGES: dict[str, m.CoordinatorMessage] = {
    "welcome": m.Welcome(STAMP, "token", SPEC, BASIS, first_round=5, started=True),
    "welcome to a site": m.Welcome(
        STAMP, "token", SPEC, BASIS, 5, started=False, agent_ids=("site-0",), site_index=0
    ),
    "basis": m.BasisUpdate(STAMP, BASIS),
    "basis with a head covariance": m.BasisUpdate(STAMP, BASIS, np.diag([1.0, 0.0])),
    "end with a head covariance": m.Finish(STAMP, m.FinishCause.STOPPED, "", BASIS, np.zeros((R, R))),
    "duplicate": m.Receipt(STAMP, 6, m.Disposition.DUPLICATE),
    "late": m.Receipt(STAMP, 6, m.Disposition.LATE),
    **{cause.value: m.Finish(STAMP, cause, "it is over", BASIS) for cause in m.FinishCause},
    "drain": m.Drain(STAMP, 0.0),
}
AGENTS = (
    m.AgentReport("a", m.AgentPhase.CONNECTED, 0.5, awaited=True, rounds_counted=3, reconnects=1),
    m.AgentReport(
        "b", m.AgentPhase.LOST, 1.5, awaited=False, rounds_counted=2, reconnects=0, td_error=0.25, head_bounded=True
    ),
    m.AgentReport(
        "c", m.AgentPhase.GONE, 9.0, False, 0, 4, gone_in_round=0, gone_cause="silent for 5 s", outlier_rounds=7
    ),
)
RUN_REPORTS = {
    phase.value: m.RunReport(
        STAMP, SPEC, phase, 2.5, AGENTS, m.FinishCause.STOPPED if phase is m.RunPhase.FINISHED else None, 12.5
    )
    for phase in m.RunPhase
}
ROUND_REPORT = m.RoundReport(
    STAMP, 3, 0.25, 2, ("c", "d"), 0.125, 1e-16, BASIS, finished=True, outlier_agent_ids=("e",)
)


def sent(message: Any) -> Any:
    """A protobuf message after a trip over the wire."""
    return type(message).FromString(message.SerializeToString())


# There and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENT_MESSAGES)
def test_agent_messages_come_back(name: str) -> None:
    message = AGENT_MESSAGES[name]
    assert same(decode_agent_message(sent(encode_agent_message(message)), SPEC), message)


@pytest.mark.parametrize("name", COORDINATOR_MESSAGES)
def test_coordinator_messages_come_back(name: str) -> None:
    message = COORDINATOR_MESSAGES[name]
    assert same(decode_coordinator_message(sent(encode_coordinator_message(message))), message)


@pytest.mark.parametrize("name", RUN_REPORTS)
def test_run_reports_come_back(name: str) -> None:
    assert same(decode_run_report(sent(encode_run_report(RUN_REPORTS[name]))), RUN_REPORTS[name])


def test_round_reports_come_back() -> None:
    whole = sent(encode_round_report(ROUND_REPORT, include_basis=True))
    assert same(decode_round_report(whole), ROUND_REPORT)
    without = dataclasses.replace(ROUND_REPORT, basis=None)
    assert same(decode_round_report(sent(encode_round_report(ROUND_REPORT, include_basis=False))), without)
    assert same(decode_round_report(sent(encode_round_report(without, include_basis=True))), without)


def test_specifications_come_back() -> None:
    back = decode_specification(sent(encode_specification(SPEC)))
    assert back == SPEC
    assert back.digest() == SPEC.digest()
    assert back.method.head_radius == math.inf


def test_every_field_of_a_specification_travels() -> None:
    """A field that were left out would come back as its default: none has that value here."""
    for kind, value in ((RunSpecification, SPEC), (Method, METHOD)):
        for field in dataclasses.fields(kind):
            assert getattr(value, field.name) != field.default, field.name


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_matrices_keep_their_bits(dtype: type) -> None:
    values = np.array([[0.1, -0.0, 5e-324], [1e38, -1e-45, 3.0]]).astype(dtype)
    for array in (values, np.asfortranarray(values), values[::-1, ::-1], values[:1]):
        back = decode_matrix(sent(encode_matrix(array)), "m")
        assert same(back, np.ascontiguousarray(array))
        assert not back.flags.writeable


@pytest.mark.parametrize("shape", [(20, 3), (1024, 16), (4099, 12)])
@pytest.mark.parametrize("factored", [False, True])
def test_a_round_comes_to_the_same_bits_from_what_was_sent(shape: tuple[int, int], factored: bool) -> None:
    """Small or tall, whatever the layout: the coordinator's views of bytes give what the agents' arrays do."""
    d, r = shape
    rng = np.random.default_rng(1)
    method = dataclasses.replace(METHOD, preconditioned=False, warm_up_rounds=0)
    spec = dataclasses.replace(SPEC, feature_dim=d, rank=r, method=method)
    ours = [
        Contribution(
            FactoredMatrix(rng.standard_normal((1, d)).T, rng.standard_normal((r, 3))[:, 1:2])
            if factored
            else DenseMatrix(rng.standard_normal((r, d)).T)
        )
        for _ in range(5)
    ]
    uploads = [encode_agent_message(m.GradientUpload(7, each)).SerializeToString() for each in ours]
    theirs = [decode_agent_message(pb.CollaborateRequest.FromString(each), spec) for each in uploads]
    basis = random_basis(d, r, rng)
    expected = next_basis(basis, ours, method, 7)
    found = next_basis(basis, [each.contribution for each in theirs], method, 7)  # type: ignore[union-attr]
    assert same(found, expected)


def test_bytes_are_little_endian_in_rows() -> None:
    message = encode_matrix(np.array([[1.0, 2.0]]).astype(">f8"))
    assert message.data == bytes.fromhex("000000000000f03f 0000000000000040")
    assert (message.rows, message.columns) == (1, 2)
    assert message.data_type == matrix_pb2.DATA_TYPE_FLOAT64


def test_a_set_of_agents_has_one_spelling() -> None:
    join = decode_agent_message(
        sent(encode_agent_message(dataclasses.replace(JOIN, agent_ids=("c", "a", "b")))), SPEC
    )
    assert isinstance(join, m.Join)
    assert join.agent_ids == ("a", "b", "c")


def test_a_cause_too_long_is_cut_when_it_is_sent() -> None:
    """A leaving agent is not refused for saying too much."""
    left = decode_agent_message(sent(encode_agent_message(m.Leave("x" * 10_000))), SPEC)
    assert left == m.Leave("x" * MAX_TEXT)


def test_a_farewell_forges_no_line_of_a_log_and_moves_no_cursor() -> None:
    cause = "gone\nround 9: run-finished \x1b[2J für immer"
    left = decode_agent_message(sent(encode_agent_message(m.Leave(cause))), SPEC)
    assert left == m.Leave("gone round 9: run-finished \ufffd[2J für immer")


def test_a_second_moment_is_optional_where_the_run_does_not_precondition() -> None:
    message = upload(DenseMatrix(BASIS), moment=None)
    assert same(decode_agent_message(sent(encode_agent_message(message)), PLAIN), message)


def test_every_enum_value_has_its_number() -> None:
    """Both ways, each once, and none the unspecified zero."""
    for table in (
        numbers_of(HeadUpdate, run_pb2.HeadUpdate.DESCRIPTOR),
        numbers_of(Aggregation, run_pb2.AggregationPolicy.DESCRIPTOR),
        numbers_of(Participation, run_pb2.ParticipationPolicy.DESCRIPTOR),
        codec._DISPOSITION,
        codec.FINISH_CAUSE,
        codec.RUN_PHASE,
        codec.AGENT_PHASE,
    ):
        (kind,) = {type(value) for value in table}
        assert set(table) == set(kind)
        assert len(set(table.values())) == len(table)
        assert 0 not in table.values()


# What agents may not say ----------------------------------------------------------------------------------------

Change = Callable[[Any], object]


def matrix(values: Any, **changes: Any) -> matrix_pb2.Matrix:
    message = encode_matrix(np.array(values, dtype=np.float64))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def set_to(path: str, value: Any) -> Change:
    """Sets the field at a dotted path."""

    def change(message: Any) -> None:
        *parents, last = path.split(".")
        for name in parents:
            message = getattr(message, name)
        field = getattr(message, last)
        if isinstance(value, list):
            del field[:]
            field.extend(value)
        elif hasattr(value, "DESCRIPTOR"):
            field.CopyFrom(value)
        else:
            setattr(message, last, value)

    return change


def refused(error: pytest.ExceptionInfo[InvalidMessageError]) -> str:
    """The sentence, which must be one that a status has room for."""
    text = str(error.value)
    assert type(error.value) is InvalidMessageError
    assert 0 < len(text) < 1000
    assert "\n" not in text
    return text


NAN = [[math.nan, 1.0], [1.0, 1.0], [1.0, 1.0]]
INF = [[1.0, 1.0], [1.0, -math.inf], [1.0, 1.0]]
GRADIENT_CHANGES: dict[str, tuple[str, Change]] = {
    "no element type": ("gradient.dense.data_type", set_to("dense.data_type", 0)),
    "unknown element type": ("gradient.dense.data_type", set_to("dense.data_type", 9)),
    "the other element type": ("gradient.dense.data has", set_to("dense.data_type", 2)),
    "a byte too few": ("gradient.dense.data has 47 bytes", set_to("dense.data", bytes(47))),
    "a byte too many": ("gradient.dense.data has 49 bytes", set_to("dense.data", bytes(49))),
    "no bytes": ("gradient.dense.data has 0 bytes", set_to("dense.data", b"")),
    "no rows": ("gradient.dense is 0 × 2", set_to("dense.rows", 0)),
    "no columns": ("gradient.dense is 3 × 0", set_to("dense.columns", 0)),
    "a huge number of rows": ("gradient.dense is 4294967295 × 2", set_to("dense.rows", 2**32 - 1)),
    "transposed": ("gradient.dense is 2 × 3", set_to("dense", matrix(BASIS.T))),
    "of another run": ("gradient.dense is 4 × 2", set_to("dense", matrix(np.ones((4, 2))))),
    "not a number": ("gradient.dense has an entry that is not finite", set_to("dense", matrix(NAN))),
    "infinite": ("gradient.dense has an entry that is not finite", set_to("dense", matrix(INF))),
    "huge": ("gradient.dense has an entry of up to 9e+60", set_to("dense", matrix(np.full((D, R), -9e60)))),
    "huge where squared": ("gradient.dense has an entry", set_to("dense", matrix(np.full((D, R), 1e300)))),
    "a product that is huge": (
        "the product of gradient.factored has an entry of up to 1e+80",
        set_to("factored", pb.FactoredMatrix(left=matrix([[1e40]] * D), right=matrix([[-1e40]] * R))),
    ),
    "a product that overflows": (
        "the product of gradient.factored has an entry of up to inf",
        set_to("factored", pb.FactoredMatrix(left=matrix([[1e200]] * D), right=matrix([[1e200]] * R))),
    ),
    "no payload": ("gradient.payload is missing", lambda g: g.ClearField("dense")),
    "no factors": ("gradient.factored has 0 factors", set_to("factored", pb.FactoredMatrix())),
    "too many factors": (
        "gradient.factored has 3 factors",
        set_to("factored", pb.FactoredMatrix(left=matrix(np.ones((D, 3))), right=matrix(np.ones((R, 3))))),
    ),
    "u of another run": (
        "gradient.factored.left is 4 × 1",
        set_to("factored", pb.FactoredMatrix(left=matrix(np.ones((4, 1))), right=matrix(np.ones((R, 1))))),
    ),
    "v of another run": (
        "gradient.factored.right is 3 × 1",
        set_to("factored", pb.FactoredMatrix(left=matrix(np.ones((D, 1))), right=matrix(np.ones((3, 1))))),
    ),
    "u and v do not fit": (
        "gradient.factored.right is 2 × 2",
        set_to("factored", pb.FactoredMatrix(left=matrix(np.ones((D, 1))), right=matrix(np.ones((R, 2))))),
    ),
    "u without v": (
        "gradient.factored.right is 0 × 0",
        set_to("factored", pb.FactoredMatrix(left=matrix(np.ones((D, 1))))),
    ),
    "u not a number": (
        "gradient.factored.left has an entry",
        set_to("factored", pb.FactoredMatrix(left=matrix([[math.nan]] * D), right=matrix(np.ones((R, 1))))),
    ),
    "v infinite": (
        "gradient.factored.right has an entry",
        set_to("factored", pb.FactoredMatrix(left=matrix(np.ones((D, 1))), right=matrix([[math.inf]] * R))),
    ),
    "no weight": ("gradient.weight is 0.0", set_to("weight", 0.0)),
    "negative weight": ("gradient.weight is -1.0", set_to("weight", -1.0)),
    "infinite weight": ("gradient.weight is inf", set_to("weight", math.inf)),
    "weight not a number": ("gradient.weight is nan", set_to("weight", math.nan)),
    "no second moment": ("gradient.head_second_moment is missing", lambda g: g.ClearField("head_second_moment")),
    "second moment of another shape": (
        "gradient.head_second_moment is 3 × 2",
        set_to("head_second_moment", matrix(BASIS)),
    ),
    "second moment not a number": (
        "gradient.head_second_moment has an entry",
        set_to("head_second_moment", matrix([[math.nan, 0.0], [0.0, 1.0]])),
    ),
    "huge second moment": (
        "gradient.head_second_moment has an entry of up to 1e+61",
        set_to("head_second_moment", matrix([[1e61, 0.0], [0.0, 1.0]])),
    ),
    "second moment that is not symmetric": (
        "gradient.head_second_moment is not symmetric",
        set_to("head_second_moment", matrix([[1.0, 0.5], [0.4, 1.0]])),
    ),
    "negative second moment": (
        "gradient.head_second_moment is not symmetric and positive",
        set_to("head_second_moment", matrix([[-1.0, 0.0], [0.0, -1.0]])),
    ),
    "indefinite second moment": (
        "gradient.head_second_moment is not symmetric and positive",
        set_to("head_second_moment", matrix([[1.0, 2.0], [2.0, 1.0]])),
    ),
    "second moment without a trace": (
        "gradient.head_second_moment is not symmetric and positive",
        set_to("head_second_moment", matrix([[0.0, 1.0], [1.0, 0.0]])),
    ),
    "empty second moment": (
        "gradient.head_second_moment is 0 × 0",
        set_to("head_second_moment", matrix_pb2.Matrix()),
    ),
    "negative TD error": ("gradient.td_error is -0.5; it must be 0 or more", set_to("td_error", -0.5)),
    "bounded heads of a bad name": ("gradient.bounded_agent_ids", lambda g: g.bounded_agent_ids.append("a b")),
    "infinite TD error": ("gradient.td_error is inf", set_to("td_error", math.inf)),
    "TD error that is no number": ("gradient.td_error is nan", set_to("td_error", math.nan)),
    "an agent twice": ("gradient.agent_ids names an agent twice", set_to("agent_ids", ["a", "b", "a"])),
    "a bad agent name": ("gradient.agent_ids: agent id '../up'", set_to("agent_ids", ["a", "../up"])),
    "an empty agent name": ("gradient.agent_ids: agent id ''", set_to("agent_ids", [""])),
    "a long agent name": ("gradient.agent_ids: agent id 'xxx", set_to("agent_ids", ["x" * 1_000_000])),
}


@pytest.mark.parametrize("name", GRADIENT_CHANGES)
def test_a_malformed_gradient_is_refused(name: str) -> None:
    expected, change = GRADIENT_CHANGES[name]
    request = encode_agent_message(AGENT_MESSAGES["dense"])
    change(request.gradient)
    with pytest.raises(InvalidMessageError) as error:
        decode_agent_message(sent(request), SPEC)
    assert expected in refused(error)


ROW_SUMS_CHANGES: dict[str, tuple[str, Change]] = {
    "none": (
        "gradient.pooled is missing in round 4; this run scales",
        lambda g: g.ClearField("pooled"),
    ),
    "of another shape": ("gradient.pooled is 2 × 2; this run needs 3 × 1", set_to("pooled", matrix(MOMENT))),
    "negative": ("gradient.pooled has a negative", set_to("pooled", matrix([[1.0], [-1e-9], [1.0]]))),
    "not a number": ("gradient.pooled has an entry", set_to("pooled", matrix([[1.0], [math.nan], [1.0]]))),
}


@pytest.mark.parametrize("name", ROW_SUMS_CHANGES)
def test_malformed_row_sums_are_refused(name: str) -> None:
    expected, change = ROW_SUMS_CHANGES[name]
    request = encode_agent_message(WITH_ROW_SUMS)
    decode_agent_message(sent(request), ROW_SCALED)
    change(request.gradient)
    with pytest.raises(InvalidMessageError) as error:
        decode_agent_message(sent(request), ROW_SCALED)
    assert expected in refused(error)


JOIN_CHANGES: dict[str, tuple[str, Change]] = {
    "no instance": ("join.instance_id is empty", set_to("instance_id", "")),
    "long instance": ("join.instance_id has 65 characters", set_to("instance_id", "x" * 65)),
    "no agents": ("join names neither agents nor a site claim", set_to("agent_ids", [])),
    "agents and a claim": ("join names neither agents nor a site claim", set_to("site_claim_id", "x")),
    "an agent twice": ("join.agent_ids names an agent twice", set_to("agent_ids", ["a", "a"])),
    "a path": ("join.agent_ids: agent id 'a/b'", set_to("agent_ids", ["a/b"])),
    "too many agents": (
        f"join.agent_ids has {limits.MAX_GROUP + 1} names",
        set_to("agent_ids", [f"a{index}" for index in range(limits.MAX_GROUP + 1)]),
    ),
    "long fingerprint": ("join.feature_fingerprint has 257", set_to("feature_fingerprint", "x" * 257)),
    "long workload": ("join.workload has 257", set_to("workload", "x" * 257)),
    "long version": ("join.client_version has 65", set_to("client_version", "x" * 65)),
    "long token": ("join.resumption.session_token has 129", set_to("resumption.session_token", "x" * 129)),
    "long run": ("join.resumption.run_id has 129", set_to("resumption.run_id", "x" * 129)),
}


@pytest.mark.parametrize("name", JOIN_CHANGES)
def test_a_malformed_join_is_refused(name: str) -> None:
    expected, change = JOIN_CHANGES[name]
    request = encode_agent_message(JOIN)
    change(request.join)
    with pytest.raises(InvalidMessageError) as error:
        decode_agent_message(sent(request), SPEC)
    assert expected in refused(error)


def test_a_long_cause_is_refused() -> None:
    with pytest.raises(InvalidMessageError, match=r"leave\.cause has 513 characters"):
        decode_agent_message(pb.CollaborateRequest(leave=pb.Leave(cause="x" * 513)), SPEC)


def test_a_request_without_an_event_is_refused() -> None:
    with pytest.raises(InvalidMessageError, match="no event"):
        decode_agent_message(pb.CollaborateRequest(), SPEC)


def test_a_huge_shape_costs_nothing() -> None:
    """2^32 × 2^32 entries are refused by their number, before anything is allocated."""
    with pytest.raises(InvalidMessageError, match=r"m\.data has 8 bytes"):
        decode_matrix(matrix([[1.0]], rows=2**32 - 1, columns=2**32 - 1), "m")


# The estimates of a warm-up -------------------------------------------------------------------------------------

PAIR = np.array([[1.0, -2.0], [0.5, 0.25], [3.0, 4.0]])
ESTIMATES = m.GradientUpload(3, Contribution(DenseMatrix(PAIR), head_second_moment=np.zeros((R, R))), ("b-2",))
RANK_ONE = dataclasses.replace(SPEC, rank=1)


def test_estimates_are_d_by_two_whatever_the_rank() -> None:
    upload = m.GradientUpload(3, Contribution(DenseMatrix(PAIR), head_second_moment=np.zeros((1, 1))))
    for spec, message in ((SPEC, ESTIMATES), (RANK_ONE, upload)):
        decoded = decode_agent_message(sent(encode_agent_message(message)), spec)
        assert isinstance(decoded, m.GradientUpload)
        assert to_dense(decoded.contribution.gradient).tobytes() == PAIR.tobytes()


ESTIMATES_CHANGES: dict[str, tuple[str, RunSpecification, Change]] = {
    "factored": ("payload of round 3 must be dense", SPEC, set_to("factored.left.rows", 3)),
    "nothing": ("payload of round 3 must be dense", SPEC, lambda gradient: gradient.ClearField("dense")),
    "of a group": ("gradient.weight is 2.0; the estimates of round 3", SPEC, set_to("weight", 2.0)),
    "not a number": ("gradient.dense has an entry", SPEC, set_to("dense", matrix(NAN))),
    "one alone": ("gradient.dense is 3 × 1; this run needs 3 × 2", SPEC, set_to("dense", matrix(PAIR[:, :1]))),
    "a round later": ("gradient.dense is 3 × 2; this run needs 3 × 1", RANK_ONE, set_to("round", 4)),
    "a round before": ("gradient.dense is 3 × 2; this run needs 3 × 1", RANK_ONE, set_to("round", 2)),
}


@pytest.mark.parametrize("name", ESTIMATES_CHANGES)
def test_estimates_that_are_none_are_refused(name: str) -> None:
    expected, spec, change = ESTIMATES_CHANGES[name]
    moment = np.zeros((spec.rank, spec.rank))
    message = dataclasses.replace(
        ESTIMATES, contribution=Contribution(DenseMatrix(PAIR), head_second_moment=moment)
    )
    request = encode_agent_message(message)
    change(request.gradient)
    with pytest.raises(InvalidMessageError) as error:
        decode_agent_message(sent(request), spec)
    assert expected in refused(error)


# What a specification may not say -------------------------------------------------------------------------------

SPECIFICATION_CHANGES: dict[str, tuple[str, Change]] = {
    "no schedule": ("method.head_update is 0", set_to("method.head_update", 0)),
    "unknown schedule": ("method.head_update is 7", set_to("method.head_update", 7)),
    "no policy": ("participation is 0", set_to("participation", 0)),
    "unknown policy": ("participation is 99", set_to("participation", 99)),
    "long workload": ("workload has 257 characters", set_to("workload", "x" * 257)),
    "long fingerprint": ("feature_fingerprint has 257 characters", set_to("feature_fingerprint", "x" * 257)),
    "no rank": ("rank is 0", set_to("rank", 0)),
    "rank above d": ("rank is 4", set_to("rank", 4)),
    "huge d": ("feature_dim is 4294967295", set_to("feature_dim", 2**32 - 1)),
    "no agents": ("agents is 0", set_to("agents", 0)),
    "huge seed": (f"seed is {2**64 - 1}", set_to("seed", 2**64 - 1)),
    "huge rounds": (f"rounds is {2**63}", set_to("rounds", 2**63)),
    "no session timeout": ("session_timeout_seconds is 0.0", set_to("session_timeout_seconds", 0.0)),
    "endless round": ("round_timeout_seconds is inf", set_to("round_timeout_seconds", math.inf)),
    "no steps": ("steps_per_round is 0", set_to("method.steps_per_round", 0)),
    "head step": ("head_step is nan", set_to("method.head_step", math.nan)),
    "gain step": ("gain_step is 1.5", set_to("method.gain_step", 1.5)),
    "head radius": ("head_radius is -inf", set_to("method.head_radius", -math.inf)),
    "basis step": ("basis_step is inf", set_to("method.basis_step", math.inf)),
    "floor": ("preconditioner_floor is 0.0", set_to("method.preconditioner_floor", 0.0)),
    "horizon": ("decay_horizon is -1.0", set_to("method.decay_horizon", -1.0)),
    "power": ("decay_power is 2.0", set_to("method.decay_power", 2.0)),
    "short warm-up": ("warm_up_rounds is 1; it must be 0, or 2 to 2^32 − 1", set_to("method.warm_up_rounds", 1)),
    "long warm-up": ("warm_up_rounds is 10", set_to("method.warm_up_rounds", 10)),
}


@pytest.mark.parametrize("name", SPECIFICATION_CHANGES)
def test_a_malformed_specification_is_refused(name: str) -> None:
    expected, change = SPECIFICATION_CHANGES[name]
    message = encode_specification(SPEC)
    change(message)
    with pytest.raises(InvalidMessageError) as error:
        decode_specification(sent(message))
    assert refused(error).startswith(expected)


def test_all_that_is_wrong_is_said_at_once() -> None:
    message = encode_specification(SPEC)
    message.rank, message.agents = 0, 0
    message.method.gain_step = -1.0
    with pytest.raises(InvalidMessageError) as error:
        decode_specification(message)
    text = refused(error)
    assert all(f"{name} is " in text for name in ("rank", "agents", "gain_step"))


# What a coordinator may not say ---------------------------------------------------------------------------------

COORDINATOR_CHANGES: dict[str, tuple[str, str, Change]] = {
    "long run id": ("basis", "stamp.run_id has 129", set_to("stamp.run_id", "x" * 129)),
    "no event": ("basis", "no event", lambda r: r.ClearField("basis_update")),
    "empty basis": ("basis", "basis.data_type is 0", set_to("basis_update.basis", matrix_pb2.Matrix())),
    "basis without rows": ("basis", "basis is 0 × 2", set_to("basis_update.basis.rows", 0)),
    "basis not a number": ("basis", "basis has an entry", set_to("basis_update.basis", matrix(NAN))),
    "basis cut short": ("basis", "basis.data has 8 bytes", set_to("basis_update.basis.data", bytes(8))),
    "covariance of another shape": (
        "basis with a head covariance",
        "head_covariance is 3 × 3; this run needs 2 × 2",
        set_to("basis_update.head_covariance", matrix(np.eye(3))),
    ),
    "covariance not a number": (
        "basis with a head covariance",
        "head_covariance has an entry that is not finite",
        set_to("basis_update.head_covariance", matrix(np.full((R, R), math.nan))),
    ),
    "covariance too large": (
        "end with a head covariance",
        "finish.head_covariance has an entry of up to 1e+61",
        set_to("finish.head_covariance", matrix(1e61 * np.eye(R))),
    ),
    "covariance that is none": (
        "basis with a head covariance",
        "head_covariance is not symmetric and positive semidefinite",
        set_to("basis_update.head_covariance", matrix(np.array([[1.0, 0.0], [0.0, -1.0]]))),
    ),
    "covariance not symmetric": (
        "end with a head covariance",
        "finish.head_covariance is not symmetric",
        set_to("finish.head_covariance", matrix(np.array([[1.0, 0.5], [0.0, 1.0]]))),
    ),
    "covariance in single precision": (
        "basis with a head covariance",
        "head_covariance is of float32; it must be of float64",
        set_to("basis_update.head_covariance", encode_matrix(np.eye(R, dtype=np.float32))),
    ),
    "covariance that the method has not": (
        "welcome",
        "welcome.head_covariance: a head covariance came with the basis",
        set_to("welcome.head_covariance", matrix(np.eye(R))),
    ),
    "basis of another shape": ("welcome", "welcome.basis is 2 × 3", set_to("welcome.basis", matrix(BASIS.T))),
    "welcome without a basis": ("welcome", "welcome.basis is 0 × 0", lambda r: r.welcome.ClearField("basis")),
    "long token": ("welcome", "welcome.session_token has 129", set_to("welcome.session_token", "x" * 129)),
    "bad specification": ("welcome", "rank is 0", set_to("welcome.specification.rank", 0)),
    "no disposition": ("late", "receipt.disposition is 0", set_to("receipt.disposition", 0)),
    "unknown disposition": ("late", "receipt.disposition is 3", set_to("receipt.disposition", 3)),
    "no cause": ("stopped", "finish.cause is 0", set_to("finish.cause", 0)),
    "unknown cause": ("stopped", "finish.cause is -1", set_to("finish.cause", -1)),
    "last basis infinite": ("stopped", "finish.basis has an entry", set_to("finish.basis", matrix(INF))),
    "drain for ever": (
        "drain",
        "drain.resume_after_seconds is inf",
        set_to("drain.resume_after_seconds", math.inf),
    ),
    "drain into the past": (
        "drain",
        "drain.resume_after_seconds is -1",
        set_to("drain.resume_after_seconds", -1.0),
    ),
    "drain not a number": (
        "drain",
        "drain.resume_after_seconds is nan",
        set_to("drain.resume_after_seconds", math.nan),
    ),
}


@pytest.mark.parametrize("name", COORDINATOR_CHANGES)
def test_a_malformed_response_is_refused(name: str) -> None:
    start, expected, change = COORDINATOR_CHANGES[name]
    response = encode_coordinator_message(COORDINATOR_MESSAGES[start])
    change(response)
    with pytest.raises(InvalidMessageError) as error:
        decode_coordinator_message(sent(response))
    assert expected in refused(error)


REPORT_CHANGES: dict[str, tuple[str, Change]] = {
    "no phase": ("phase is 0", set_to("phase", 0)),
    "unknown phase": ("phase is 42", set_to("phase", 42)),
    "unknown cause": ("finish_cause is 42", set_to("finish_cause", 42)),
    "no phase of an agent": ("agents.phase is 0", lambda r: setattr(r.agents[1], "phase", 0)),
    "no specification": ("method.head_update is 0", lambda r: r.ClearField("specification")),
    "long run id": ("stamp.run_id has 200", set_to("stamp.run_id", "x" * 200)),
}


@pytest.mark.parametrize("name", REPORT_CHANGES)
def test_a_malformed_run_report_is_refused(name: str) -> None:
    expected, change = REPORT_CHANGES[name]
    message = encode_run_report(RUN_REPORTS["collecting"])
    change(message)
    with pytest.raises(InvalidMessageError) as error:
        decode_run_report(sent(message))
    assert expected in refused(error)


def test_a_malformed_round_report_is_refused() -> None:
    message = encode_round_report(ROUND_REPORT, include_basis=True)
    message.basis.columns = 5
    with pytest.raises(InvalidMessageError, match=r"basis.data has 48 bytes; 3 × 5 of float64 are 120"):
        decode_round_report(message)


# Limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "r", "agents"), [(1, 1, 1), (3, 2, 1), (96, 8, 1), (96, 8, 1000), (2000, 40, 50)])
def test_the_largest_messages_fit(d: int, r: int, agents: int) -> None:
    """A group's upload with r factors and names of full length; a welcome with texts of full length."""
    names = tuple(f"{index:064}" for index in range(agents))
    gradient = FactoredMatrix(left=np.ones((d, r)), right=np.ones((r, r)))
    largest = upload(gradient, moment=np.ones((r, r)), round=2**64 - 1, agent_ids=names)
    limit = limits.max_message_bytes(d, r, agents)
    assert len(encode_agent_message(largest).SerializeToString()) <= limit
    join = dataclasses.replace(JOIN, agent_ids=names, workload="€" * 256, feature_fingerprint="€" * 256)
    assert len(encode_agent_message(join).SerializeToString()) <= limit
    spec = dataclasses.replace(SPEC, feature_dim=d, rank=r, workload="€" * 256, feature_fingerprint="€" * 256)
    welcome = m.Welcome(STAMP, "t" * 128, spec, np.ones((d, r)), first_round=2**64 - 1, started=True)
    assert len(encode_coordinator_message(welcome).SerializeToString()) <= limit


def test_the_limit_is_not_far_above_what_is_needed() -> None:
    """It bounds what a stranger can make the coordinator allocate."""
    assert limits.max_message_bytes(96, 8) < 2 * 8 * 96 * 8 + 128 * 1024


def test_grpc_knows_every_channel_option() -> None:
    """It ignores others silently: a misspelt ping interval had agents of a slow run thrown out every minute."""
    with Path(cygrpc.__file__).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library:
        options = dict(limits.server_options(1, 1, 1)) | dict(limits.client_options(1))
        assert [name for name in options if library.find(name.encode() + b"\0") < 0] == []


def test_channel_options_of_both_ends_match() -> None:
    """A client that pings more often than its server allows is thrown out with ENHANCE_YOUR_CALM."""
    server, client = dict(limits.server_options(1000, 50, 20)), dict(limits.client_options(1000))
    assert 2 * server["grpc.http2.min_ping_interval_without_data_ms"] <= client["grpc.keepalive_time_ms"]
    for name in ("grpc.max_receive_message_length", "grpc.max_send_message_length"):
        assert server[name] == client[name] == 1000
    assert server["grpc.so_reuseport"] == 0, "two coordinators on one port would share the agents"
    assert client["grpc.enable_retries"] == 0, "a retried call would hide a broken stream"
    assert (server["grpc.max_allowed_incoming_connections"], server["grpc.max_concurrent_streams"]) == (50, 20)
    assert len(limits.server_options(1, 1, 1)) == len(server)
    assert len(limits.client_options(1)) == len(client)


# What some methods add ------------------------------------------------------------------------------------------


def with_curvature(monkeypatch: pytest.MonkeyPatch) -> None:
    """The methods of this test pool d(d+1)/2 numbers of either sign, and have a head covariance."""
    monkeypatch.setattr(Method, "pooled_length", lambda _, d: d * (d + 1) // 2)
    monkeypatch.setattr(Method, "pooled_is_nonnegative", False)
    monkeypatch.setattr(Method, "has_head_covariance", True)


PACKED = np.array([1.0, -0.5, 0.25, 2.0, 0.0, 3.0])
LATER = dataclasses.replace(WITH_ROW_SUMS, round=5)


@pytest.mark.parametrize("pooled", [PACKED, PACKED + 1e-12], ids=["float32", "float64"])
def test_packed_numbers_come_back_in_the_fewest_bytes(pooled: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    with_curvature(monkeypatch)
    uploads = [
        dataclasses.replace(each, contribution=Contribution(FACTORED, 3.0, MOMENT, pooled))
        for each in (WITH_ROW_SUMS, LATER)
    ]
    requests = [encode_agent_message(each) for each in uploads]
    assert len(requests[0].gradient.pooled.data) == len(pooled) * (4 if pooled is PACKED else 8)
    assert all(same(decode_agent_message(r, ROW_SCALED), u) for r, u in zip(requests, uploads, strict=True))
    layout = MessageLayout.of(requests[0].SerializeToString(), uploads[0], ROW_SCALED)
    assert layout is not None
    assert same(layout.read(requests[1].SerializeToString()), uploads[1])


def test_packed_numbers_of_another_length_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_curvature(monkeypatch)
    with pytest.raises(InvalidMessageError, match=r"gradient\.pooled is 3 × 1; this run needs 6 × 1"):
        decode_agent_message(encode_agent_message(WITH_ROW_SUMS), ROW_SCALED)


def test_packed_numbers_fit_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with_curvature(monkeypatch)
    spec = dataclasses.replace(SPEC, feature_dim=600)
    pooled = np.full(spec.pooled_length, 1.0 + 1e-12)
    gradient = FactoredMatrix(np.ones((600, R)), np.ones((R, R)))
    request = encode_agent_message(m.GradientUpload(4, Contribution(gradient, 1.0, MOMENT, pooled)))
    assert request.ByteSize() > limits.max_message_bytes(600, R)
    assert request.ByteSize() < limits.max_message_bytes(600, R, pooled=spec.pooled_length)


def test_a_welcome_says_the_head_covariance_of_a_method_that_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with_curvature(monkeypatch)
    welcome = dataclasses.replace(COORDINATOR_MESSAGES["welcome"], head_covariance=np.eye(R))
    response = encode_coordinator_message(welcome)
    assert same(decode_coordinator_message(response), welcome)
    response.welcome.ClearField("head_covariance")
    with pytest.raises(InvalidMessageError, match=r"welcome\.head_covariance: the head covariance is missing"):
        decode_coordinator_message(response)
