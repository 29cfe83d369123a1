"""What each Prometheus metric is: the one list from which the exporter and docs/reference/metrics.md are made.

A counter's name is without the `_total` that Prometheus adds. The last group is exported by prometheus_client.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

MOST_NAMED = 20
"""Most agents with a time series of their own: the awaited ones that have been silent longest."""


class MetricKind(Enum):
    """Prometheus' type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: without `_total`.
        kind: its type.
        unit: of its values; 1 for a number without unit.
        meaning: what it is, in one sentence; Prometheus shows it as its help.
        advice: which values call for action, and which; empty if none do.
        labels: of its time series.
    """

    name: str
    kind: MetricKind
    unit: str
    meaning: str
    advice: str = ""
    labels: tuple[str, ...] = ()

    @property
    def sample_name(self) -> str:
        """The name of its samples, which queries use."""
        return f"{self.name}_total" if self.kind is MetricKind.COUNTER else self.name


_C, _G, _H = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM

GROUPS: Mapping[str, tuple[Metric, ...]] = MappingProxyType(
    {
        "The run": (
            Metric("cospan_run_info", _G, "1", "The run; always 1.", labels=("run_id", "workload", "version")),
            Metric(
                "cospan_run_phase", _G, "0 or 1",
                "1 for the phase that the run is in, else 0: waiting, collecting, closing, finished, draining.",
                "waiting for long: not all agents have joined", ("phase",),
            ),
            Metric(
                "cospan_phase_seconds", _G, "s",
                "How long the run has been in its phase; while collecting, the age of the open round.",
                "above `--round-timeout-seconds`: see which agents it waits for",
            ),
            Metric("cospan_round", _G, "rounds", "The open round, and the number of closed rounds."),
            Metric(
                "cospan_durable_round", _G, "rounds", "Rounds that are stored: every one below this.",
                "far behind, or constant: the disk",
            ),
            Metric("cospan_rounds_planned", _G, "rounds", "Rounds of the whole run; 0 for no end."),
            Metric(
                "cospan_incarnation", _G, "starts", "Number of coordinator processes that have served this run.",
                "rises by itself: the coordinator crashes; see its log",
            ),
            Metric(
                "cospan_privacy_epsilon_spent", _G, "ε",
                "With differential privacy, ε that the vectors of an agent have cost at most; 0 without.",
                "near the promised one: the run ends with its budget",
            ),
            Metric("cospan_privacy_epsilon_promised", _G, "ε", "ε that is promised to every agent; 0 without."),
            Metric(
                "cospan_privacy_vectors", _G, "vectors",
                "With differential privacy, vectors that an agent has sent at most, of `dp_vectors`; 0 without.",
            ),
            Metric(
                "cospan_rounds", _C, "rounds",
                "Rounds that this process has closed; the rate is rounds per second.",
            ),
            Metric(
                "cospan_round_duration_seconds", _H, "s", "How long rounds take, from basis to basis.",
                "p99 far above p50: stragglers; consider `--quorum`",
            ),
            Metric(
                "cospan_round_contributors", _G, "agents",
                "Agents whose gradients the newest closed round counted.",
                "below the fleet: `cospan status` names the missing, lost and gone agents",
            ),
            Metric("cospan_contributions", _C, "gradients", "Gradients that have counted in closed rounds."),
            Metric(
                "cospan_missed_contributions", _C, "agents", "Agents that a round closed without (`--quorum`).",
                "repeatedly the same ones: their machine or network",
            ),
            Metric(
                "cospan_outliers", _C, "gradients",
                "Gradients far from those of the others (with robust aggregation).",
                "`cospan status` names the agents; inspect those sites",
            ),
            Metric(
                "cospan_basis_movement", _G, "sine, 0 to 1",
                "Sine of the largest angle by which the newest closed round turned the subspace.",
                "a jump: an agent joined, left, or met another environment. With `practical` it need not fall: "
                "directions that are not in use keep turning",
            ),
            Metric(
                "cospan_basis_orthonormality_error", _G, "1",
                "Largest entry of |BᵀB − I| after the newest closed round.",
                "above 1e-8: a bug; keep the run folder and report it",
            ),
        ),
        "The fleet": (
            Metric(
                "cospan_agents", _G, "agents",
                "Agents of the run, by phase: connected, lost (stream broken, may return), gone.",
                "lost for long: `--session-timeout-seconds`", ("phase",),
            ),
            Metric("cospan_agents_expected", _G, "agents", "Agents that the first round waits for."),
            Metric("cospan_sessions", _G, "processes", "Agent processes in the run; a group is one."),
            Metric("cospan_waiting_for_agents", _G, "agents", "Agents whose gradient the open round lacks."),
            Metric(
                "cospan_waiting_for_agent_silent_seconds", _G, "s",
                f"Silence of awaited agents; the {MOST_NAMED} longest, a group by its first name.",
                "inspect the first of them", ("agent",),
            ),
            Metric(
                "cospan_feed_silent_seconds", _G, "s",
                "Time since the last step of a feed whose agent waits for the next one for longer than usual; the "
                f"{MOST_NAMED} longest.",
                "see whether the site's control loop runs, and reaches its agent", ("agent",),
            ),
            Metric("cospan_joins", _C, "agents", "Agents that have joined the run."),
            Metric("cospan_disconnects", _C, "agents", "Agents whose stream broke."),
            Metric(
                "cospan_reconnects", _C, "agents", "Agents that came back after their stream broke.",
                "often: a proxy's idle time-out, a weak network",
            ),
            Metric(
                "cospan_departures", _C, "agents", "Agents that left, or were given up.",
                "the log says why, by name",
            ),
            Metric(
                "cospan_gradients_left_out", _C, "gradients", "Gradients that a round's arithmetic failed with.",
                "the log names the agents: their software is broken, or they are hostile",
            ),
        ),
        "Traffic, and what is rejected": (
            Metric(
                "cospan_streams", _G, "streams", "Open streams of agent processes.",
                "many more than sessions: a peer opens streams and does not join",
            ),
            Metric("cospan_received_bytes", _C, "bytes", "Bytes of messages from agents."),
            Metric("cospan_sent_bytes", _C, "bytes", "Bytes of messages queued for agents."),
            Metric(
                "cospan_gradients_rejected", _C, "gradients",
                "Gradients that did not count, by reason: duplicate (sent again after a break, harmless), late "
                "(its round had closed).",
                "many late: a longer `--deadline-seconds`, or `--max-staleness`", ("reason",),
            ),
            Metric(
                "cospan_rejected_requests", _C, "calls",
                "Calls and streams that were rejected or ended, by the reason of the error.",
                "the remedy of the reason, in docs/reference/errors.md", ("reason",),
            ),
        ),
        "The process": (
            Metric(
                "process_resident_memory_bytes", _G, "bytes", "Memory.",
                "grows for hours with a constant fleet: report it",
            ),
            Metric("process_virtual_memory_bytes", _G, "bytes", "Address space; rarely useful."),
            Metric(
                "process_cpu_seconds", _C, "s", "CPU time; the rate is cores.",
                "near 1: the coordinator is the bottleneck; groups or relays",
            ),
            Metric("process_start_time_seconds", _G, "s since 1970", "Start of the process."),
            Metric(
                "process_open_fds", _G, "files", "Open files and connections.",
                "near `process_max_fds`: see there",
            ),
            Metric(
                "process_max_fds", _G, "files",
                "Largest number of open files, which the listeners share (docs/security.md).",
                "raise `ulimit -n`",
            ),
        ),
    }
)  # fmt: skip
"""The metrics under the headings of their page."""

METRICS: Mapping[str, Metric] = MappingProxyType(
    {metric.name: metric for metrics in GROUPS.values() for metric in metrics}
)
"""Name → metric."""
