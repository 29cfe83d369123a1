"""The dashboard's view of a running coordinator, computed in the dashboard's own thread.

The coordinator's event loop only queues each closed round and replaces its frozen state. The dashboard's thread
makes reports and JSON from these, so observers cannot delay a round.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.dashboard.payloads import agent_row, changed_rows, heat_map, run_of, series_of, spectrum_values
from cospan.dashboard.rank_spectrum import spectrum_of_covariance, spectrum_of_moments
from cospan.dashboard.series import Round, RoundSeries
from cospan.server.coordinator import Coordinator
from cospan.server.machine.events import ComputeBasis, ReportRound
from cospan.server.telemetry.run_status import run_report
from cospan.wire.messages import AgentReport, RoundReport

_MOST_PENDING = 100_000
_MOST_MOMENTS = 1_024
_MOST_MOMENT_NUMBERS = 2**20
_SLOW_SECONDS = 1.0
_MANY_AGENTS = 250


@dataclass(frozen=True, slots=True)
class Truth:
    """Errors of a run whose true solutions are known, as in `rounds.csv`.

    Attributes:
        value_error: current median over the agents; None if unknown.
        subspace_errors: (round, error) of closed rounds.
        agents: agent id → value error.
    """

    value_error: float | None = None
    subspace_errors: tuple[tuple[int, float], ...] = ()
    agents: Mapping[str, float] = field(default_factory=dict)


class RunView:
    """The state of one coordinator for browsers; any thread may call `tell`, only the dashboard's the rest."""

    def __init__(self, coordinator: Coordinator, earlier: Iterable[RoundReport] = ()) -> None:
        """`earlier` are the rounds that closed before this process began."""
        self._coordinator = coordinator
        self._pending: deque[RoundReport] = deque(maxlen=_MOST_PENDING)
        self._truths: deque[Truth] = deque(maxlen=_MOST_PENDING)
        self._series = RoundSeries()
        for report in earlier:
            self._series.add(_round_of(report))
        self._rows: dict[str, list[Any]] = {}
        self._run: dict[str, Any] = {}
        self._basis: dict[str, Any] | None = None
        self._spectrum: dict[str, Any] | None = None
        self._value_errors: dict[str, float] = {}
        self._moments: dict[str, Float[np.ndarray, "r r"]] = {}
        self._closing: dict[str, Float[np.ndarray, "r r"]] | None = None
        """Second moments of a closed round; None while the next one is to be sampled."""
        self._sent_points, self._sent_revision = 0, 0
        self._slow_due, self._shown_round = 0.0, -1
        coordinator.engine.on_round.append(self._leave)
        coordinator.engine.on_closing.append(self._probe)

    def _leave(self, command: ReportRound) -> None:
        """Called on the coordinator's event loop."""
        self._pending.append(command.report)

    def tell(self, truth: Truth) -> None:
        """Queues known errors."""
        self._truths.append(truth)

    def gather(self) -> None:
        """Takes in the queued rounds and errors; to be called often, with or without browsers."""
        while self._pending:
            self._series.add(_round_of(self._pending.popleft()))
        while self._truths:
            truth = self._truths.popleft()
            self._series.learn(truth.value_error, truth.subspace_errors)
            self._value_errors.update(truth.agents)
        self._gather_moments()

    def _probe(self, _command: ComputeBasis) -> None:
        """Called on the coordinator's event loop; samples one round between two calls of `gather`."""
        if self._closing is not None:
            return
        moments: dict[str, Float[np.ndarray, "r r"]] = {}
        for first, contribution in self._coordinator.engine.state.open_round.contributions.items():
            moment = contribution.head_second_moment
            too_large = moment is None or moment.size > _MOST_MOMENT_NUMBERS // _MOST_MOMENTS
            if moment is None or too_large or len(moments) >= _MOST_MOMENTS:
                break
            moments[first] = moment.astype(np.float64)  # a copy: not a view of a large upload
        self._closing = moments

    def _gather_moments(self) -> None:
        """Keeps the newest second moment of each sender."""
        moments, self._closing = self._closing or {}, None
        for first, moment in moments.items():
            if first in self._moments or len(self._moments) < _MOST_MOMENTS:
                self._moments[first] = moment

    def whole(self) -> dict[str, Any]:
        """The complete frame, as of the last `frame`."""
        return {
            "whole": True,
            "run": self._run,
            "series": series_of(self._series),
            "agents": list(self._rows.values()),
            "basis": self._basis,
            "spectrum": self._spectrum,
        }

    def frame(self) -> dict[str, Any]:
        """The changes since the last frame."""
        engine = self._coordinator.engine
        state = engine.state
        report = run_report(state, engine.history, engine.now(), self._coordinator.agent_stats)
        self._run = {**run_of(report, self._series.round_times), "errors": self._errors()}
        frame: dict[str, Any] = {"run": self._run, "series": self._new_points()}
        now = time.monotonic()
        slow = now >= self._slow_due
        if slow or len(report.agents) <= _MANY_AGENTS:
            frame["agents"] = self._changed_agents(report.agents)
        if slow:
            self._slow_due = now + _SLOW_SECONDS
            if state.round != self._shown_round:
                self._shown_round = state.round
                self._basis = frame["basis"] = heat_map(state.basis)
                self._spectrum = frame["spectrum"] = self._heads(state.head_covariance)
        return frame

    def _errors(self) -> dict[str, float | None]:
        """The newest value of each chart."""
        point = self._series.points[-1] if self._series.points else None
        return {
            "movement": None if point is None else point.as_row()[1],
            "subspace": next((p.subspace_error for p in self._series.points[:-9:-1] if p.subspace_error), None),
            "value": next((p.value_error for p in self._series.points[:-9:-1] if p.value_error), None),
        }

    def _changed_agents(self, agents: Iterable[AgentReport]) -> list[list[Any]]:
        rejected = self._coordinator.agent_stats.rejected
        rows = [
            agent_row(agent, rejected.get(agent.agent_id, 0), self._value_errors.get(agent.agent_id))
            for agent in agents
        ]
        changed = changed_rows(rows, self._rows)
        self._rows.update((row[0], row) for row in changed)
        if len(self._rows) > 2 * len(rows):  # the run forgets names
            self._rows = {row[0]: row for row in rows}
        return changed

    def _new_points(self) -> dict[str, Any]:
        """The points from the last frame's open one on, and a few before, whose errors may have become known."""
        series = self._series
        start = max(0, self._sent_points - 9) if self._sent_revision == series.revision else 0
        self._sent_points, self._sent_revision = len(series.points), series.revision
        return series_of(series, start)

    def _heads(self, covariance: Float[np.ndarray, "r r"] | None) -> dict[str, Any] | None:
        """The spectrum of W where the method has one, otherwise of the second moments that agents send."""
        if covariance is not None:
            return spectrum_values(spectrum_of_covariance(covariance))
        if not self._moments:
            return None
        return spectrum_values(spectrum_of_moments(np.sum(list(self._moments.values()), axis=0)))


def _round_of(report: RoundReport) -> Round:
    return Round(report.closed_round, report.seconds, report.contributors, report.basis_movement)
