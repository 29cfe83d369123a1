"""The Prometheus metrics of a run, computed at each scrape from the machine's state and from `Counters`.

The number of time series is bounded: agent ids are labels only for the few agents that have been silent longest.
Needs prometheus_client (the extra `metrics`).
"""

import heapq
import importlib.metadata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from cospan.server.admission.interceptor import AdmissionInterceptor
from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.agent_engine import AgentEngine
from cospan.server.telemetry.counters import ROUND_SECONDS, Counters
from cospan.wire.errors import REASONS
from cospan.wire.messages import AgentPhase, Disposition, RoundReport, RunPhase

MOST_NAMED = 20
"""Most agents with a time series of their own: the awaited ones that have been silent longest."""
UNREAD = "UNREAD"
"""Reason of a stream that ended because its peer does not read; no peer receives it, so `REASONS` lacks it."""
_EVENTS = {
    "agent-joined": ("cospan_joins", "Agents that have joined the run."),
    "agent-lost": ("cospan_disconnects", "Agents whose stream broke."),
    "agent-back": ("cospan_reconnects", "Agents that came back after their stream broke."),
    "gradients-left-out": ("cospan_gradients_left_out", "Gradients that a round's arithmetic failed with."),
    "agent-gone": ("cospan_departures", "Agents that left, or were dropped."),
}

_Simple: TypeAlias = CounterMetricFamily | GaugeMetricFamily
_Family: TypeAlias = _Simple | HistogramMetricFamily


@dataclass(frozen=True, slots=True)
class Subject:
    """A coordinator or relay whose metrics are collected; a relay does not close rounds itself."""

    engine: AgentEngine
    door: AdmissionInterceptor
    counts: Counters
    closes_rounds: bool = True


def registry_of(subject: Subject) -> CollectorRegistry:
    """The metrics of one coordinator or relay, and of its process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunCollector(subject))
    ProcessCollector(registry=registry)
    return registry


class RunCollector(Collector):
    """Computes the metrics of a run at every scrape from one frozen state."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def collect(self) -> Iterator[_Family]:
        """Every metric with its current value."""
        subject = self._subject
        state, now = subject.engine.state, subject.engine.now()
        yield from _of_state(state, now)
        yield from _of_fleet(state, now)
        for kind, (name, text) in _EVENTS.items():
            yield CounterMetricFamily(name, text, value=subject.counts.notes.get(kind, 0))
        yield from _of_traffic(subject)
        if subject.closes_rounds:
            yield from _of_rounds(subject.counts)


def _of_state(state: CoordinatorState, now: float) -> Iterator[_Family]:
    """Phase and progress of the run."""
    spec, config = state.specification, state.config
    info = GaugeMetricFamily("cospan_run_info", "The run; always 1.", labels=("run_id", "workload", "version"))
    info.add_metric((config.run_id, spec.workload, importlib.metadata.version("cospan")), 1.0)
    yield info
    yield _labelled(
        GaugeMetricFamily("cospan_run_phase", "1 for the phase that the run is in, else 0.", labels=("phase",)),
        ((phase.value, float(state.phase is phase)) for phase in RunPhase),
    )
    since = max(0.0, now - state.phase_since)
    yield GaugeMetricFamily("cospan_phase_seconds", "How long the run has been in its phase.", since)
    yield GaugeMetricFamily("cospan_round", "The open round, and the number of closed rounds.", state.round)
    durable = state.durability.durable_round
    yield GaugeMetricFamily("cospan_durable_round", "Rounds that are stored: every one below this.", durable)
    yield GaugeMetricFamily("cospan_rounds_planned", "Rounds of the whole run; 0 for no end.", spec.rounds)
    text = "Number of coordinator processes that have served this run."
    yield GaugeMetricFamily("cospan_incarnation", text, config.incarnation)


def _of_fleet(state: CoordinatorState, now: float) -> Iterator[_Family]:
    """Agents that are present, gone and awaited."""
    members, awaited = state.members, state.open_round.awaited
    agents = {phase.value: 0 for phase in (AgentPhase.CONNECTED, AgentPhase.LOST)}
    for session in members.sessions.values():
        agents[session.phase.value] += len(session.agent_ids)
    agents[AgentPhase.GONE.value] = len(members.departures)
    yield _labelled(
        GaugeMetricFamily("cospan_agents", "Agents of the run, by phase.", labels=("phase",)), agents.items()
    )
    expected = state.specification.agents
    yield GaugeMetricFamily("cospan_agents_expected", "Agents that the first round waits for.", expected)
    text = "Agent processes in the run; a group is one."
    yield GaugeMetricFamily("cospan_sessions", text, len(members.sessions))
    text = "Agents whose gradient the open round lacks."
    yield GaugeMetricFamily("cospan_waiting_for_agents", text, len(awaited))
    text = f"Silence of awaited agents; the {MOST_NAMED} longest, a group by its first name."
    silent = GaugeMetricFamily("cospan_waiting_for_agent_silent_seconds", text, labels=("agent",))
    yield _labelled(silent, ((agent, seconds) for seconds, agent in longest_silent(state, now)))


def longest_silent(state: CoordinatorState, now: float, most: int = MOST_NAMED) -> list[tuple[float, str]]:
    """Seconds of silence and first agent id of the awaited blocks that have been silent longest, descending."""
    found = []
    for block in state.open_round.awaited.blocks:
        session = state.members.sessions.get(state.members.hosts.get(block[0], ""))
        if session is not None:
            found.append((max(0.0, now - session.last_seen), block[0]))
    return heapq.nlargest(most, found)


def _of_traffic(subject: Subject) -> Iterator[_Family]:
    """Streams, bytes, and what was rejected."""
    streams, door = subject.engine.streams, subject.door
    yield GaugeMetricFamily("cospan_streams", "Open streams of agent processes.", len(streams))
    yield CounterMetricFamily("cospan_received_bytes", "Bytes of messages from agents.", door.received_bytes)
    yield CounterMetricFamily("cospan_sent_bytes", "Bytes of messages to agents.", streams.sent_bytes)
    text = "Gradients that did not count, by reason."
    yield _labelled(
        CounterMetricFamily("cospan_gradients_rejected", text, labels=("reason",)),
        ((disposition.value, streams.receipts[disposition]) for disposition in Disposition),
    )
    text = "Calls and streams that were rejected or ended, by the reason of the error."
    yield _labelled(
        CounterMetricFamily("cospan_rejected_requests", text, labels=("reason",)),
        ((reason, door.refused.get(reason, 0)) for reason in (*REASONS, UNREAD)),
    )


def _of_rounds(counts: Counters) -> Iterator[_Family]:
    """The rounds that this process has closed, and the newest of them."""
    yield CounterMetricFamily("cospan_rounds", "Rounds that this process has closed.", counts.rounds)
    yield CounterMetricFamily("cospan_contributions", "Gradients of agents in them.", counts.contributions)
    text = "Agents that a round closed without."
    yield CounterMetricFamily("cospan_missed_contributions", text, counts.missed_contributions)
    yield CounterMetricFamily("cospan_outliers", "Gradients far from those of the others.", counts.outliers)
    duration = HistogramMetricFamily("cospan_round_duration_seconds", "How long rounds take, from basis to basis.")
    duration.add_metric((), list(_cumulated(counts.by_duration)), sum_value=counts.seconds)
    yield duration
    yield from _of_newest(counts.newest)


def _cumulated(by_duration: Iterable[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip((*map(str, ROUND_SECONDS), "+Inf"), by_duration, strict=True):
        total += count
        yield bound, float(total)


def _of_newest(report: RoundReport | None) -> Iterator[_Family]:
    """Metrics of the newest closed round; without a value before the first."""
    for name, text, field in (
        ("cospan_round_contributors", "Agents whose gradients the newest closed round counted.", "contributors"),
        ("cospan_basis_movement", "Movement of the subspace in the newest closed round, 0 to 1.", "basis_movement"),
        ("cospan_basis_orthonormality_error", "Largest entry of |BᵀB − I| after it.", "orthonormality_error"),
    ):
        yield GaugeMetricFamily(name, text, value=None if report is None else getattr(report, field))


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Iterable[tuple[str, float]]
) -> GaugeMetricFamily | CounterMetricFamily:
    """The family with one time series for each (label, value)."""
    for label, value in values:
        family.add_metric((label,), value)
    return family
