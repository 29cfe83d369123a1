"""The run status, as observers receive it."""

from typing import Any

from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.recent_rounds import RecentRounds
from cospan.server.telemetry.agent_stats import AgentStats
from cospan.wire.messages import AgentPhase, AgentReport, RunReport

_RATE_ROUNDS = 50


def run_report(
    state: CoordinatorState, history: RecentRounds, now: float, agent_stats: AgentStats | None = None
) -> RunReport:
    """The status of the run at time `now` of the machine's clock."""
    epoch = state.open_round.epoch
    return RunReport(
        stamp=state.stamp,
        specification=state.specification,
        phase=state.phase,
        phase_seconds=max(0.0, now - state.phase_since),
        agents=tuple(sorted(_agents(state, now, agent_stats or AgentStats()), key=lambda agent: agent.agent_id)),
        finish_cause=state.finish_cause,
        rounds_per_second=_rounds_per_second(history),
        epoch_members=0 if epoch is None else len(epoch.membership.members),
    )


def _agents(state: CoordinatorState, now: float, agent_stats: AgentStats) -> list[AgentReport]:
    history, last_rounds = state.history, state.last_rounds

    def report(agent: str, phase: AgentPhase, last_seen: float, **facts: Any) -> AgentReport:
        return AgentReport(
            agent_id=agent,
            phase=phase,
            seconds_since_last_message=max(0.0, now - last_seen),
            awaited=agent in state.open_round.awaited,
            rounds_counted=history.rounds_counted.get(agent, 0),
            absent_rounds=history.absent_rounds.get(agent, 0),
            last_round=last_rounds.get(agent),
            outlier_rounds=history.outlier_rounds.get(agent, 0),
            td_error=agent_stats.td_errors.get(agent),
            head_bounded=agent in agent_stats.bounded,
            policy_improved=agent in agent_stats.improved,
            **facts,
        )

    silent_since = agent_stats.feeds_silent_since
    present = [
        report(
            *(agent, session.phase, session.last_seen),
            reconnects=session.reconnects,
            feed_silent_seconds=max(0.0, now - silent_since[agent]) if agent in silent_since else None,
        )
        for session in state.members.sessions.values()
        for agent in session.agent_ids
    ]
    return present + [
        report(
            *(gone.agent_id, AgentPhase.GONE, gone.last_seen),
            reconnects=gone.reconnects,
            gone_in_round=gone.round,
            gone_cause=gone.cause,
        )
        for gone in state.members.departures.values()
    ]


def _rounds_per_second(history: RecentRounds) -> float:
    """Mean over the newest rounds; 0 before the first has closed."""
    reports = history.recent(_RATE_ROUNDS)
    seconds = sum(report.seconds for report in reports)
    return len(reports) / seconds if seconds > 0.0 else 0.0
