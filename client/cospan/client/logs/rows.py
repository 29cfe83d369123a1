"""Rows of a table: observation, reward and time of each, and whether it follows the one before.

Nothing is made up. A row with a value that is not known is left out, and the chain is cut there; it is cut as well
where the time does not advance by one step, where a file ends, and where the chain's column changes.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from jaxtyping import Bool, Float, Int

from cospan.client.logs.mapping import CLOCK, NANOSECONDS, LogMapping
from cospan.client.logs.tables.batch import Batch, Table, TableError, Waiting

_UNKNOWN = np.iinfo(np.int64).min
"""A time that is not known; numpy's NaT."""
_DAY = NANOSECONDS["d"]
_STEP_ROWS = 1000
"""Intervals of the first rows from which a step is taken that the mapping does not name."""

MISSING, TEXT, CATEGORY, TIME, DUPLICATE = "missing", "text", "category", "time", "duplicate"
"""Why a row is left out."""
FALLING, GAP, OFF_STEP, FILE, CHAIN, REWARD = "falling", "gap", "off-step", "file", "chain", "reward"
"""Why the chain is cut before a row, or, of a reward, behind it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was found first.

    Attributes:
        file: its name.
        row: within the file, from 1.
        column: its name; empty where it is no column's.
        value: what stands there, as text.
    """

    file: str
    row: int
    column: str = ""
    value: str = ""

    def __str__(self) -> str:
        where = f"{self.file}, row {self.row}"
        return f"{where}: {self.column} is {self.value[:60]!r}" if self.column else where


@dataclass(eq=False, slots=True)
class RowCounts:
    """What was found in the rows so far.

    Attributes:
        rows: read.
        kinds: how many rows were left out, and how many cuts made, by reason.
        first: where each reason was found first.
        step: between rows, in nanoseconds or in the unit of the time; None where it is not known.
    """

    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    first: dict[str, Place] = field(default_factory=dict)
    step: float | None = None

    def add(self, kind: str, count: int, place: Callable[[], Place]) -> None:
        """Counts rows; `place` is asked for the first of a kind alone."""
        if count:
            self.kinds[kind] += count
            if kind not in self.first:
                self.first[kind] = place()


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Rows that are known, in order.

    Attributes:
        observations: shape (n, k).
        follows: whether a row is the successor of the one before, in this or the earlier batch, shape (n,).
        arrivals: the reward of the step from the row before to this one; 0 where it does not follow, shape (n,).
        numbers: of the rows within their file, shape (n,).
        file: its name.
    """

    observations: Float[np.ndarray, "n k"]
    follows: Bool[np.ndarray, " n"]
    arrivals: Float[np.ndarray, " n"]
    numbers: Int[np.ndarray, " n"]
    file: str


@dataclass(eq=False, slots=True)
class _Before:
    """The last row of the batch before."""

    known: bool = False
    time: np.ndarray | None = None
    reward: float = float("nan")
    chain: object = None


class RowReader:
    """Reads the rows of one table, once, from the beginning."""

    def __init__(self, mapping: LogMapping, table: Table, wait: Waiting | None = None) -> None:
        """Nothing is read yet; see `Table.batches`."""
        self.counts = RowCounts(step=mapping.step)
        self._mapping, self._table, self._wait = mapping, table, wait
        self._numbers = mapping.numbers
        self._codes = {
            name: {text: float(place) for place, text in enumerate(texts)}
            for name, texts in mapping.categories.items()
        }
        self._missing = frozenset(mapping.missing)
        self._before = _Before()

    def __iter__(self) -> Generator[Rows, None, None]:
        """The rows that are known, batch by batch; a batch without any is left out.

        Raises:
            TableError: the table cannot be read.
        """
        with contextlib.closing(self._table.batches(self._mapping.columns, self._wait)) as batches:
            for batch in batches:
                rows = self._of(batch)
                if len(rows.numbers):
                    yield rows

    def _of(self, batch: Batch) -> Rows:
        counts, mapping, n = self.counts, self._mapping, batch.rows
        counts.rows += n
        known = np.ones(n, dtype=np.bool_)
        values: dict[str, np.ndarray] = {}
        for name in mapping.columns:
            if name in self._codes:
                values[name] = self._categories(batch, name, known)
            elif name in self._numbers:
                values[name] = self._as_numbers(batch, name, known)
        times = self._times(batch, known)
        observations = np.empty((n, len(mapping.observation)))
        for place, name in enumerate(mapping.observation):
            observations[:, place] = clock_column(name, times) if name in CLOCK else values[name]
        unknown = known & ~np.isfinite(observations).all(axis=1)
        self._tell(MISSING, unknown, batch, lambda row: self._hole(batch, observations, row))
        known &= ~unknown
        rewards = mapping.reward(values, n)
        follows = self._follows(batch, times, known)
        departures = np.concatenate([[self._before.reward], rewards[:-1]])
        arrivals = rewards if mapping.reward_at_next else departures
        lacking = follows & ~np.isfinite(arrivals)
        self._tell(REWARD, lacking, batch, lambda row: Place(batch.file, batch.first_row + row))
        follows &= ~lacking
        self._remember(batch, times, known, rewards)
        places = np.flatnonzero(known)
        return Rows(
            observations[places],
            follows[places],
            np.where(follows, arrivals, 0.0)[places],
            places + batch.first_row,
            batch.file,
        )

    def _remember(
        self,
        batch: Batch,
        times: np.ndarray | None,
        known: Bool[np.ndarray, " n"],
        rewards: Float[np.ndarray, " n"],
    ) -> None:
        chain = self._mapping.chain
        self._before = _Before(
            bool(known[-1]),
            None if times is None else times[-1:],
            float(rewards[-1]),
            None if chain is None else batch.columns[chain][-1],
        )

    def _tell(self, kind: str, rows: Bool[np.ndarray, " n"], batch: Batch, place: Callable[[int], Place]) -> None:
        count = int(rows.sum())
        if count:
            self.counts.add(kind, count, lambda: place(int(rows.argmax())))

    def _hole(self, batch: Batch, observations: Float[np.ndarray, "n k"], row: int) -> Place:
        place = int(np.flatnonzero(~np.isfinite(observations[row]))[0])
        name = self._mapping.observation[place]
        return Place(batch.file, batch.first_row + row, name, _shown(batch.columns.get(name), row))

    # Values -----------------------------------------------------------------------------------------------------

    def _as_numbers(self, batch: Batch, name: str, known: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The numbers of a column, nan where a cell is missing; rows with other text are left out."""
        column = batch.columns[name]
        if name in batch.times:
            return column.astype(np.float64)
        if column.dtype.kind == "f":
            return column
        try:
            return np.fromiter(map(float, column), np.float64, len(column))
        except (ValueError, TypeError):
            pass
        values, wrong = np.empty(len(column)), np.zeros(len(column), dtype=np.bool_)
        for row, cell in enumerate(column):
            text = cell.strip() if isinstance(cell, str) else cell
            try:
                values[row] = float("nan") if text is None or text in self._missing else float(text)
            except (ValueError, TypeError):
                values[row], wrong[row] = float("nan"), True
        wrong &= known
        self._tell(
            TEXT, wrong, batch, lambda row: Place(batch.file, batch.first_row + row, name, _shown(column, row))
        )
        known &= ~wrong
        return values

    def _categories(self, batch: Batch, name: str, known: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        column, codes = batch.columns[name], self._codes[name]
        texts = [_category(cell) for cell in column]
        values = np.array([codes.get(text, np.nan) for text in texts])
        wrong = known & np.isnan(values) & np.array([text not in self._missing for text in texts])
        self._tell(CATEGORY, wrong, batch, lambda row: Place(batch.file, batch.first_row + row, name, texts[row]))
        known &= ~wrong
        return values

    def _times(self, batch: Batch, known: Bool[np.ndarray, " n"]) -> np.ndarray | None:
        """The times, int64 nanoseconds or float64 numbers; rows without one are left out."""
        name = self._mapping.time
        if name is None:
            return None
        column = batch.columns[name]
        if name in batch.times:
            times, lacking = column, column == _UNKNOWN
        elif column.dtype.kind == "f":
            times, lacking = column, ~np.isfinite(column)
        else:
            times = self._parsed(column)
            lacking = times == _UNKNOWN if times.dtype.kind == "i" else ~np.isfinite(times)
        wrong = known & lacking
        self._tell(
            TIME, wrong, batch, lambda row: Place(batch.file, batch.first_row + row, name, _shown(column, row))
        )
        known &= ~wrong
        return times

    def _parsed(self, column: np.ndarray) -> np.ndarray:
        """Stamps of texts; numbers where all are numbers."""
        if not self._mapping.time_format:
            texts = [cell.strip() if isinstance(cell, str) else "" for cell in column]
            try:
                return np.fromiter(map(float, texts), np.float64, len(texts))
            except ValueError:
                pass
            plain = [text[:-1] if text.endswith("Z") else text for text in texts]
            if not any(len(text) > 10 and ("+" in text[10:] or "-" in text[10:]) for text in plain):
                try:
                    return np.array(plain, dtype="datetime64[ns]").astype(np.int64)
                except ValueError:
                    pass
        return np.array([_stamp(cell, self._mapping.time_format) for cell in column], dtype=np.int64)

    # Order ------------------------------------------------------------------------------------------------------

    def _follows(
        self, batch: Batch, times: np.ndarray | None, known: Bool[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """Whether each row follows the one before; rows with the time of the one before are left out."""
        before, n = self._before, batch.rows
        joined = np.ones(n, dtype=np.bool_)
        if batch.begins_file:
            joined[0] = False
            self.counts.add(FILE, int(self.counts.rows > n), lambda: Place(batch.file, 1))
        chain = self._mapping.chain
        if chain is not None:
            names = batch.columns[chain]
            changed = names != np.concatenate([[names[0] if before.chain is None else before.chain], names[:-1]])
            changed = np.asarray(changed, dtype=np.bool_) & joined
            self._tell(CHAIN, changed, batch, lambda row: Place(batch.file, batch.first_row + row))
            joined &= ~changed
        if times is not None:
            joined &= self._in_step(batch, times, known, joined)
        return np.asarray(joined & known & np.concatenate([[before.known], known[:-1]]))

    def _in_step(
        self, batch: Batch, times: np.ndarray, known: Bool[np.ndarray, " n"], joined: Bool[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """Whether a row's time is one step after that of the row before, which may have been left out."""
        counts, file, first = self.counts, batch.file, batch.first_row
        before = self._before.time
        lacks_first = batch.begins_file or before is None or before.dtype != times.dtype
        previous = np.concatenate([times[:1] if lacks_first or before is None else before, times[:-1]])
        # Differences of integers, for nanoseconds since 1970 have more digits than float64.
        intervals = (times - previous).astype(np.float64)
        looked = known & joined
        looked[1:] &= known[:-1]
        looked[0] &= self._before.known and not lacks_first
        if counts.step is None:
            positive = intervals[looked & (intervals > 0)][:_STEP_ROWS]
            counts.step = float(np.median(positive)) if len(positive) else None
        # Without any step forward there is none to be right.
        step = counts.step or np.inf
        slack = self._mapping.tolerance * step
        duplicate, falling = looked & (intervals == 0), looked & (intervals < 0)
        right = (intervals > 0) & (np.abs(intervals - step) <= slack) if np.isfinite(step) else looked & False
        steps = np.maximum(np.round(intervals / step), 1.0)
        gap = looked & ~right & (steps > 1) & (np.abs(intervals - steps * step) <= slack)
        off = looked & ~right & (intervals > 0) & ~gap

        def stamp(row: int) -> Place:
            return Place(file, first + row, str(self._mapping.time), _stamp_text(times, row))

        for kind, rows in ((DUPLICATE, duplicate), (FALLING, falling), (GAP, gap), (OFF_STEP, off)):
            self._tell(kind, rows, batch, stamp)
        known &= ~duplicate
        return np.asarray(right)


def clock_column(name: str, times: np.ndarray | None) -> Float[np.ndarray, " n"]:
    """A column of `CLOCK`, of times in nanoseconds.

    Raises:
        TableError: the times are none.
    """
    if times is None or times.dtype.kind != "i":
        raise TableError(f"{name} needs stamps, and the time is a number; name a column with dates and times")
    if name == "time:hour-of-day":
        return np.asarray((times % _DAY) / NANOSECONDS["h"])
    if name == "time:day-of-week":
        return np.asarray(((times // _DAY + 3) % 7) + (times % _DAY) / _DAY)
    days = times.astype("datetime64[ns]").astype("datetime64[D]")
    return np.asarray((days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.float64))


def _stamp(cell: object, form: str) -> int:
    """Nanoseconds since 1970 in UTC, or as written where it has no zone; `_UNKNOWN` where it is no stamp."""
    if not isinstance(cell, str):
        return _UNKNOWN
    try:
        found = datetime.strptime(cell.strip(), form) if form else datetime.fromisoformat(cell.strip())
    except ValueError:
        return _UNKNOWN
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    since = found - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000


def stamp_nanoseconds(text: str, form: str) -> int | None:
    """Nanoseconds since 1970 of a stamp, in UTC, or as written where it has no zone; None where it is none.

    Args:
        text: the stamp.
        form: as for `datetime.strptime`; empty for ISO 8601.
    """
    found = _stamp(text, form)
    return None if found == _UNKNOWN else found


def _stamp_text(times: np.ndarray, row: int) -> str:
    return str(times[row].astype("datetime64[ns]"))[:19] if times.dtype.kind == "i" else f"{times[row]:g}"


def _category(cell: object) -> str:
    if isinstance(cell, float):
        return "" if np.isnan(cell) else f"{cell:g}"
    return cell.strip() if isinstance(cell, str) else ""


def _shown(column: np.ndarray | None, row: int) -> str:
    return "" if column is None else str(column[row])
