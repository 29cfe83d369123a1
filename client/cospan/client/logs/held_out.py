"""How well values that LSTD alone learns from some rows of a log predict the rewards of later rows.

The rows are split in three by time: maps learn from the first part and are compared on the second; one map that is
chosen there learns from both, and is judged on the third. What chose a map cannot judge it: the least of many
errors is low by chance as well.

The error is 1 − ρ², with ρ the correlation of V(s) − E[V(s') | s], s' the row H steps after s, and the sum of the
rewards of these steps. With the true differential value that is the conditional mean, which no function of the
observation beats.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from cospan.client.logs.mapping import LogMapping
from cospan.client.logs.rows import RowReader
from cospan.client.logs.table_features import TableFeatures
from cospan.client.logs.tables.batch import Table
from cospan.core.learning.baselines import lstd_alone
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.statistics import student_quantile
from cospan.wire.errors import InvalidValueError

MOST_ROWS = 50_000
HORIZONS = (48, 24, 12, 6, 3, 1)
"""Of these H is the largest that the rewards remember and for which enough rows are followed by as many steps."""
FEWEST_BLOCKS, MOST_BLOCKS = 8, 24
"""Of the third part, for standard errors."""
_FEWEST_TRANSITIONS = 100
_FEWEST_IN_PART = 20
_REMEMBERED = 0.2
_RIDGE = 1e-3
_LEAST_WINDOWS = 0.3
_COVERAGE = 0.95

Windows: TypeAlias = Float[np.ndarray, "n 2"]
"""What is predicted for H steps, and the sum of their rewards."""


@dataclass(frozen=True, eq=False, slots=True)
class Judgement:
    """What the rows that nothing was chosen by say of a map and of the coarsest one.

    Attributes:
        error: the held-out error of the map.
        spread: its standard error, by the jackknife over blocks; nan where there are too few.
        coarsest: the held-out error of the coarsest map.
        coarsest_spread: its standard error.
        gain: by how much the map's error is lower than the coarsest one's.
        gain_spread: the standard error of `gain`, from the same blocks for both.
        blocks: how many.
    """

    error: float
    spread: float
    coarsest: float
    coarsest_spread: float
    gain: float
    gain_spread: float
    blocks: int

    @property
    def is_better(self) -> bool:
        """Whether the map is better than the coarsest one beyond chance at 95 %, by Student's t."""
        if self.blocks < FEWEST_BLOCKS:
            return False
        return self.gain > student_quantile(_COVERAGE, self.blocks - 1) * self.gain_spread


@dataclass(frozen=True, eq=False, slots=True)
class SplitRows:
    """The first rows of a log: up to `chosen_from` they learn, up to `judged_from` they choose, and then judge."""

    observations: Float[np.ndarray, "n k"]
    follows: Bool[np.ndarray, " n"]
    arrivals: Float[np.ndarray, " n"]
    chosen_from: int
    judged_from: int
    horizon: int

    @classmethod
    def of(cls, mapping: LogMapping, table: Table) -> "SplitRows":
        """Those of a table.

        Raises:
            InvalidValueError: there are too few transitions.
            TableError: the log cannot be read.
        """
        parts, count = [], 0
        with contextlib.closing(iter(RowReader(mapping, table))) as reader:
            for rows in reader:
                parts.append(rows)
                count += len(rows.numbers)
                if count >= MOST_ROWS:
                    break
        transitions = sum(int(each.follows.sum()) for each in parts)
        if transitions < _FEWEST_TRANSITIONS:
            raise InvalidValueError(
                f"{table.name} has {transitions} transitions; features are suggested from {_FEWEST_TRANSITIONS} or "
                "more: look at the log with `cospan doctor --logs`"
            )
        observations = np.concatenate([each.observations for each in parts])
        follows = np.concatenate([each.follows for each in parts])
        arrivals = np.concatenate([each.arrivals for each in parts])
        third = len(follows) // 3
        # H is chosen too, so the rows that judge have no part in it.
        horizon = _horizon(arrivals[: 2 * third], follows[: 2 * third])
        found = cls(observations, follows, arrivals, third, 2 * third, horizon)
        if min(found.transitions) < _FEWEST_IN_PART:
            counts = ", ".join(map(str, found.transitions))
            raise InvalidValueError(
                f"the thirds of {table.name} have {counts} transitions, and each needs {_FEWEST_IN_PART} or more: "
                "look at the log with `cospan doctor --logs`"
            )
        return found

    def with_columns(self, places: Sequence[int]) -> "SplitRows":
        """Those of some columns alone."""
        return replace(self, observations=self.observations[:, list(places)])

    @property
    def transitions(self) -> tuple[int, int, int]:
        """Of each part; those from one part to the next are in none."""
        begins = (0, self.chosen_from, self.judged_from)
        ends = (*begins[1:], len(self.follows))
        counts = [int(self.follows[begin + 1 : end].sum()) for begin, end in zip(begins, ends, strict=True)]
        return counts[0], counts[1], counts[2]

    def choosing_error(self, features: TableFeatures) -> float:
        """The error of a map on the second part, learnt from the first."""
        windows, _ = self._windows(features, slice(self.chosen_from), slice(self.chosen_from, self.judged_from))
        return _error(_sums(windows))

    def judgement(self, features: TableFeatures, coarsest: TableFeatures) -> Judgement:
        """The errors of two maps on the third part, learnt from the first two."""
        part = slice(self.judged_from, None)
        windows, begins = self._windows(features, slice(self.judged_from), part)
        others, _ = self._windows(coarsest, slice(self.judged_from), part)
        span = len(self.follows) - self.judged_from
        # Windows of one block overlap those of the next: blocks are twice as long or longer.
        most = min(MOST_BLOCKS, span // (2 * self.horizon))
        found = []
        for block in range(most):
            inside = (begins * most) // span == block
            if inside.any():
                found.append((_sums(windows[inside]), _sums(others[inside])))
        sums = np.array(found).reshape(len(found), 2, 6).swapaxes(0, 1)
        errors = [_error(each.sum(axis=0)) for each in sums]
        left_out = np.array([[_error(each.sum(axis=0) - block) for block in each] for each in sums])
        spreads = [_jackknife(each) for each in (left_out[0], left_out[1], left_out[1] - left_out[0])]
        return Judgement(
            errors[0], spreads[0], errors[1], spreads[1], errors[1] - errors[0], spreads[2], len(found)
        )

    def _windows(self, features: TableFeatures, learnt: slice, part: slice) -> tuple[Windows, np.ndarray]:
        """Predictions and sums of rewards of all windows of H steps in a part, and the rows where they begin."""
        weights = lstd_alone(self._transition_sums(features, learnt))
        # E[Σ r − η | s] = V(s) − E[V(s_H) | s]; the second is no constant where days repeat.
        earlier = _beginnings(self.follows[learnt], self.horizon)
        here = np.column_stack([np.ones(len(earlier)), features.batch(self.observations[earlier])])
        later = features.batch(self.observations[earlier + self.horizon]) @ weights
        gram = here.T @ here
        gram += _RIDGE * max(np.trace(gram), 1.0) / len(gram) * np.eye(len(gram))
        expected = np.linalg.solve(gram, here.T @ later)
        begins = _beginnings(self.follows[part], self.horizon)
        values = features.batch(self.observations[part][begins]) @ (weights - expected[1:])
        total = np.cumsum(self.arrivals[part])
        return np.column_stack([values, total[begins + self.horizon] - total[begins]]), begins

    def _transition_sums(self, features: TableFeatures, part: slice) -> TransitionSums:
        rows = features.batch(self.observations[part])
        follows, arrivals = self.follows[part][1:], self.arrivals[part][1:]
        visited = rows[:-1] * follows[:, None]
        return TransitionSums.of_features(features.dim).updated(rows, visited, arrivals * follows, 0.0, follows)


def _beginnings(follows: Bool[np.ndarray, " n"], horizon: int) -> np.ndarray:
    """The rows that as many steps without a cut follow."""
    unbroken = np.cumsum(follows)
    return np.flatnonzero(unbroken[horizon:] - unbroken[:-horizon] == horizon)


def _sums(windows: Windows) -> Float[np.ndarray, " 6"]:
    """n, Σx, Σy, Σx², Σy², Σxy: what a correlation needs, and what can be added."""
    x, y = windows.T
    return np.array([len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y])


def _error(sums: Float[np.ndarray, " 6"]) -> float:
    """1 − ρ²; 1 where the values say nothing, or the opposite."""
    n, x, y, xx, yy, xy = sums
    if n < 2:
        return 1.0
    size = (xx - x * x / n) * (yy - y * y / n)
    along = max(0.0, xy - x * y / n)
    return float(1.0 - along**2 / size) if size > 0.0 else 1.0


def _jackknife(left_out: Float[np.ndarray, " m"]) -> float:
    """The standard error of a statistic from its values without each of m blocks; nan where m is too small."""
    count = len(left_out)
    if count < FEWEST_BLOCKS:
        return math.nan
    return float(np.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum()))


def _horizon(rewards: Float[np.ndarray, " n"], follows: Bool[np.ndarray, " n"]) -> int:
    """H: no longer than rewards are remembered, and such that enough rows of both halves begin a window."""
    wanted = _steps_remembered(rewards, follows)
    halves = np.array_split(follows, 2)
    for horizon in HORIZONS:
        share = min(len(_beginnings(half, horizon)) / len(half) for half in halves)
        if horizon <= wanted and share >= _LEAST_WINDOWS:
            return horizon
    return HORIZONS[-1]


def _steps_remembered(rewards: Float[np.ndarray, " n"], follows: Bool[np.ndarray, " n"]) -> int:
    """Six times the lag at which the autocorrelation of the rewards falls below 0.2: what can be foreseen."""
    if not follows.any():
        return HORIZONS[-1]
    centred = np.where(follows, rewards - rewards[follows].mean(), 0.0)
    variance = float(centred @ centred) / len(centred)
    for lag in range(1, min(HORIZONS[0], len(centred))):
        if float(centred[lag:] @ centred[:-lag]) <= _REMEMBERED * variance * len(centred):
            return 6 * lag
    return HORIZONS[0]
