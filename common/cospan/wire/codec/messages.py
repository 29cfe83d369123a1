"""The messages of agents and coordinator ↔ protobuf.

Decoding checks everything before anything is used, and raises only InvalidMessageError.
"""

import math
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import Contribution, head_covariance_problem
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, Gradient
from cospan.core.run_fields import MAX_SECONDS
from cospan.core.specification import MAX_NAME, RunSpecification, agent_id_problem
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1 import matrix_pb2, run_pb2
from cospan.wire import messages as m
from cospan.wire.codec.bounds import check_basis, check_contribution, check_head_covariance
from cospan.wire.codec.checks import (
    bounded_text,
    from_enum,
    identifier,
    numbers_of,
    require,
    sorted_agent_ids,
)
from cospan.wire.codec.matrices import decode_matrix, decode_shaped, encode_matrix, fill_matrix, narrowest
from cospan.wire.codec.secure_sums import (
    decode_epoch_id,
    decode_masked,
    decode_members,
    decode_membership,
    decode_proofs,
    encode_members,
    encode_proofs,
    fill_masked,
    fill_membership,
)
from cospan.wire.codec.specification import decode_specification, encode_specification
from cospan.wire.errors import InvalidMessageError
from cospan.wire.limits import MAX_ROUND
from cospan.wire.text import MAX_TEXT, printable

_DISPOSITION = numbers_of(m.Disposition, pb.GradientDisposition.DESCRIPTOR)
FINISH_CAUSE = numbers_of(m.FinishCause, pb.FinishCause.DESCRIPTOR)
RUN_PHASE = numbers_of(m.RunPhase, pb.RunPhase.DESCRIPTOR)
AGENT_PHASE = numbers_of(m.AgentPhase, pb.AgentPhase.DESCRIPTOR)

_Announcing: TypeAlias = pb.BasisUpdate | pb.Welcome | pb.Finish | pb.RecalledRound | pb.GetBasisResponse
"""What announces a basis, and W with it."""


# What agents say ----------------------------------------------------------------------------------------------


def encode_agent_message(message: m.AgentMessage) -> pb.CollaborateRequest:
    """An agent's message as a CollaborateRequest."""
    match message:
        case m.GradientUpload():
            request = pb.CollaborateRequest()
            _fill_gradient(request.gradient, message)
            return request
        case m.Heartbeat():
            heartbeat = pb.Heartbeat(
                saved_rounds=message.saved_rounds, feed_silent_seconds=message.feed_silent_seconds
            )
            return pb.CollaborateRequest(heartbeat=heartbeat)
        case m.Leave():
            leave = pb.Leave(cause=message.cause[:MAX_TEXT], returning=message.returning)
            return pb.CollaborateRequest(leave=leave)
        case m.RoundDeclined():
            return pb.CollaborateRequest(declined=pb.RoundDeclined(round=message.round))
        case m.Join():
            return pb.CollaborateRequest(join=_encode_join(message))


def decode_agent_message(request: pb.CollaborateRequest, spec: RunSpecification) -> m.AgentMessage:
    """An agent's message from a CollaborateRequest; the shapes must be those of the run.

    Raises:
        InvalidMessageError: a field is malformed or out of range.
    """
    event = request.WhichOneof("event")
    match event:
        case "gradient":
            return _decode_gradient(request.gradient, spec)
        case "heartbeat":
            return _decode_heartbeat(request.heartbeat)
        case "leave":
            return m.Leave(printable(bounded_text(request.leave.cause, "leave.cause")), request.leave.returning)
        case "join":
            return _decode_join(request.join)
        case "declined":
            require(spec.secure_sums, "the request declines a round, and this run has no secure sums")
            return m.RoundDeclined(request.declined.round)
        case _:
            raise InvalidMessageError("the request carries no event")


def _decode_heartbeat(heartbeat: pb.Heartbeat) -> m.Heartbeat:
    if not heartbeat.HasField("feed_silent_seconds"):
        return m.Heartbeat(heartbeat.saved_rounds)
    silent = heartbeat.feed_silent_seconds
    most = MAX_SECONDS
    require(0.0 <= silent <= most, f"heartbeat.feed_silent_seconds is {silent}; it must be 0 to {most:g}")
    return m.Heartbeat(heartbeat.saved_rounds, silent)


def _encode_join(join: m.Join) -> pb.Join:
    message = pb.Join(
        instance_id=join.instance_id,
        agent_ids=join.agent_ids,
        feature_dim=join.feature_dim,
        feature_fingerprint=join.feature_fingerprint,
        workload=join.workload,
        client_version=join.client_version,
        site_claim_id=join.site_claim_id,
        keeps_state=join.keeps_state,
        sum_members=encode_members(join.sum_members),
        key_proofs=encode_proofs(join.key_proofs),
    )
    if join.resumption is not None:
        message.resumption.session_token = join.resumption.session_token
        message.resumption.run_id = join.resumption.run_id
        message.resumption.last_round = join.resumption.last_round
    return message


def _decode_join(message: pb.Join) -> m.Join:
    resumption = None
    if message.HasField("resumption"):
        resumption = m.Resumption(
            session_token=identifier(message.resumption.session_token, "join.resumption.session_token", 128),
            run_id=identifier(message.resumption.run_id, "join.resumption.run_id", 128),
            last_round=message.resumption.last_round,
        )
    require(bool(message.instance_id), "join.instance_id is empty; a random name per process is needed")
    require(
        bool(message.agent_ids) != bool(message.site_claim_id),
        "join names neither agents nor a site claim, or both; it must be one of the two",
    )
    claim_problem = agent_id_problem(message.site_claim_id) if message.site_claim_id else None
    require(claim_problem is None, f"join.site_claim_id: {claim_problem}")
    return m.Join(
        instance_id=identifier(message.instance_id, "join.instance_id", 64),
        agent_ids=sorted_agent_ids(message.agent_ids, "join.agent_ids"),
        feature_dim=message.feature_dim,
        feature_fingerprint=identifier(message.feature_fingerprint, "join.feature_fingerprint", MAX_NAME),
        workload=identifier(message.workload, "join.workload", MAX_NAME),
        client_version=identifier(message.client_version, "join.client_version", 64),
        resumption=resumption,
        site_claim_id=message.site_claim_id,
        keeps_state=message.keeps_state,
        sum_members=decode_members(message.sum_members, "join.sum_members"),
        key_proofs=decode_proofs(message.key_proofs, "join.key_proofs"),
    )


def _fill_gradient(message: pb.SubspaceGradient, upload: m.GradientUpload) -> None:
    contribution = upload.contribution
    message.round, message.weight = upload.round, contribution.weight
    message.agent_ids.extend(upload.agent_ids)
    if isinstance(contribution, m.MaskedVector):
        fill_masked(message.masked, contribution)
        return
    if upload.td_error is not None:
        message.td_error = upload.td_error
    message.bounded_agent_ids.extend(upload.bounded)
    message.improved_agent_ids.extend(upload.improved)
    match contribution.gradient:
        case DenseMatrix(values=values):
            fill_matrix(message.dense, values)
        case FactoredMatrix(left=left, right=right):
            fill_matrix(message.factored.left, left)
            fill_matrix(message.factored.right, right)
    if contribution.head_second_moment is not None:
        fill_matrix(message.head_second_moment, contribution.head_second_moment)
    if contribution.pooled is not None:
        fill_matrix(message.pooled, narrowest(contribution.pooled)[:, None])


def _decode_gradient(message: pb.SubspaceGradient, spec: RunSpecification) -> m.GradientUpload:
    if not 0.0 < message.weight < math.inf:
        raise InvalidMessageError(f"gradient.weight is {message.weight}; it must be above 0 and finite")
    if spec.secure_sums:
        agent_ids = sorted_agent_ids(message.agent_ids, "gradient.agent_ids")
        return m.GradientUpload(message.round, decode_masked(message, spec), agent_ids)
    moment = None
    if message.HasField("head_second_moment"):
        moment = decode_shaped(message.head_second_moment, "gradient.head_second_moment", spec.rank, spec.rank)
    require(
        moment is not None or not spec.method.preconditioned,
        "gradient.head_second_moment is missing; this run preconditions with it",
    )
    pooled = _decode_pooled(message, spec)
    contribution = Contribution(
        gradient=_decode_payload(message, spec), weight=message.weight, head_second_moment=moment, pooled=pooled
    )
    check_contribution(
        contribution,
        pooled_is_nonnegative=spec.method.pooled_is_nonnegative,
        pools_weight=spec.method.has_head_covariance,
    )
    return m.GradientUpload(
        round=message.round,
        agent_ids=sorted_agent_ids(message.agent_ids, "gradient.agent_ids"),
        contribution=contribution,
        td_error=_decode_td_error(message.td_error) if message.HasField("td_error") else None,
        bounded=sorted_agent_ids(message.bounded_agent_ids, "gradient.bounded_agent_ids"),
        improved=sorted_agent_ids(message.improved_agent_ids, "gradient.improved_agent_ids"),
    )


def _decode_pooled(message: pb.SubspaceGradient, spec: RunSpecification) -> Float[np.ndarray, " m"] | None:
    """What is pooled, float64; None where the gradient carries none. Where the run pools nothing, it is ignored."""
    if message.HasField("pooled"):
        found = decode_shaped(message.pooled, "gradient.pooled", spec.pooled_length or spec.feature_dim, 1)
        return np.asarray(found[:, 0], dtype=np.float64)
    if spec.sends_pooled_in(message.round):
        raise InvalidMessageError(
            f"gradient.pooled is missing in round {message.round}; this run scales its step with it"
        )
    return None


def _decode_td_error(value: float) -> float:
    if not 0.0 <= value < math.inf:
        raise InvalidMessageError(f"gradient.td_error is {value}; it must be 0 or more and finite")
    return value


def _decode_payload(message: pb.SubspaceGradient, spec: RunSpecification) -> Gradient:
    d, r = spec.feature_dim, spec.rank
    if spec.method.brings_estimates_in(message.round):
        return _decode_estimates(message, d)
    match message.WhichOneof("payload"):
        case "dense":
            return DenseMatrix(decode_shaped(message.dense, "gradient.dense", d, r))
        case "factored":
            factors = message.factored.left.columns
            require(1 <= factors <= r, f"gradient.factored has {factors} factors; it must be 1 to the rank {r}")
            return FactoredMatrix(
                left=decode_shaped(message.factored.left, "gradient.factored.left", d, factors),
                right=decode_shaped(message.factored.right, "gradient.factored.right", r, factors),
            )
        case _:
            raise InvalidMessageError("gradient.payload is missing; it must be dense or factored")


def _decode_estimates(message: pb.SubspaceGradient, feature_dim: int) -> DenseMatrix:
    """[a b] of a warm-up's last round. Their products are averaged, so no sum over agents can stand for them."""
    require(
        message.WhichOneof("payload") == "dense",
        f"gradient.payload of round {message.round} must be dense: the two estimates of the warm-up, side by side",
    )
    require(
        message.weight == 1.0,
        f"gradient.weight is {message.weight}; the estimates of round {message.round} must be one agent's",
    )
    return DenseMatrix(decode_shaped(message.dense, "gradient.dense", feature_dim, 2))


# What the coordinator says ------------------------------------------------------------------------------------


def encode_stamp(stamp: m.Stamp) -> run_pb2.StateStamp:
    """A stamp as its message."""
    return run_pb2.StateStamp(
        run_id=stamp.run_id, incarnation=stamp.incarnation, round=stamp.round, durable_round=stamp.durable_round
    )


def decode_stamp(message: run_pb2.StateStamp) -> m.Stamp:
    """A stamp from its message.

    Raises:
        InvalidMessageError: the run's name is too long or not printable, or a number is above `MAX_ROUND`.
    """
    run_id, incarnation, number, durable = message.run_id, message.incarnation, message.round, message.durable_round
    if max(incarnation, number, durable) > MAX_ROUND:
        raise InvalidMessageError(
            f"stamp has incarnation {incarnation}, round {number} and durable round {durable}; each must be at "
            f"most {MAX_ROUND}"
        )
    return m.Stamp(identifier(run_id, "stamp.run_id", 128), incarnation, number, durable)


def encode_coordinator_message(message: m.CoordinatorMessage) -> pb.CollaborateResponse:
    """A coordinator's message as a CollaborateResponse."""
    response = pb.CollaborateResponse(stamp=encode_stamp(message.stamp))
    match message:
        case m.BasisUpdate():
            fill_matrix(response.basis_update.basis, message.basis)
            fill_head_covariance(response.basis_update, message.head_covariance)
            response.basis_update.epoch_id = message.epoch_id
        case m.Welcome():
            response.welcome.CopyFrom(
                pb.Welcome(
                    session_token=message.session_token,
                    specification=encode_specification(message.specification),
                    basis=encode_matrix(message.basis),
                    first_round=message.first_round,
                    started=message.started,
                    agent_ids=message.agent_ids,
                    site_index=message.site_index,
                    coordinator_started_seconds=message.coordinator_started,
                )
            )
            fill_head_covariance(response.welcome, message.head_covariance)
            if message.membership is not None:
                fill_membership(response.welcome.membership, message.membership)
        case m.Receipt():
            response.receipt.gradient_round = message.gradient_round
            response.receipt.disposition = _DISPOSITION[message.disposition]
        case m.Finish():
            response.finish.cause = FINISH_CAUSE[message.cause]
            response.finish.message = message.message
            response.finish.basis.CopyFrom(encode_matrix(message.basis))
            fill_head_covariance(response.finish, message.head_covariance)
        case m.Drain():
            response.drain.resume_after_seconds = message.resume_after_seconds
        case m.SumMembers():
            fill_membership(response.membership, message)
    return response


def decode_coordinator_message(response: pb.CollaborateResponse) -> m.CoordinatorMessage:
    """A coordinator's message from a CollaborateResponse.

    Raises:
        InvalidMessageError: a field is malformed or out of range.
    """
    stamp = decode_stamp(response.stamp)
    match response.WhichOneof("event"):
        case "basis_update":
            update = response.basis_update
            basis = decode_basis(update.basis, "basis")
            covariance = decode_head_covariance(update, "head_covariance", basis.shape[1])
            return m.BasisUpdate(stamp, basis, covariance, decode_epoch_id(update.epoch_id, "epoch_id"))
        case "welcome":
            return _decode_welcome(stamp, response.welcome)
        case "receipt":
            return m.Receipt(
                stamp=stamp,
                gradient_round=response.receipt.gradient_round,
                disposition=from_enum(_DISPOSITION, response.receipt.disposition, "receipt.disposition"),
            )
        case "finish":
            return _decode_finish(stamp, response.finish)
        case "drain":
            seconds = response.drain.resume_after_seconds
            require(
                math.isfinite(seconds) and seconds >= 0.0,
                f"drain.resume_after_seconds is {seconds}; it must be 0 or more and finite",
            )
            return m.Drain(stamp=stamp, resume_after_seconds=seconds)
        case "membership":
            return decode_membership(stamp, response.membership, "membership")
        case _:
            raise InvalidMessageError("the response carries no event")


def fill_head_covariance(message: _Announcing, covariance: Float[np.ndarray, "r r"] | None) -> None:
    """Writes W into a message that announces a basis, as float64; nothing where there is none."""
    if covariance is not None:
        fill_matrix(message.head_covariance, np.asarray(covariance, dtype=np.float64))


def decode_head_covariance(message: _Announcing, field: str, rank: int) -> Float[np.ndarray, "r r"] | None:
    """W of a message that announces a basis with `rank` columns; None where it carries none.

    Raises:
        InvalidMessageError: it is not r × r of float64, or cannot be a covariance.
    """
    if not message.HasField("head_covariance"):
        return None
    covariance = decode_shaped(message.head_covariance, field, rank, rank)
    require(covariance.dtype == np.float64, f"{field} is of {covariance.dtype.name}; it must be of float64")
    check_head_covariance(covariance, field)
    return covariance


def decode_basis(message: matrix_pb2.Matrix, field: str) -> Float[np.ndarray, "rows columns"]:
    """A basis of whatever shape.

    Raises:
        InvalidMessageError: it is no matrix, or cannot be a basis.
    """
    basis = decode_matrix(message, field)
    check_basis(basis, field)
    return basis


def _decode_finish(stamp: m.Stamp, message: pb.Finish) -> m.Finish:
    basis = decode_basis(message.basis, "finish.basis")
    return m.Finish(
        stamp=stamp,
        cause=from_enum(FINISH_CAUSE, message.cause, "finish.cause"),
        message=printable(message.message),
        basis=basis,
        head_covariance=decode_head_covariance(message, "finish.head_covariance", basis.shape[1]),
    )


def _decode_welcome(stamp: m.Stamp, message: pb.Welcome) -> m.Welcome:
    spec = decode_specification(message.specification)
    basis = decode_shaped(message.basis, "welcome.basis", spec.feature_dim, spec.rank)
    check_basis(basis, "welcome.basis")
    covariance = decode_head_covariance(message, "welcome.head_covariance", spec.rank)
    problem = head_covariance_problem(covariance, spec.method, spec.rank)
    require(not problem, f"welcome.head_covariance: {problem}")
    started = message.coordinator_started_seconds
    require(
        math.isfinite(started) and started >= 0.0,
        f"welcome.coordinator_started_seconds is {started}; it must be 0 or more and finite",
    )
    return m.Welcome(
        stamp=stamp,
        session_token=identifier(message.session_token, "welcome.session_token", 128),
        specification=spec,
        basis=basis,
        first_round=message.first_round,
        started=message.started,
        agent_ids=sorted_agent_ids(message.agent_ids, "welcome.agent_ids"),
        site_index=message.site_index if message.HasField("site_index") else None,
        coordinator_started=started,
        head_covariance=covariance,
        membership=(
            decode_membership(stamp, message.membership, "welcome.membership")
            if message.HasField("membership")
            else None
        ),
    )
