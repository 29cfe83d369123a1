"""The messages of agents and coordinator: what the codec gives back, and what it refuses, field by field."""

import dataclasses
import math

import numpy as np
import pytest
from codec_examples import (
    BASIS,
    FACTORED,
    JOIN,
    METHOD,
    MOMENT,
    ROW_SCALED,
    SPEC,
    STAMP,
    WITH_ROW_SUMS,
    Change,
    D,
    R,
    matrix,
    refused,
    sent,
    set_to,
    upload,
)
from values import same

from cospan.core.aggregation.basis_update import Contribution, next_basis
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1 import matrix_pb2
from cospan.wire import limits
from cospan.wire import messages as m
from cospan.wire.codec.matrices import encode_matrix
from cospan.wire.codec.messages import (
    decode_agent_message,
    decode_coordinator_message,
    encode_agent_message,
    encode_coordinator_message,
)
from cospan.wire.errors import InvalidMessageError
from cospan.wire.text import MAX_TEXT

PLAIN = dataclasses.replace(SPEC, method=dataclasses.replace(METHOD, preconditioned=False))


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
    "with improved policies": upload(FACTORED, agent_ids=(), improved=("site-1", "site-2")),
    "with bounded heads": upload(FACTORED, agent_ids=(), bounded=("site-1", "site-2")),
    "heartbeat": m.Heartbeat(),
    "heartbeat of a silent feed": m.Heartbeat(feed_silent_seconds=7200.5),
    "heartbeat of a feed that is back": m.Heartbeat(3, feed_silent_seconds=0.0),
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


# There and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENT_MESSAGES)
def test_agent_messages_come_back(name: str) -> None:
    message = AGENT_MESSAGES[name]
    assert same(decode_agent_message(sent(encode_agent_message(message)), SPEC), message)


@pytest.mark.parametrize("name", COORDINATOR_MESSAGES)
def test_coordinator_messages_come_back(name: str) -> None:
    message = COORDINATOR_MESSAGES[name]
    assert same(decode_coordinator_message(sent(encode_coordinator_message(message))), message)


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


# What agents may not say ----------------------------------------------------------------------------------------


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
    "improved policies of a bad name": (
        "gradient.improved_agent_ids",
        lambda g: g.improved_agent_ids.append("a b"),
    ),
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
