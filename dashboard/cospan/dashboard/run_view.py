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

from cospan.core.aggregation.basis_update import Contribution
from cospan.dashboard.analysis.agent_history import AgentHistories
from cospan.dashboard.analysis.answers import answers_of
from cospan.dashboard.analysis.facts import Facts
from cospan.dashboard.analysis.learnt import Learnt, error_columns, quartiles
from cospan.dashboard.analysis.round_parts import RoundParts
from cospan.dashboard.analysis.trend import PriorSnapshots, Trend, error_trend, movement_trend
from cospan.dashboard.payloads import (
    agent_row,
    answer_values,
    changed_rows,
    heat_map,
    run_of,
    series_of,
    spectrum_values,
)
from cospan.dashboard.rank_spectrum import Spectrum, spectrum_of_covariance, spectrum_of_moments
from cospan.dashboard.series import Round, RoundSeries
from cospan.server.coordinator import Coordinator
from cospan.server.machine.events import ComputeBasis, ReportRound
from cospan.server.machine.state import CoordinatorState
from cospan.server.telemetry.run_status import run_report
from cospan.wire.messages import AgentReport, RoundReport, RunPhase, RunReport

_MOST_PENDING = 100_000
_MOST_MOMENTS = 1_024
_MOST_MOMENT_NUMBERS = 2**20
_SLOW_SECONDS = 1.0
_MANY_AGENTS = 250
_STEADY = 0.9
"""Weight of what was before in an agent's TD error, which is looked at once a second."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What `cospan run` knows of its agents, and the coordinator does not.

    Attributes:
        subspace_errors: (round, error) of closed rounds.
        agents: agent id → its newest numbers; a group's are medians, under the group's name.
    """

    subspace_errors: tuple[tuple[int, float], ...] = ()
    agents: Mapping[str, Learnt] = field(default_factory=dict)


class _Heads:
    """The second moments of the heads, in runs whose agents send them."""

    def __init__(self) -> None:
        self._moments: dict[str, Float[np.ndarray, "r r"]] = {}
        self._closing: dict[str, Float[np.ndarray, "r r"]] | None = None
        """Second moments of a closed round; None while the next one is to be sampled."""

    def probe(self, state: CoordinatorState) -> None:
        """Called on the coordinator's event loop; samples one round between two calls of `gather`."""
        if self._closing is not None:
            return
        moments: dict[str, Float[np.ndarray, "r r"]] = {}
        for first, contribution in state.open_round.contributions.items():
            moment = contribution.head_second_moment if isinstance(contribution, Contribution) else None
            too_large = moment is None or moment.size > _MOST_MOMENT_NUMBERS // _MOST_MOMENTS
            if moment is None or too_large or len(moments) >= _MOST_MOMENTS:
                break
            moments[first] = moment.astype(np.float64)  # a copy: not a view of a large upload
        self._closing = moments

    def gather(self) -> None:
        """Keeps the newest second moment of each sender."""
        moments, self._closing = self._closing or {}, None
        for first, moment in moments.items():
            if first in self._moments or len(self._moments) < _MOST_MOMENTS:
                self._moments[first] = moment

    def spectrum(self, covariance: Float[np.ndarray, "r r"] | None) -> Spectrum | None:
        """The spectrum of W where the method has one, otherwise of the second moments."""
        if covariance is not None:
            return spectrum_of_covariance(covariance)
        return spectrum_of_moments(np.sum(list(self._moments.values()), axis=0)) if self._moments else None


class RunView:
    """The state of one coordinator for browsers; any thread may call `tell`, only the dashboard's the rest."""

    def __init__(self, coordinator: Coordinator, earlier: Iterable[RoundReport] = ()) -> None:
        """`earlier` are the rounds that closed before this process began."""
        self._coordinator = coordinator
        self._pending: deque[ReportRound] = deque(maxlen=_MOST_PENDING)
        self._truths: deque[Truth] = deque(maxlen=_MOST_PENDING)
        self._series = RoundSeries()
        for report in earlier:
            self._series.add(_round_of(report, {}))
        self._heads, self._parts = _Heads(), RoundParts()
        self._priors, self._histories = PriorSnapshots(), AgentHistories()
        self._learnt: dict[str, Learnt] = {}
        self._td_errors: dict[str, float] = {}
        """Agent id → smoothed; one of a single round says little."""
        self._rows: dict[str, list[Any]] = {}
        self._learnt_rows: dict[str, list[Any]] = {}
        self._run: dict[str, Any] = {}
        self._slow: dict[str, Any] = {"basis": None, "spectrum": None, "answers": []}
        self._spectrum: Spectrum | None = None
        self._sent_points, self._sent_revision = 0, 0
        self._slow_due, self._history_due, self._shown_round = 0.0, 0.0, -1
        coordinator.engine.on_round.append(self._pending.append)
        coordinator.engine.on_closing.append(self._leave_closing)

    def _leave_closing(self, _command: ComputeBasis) -> None:
        """Called on the coordinator's event loop."""
        engine = self._coordinator.engine
        self._heads.probe(engine.state)
        self._parts.leave(engine.state, engine.now())

    def tell(self, truth: Truth) -> None:
        """Queues what is known of the agents."""
        self._truths.append(truth)

    # Taking in -------------------------------------------------------------------------------------------------

    def gather(self) -> None:
        """Takes in what has been queued; to be called often, with or without browsers."""
        self._parts.gather()
        learning = max((each.learning_seconds or 0.0 for each in self._learnt.values()), default=0.0)
        while self._pending:
            command = self._pending.popleft()
            report = command.report
            parts = self._parts.of(report.closed_round, command.closed, report.seconds, learning or None)
            self._series.add(_round_of(report, parts))
        while self._truths:
            self._take_truth(self._truths.popleft())
        self._heads.gather()
        now = time.monotonic()
        if now >= self._history_due:
            self._history_due = now + _SLOW_SECONDS
            self._note_history()

    def _take_truth(self, truth: Truth) -> None:
        for name, learnt in truth.agents.items():
            self._learnt[name] = learnt.after(self._learnt.get(name))
        known = error_columns(self._learnt) if truth.agents else {}
        self._series.learn(known, truth.subspace_errors)

    def _note_history(self) -> None:
        """Once a second: what agents report, for the history of each and of the fleet."""
        state = self._coordinator.engine.state
        if state.head_covariance is not None:
            self._priors.note(state.round, state.basis, state.head_covariance)
        errors, newest = self._coordinator.agent_stats.td_errors, state.last_rounds
        found = {name: errors.get(name) for name in state.members.hosts}
        self._td_errors = {
            name: error + _STEADY * (self._td_errors.get(name, error) - error)
            for name, error in found.items()
            if error is not None
        }
        for name, error in found.items():
            learnt = self._learnt.get(name, Learnt())
            number = newest.get(name)
            if number is not None and not (error is None and learnt.value_error is None):
                alone = learnt.lstd_alone, learnt.td_alone
                self._histories.note(name, (number, error, learnt.value_error, *alone))
        spread = quartiles(found.values())
        if spread is not None:
            self._series.learn(dict(zip(("td_low", "td_error", "td_high"), spread, strict=True)))

    # Giving out --------------------------------------------------------------------------------------------------

    def whole(self) -> dict[str, Any]:
        """The complete frame, as of the last `frame`."""
        return {
            "whole": True,
            "run": self._run,
            "series": series_of(self._series),
            "agents": list(self._rows.values()),
            "learnt": list(self._learnt_rows.values()),
            **self._slow,
        }

    def frame(self) -> dict[str, Any]:
        """The changes since the last frame."""
        engine = self._coordinator.engine
        state = engine.state
        report = run_report(state, engine.history, engine.now(), self._coordinator.agent_stats)
        message = "" if state.end is None else state.end.message
        self._run = {**run_of(report, self._series.round_times), "errors": self._errors(), "message": message}
        frame: dict[str, Any] = {"run": self._run, "series": self._new_points()}
        now = time.monotonic()
        slow = now >= self._slow_due or report.phase is RunPhase.FINISHED  # the last frame is complete
        if slow or len(report.agents) <= _MANY_AGENTS:
            frame["agents"] = self._changed_agents(report.agents)
        if slow:
            self._slow_due = now + _SLOW_SECONDS
            frame |= self._slow_frame(state, report, message)
        return frame

    def _slow_frame(self, state: CoordinatorState, report: RunReport, message: str) -> dict[str, Any]:
        """What is sent once a second."""
        frame: dict[str, Any] = {"learnt": self._changed_learnt(report.agents)}
        if state.round != self._shown_round:
            self._shown_round = state.round
            self._spectrum = self._heads.spectrum(state.head_covariance)
            frame |= {"basis": heat_map(state.basis), "spectrum": spectrum_values(self._spectrum)}
        frame["answers"] = answer_values(answers_of(self._facts(state, report, message)))
        self._slow |= {name: values for name, values in frame.items() if name in self._slow}
        return frame

    def _facts(self, state: CoordinatorState, report: RunReport, message: str) -> Facts:
        names = {agent.agent_id for agent in report.agents}
        return Facts(
            specification=report.specification,
            rounds=state.round,
            series=self._series,
            agents=report.agents,
            learnt={name: learnt for name, learnt in self._learnt.items() if name in names},
            td_errors=self._td_errors,
            arrivals=self._parts.arrivals,
            trend=self._trend(state),
            spectrum=self._spectrum,
            waiting=report.phase is RunPhase.WAITING,
            draining=report.phase is RunPhase.DRAINING,
            cause=report.finish_cause,
            message=message,
            phase_seconds=report.phase_seconds,
        )

    def _trend(self, state: CoordinatorState) -> Trend | None:
        """By the value errors where they are known, by the prior where the method has one, else by the basis."""
        known = error_trend(self._series)
        if known is not None:
            return known
        if state.head_covariance is not None:
            return self._priors.trend(state.round, state.basis, state.head_covariance)
        return movement_trend(self._series)

    def _errors(self) -> dict[str, float | None]:
        """The newest value of each chart."""
        series = self._series
        return {
            "movement": series.newest("movement", 1),
            "outside": series.newest("outside"),
            "subspace": series.newest("subspace_error"),
            "value": series.newest("value_error"),
            "lstd_alone": series.newest("lstd_alone"),
            "td_alone": series.newest("td_alone"),
        }

    def _changed_agents(self, agents: Iterable[AgentReport]) -> list[list[Any]]:
        rejected, arrivals = self._coordinator.agent_stats.rejected, self._parts.arrivals
        rows = [agent_row(agent, rejected.get(agent.agent_id, 0), arrivals.get(agent.agent_id)) for agent in agents]
        changed = changed_rows(rows, self._rows)
        self._rows.update((row[0], row) for row in changed)
        if len(self._rows) > 2 * len(rows):  # the run forgets names
            self._rows = {row[0]: row for row in rows}
            self._histories.keep(self._rows)
        return changed

    def _changed_learnt(self, agents: Iterable[AgentReport]) -> list[list[Any]]:
        """Of agents that the coordinator knows: a group's numbers belong to none of them."""
        names = (agent.agent_id for agent in agents)
        rows = [self._learnt[name].as_row(name) for name in names if name in self._learnt]
        changed = changed_rows(rows, self._learnt_rows)
        self._learnt_rows.update((row[0], row) for row in changed)
        if len(self._learnt_rows) > 2 * len(rows):
            self._learnt_rows = {row[0]: row for row in rows}
        return changed

    def _new_points(self) -> dict[str, Any]:
        """The points from the last frame's open one on, and a few before, whose errors may have become known."""
        series = self._series
        start = max(0, self._sent_points - 9) if self._sent_revision == series.revision else 0
        self._sent_points, self._sent_revision = len(series.points), series.revision
        return series_of(series, start)

    def history(self, name: str) -> dict[str, Any] | None:
        """The history of an agent's numbers; None if nothing is known of it."""
        return self._histories.of(name)


def _round_of(report: RoundReport, parts: Mapping[str, float]) -> Round:
    return Round(report.closed_round, report.seconds, report.contributors, report.basis_movement, parts)
