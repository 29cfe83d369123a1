"""The numbers that answers are made from, of a live or a stored run alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cospan.core.run_fields import Participation
from cospan.core.specification import RunSpecification
from cospan.dashboard.analysis.learnt import Learnt
from cospan.dashboard.analysis.trend import Trend
from cospan.dashboard.rank_spectrum import Spectrum
from cospan.dashboard.series import RoundSeries
from cospan.wire.messages import AgentPhase, AgentReport, FinishCause

GOOD, CALM, WARN, BAD = "good", "calm", "warn", "bad"
"""Tones."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An operator's question, and its answer.

    Attributes:
        key: of the question, for the page.
        question: in words.
        verdict: the answer in a few words.
        tone: good, calm, warn or bad.
        sentences: with numbers; one or more.
        agents: that it names, the most striking first; at most five.
    """

    key: str
    question: str
    verdict: str
    tone: str
    sentences: tuple[str, ...]
    agents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a run.

    Attributes:
        specification: of the run.
        rounds: that have closed.
        series: of the run.
        agents: as the coordinator or the run folder knows them.
        learnt: agent id → its numbers; empty if there is no telemetry.
        td_errors: agent id → its TD error over several rounds; empty if unknown.
        arrivals: agent id → seconds from a round's opening to its gradient; empty if unknown.
        trend: what moved since the middle of the run; None if unknown.
        spectrum: of the heads; None if unknown.
        waiting: whether the run has not begun.
        draining: whether the coordinator ends, and the run is to be continued.
        cause: why the run is over; None if it is not, or was interrupted.
        message: the same in a sentence.
        live: whether the run is watched while it runs.
        phase_seconds: how long the open round, or the wait for agents, has lasted.
    """

    specification: RunSpecification
    rounds: int
    series: RoundSeries
    agents: Sequence[AgentReport]
    learnt: Mapping[str, Learnt] = field(default_factory=dict)
    td_errors: Mapping[str, float] = field(default_factory=dict)
    arrivals: Mapping[str, float] = field(default_factory=dict)
    trend: Trend | None = None
    spectrum: Spectrum | None = None
    waiting: bool = False
    draining: bool = False
    cause: FinishCause | str | None = None
    message: str = ""
    live: bool = True
    phase_seconds: float = 0.0

    @property
    def over(self) -> bool:
        """Whether no round follows."""
        return self.cause is not None

    @property
    def ended_well(self) -> bool:
        """Whether all rounds are done, or someone has stopped the run."""
        good = FinishCause.ROUNDS_REACHED, FinishCause.STOPPED
        return self.cause in (*good, *(cause.value for cause in good))

    @property
    def gone(self) -> list[AgentReport]:
        """Agents that have left."""
        return [agent for agent in self.agents if agent.phase is AgentPhase.GONE]

    @property
    def has_quorum(self) -> bool:
        """Whether rounds may close without some agents."""
        return self.specification.participation is not Participation.ALL


def digits(value: float) -> str:
    """Three digits."""
    if value == 0.0:
        return "0"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.2e}".replace("e-0", "e-")


def duration(seconds: float) -> str:
    """A short time, with its unit."""
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"
