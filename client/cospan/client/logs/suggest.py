"""Suggests features for a log: which kinds, how many knots and which products its rows pay for.

The first 70 % of the rows are learnt from by LSTD alone. The other rows judge: what is left of the pattern of their
rewards, seen through the finest features and products. With A, b and C of the held-out rows and that map it is
‖b − A z‖² / ‖b‖² in the metric of C⁻¹, the projected Bellman error (Sutton et al. 2009, "Fast gradient-descent
methods for temporal-difference learning with linear function approximation") relative to that of V = 0: 0 is all
explained, 1 nothing, and more than 1 worse than nothing, as with too many features for the rows.
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
from cospan.client.logs.tables import Batch, Table, read_head
from cospan.core.learning.baselines import lstd_alone
from cospan.core.learning.least_squares import TransitionSums
from cospan.wire.errors import InvalidValueError

KNOTS = (2, 3, 5, 8, 12)
"""Numbers of knots that are tried, coarsest first."""
MOST_ROWS = 50_000
_LEARNT = 0.7
_MOST_CATEGORIES = 20
_FEWEST_TRANSITIONS = 100
_PAYS = 0.05
"""By how much, relatively, the held-out error must fall for more features to pay."""
_RIDGE = 1e-3
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
    """

    trials: tuple[Trial, ...]
    chosen: Trial
    sources: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]
    transitions: tuple[int, int]

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

    best, trials = _chosen(rows, of)
    return Suggestion(tuple(trials), best, tuple(names), categories, (rows.learnt, rows.held))


_Maps: TypeAlias = Callable[[int, tuple[tuple[str, ...], ...]], TableFeatures]
"""(knots, products) → the map."""


def _chosen(rows: "_Held", of: _Maps) -> tuple[Trial, list[Trial]]:
    """The map that pays, and what was tried: more knots for all columns first, then products of two."""
    most = min(_MOST_FEATURES, rows.learnt // 5)
    pairs = tuple(itertools.combinations([column.name for column in of(KNOTS[0], ()).columns], 2))
    seen_through = [of(KNOTS[-1], ())]
    with_pairs = [
        found for knots in KNOTS if (found := of(knots, pairs)).dim <= min(_MOST_FEATURES, rows.held // 3)
    ]
    judge = _judge(rows, [*seen_through, *with_pairs[-1:]])
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
            features = of(knots, (*best.features.products, pair))
            if features.dim > most:
                break
            trial = Trial(f"{knots} knots, with {pair[0]} × {pair[1]}", features, judge(features))
            if trial.error < (1.0 - _PAYS) * best.error:
                best, best_knots = trial, knots
                trials.append(trial)
    return best, trials


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


def _judge(rows: _Held, finest: Sequence[TableFeatures]) -> Callable[[TableFeatures], float]:
    """Gives the held-out error of a map, seen through all of the finest; see the module."""
    part = slice(rows.split, None)
    follows = rows.follows[part][1:]
    fine = np.concatenate([each.batch(rows.observations[part]) for each in finest], axis=1)
    visited = fine[:-1][follows]
    centred = visited - visited.mean(axis=0)
    covariance = centred.T @ centred / len(centred)
    covariance += _RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    errors = rows.arrivals[part][1:][follows]
    errors = errors - errors.mean()

    def size(deltas: Float[np.ndarray, " m"]) -> float:
        moments = centred.T @ (deltas - deltas.mean()) / len(deltas)
        return float(moments @ np.linalg.solve(covariance, moments))

    whole = size(errors)

    def error(features: TableFeatures) -> float:
        weights = lstd_alone(rows.sums(features, slice(rows.split)))
        values = features.batch(rows.observations[part]) @ weights
        return size(errors + (values[1:] - values[:-1])[follows]) / max(whole, 1e-300)

    return error


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
