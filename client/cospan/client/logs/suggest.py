"""Suggests features for a log: which kinds, how many knots and which products its rows pay for.

Maps are compared by how well the values that LSTD alone learns with them predict later rewards (`held_out`). So
they are judged by what they are for, and too many features for the rows show as well: their weights are noise. The
first third of the rows learns and the second chooses among dozens of maps; the last third then judges the chosen
map and the coarsest one, once. Where it cannot tell them apart the coarsest is suggested.
"""

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.client.logs.held_out import Judgement, SplitRows
from cospan.client.logs.mapping import CLOCK, NANOSECONDS, LogMapping, toml_key, toml_text
from cospan.client.logs.rows import RowReader
from cospan.client.logs.table_features import ColumnFeatures, TableFeatures, cyclic_knots, quantile_knots
from cospan.client.logs.tables.batch import Batch, Table, read_head
from cospan.wire.errors import InvalidValueError

KNOTS = (2, 3, 5, 8, 12)
"""Numbers of knots that are tried, coarsest first."""
Products: TypeAlias = tuple[tuple[str, ...], ...]
_MOST_CATEGORIES = 20
_PAYS = 0.03
"""By how much, relatively, the error must fall for more features to be chosen."""
_MOST_FEATURES = 600


@dataclass(frozen=True, eq=False, slots=True)
class Trial:
    """What one map came to.

    Attributes:
        what: was tried, in words.
        knots: for each column.
        features: the map.
        error: on the rows that choose; the least of several is low by chance as well.
    """

    what: str
    knots: int
    features: TableFeatures
    error: float


@dataclass(frozen=True, eq=False, slots=True)
class Suggestion:
    """Features for a log.

    Attributes:
        trials: all maps that were tried, in their order, but products that did not pay; the first is the coarsest.
        chosen: the one that the second third of the rows chose.
        suggested: that one, or the coarsest where the last third of the rows cannot tell them apart.
        judgement: of the chosen map and the coarsest one, by the last third of the rows.
        features: the suggested map, with knots from all rows; those of the trials are from the first two thirds.
        sources: the column of each coordinate.
        categories: of categorical columns.
        transitions: that learnt, chose and judged.
        horizon: H.
    """

    trials: tuple[Trial, ...]
    chosen: Trial
    suggested: Trial
    judgement: Judgement
    features: TableFeatures
    sources: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]
    transitions: tuple[int, int, int]
    horizon: int

    @property
    def toml(self) -> str:
        """The sections of a mapping."""
        lines = []
        for column, source in zip(self.features.columns, self.sources, strict=True):
            lines.append(f"[features.{toml_key(column.name)}]")
            if source != column.name:
                lines.append(f'from = "{source}"')
            lines.append(f'kind = "{column.kind}"')
            if column.kind == "categorical":
                lines.append(f"values = [{', '.join(map(toml_text, self.categories[source]))}]")
            elif column.kind == "cyclic":
                lines += [f"period = {column.period:g}", f"knots = {column.size}"]
            else:
                lines.append(f"knots = [{', '.join(f'{knot:g}' for knot in column.knots)}]")
            lines.append("")
        if self.features.products:
            sets = ", ".join(f"[{', '.join(map(toml_text, each))}]" for each in self.features.products)
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
    rows = SplitRows.of(reading, table)
    before = rows.observations[: rows.judged_from]
    names = [name for place, name in enumerate(names) if np.ptp(before[:, place]) > 0.0]
    if not names:
        raise InvalidValueError(
            f"no column of {table.name} ever changes in the first two thirds of its rows; name others with "
            "--columns"
        )
    rows = rows.with_columns([reading.observation.index(name) for name in names])

    def of(knots: int, products: Products, until: int | None = rows.judged_from) -> TableFeatures:
        seen = rows.observations[:until]
        made = [_column(name, seen[:, place], knots, categories) for place, name in enumerate(names)]
        return TableFeatures(tuple(made), products)

    trials, chosen = _chosen(rows, of)
    judgement = rows.judgement(chosen.features, trials[0].features)
    suggested = chosen if judgement.is_better else trials[0]
    features = of(suggested.knots, suggested.features.products, None)
    sources = tuple(names)
    return Suggestion(
        tuple(trials), chosen, suggested, judgement, features, sources, categories, rows.transitions, rows.horizon
    )


def _chosen(rows: SplitRows, of: Callable[[int, Products], TableFeatures]) -> tuple[list[Trial], Trial]:
    """What was tried, and the map that pays: more knots for all columns first, then products of two."""
    most = min(_MOST_FEATURES, rows.transitions[0] // 5)
    trials: list[Trial] = []
    for knots in KNOTS:
        features = of(knots, ())
        if trials and features.dim > most:
            break
        trials.append(Trial(f"{knots} knots", knots, features, rows.choosing_error(features)))
    best = trials[0]
    for trial in trials[1:]:
        if trial.error < (1.0 - _PAYS) * best.error:
            best = trial
    for pair in itertools.combinations([column.name for column in best.features.columns], 2):
        for knots in (best.knots, *(each for each in KNOTS[1:-1] if each > best.knots)):
            features = of(knots, tuple(dict.fromkeys((*best.features.products, pair))))
            if features.dim > most:
                break
            products = ", ".join(" × ".join(each) for each in features.products)
            trial = Trial(f"{knots} knots, with {products}", knots, features, rows.choosing_error(features))
            if trial.error < (1.0 - _PAYS) * best.error:
                best = trial
                trials.append(trial)
    return trials, best


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
        with contextlib.closing(iter(RowReader(reading, table))) as some:
            parts = list(itertools.islice(some, 4))
    except Exception:  # the time is a number
        return []
    rows = sum(len(each.numbers) for each in parts)
    reader = RowReader(reading, table)
    with contextlib.closing(iter(reader)) as some:
        next(some, None)
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
