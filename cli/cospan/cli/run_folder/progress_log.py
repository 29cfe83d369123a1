"""The progress log of a run: its rounds and the progress of its agents."""

import asyncio
import csv
import io
import logging
import math
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float

from cospan.cli.run_folder.layout import write_text
from cospan.core.linalg.subspace import principal_angle_sine
from cospan.core.statistics import best, best_of_rows, known, median, median_of
from cospan.wire.errors import RunFileError
from cospan.wire.messages import RoundReport
from cospan.wire.text import printable

if TYPE_CHECKING:
    from cospan.client.files.group_file import AnyGroup
    from cospan.client.learning.group_learner import GroupLearner
    from cospan.client.learning.improving_group import ImprovingGroup
    from cospan.client.learning.site_learner import SiteLearner

log = logging.getLogger(__name__)

_RATE_ROUNDS = 50
_MOST_HELD_DIM = 512
"""Largest d for which the held share is computed once a second: d² r operations."""
_V = TypeVar("_V", float, np.ndarray)


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One line of `rounds.csv`; None if unknown. Errors are medians over agents."""

    round: int
    seconds: float
    contributors: int
    basis_movement: float
    orthonormality_error: float
    subspace_error: float | None = None
    value_error: float | None = None
    lstd_alone_error: float | None = None
    td_alone_error: float | None = None


COLUMNS = tuple(field.name for field in fields(RoundRow))


def row_of(report: RoundReport, subspace_error: float | None = None) -> RoundRow:
    """The line of a round that has closed."""
    return RoundRow(
        round=report.closed_round,
        seconds=report.seconds,
        contributors=report.contributors,
        basis_movement=report.basis_movement,
        orthonormality_error=report.orthonormality_error,
        subspace_error=subspace_error,
    )


def csv_text(rows: Iterable[RoundRow], *, header: bool) -> str:
    """The rows as CSV, numbers with all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    writer.writerows([getattr(row, column) for column in COLUMNS] for row in rows)
    return text.getvalue()


def write_rounds(path: Path, rows: Iterable[RoundRow]) -> None:
    """Writes `rounds.csv` in one piece."""
    write_text(path, csv_text(rows, header=True))


class RoundsFile:
    """`rounds.csv` during a run: `add` only queues, and a thread writes once a second.

    Attributes:
        next_round: the first round that has no row yet.
    """

    def __init__(self, path: Path, rows: Sequence[RoundRow] = ()) -> None:
        """`rows`: of a resumed run."""
        self._path, self._pending, self._writing = path, deque[RoundRow](), threading.Lock()
        self.next_round = rows[-1].round + 1 if rows else 0
        write_rounds(path, rows)

    def add(self, row: RoundRow) -> None:
        """Takes a row in; of rounds in their order."""
        self._pending.append(row)
        self.next_round = row.round + 1

    async def keep_writing(self, interval_seconds: float = 1.0) -> None:
        """Writes what has come, at this interval, until it is cancelled."""
        while True:
            await asyncio.sleep(interval_seconds)
            try:
                await asyncio.to_thread(self.flush)
            except RunFileError as failure:
                log.error("%s; the run continues", failure)

    def flush(self) -> None:
        """Writes what has come.

        Raises:
            RunFileError: the file cannot be written, as when the disk is full.
        """
        try:
            with self._writing, self._path.open("a", encoding="utf-8") as file:
                rows = [self._pending.popleft() for _ in range(len(self._pending))]
                file.write(csv_text(rows, header=False))
        except OSError as failure:
            raise RunFileError(f"cannot write {self._path}: {failure.strerror}") from failure


@dataclass(frozen=True, slots=True)
class AgentProgress:
    """How far one agent has come, or with medians over its agents a group; None if unknown.

    Attributes:
        agent_id: name of the agent or the group.
        label: of its site.
        rounds: learnt.
        mean_reward: of all its steps.
        value_error: relative value error.
        lstd_alone_error: the same of LSTD alone.
        td_alone_error: the same of TD alone, with the best of its step sizes.
        gain: the learnt mean reward per step.
        mean_reward_half_width: half the width of the 95 % interval of the mean reward.
        shared_weight: how much of its answer is the fleet's, 0 to 1.
        held_share: share of the true value's variance that the basis holds; unknown of groups and large d.
        learning_seconds: that the newest round took to learn.
    """

    agent_id: str
    label: str
    rounds: int
    mean_reward: float | None
    value_error: float | None
    lstd_alone_error: float | None
    td_alone_error: float | None
    gain: float | None = None
    mean_reward_half_width: float | None = None
    shared_weight: float | None = None
    held_share: float | None = None
    learning_seconds: float | None = None

    @classmethod
    def of_learner(
        cls, learner: "SiteLearner | AnyGroup", learning_seconds: float | None = None
    ) -> "AgentProgress":
        """Of an agent, or a group, in this process."""
        from cospan.client.learning.improving_group import ImprovingGroup
        from cospan.client.learning.site_learner import SiteLearner

        if isinstance(learner, ImprovingGroup):
            return cls._of_improving_group(learner, learning_seconds)
        if not isinstance(learner, SiteLearner):
            return cls._of_group(learner, learning_seconds)
        curve = learner.learning_curve
        independent = curve.td_alone_error[-1] if curve.td_alone_error else np.empty(0)
        return cls(
            agent_id=learner.name,
            label=printable(learner.site.label),
            rounds=learner.rounds,
            mean_reward=known(learner.mean_reward),
            value_error=known(curve.value_error[-1]) if curve.value_error else None,
            lstd_alone_error=known(_newest(curve.lstd_alone_error, math.nan)),
            td_alone_error=best(independent),
            gain=known(float(learner.gain.mean[0])),
            mean_reward_half_width=known(
                float(learner.reward_batches.half_width(learner.specification.method.steps_per_round))
            ),
            shared_weight=known(learner.shared_weight()),
            held_share=known(learner.held_share()) if learner.specification.feature_dim <= _MOST_HELD_DIM else None,
            learning_seconds=learning_seconds,
        )

    @classmethod
    def _of_group(cls, group: "GroupLearner", learning_seconds: float | None) -> "AgentProgress":
        curve = group.learning_curve
        return cls(
            agent_id=group.name,
            label=f"{len(group.names)} agents",
            rounds=group.rounds,
            mean_reward=median_of(group.mean_rewards),
            value_error=median_of(curve.value_error[-1]) if curve.value_error else None,
            lstd_alone_error=median_of(_newest(curve.lstd_alone_error, np.empty(0))),
            td_alone_error=median_of(best_of_rows(curve.td_alone_error[-1])) if curve.td_alone_error else None,
            gain=median_of(group.gains),
            shared_weight=median_of(group.shared_weights()),
            learning_seconds=learning_seconds,
        )

    @classmethod
    def _of_improving_group(cls, group: "ImprovingGroup", learning_seconds: float | None) -> "AgentProgress":
        members = [cls.of_learner(member) for member in group.members]

        def middle(name: str) -> float | None:
            return median(getattr(each, name) for each in members)

        return cls(
            agent_id=group.name,
            label=f"{len(members)} agents",
            rounds=group.rounds,
            mean_reward=middle("mean_reward"),
            value_error=None,
            lstd_alone_error=None,
            td_alone_error=None,
            gain=middle("gain"),
            shared_weight=middle("shared_weight"),
            learning_seconds=learning_seconds,
        )

    @classmethod
    def of_document(cls, values: Mapping[str, Any]) -> "AgentProgress":
        """Of an agent's JSON line."""
        return cls(agent_id=values["agent"], **{name: values[name] for name in _OF_AGENT})

    def as_document(self) -> dict[str, Any]:
        """For an agent's JSON line."""
        return {"agent": self.agent_id, **{name: getattr(self, name) for name in _OF_AGENT}}


def _newest(column: "list[_V]", nothing: _V) -> _V:
    """The newest line in which something is known: a curve has errors of LSTD alone in few rounds."""
    return next((values for values in reversed(column) if np.isfinite(values).any()), nothing)


_OF_AGENT = tuple(field.name for field in fields(AgentProgress) if field.name != "agent_id")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the run stands. Errors are medians over agents; None if unknown."""

    joined: int
    agents: int
    rounds: int
    total: int
    rounds_per_second: float = 0.0
    contributors: int = 0
    basis_movement: float | None = None
    subspace_error: float | None = None
    value_error: float | None = None
    lstd_alone_error: float | None = None
    td_alone_error: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """At the present rate; None if there is no end or no rate."""
        if not self.total or self.rounds_per_second <= 0.0:
            return None
        return (self.total - self.rounds) / self.rounds_per_second


class RunMonitor:
    """Gathers the rounds and the agents' progress of one run."""

    def __init__(self, *, agents: int, total: int, true_basis: Float[np.ndarray, "d q"] | None) -> None:
        """Begins with nothing.

        Args:
            agents: how many the run begins with.
            total: its number of rounds; 0 for no end.
            true_basis: B*, where it is known.
        """
        self.rows: list[RoundRow] = []
        self.agents: dict[str, AgentProgress] = {}
        self.joined = 0
        self.true_basis = true_basis
        self._agents, self._total = agents, total
        self._recent: deque[float] = deque(maxlen=_RATE_ROUNDS)

    def add_round(self, report: RoundReport) -> None:
        """Takes a closed round in."""
        self._recent.append(report.seconds)
        self.rows.append(row_of(report, self.subspace_error(report.basis)))

    def add_missing(self, reports: Iterable[RoundReport]) -> None:
        """Takes in the stored rounds that are not here: a run that ends tells of its last ones no more."""
        known = self.rows[-1].round if self.rows else -1
        self.rows.extend(row_of(report) for report in reports if report.closed_round > known)

    def add_agent(self, progress: AgentProgress) -> None:
        """Takes the progress of an agent in."""
        self.agents[progress.agent_id] = progress

    def subspace_error(self, basis: Float[np.ndarray, "d r"] | None) -> float | None:
        """‖(I − B Bᵀ) B*‖₂, 0 to 1; None if B* is unknown."""
        if self.true_basis is None or basis is None:
            return None
        return principal_angle_sine(basis, self.true_basis)

    def progress(self) -> Progress:
        """Where the run stands now."""
        seconds = sum(self._recent)
        last = self.rows[-1] if self.rows else None
        return Progress(
            joined=self.joined,
            agents=self._agents,
            rounds=len(self.rows),
            total=self._total,
            rounds_per_second=len(self._recent) / seconds if seconds > 0.0 else 0.0,
            contributors=last.contributors if last else 0,
            basis_movement=last.basis_movement if last else None,
            subspace_error=last.subspace_error if last else None,
            value_error=median(agent.value_error for agent in self.agents.values()),
            lstd_alone_error=median(agent.lstd_alone_error for agent in self.agents.values()),
            td_alone_error=median(agent.td_alone_error for agent in self.agents.values()),
        )
