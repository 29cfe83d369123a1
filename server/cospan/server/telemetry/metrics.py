"""A run as Prometheus' metrics: read from the state when somebody scrapes, and from what `Counters` has counted.

The number of time series is bounded: no label holds the name of an agent, but for the few that are waited for.
Needs prometheus_client (`cospan[metrics]`).
"""

import heapq
import importlib.metadata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from cospan.server.admission.interceptor import AdmissionInterceptor
from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.streams import Streams
from cospan.server.telemetry.counters import ROUND_SECONDS, Counters, CounterSource
from cospan.wire.errors import REASONS
from cospan.wire.messages import AgentPhase, Disposition, RoundReport, RunPhase

MOST_NAMED = 20
"""So many agents at most have a time series of their own at a time: those that are waited for the longest."""
UNREAD = "UNREAD"
"""The one reason that nobody is told, and so is in no table of errors: a peer that does not read."""
_EVENTS = {
    "agent-joined": ("cospan_joins", "Agents that have joined the run."),
    "agent-lost": ("cospan_disconnects", "Agents whose stream broke."),
    "agent-back": ("cospan_reconnects", "Agents that came back after their stream broke."),
    "gradients-left-out": ("cospan_gradients_left_out", "Gradients that a round's arithmetic failed with."),
    "agent-gone": ("cospan_departures", "Agents that left, or were given up."),
}

_Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


@runtime_checkable
class MetricsSource(CounterSource, Protocol):
    """What can be scraped: a coordinator's engine, or a relay's."""

    @property
    def streams(self) -> Streams:
        """Those that are open, and what was sent through all of them."""
        ...

    @property
    def state(self) -> CoordinatorState:
        """What the machine knows; a frozen value."""
        ...

    def now(self) -> float:
        """The time on the machine's clock, in seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """What is scraped.

    Attributes:
        engine: of the coordinator, or of the relay.
        door: who may come in there.
        counts: what has happened since the process began.
        closes_rounds: whether it closes rounds itself; a relay does not.
    """

    engine: MetricsSource
    door: AdmissionInterceptor
    counts: Counters
    closes_rounds: bool = True


def registry_of(subject: Subject) -> CollectorRegistry:
    """All metrics of one coordinator or relay, and those of its process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunCollector(subject))
    ProcessCollector(registry=registry)
    return registry


class RunCollector(Collector):
    """The metrics of a run, made anew at every scrape from one frozen state."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def collect(self) -> Iterator[_Family]:
        """Every metric with its present values."""
        subject = self._subject
        state, now = subject.engine.state, subject.engine.now()
        yield from _of_state(state, now)
        yield from _of_fleet(state, now)
        yield from _of_events(subject.counts)
        yield from _of_traffic(subject)
        if subject.closes_rounds:
            yield from _of_rounds(subject.counts)


def _of_state(state: CoordinatorState, now: float) -> Iterator[_Family]:
    """Where the run stands."""
    spec = state.specification
    info = GaugeMetricFamily(
        "cospan_run_info", "The run that is served; always 1.", labels=("run_id", "workload", "version")
    )
    info.add_metric((state.config.run_id, spec.workload, importlib.metadata.version("cospan")), 1.0)
    yield info
    phases = GaugeMetricFamily("cospan_run_phase", "1 for the phase that the run is in, else 0.", labels=("phase",))
    for phase in RunPhase:
        phases.add_metric((phase.value,), float(state.phase is phase))
    yield phases
    yield _gauge(
        "cospan_phase_seconds", "How long the run has been in its phase.", max(0.0, now - state.phase_since)
    )
    yield _gauge("cospan_round", "The open round; so many rounds have closed.", state.round)
    durable = state.durability.durable_round
    yield _gauge("cospan_durable_round", "Rounds that are stored: every one below this.", durable)
    yield _gauge("cospan_rounds_planned", "How many rounds there are to be; 0 for no end.", spec.rounds)
    yield _gauge(
        "cospan_incarnation", "How often a coordinator was started for this run.", state.config.incarnation
    )


def _of_fleet(state: CoordinatorState, now: float) -> Iterator[_Family]:
    """Who is here, who is gone, who is waited for."""
    agents = GaugeMetricFamily("cospan_agents", "Agents of the run, by where they stand.", labels=("phase",))
    for phase in (AgentPhase.CONNECTED, AgentPhase.LOST):
        here = sum(len(each.agent_ids) for each in state.members.sessions.values() if each.phase is phase)
        agents.add_metric((phase.value,), here)
    agents.add_metric((AgentPhase.GONE.value,), len(state.members.departures))
    yield agents
    yield _gauge("cospan_agents_expected", "How many agents the first round waits for.", state.specification.agents)
    yield _gauge("cospan_sessions", "Agent processes in the run, a group being one.", len(state.members.sessions))
    awaited = state.open_round.awaited
    yield _gauge("cospan_waiting_for_agents", "Agents whose gradient the open round lacks.", len(awaited))
    silent = GaugeMetricFamily(
        "cospan_waiting_for_agent_silent_seconds",
        f"Silence of those that are waited for; the {MOST_NAMED} longest, a group by its first name.",
        labels=("agent",),
    )
    for seconds, agent in longest_silent(state, now):
        silent.add_metric((agent,), seconds)
    yield silent


def longest_silent(state: CoordinatorState, now: float, most: int = MOST_NAMED) -> list[tuple[float, str]]:
    """Seconds of silence and name of those that the open round waits for, the longest first; a group has one."""
    found = []
    for block in state.open_round.awaited.blocks:
        session = state.members.sessions.get(state.members.hosts.get(block[0], ""))
        if session is not None:
            found.append((max(0.0, now - session.last_seen), block[0]))
    return heapq.nlargest(most, found)


def _of_events(counts: Counters) -> Iterator[_Family]:
    """What has happened to the fleet since the process began."""
    for kind, (name, text) in _EVENTS.items():
        yield CounterMetricFamily(name, text, value=counts.notes.get(kind, 0))


def _of_traffic(subject: Subject) -> Iterator[_Family]:
    """Streams, bytes, and what was turned away."""
    streams = subject.engine.streams
    yield _gauge("cospan_streams", "Open streams of agent processes.", len(streams))
    received = subject.door.received_bytes
    yield CounterMetricFamily("cospan_received_bytes", "Bytes of messages that agents have sent.", value=received)
    yield CounterMetricFamily("cospan_sent_bytes", "Bytes of messages to agents.", value=streams.sent_bytes)
    late = CounterMetricFamily(
        "cospan_gradients_rejected", "Gradients that did not count, by why.", labels=("reason",)
    )
    for disposition in Disposition:
        late.add_metric((disposition.value,), streams.receipts[disposition])
    yield late
    refused = CounterMetricFamily(
        "cospan_rejected_requests",
        "Calls and streams that were refused or cut off, by the reason of the error.",
        labels=("reason",),
    )
    for reason in (*REASONS, UNREAD):
        refused.add_metric((reason,), subject.door.refused.get(reason, 0))
    yield refused


def _of_rounds(counts: Counters) -> Iterator[_Family]:
    """The rounds that have closed since the process began, and the newest of them."""
    yield CounterMetricFamily("cospan_rounds", "Rounds that this process has closed.", value=counts.rounds)
    yield CounterMetricFamily("cospan_contributions", "Gradients of agents in them.", value=counts.contributions)
    yield CounterMetricFamily(
        "cospan_missed_contributions", "Agents that a round closed without.", value=counts.absences
    )
    yield CounterMetricFamily("cospan_outliers", "Gradients far from those of the others.", value=counts.outliers)
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
    """Numbers of the round that closed last; there are none before one has."""
    contributors = _gauge("cospan_round_contributors", "Agents whose gradients the newest closed round had.")
    movement = _gauge("cospan_basis_movement", "By how much the newest closed round turned the subspace, 0 to 1.")
    error = _gauge("cospan_basis_orthonormality_error", "Largest entry of |BᵀB − I| after it.")
    if report is not None:
        contributors.add_metric((), report.contributors)
        movement.add_metric((), report.basis_movement)
        error.add_metric((), report.orthonormality_error)
    yield contributors
    yield movement
    yield error


def _gauge(name: str, text: str, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
