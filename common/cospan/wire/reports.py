"""Codec of what onlookers ask for: the run as it stands, and its rounds as they close."""

from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire import messages as m
from cospan.wire.codec import (
    AGENT_PHASE,
    FINISH_CAUSE,
    RUN_PHASE,
    decode_matrix,
    decode_specification,
    decode_stamp,
    encode_matrix,
    encode_specification,
    encode_stamp,
    from_enum,
)


def encode_run_report(report: m.RunReport) -> pb.GetRunResponse:
    """The run as it stands, as a GetRunResponse."""
    return pb.GetRunResponse(
        stamp=encode_stamp(report.stamp),
        specification=encode_specification(report.specification),
        phase=RUN_PHASE[report.phase],
        phase_seconds=report.phase_seconds,
        agents=[_encode_agent(agent) for agent in report.agents],
        finish_cause=(FINISH_CAUSE[report.finish_cause] if report.finish_cause else pb.FINISH_CAUSE_UNSPECIFIED),
        rounds_per_second=report.rounds_per_second,
    )


def decode_run_report(message: pb.GetRunResponse) -> m.RunReport:
    """The run as it stands, from a GetRunResponse.

    Raises:
        InvalidMessageError: a field is malformed or out of range.
    """
    return m.RunReport(
        stamp=decode_stamp(message.stamp),
        specification=decode_specification(message.specification),
        phase=from_enum(RUN_PHASE, message.phase, "phase"),
        phase_seconds=message.phase_seconds,
        agents=tuple(_decode_agent(agent) for agent in message.agents),
        finish_cause=(
            from_enum(FINISH_CAUSE, message.finish_cause, "finish_cause") if message.finish_cause else None
        ),
        rounds_per_second=message.rounds_per_second,
    )


def _encode_agent(report: m.AgentReport) -> pb.AgentStatus:
    return pb.AgentStatus(
        agent_id=report.agent_id,
        phase=AGENT_PHASE[report.phase],
        silent_seconds=report.silent_seconds,
        awaited=report.awaited,
        rounds_counted=report.rounds_counted,
        reconnects=report.reconnects,
        gone_in_round=report.gone_in_round,
        gone_cause=report.gone_cause,
        absent_rounds=report.absent_rounds,
        last_round=report.last_round,
        outlier_rounds=report.outlier_rounds,
        td_error=report.td_error,
        head_bounded=report.head_bounded,
    )


def _decode_agent(message: pb.AgentStatus) -> m.AgentReport:
    return m.AgentReport(
        agent_id=message.agent_id,
        phase=from_enum(AGENT_PHASE, message.phase, "agents.phase"),
        silent_seconds=message.silent_seconds,
        awaited=message.awaited,
        rounds_counted=message.rounds_counted,
        reconnects=message.reconnects,
        gone_in_round=message.gone_in_round if message.HasField("gone_in_round") else None,
        gone_cause=message.gone_cause,
        absent_rounds=message.absent_rounds,
        last_round=message.last_round if message.HasField("last_round") else None,
        outlier_rounds=message.outlier_rounds,
        td_error=message.td_error if message.HasField("td_error") else None,
        head_bounded=message.head_bounded,
    )


def encode_round_report(report: m.RoundReport, *, include_basis: bool) -> pb.WatchRoundsResponse:
    """A closed round as a WatchRoundsResponse."""
    return pb.WatchRoundsResponse(
        stamp=encode_stamp(report.stamp),
        closed_round=report.closed_round,
        seconds=report.seconds,
        contributors=report.contributors,
        departed_agent_ids=report.departed_agent_ids,
        basis_movement=report.basis_movement,
        orthonormality_error=report.orthonormality_error,
        basis=encode_matrix(report.basis) if include_basis and report.basis is not None else None,
        finished=report.finished,
        absent_agent_ids=report.absent_agent_ids,
        outlier_agent_ids=report.outlier_agent_ids,
    )


def decode_round_report(message: pb.WatchRoundsResponse) -> m.RoundReport:
    """A closed round from a WatchRoundsResponse.

    Raises:
        InvalidMessageError: a field is malformed or out of range.
    """
    return m.RoundReport(
        stamp=decode_stamp(message.stamp),
        closed_round=message.closed_round,
        seconds=message.seconds,
        contributors=message.contributors,
        departed_agent_ids=tuple(message.departed_agent_ids),
        basis_movement=message.basis_movement,
        orthonormality_error=message.orthonormality_error,
        basis=decode_matrix(message.basis, "basis") if message.HasField("basis") else None,
        finished=message.finished,
        absent_agent_ids=tuple(message.absent_agent_ids),
        outlier_agent_ids=tuple(message.outlier_agent_ids),
    )
