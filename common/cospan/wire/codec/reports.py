"""Codec of what observers ask for: the run as it stands, and its rounds as they close.

What is decoded can be shown as it is: names are names, sentences are printable, and numbers are finite.
"""

import math
from collections.abc import Iterable

from cospan.core.run_fields import MAX_SECONDS
from cospan.core.specification import agent_id_problem
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire import messages as m
from cospan.wire.codec.checks import from_enum
from cospan.wire.codec.matrices import encode_matrix
from cospan.wire.codec.messages import (
    AGENT_PHASE,
    FINISH_CAUSE,
    RUN_PHASE,
    decode_basis,
    decode_stamp,
    encode_stamp,
)
from cospan.wire.codec.specification import decode_specification, encode_specification
from cospan.wire.errors import InvalidMessageError
from cospan.wire.limits import MAX_ROUND, most_known_agents
from cospan.wire.text import printable

MAX_CAUSE = 1024
"""Most characters of the sentence that says why an agent is gone."""


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
        epoch_members=report.epoch_members,
    )


def decode_run_report(message: pb.GetRunResponse) -> m.RunReport:
    """The run as it stands, from a GetRunResponse.

    Raises:
        InvalidMessageError: a field is malformed or out of range.
    """
    spec = decode_specification(message.specification)
    most = most_known_agents(spec.agents)
    if len(message.agents) > most:
        raise InvalidMessageError(
            f"the report names {len(message.agents)} agents; a run of {spec.agents} agents remembers at most {most}"
        )
    return m.RunReport(
        stamp=decode_stamp(message.stamp),
        specification=spec,
        phase=from_enum(RUN_PHASE, message.phase, "phase"),
        phase_seconds=_number(message.phase_seconds, "phase_seconds", MAX_SECONDS),
        agents=tuple(_decode_agent(agent) for agent in message.agents),
        finish_cause=(
            from_enum(FINISH_CAUSE, message.finish_cause, "finish_cause") if message.finish_cause else None
        ),
        rounds_per_second=_number(message.rounds_per_second, "rounds_per_second"),
        epoch_members=message.epoch_members,
    )


def _number(value: float, field: str, most: float = math.inf) -> float:
    """A number of 0 or more, finite, and at most `most`."""
    if not (0.0 <= value < math.inf and value <= most):
        bound = "finite" if most == math.inf else f"at most {most:g}"
        raise InvalidMessageError(f"{field} is {value}; it must be 0 or more and {bound}")
    return value


def _count(value: int, field: str) -> int:
    if value > MAX_ROUND:
        raise InvalidMessageError(f"{field} is {value}; it must be at most {MAX_ROUND}")
    return value


def _agent_id(name: str, field: str) -> str:
    problem = agent_id_problem(name)
    if problem is not None:
        raise InvalidMessageError(f"{field}: {problem}")
    return name


def _agent_ids(names: Iterable[str], field: str) -> tuple[str, ...]:
    return tuple(_agent_id(name, field) for name in names)


def _encode_agent(report: m.AgentReport) -> pb.AgentStatus:
    return pb.AgentStatus(
        agent_id=report.agent_id,
        phase=AGENT_PHASE[report.phase],
        seconds_since_last_message=report.seconds_since_last_message,
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
        policy_improved=report.policy_improved,
        feed_silent_seconds=report.feed_silent_seconds,
    )


def _decode_agent(message: pb.AgentStatus) -> m.AgentReport:
    return m.AgentReport(
        agent_id=_agent_id(message.agent_id, "agents.agent_id"),
        phase=from_enum(AGENT_PHASE, message.phase, "agents.phase"),
        seconds_since_last_message=_number(
            message.seconds_since_last_message, "agents.seconds_since_last_message", MAX_SECONDS
        ),
        awaited=message.awaited,
        rounds_counted=_count(message.rounds_counted, "agents.rounds_counted"),
        reconnects=_count(message.reconnects, "agents.reconnects"),
        gone_in_round=(
            _count(message.gone_in_round, "agents.gone_in_round") if message.HasField("gone_in_round") else None
        ),
        gone_cause=printable(message.gone_cause, MAX_CAUSE),
        absent_rounds=_count(message.absent_rounds, "agents.absent_rounds"),
        last_round=_count(message.last_round, "agents.last_round") if message.HasField("last_round") else None,
        outlier_rounds=_count(message.outlier_rounds, "agents.outlier_rounds"),
        td_error=_number(message.td_error, "agents.td_error") if message.HasField("td_error") else None,
        head_bounded=message.head_bounded,
        policy_improved=message.policy_improved,
        feed_silent_seconds=(
            _number(message.feed_silent_seconds, "agents.feed_silent_seconds", MAX_SECONDS)
            if message.HasField("feed_silent_seconds")
            else None
        ),
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
        closed_round=_count(message.closed_round, "closed_round"),
        seconds=_number(message.seconds, "seconds"),
        contributors=message.contributors,
        departed_agent_ids=_agent_ids(message.departed_agent_ids, "departed_agent_ids"),
        basis_movement=_number(message.basis_movement, "basis_movement"),
        orthonormality_error=_number(message.orthonormality_error, "orthonormality_error"),
        basis=decode_basis(message.basis, "basis") if message.HasField("basis") else None,
        finished=message.finished,
        absent_agent_ids=_agent_ids(message.absent_agent_ids, "absent_agent_ids"),
        outlier_agent_ids=_agent_ids(message.outlier_agent_ids, "outlier_agent_ids"),
    )
