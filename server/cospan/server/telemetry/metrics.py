"""The Prometheus metrics of a run, computed at each scrape from the machine's state and from `Counters`.

`metric_catalogue` says what each is. The number of time series is bounded: agent ids are labels only for the few
agents that have been silent longest.
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

from cospan.core.privacy.private_run import most_sent, spent_after
from cospan.server.admission.interceptor import AdmissionInterceptor
from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.agent_engine import AgentEngine
from cospan.server.telemetry.agent_stats import AgentStats
from cospan.server.telemetry.counters import ROUND_SECONDS, Counters
from cospan.server.telemetry.metric_catalogue import METRICS, MOST_NAMED, MetricKind
from cospan.wire.errors import REASONS
from cospan.wire.messages import AgentPhase, Disposition, RoundReport, RunPhase

UNREAD = "UNREAD"
"""Reason of a stream that ended because its peer does not read; no peer receives it, so `REASONS` lacks it."""
_EVENTS = {
    "agent-joined": "cospan_joins",
    "agent-lost": "cospan_disconnects",
    "agent-back": "cospan_reconnects",
    "gradients-left-out": "cospan_gradients_left_out",
    "agent-gone": "cospan_departures",
}

_Simple: TypeAlias = CounterMetricFamily | GaugeMetricFamily
_Family: TypeAlias = _Simple | HistogramMetricFamily


@dataclass(frozen=True, slots=True)
class Subject:
    """A coordinator or relay whose metrics are collected; a relay does not close rounds itself."""

    engine: AgentEngine
    door: AdmissionInterceptor
    counts: Counters
    agent_stats: AgentStats
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
        silent = subject.agent_stats.silent_feeds(state, now, MOST_NAMED)
        yield _labelled("cospan_feed_silent_seconds", ((agent, seconds) for seconds, agent in silent))
        for kind, name in _EVENTS.items():
            yield _family(name, subject.counts.notes.get(kind, 0))
        yield from _of_traffic(subject)
        if subject.closes_rounds:
            yield from _of_rounds(subject.counts)


def _of_state(state: CoordinatorState, now: float) -> Iterator[_Family]:
    """Phase and progress of the run."""
    spec, config = state.specification, state.config
    info = _family("cospan_run_info")
    info.add_metric((config.run_id, spec.workload, importlib.metadata.version("cospan")), 1.0)
    yield info
    yield _labelled("cospan_run_phase", ((phase.value, float(state.phase is phase)) for phase in RunPhase))
    yield _family("cospan_phase_seconds", max(0.0, now - state.phase_since))
    yield _family("cospan_round", state.round)
    yield _family("cospan_durable_round", state.durability.durable_round)
    yield _family("cospan_rounds_planned", spec.rounds)
    yield _family("cospan_incarnation", config.incarnation)
    is_open = state.phase in (RunPhase.COLLECTING, RunPhase.CLOSING)
    spent = spent_after(spec, most_sent(state.round, config.incarnation, is_open=is_open))
    yield _family("cospan_privacy_epsilon_spent", 0.0 if spent is None else spent.epsilon)
    yield _family("cospan_privacy_epsilon_promised", spec.dp_epsilon)
    yield _family("cospan_privacy_vectors", 0 if spent is None else spent.vectors)


def _of_fleet(state: CoordinatorState, now: float) -> Iterator[_Family]:
    """Agents that are present, gone and awaited."""
    members, awaited = state.members, state.open_round.awaited
    agents = {phase.value: 0 for phase in (AgentPhase.CONNECTED, AgentPhase.LOST)}
    for session in members.sessions.values():
        agents[session.phase.value] += len(session.agent_ids)
    agents[AgentPhase.GONE.value] = len(members.departures)
    yield _labelled("cospan_agents", agents.items())
    yield _family("cospan_agents_expected", state.specification.agents)
    yield _family("cospan_sessions", len(members.sessions))
    yield _family("cospan_waiting_for_agents", len(awaited))
    silent = ((agent, seconds) for seconds, agent in longest_silent(state, now))
    yield _labelled("cospan_waiting_for_agent_silent_seconds", silent)


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
    yield _family("cospan_streams", len(streams))
    yield _family("cospan_received_bytes", door.received_bytes)
    yield _family("cospan_sent_bytes", streams.sent_bytes)
    rejected = ((disposition.value, streams.receipts[disposition]) for disposition in Disposition)
    yield _labelled("cospan_gradients_rejected", rejected)
    refused = ((reason, door.refused.get(reason, 0)) for reason in (*REASONS, UNREAD))
    yield _labelled("cospan_rejected_requests", refused)


def _of_rounds(counts: Counters) -> Iterator[_Family]:
    """The rounds that this process has closed, and the newest of them."""
    yield _family("cospan_rounds", counts.rounds)
    yield _family("cospan_contributions", counts.contributions)
    yield _family("cospan_missed_contributions", counts.missed_contributions)
    yield _family("cospan_outliers", counts.outliers)
    duration = METRICS["cospan_round_duration_seconds"]
    histogram = HistogramMetricFamily(duration.name, duration.meaning)
    histogram.add_metric((), list(_cumulated(counts.by_duration)), sum_value=counts.seconds)
    yield histogram
    yield from _of_newest(counts.newest)


def _cumulated(by_duration: Iterable[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip((*map(str, ROUND_SECONDS), "+Inf"), by_duration, strict=True):
        total += count
        yield bound, float(total)


def _of_newest(report: RoundReport | None) -> Iterator[_Family]:
    """Metrics of the newest closed round; without a value before the first."""
    for name, field in (
        ("cospan_round_contributors", "contributors"),
        ("cospan_basis_movement", "basis_movement"),
        ("cospan_basis_orthonormality_error", "orthonormality_error"),
    ):
        yield _family(name, None if report is None else getattr(report, field))


def _family(name: str, value: float | None = None) -> _Simple:
    """The counter or gauge of the catalogue, with its value if it has no labels."""
    metric = METRICS[name]
    family = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
    return family(name, metric.meaning, value, metric.labels or None)


def _labelled(name: str, values: Iterable[tuple[str, float]]) -> _Simple:
    """The counter or gauge with one time series for each (label, value)."""
    family = _family(name)
    for label, value in values:
        family.add_metric((label,), value)
    return family
