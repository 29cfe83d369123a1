"""What an onlooker is told of the coordinator's state."""

from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.recent_rounds import RecentRounds
from cospan.server.telemetry.agent_stats import AgentStats
from cospan.wire.messages import AgentPhase, AgentReport, RunReport

_RATE_ROUNDS = 50


def run_report(
    state: CoordinatorState, history: RecentRounds, now: float, agent_stats: AgentStats | None = None
) -> RunReport:
    """The run as it stands at the time `now` of the machine's clock; `agent_stats`: what agents told beside it."""
    return RunReport(
        stamp=state.stamp,
        specification=state.specification,
        phase=state.phase,
        phase_seconds=max(0.0, now - state.phase_since),
        agents=tuple(sorted(_agents(state, now, agent_stats or AgentStats()), key=lambda agent: agent.agent_id)),
        finish_cause=state.finish_cause,
        rounds_per_second=_rounds_per_second(history),
    )


def _agents(state: CoordinatorState, now: float, agent_stats: AgentStats) -> list[AgentReport]:
    last_rounds = state.last_rounds
    here = [
        AgentReport(
            agent_id=agent,
            phase=session.phase,
            seconds_since_last_message=max(0.0, now - session.last_seen),
            awaited=agent in state.open_round.awaited,
            rounds_counted=state.history.rounds_counted.get(agent, 0),
            reconnects=session.reconnects,
            absent_rounds=state.history.absent_rounds.get(agent, 0),
            last_round=last_rounds.get(agent),
            outlier_rounds=state.history.outlier_rounds.get(agent, 0),
            td_error=agent_stats.td_errors.get(agent),
            head_bounded=agent in agent_stats.bounded,
        )
        for session in state.members.sessions.values()
        for agent in session.agent_ids
    ]
    gone = [
        AgentReport(
            agent_id=departure.agent_id,
            phase=AgentPhase.GONE,
            seconds_since_last_message=max(0.0, now - departure.last_seen),
            awaited=False,
            rounds_counted=state.history.rounds_counted.get(departure.agent_id, 0),
            reconnects=departure.reconnects,
            gone_in_round=departure.round,
            gone_cause=departure.cause,
            absent_rounds=state.history.absent_rounds.get(departure.agent_id, 0),
            last_round=last_rounds.get(departure.agent_id),
            outlier_rounds=state.history.outlier_rounds.get(departure.agent_id, 0),
            td_error=agent_stats.td_errors.get(departure.agent_id),
            head_bounded=departure.agent_id in agent_stats.bounded,
        )
        for departure in state.members.departures.values()
    ]
    return here + gone


def _rounds_per_second(history: RecentRounds) -> float:
    """Over the newest rounds; 0 before the first has closed."""
    reports = history.recent(_RATE_ROUNDS)
    seconds = sum(report.seconds for report in reports)
    return len(reports) / seconds if seconds > 0.0 else 0.0
