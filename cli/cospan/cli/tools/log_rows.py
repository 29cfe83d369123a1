"""The rows of a log as observations, by its mapping: rows that nothing is learnt from have none."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from cospan.cli.tools.observations import Block
from cospan.client.logs.mapping import LogMapping
from cospan.client.logs.rows import RowReader, Rows
from cospan.client.logs.tables.batch import Batch, Table, Waiting


@dataclass(frozen=True, eq=False, slots=True)
class LogRows:
    """A log to be read like an `ObservationFile`: all of its rows, in order.

    Attributes:
        path: the log's name.
        names: of all its columns.
        table: the log.
        mapping: says what of a row is the observation.
    """

    path: str
    names: tuple[str, ...]
    table: Table
    mapping: LogMapping

    @property
    def chosen(self) -> tuple[int, ...]:
        """Places of the columns that an observation is made of, without those that are computed."""
        return tuple(self.names.index(name) for name in self.mapping.observation if name in self.names)

    def blocks(self) -> Iterator[Block]:
        """See `ObservationFile.blocks`; the observation of a row that is left out is not a number.

        Raises:
            TableError: the log cannot be read, or lacks a column.
        """
        tee = _Tee(self.table, self.names)
        for rows in RowReader(self.mapping, tee):
            *without, own = tee.taken()
            yield from map(self._unknown, without)
            yield self._known(own, rows)
        yield from map(self._unknown, tee.taken())

    def _unknown(self, batch: Batch) -> Block:
        return Block(_cells(batch, self.names), np.full((batch.rows, len(self.mapping.observation)), np.nan))

    def _known(self, batch: Batch, rows: Rows) -> Block:
        block = self._unknown(batch)
        block.observations[rows.numbers - batch.first_row] = rows.observations
        return block


def log_rows(table: Table, mapping: LogMapping) -> LogRows:
    """A log to be read like an `ObservationFile`.

    Raises:
        TableError: it cannot be read.
    """
    return LogRows(table.name, tuple(table.columns()), table, mapping)


@dataclass(eq=False, slots=True)
class _Tee:
    """A table that gives all columns of the batches that are read, to be taken by whoever reads it."""

    table: Table
    names: Sequence[str]
    _read: list[Batch] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.table.name

    def columns(self) -> list[str]:
        return list(self.names)

    def batches(self, columns: Sequence[str], wait: Waiting | None = None) -> Generator[Batch, None, None]:
        for batch in self.table.batches(list(dict.fromkeys((*columns, *self.names))), wait):
            self._read.append(batch)
            yield batch

    def taken(self) -> list[Batch]:
        """Those since the last call."""
        found, self._read = self._read, []
        return found


def _cells(batch: Batch, names: Sequence[str]) -> list[list[str]]:
    columns = [_texts(batch.columns[name], is_time=name in batch.times) for name in names]
    return [list(row) for row in zip(*columns, strict=True)]


def _texts(column: np.ndarray, *, is_time: bool) -> list[str]:
    """The cells as text: numbers with all their digits, times as ISO 8601, nothing where nothing is known."""
    if is_time:
        stamps = np.datetime_as_string(column.astype("datetime64[ns]"), unit="s")
        return ["" if stamp == "NaT" else str(stamp) for stamp in stamps]
    if column.dtype.kind == "f":
        return ["" if np.isnan(value) else repr(value) for value in column.tolist()]
    return ["" if cell is None else str(cell) for cell in column]
