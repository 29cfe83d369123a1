"""Suggests features for a log: which kinds, how many knots and which products its rows pay for.

LSTD alone learns from the first 70 % of the rows. The other rows judge: how well V(s) − E[V(s') | s], with s' the
row H steps after s, predicts the sum of the rewards of these steps, by 1 − ρ² with their correlation ρ. With the
true differential value that is the conditional mean, which no function of the observation beats. So features are
judged by what they are for, and too many of them for the rows show as well: their weights are noise.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from cospan.client.logs.mapping import CLOCK, NANOSECONDS, LogMapping
from cospan.client.logs.rows import RowReader
from cospan.client.logs.table_features import ColumnFeatures, TableFeatures, cyclic_knots, quantile_knots
from cospan.client.logs.tables.batch import Batch, Table, read_head
from cospan.core.learning.baselines import lstd_alone
from cospan.core.learning.least_squares import TransitionSums
from cospan.wire.errors import InvalidValueError

KNOTS = (2, 3, 5, 8, 12)
"""Numbers of knots that are tried, coarsest first."""
MOST_ROWS = 50_000
_LEARNT = 0.7
_MOST_CATEGORIES = 20
_FEWEST_TRANSITIONS = 100
_PAYS = 0.03
"""By how much, relatively, the held-out error must fall for more features to pay."""
HORIZONS = (48, 24, 12, 6, 3, 1)
"""Of these H is the largest that the rewards remember and for which enough rows are followed by as many steps."""
_REMEMBERED = 0.2
_RIDGE = 1e-3
_LEAST_WINDOWS = 0.3
_MOST_FEATURES = 600


@dataclass(frozen=True, eq=False, slots=True)
class Trial:
    """What one map came to.

    Attributes:
        what: was tried, in words.
        features: the map.
        error: the held-out error, see the module.
    """

    what: str
    features: TableFeatures
    error: float


@dataclass(frozen=True, eq=False, slots=True)
class Suggestion:
    """Features for a log.

    Attributes:
        trials: all maps that were tried, in their order.
        chosen: the one that is suggested.
        sources: the column of each coordinate.
        categories: of categorical columns.
        transitions: that were learnt from, and held out.
        horizon: H.
    """

    trials: tuple[Trial, ...]
    chosen: Trial
    sources: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]
    transitions: tuple[int, int]
    horizon: int

    @property
    def toml(self) -> str:
        """The sections of a mapping."""
        lines = []
        for column, source in zip(self.chosen.features.columns, self.sources, strict=True):
            lines.append(f"[features.{_key(column.name)}]")
            if source != column.name:
                lines.append(f'from = "{source}"')
            lines.append(f'kind = "{column.kind}"')
            if column.kind == "categorical":
                lines.append(f"values = [{', '.join(map(_quoted, self.categories[source]))}]")
            elif column.kind == "cyclic":
                lines += [f"period = {column.period:g}", f"knots = {column.size}"]
            else:
                lines.append(f"knots = [{', '.join(f'{knot:g}' for knot in column.knots)}]")
            lines.append("")
        if self.chosen.features.products:
            sets = ", ".join(f"[{', '.join(map(_quoted, each))}]" for each in self.chosen.features.products)
            lines += ["[products]", f"pairs = [{sets}]", ""]
        return "\n".join(lines)


def suggest(mapping: LogMapping, table: Table, columns: Sequence[str] | None = None) -> Suggestion:
    """Features for a log.

    Args:
        mapping: its reward and time; its observation and features are not used.
        table: the log of one site.
        columns: of the observation; None for all but those of reward, time and chain.

    Raises:
        InvalidValueError: there are no columns to use, or too few transitions.
        TableError: the log cannot be read.
    """
    names, categories = _columns(mapping, table, columns)
    if mapping.time is not None and columns is None:
        names = [*_clocks(mapping, table), *names]
    reading = replace(mapping, observation=tuple(names), categories=categories)
    rows = _Held.of(reading, table)
    names = [name for place, name in enumerate(names) if np.ptp(rows.observations[:, place]) > 0.0]
    if not names:
        raise InvalidValueError(f"no column of {table.name} ever changes; name others with --columns")
    rows = rows.with_columns([reading.observation.index(name) for name in names])

    def of(knots: int, products: tuple[tuple[str, ...], ...] = ()) -> TableFeatures:
        made = [_column(name, rows.observations[:, place], knots, categories) for place, name in enumerate(names)]
        return TableFeatures(tuple(made), products)

    best, trials, horizon = _chosen(rows, of)
    return Suggestion(tuple(trials), best, tuple(names), categories, (rows.learnt, rows.held), horizon)


_Maps: TypeAlias = Callable[[int, tuple[tuple[str, ...], ...]], TableFeatures]
"""(knots, products) → the map."""


def _chosen(rows: "_Held", of: _Maps) -> tuple[Trial, list[Trial], int]:
    """The map that pays, what was tried, and H: more knots for all columns first, then products of two."""
    most = min(_MOST_FEATURES, rows.learnt // 5)
    pairs = tuple(itertools.combinations([column.name for column in of(KNOTS[0], ()).columns], 2))
    horizon, judge = _judge(rows)
    trials: list[Trial] = []
    best, best_knots = None, KNOTS[0]
    for knots in KNOTS:
        features = of(knots, ())
        trial = Trial(f"{knots} knots", features, judge(features))
        trials.append(trial)
        if best is None or trial.error < (1.0 - _PAYS) * best.error:
            best, best_knots = trial, knots
    assert best is not None
    for pair in pairs:
        for knots in (best_knots, *(each for each in KNOTS[1:-1] if each > best_knots)):
            features = of(knots, tuple(dict.fromkeys((*best.features.products, pair))))
            if features.dim > most:
                break
            trial = Trial(f"{knots} knots, with {pair[0]} × {pair[1]}", features, judge(features))
            if trial.error < (1.0 - _PAYS) * best.error:
                best, best_knots = trial, knots
                trials.append(trial)
    return best, trials, horizon


@dataclass(frozen=True, eq=False, slots=True)
class _Held:
    """The first rows of a log; those from `split` on are held out."""

    observations: Float[np.ndarray, "n k"]
    follows: Bool[np.ndarray, " n"]
    arrivals: Float[np.ndarray, " n"]
    split: int

    @classmethod
    def of(cls, mapping: LogMapping, table: Table) -> "_Held":
        parts, count = [], 0
        for rows in RowReader(mapping, table):
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
        joined = (np.concatenate([getattr(each, name) for each in parts]) for name in ("observations", "follows"))
        observations, follows = joined
        arrivals = np.concatenate([each.arrivals for each in parts])
        return cls(observations, follows, arrivals, int(_LEARNT * len(follows)))

    def with_columns(self, places: Sequence[int]) -> "_Held":
        return replace(self, observations=self.observations[:, list(places)])

    @property
    def learnt(self) -> int:
        return int(self.follows[1 : self.split].sum())

    @property
    def held(self) -> int:
        return int(self.follows[self.split + 1 :].sum())

    def sums(self, features: TableFeatures, part: slice) -> TransitionSums:
        """Of the transitions of some rows."""
        rows = features.batch(self.observations[part])
        follows, arrivals = self.follows[part][1:], self.arrivals[part][1:]
        visited = rows[:-1] * follows[:, None]
        return TransitionSums.of_features(features.dim).updated(rows, visited, arrivals * follows, 0.0, follows)


def _judge(rows: _Held) -> tuple[int, Callable[[TableFeatures], float]]:
    """H, and a function that gives the held-out error of a map; see the module."""
    part = slice(rows.split, None)
    observations, follows, arrivals = rows.observations[part], rows.follows[part], rows.arrivals[part]
    unbroken, total = np.cumsum(follows), np.cumsum(arrivals)
    wanted = _steps_remembered(arrivals, follows)
    for horizon in (each for each in HORIZONS if each <= max(wanted, HORIZONS[-1])):
        begins = np.flatnonzero(unbroken[horizon:] - unbroken[:-horizon] == horizon)
        if len(begins) >= len(follows) * _LEAST_WINDOWS:
            break
    sums = total[begins + horizon] - total[begins]
    sums = sums - sums.mean()
    past = np.cumsum(rows.follows[: rows.split])
    earlier = np.flatnonzero(past[horizon:] - past[:-horizon] == horizon)

    def error(features: TableFeatures) -> float:
        weights = lstd_alone(rows.sums(features, slice(rows.split)))
        # E[Σ r − η | s] = V(s) − E[V(s_H) | s]; the second is no constant where days repeat.
        here = np.column_stack([np.ones(len(earlier)), features.batch(rows.observations[earlier])])
        later = features.batch(rows.observations[earlier + horizon]) @ weights
        gram = here.T @ here
        gram += _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        expected = np.linalg.solve(gram, here.T @ later)
        at = features.batch(observations[begins])
        values = at @ (weights - expected[1:])
        values = values - values.mean()
        size = float((values @ values) * (sums @ sums))
        along = max(0.0, float(values @ sums))
        return 1.0 - along**2 / size if size > 0.0 else 1.0

    return horizon, error


def _steps_remembered(rewards: Float[np.ndarray, " n"], follows: Bool[np.ndarray, " n"]) -> int:
    """Six times the lag at which the autocorrelation of the rewards falls below 0.2: what can be foreseen."""
    centred = np.where(follows, rewards - rewards[follows].mean(), 0.0)
    variance = float(centred @ centred) / len(centred)
    for lag in range(1, HORIZONS[0]):
        if float(centred[lag:] @ centred[:-lag]) <= _REMEMBERED * variance * len(centred):
            return 6 * lag
    return HORIZONS[0]


def _columns(
    mapping: LogMapping, table: Table, asked: Sequence[str] | None
) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """The columns of the observation, and the categories of those that are text."""
    used = {*mapping.reward.columns, mapping.time, mapping.chain}
    names = [name for name in table.columns() if name not in used] if asked is None else list(asked)
    of_table = [name for name in names if name not in CLOCK]
    head = read_head(table, of_table) if of_table else None
    if head is None:
        raise InvalidValueError(f"{table.name} has no columns to make features of; name them with --columns")
    categories: dict[str, tuple[str, ...]] = {}
    kept = []
    for name in names:
        texts = None if name in CLOCK else _categories(head, name, mapping)
        if texts is None:
            kept.append(name)
        elif 2 <= len(texts) <= _MOST_CATEGORIES:
            categories[name] = texts
            kept.append(name)
        elif asked is not None:
            raise InvalidValueError(
                f"{name!r} has {len(texts)} different texts; a category has 2 to {_MOST_CATEGORIES}"
            )
    return kept, categories


def _categories(head: Batch, name: str, mapping: LogMapping) -> tuple[str, ...] | None:
    """The texts of a column, sorted; None where it holds numbers."""
    column = head.columns[name]
    if column.dtype.kind != "O":
        return None if name not in head.times else ()
    texts = {cell.strip() for cell in column if isinstance(cell, str)} - set(mapping.missing)
    numbers = 0
    for text in texts:
        try:
            float(text)
            numbers += 1
        except ValueError:
            pass
    return None if numbers > len(texts) / 2 else tuple(sorted(texts))


def _clocks(mapping: LogMapping, table: Table) -> list[str]:
    """Clock columns that the span of the log pays for."""
    assert mapping.time is not None
    reading = replace(mapping, observation=("time:hour-of-day", "time:day-of-week"), categories={})
    try:
        parts = list(itertools.islice(RowReader(reading, table), 4))
    except Exception:  # the time is a number
        return []
    rows = sum(len(each.numbers) for each in parts)
    reader = RowReader(reading, table)
    next(iter(reader), None)
    step = reader.counts.step or 0.0
    found = []
    if step <= 6 * NANOSECONDS["h"] and rows * step > 2 * NANOSECONDS["d"]:
        found.append("time:hour-of-day")
    if step <= NANOSECONDS["d"] and rows * step > 28 * NANOSECONDS["d"]:
        found.append("time:day-of-week")
    return found


def _column(
    name: str, values: Float[np.ndarray, " n"], knots: int, categories: dict[str, tuple[str, ...]]
) -> ColumnFeatures:
    """Functions of a column with about as many knots."""
    short = name.removeprefix("time:")
    if name in categories:
        return ColumnFeatures(short, "categorical", tuple(map(float, range(len(categories[name])))))
    if name in CLOCK:
        return ColumnFeatures(short, "cyclic", cyclic_knots(CLOCK[name], max(3, knots)), CLOCK[name])
    found = quantile_knots(values, knots)
    if len(found) < 2:
        found = tuple(sorted({float(values.min()), float(values.max())}))
    return ColumnFeatures(short, "numeric", found)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else _quoted(name)
