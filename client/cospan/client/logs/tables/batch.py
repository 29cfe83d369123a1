"""Batches of rows, and what every table can do; memory stays as it is.

A batch holds the columns that are asked for as they are: numbers as float64 (nan where missing), times as
nanoseconds, text as text. Rows are counted from 1 within a file; in CSV row 1 is the first below the header.
"""

import contextlib
import difflib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from cospan.wire.errors import CospanError

BATCH_ROWS = 16384
"""Rows of a batch: some megabytes."""

Waiting: TypeAlias = Callable[[], bool]
"""Called at the end of a table that may grow: waits for more, and says whether to look again."""


class TableError(CospanError):
    """A table cannot be read. Its text names the file, and the row where that is known."""

    reason = "TABLE"
    exit_code = 2


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """Consecutive rows of one file.

    Attributes:
        columns: by name: float64 numbers, int64 nanoseconds of `times`, or objects (text, or None where missing).
        first_row: the number of the first row within its file.
        file: the file's name, for messages.
        begins_file: whether the file begins with this batch.
        times: the columns that are times.
    """

    columns: Mapping[str, np.ndarray]
    first_row: int
    file: str
    begins_file: bool
    times: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        """How many."""
        return len(next(iter(self.columns.values())))


@runtime_checkable
class Table(Protocol):
    """The rows of one site, in order."""

    @property
    def name(self) -> str:
        """The site's name: a file's or folder's without its suffix."""
        ...

    def columns(self) -> list[str]:
        """The names of its columns.

        Raises:
            TableError: a file cannot be read.
        """
        ...

    def batches(self, columns: Sequence[str], wait: Waiting | None = None) -> Generator[Batch, None, None]:
        """The rows from the beginning; closed before its end, it closes its file.

        Args:
            columns: that are needed.
            wait: see `Waiting`; None where the table does not grow.

        Raises:
            TableError: a file cannot be read, or lacks a column.
        """
        ...


_OTHER_FLEET = "correct the mapping, or take the file of this mapping's fleet"


def missing_columns(columns: Sequence[str], there: Sequence[str], file: str, remedy: str = _OTHER_FLEET) -> None:
    """Raises TableError where a table lacks columns; its text names similar ones."""
    lacking = [name for name in columns if name not in there]
    if not lacking:
        return
    folded = {name.casefold(): name for name in there}
    hints = [
        f"{name!r} (is it {folded[near[0]]!r}?)"
        if (near := difflib.get_close_matches(name.casefold(), folded, n=1))
        else repr(name)
        for name in lacking
    ]
    shown = ", ".join(map(repr, there[:20])) + (", …" if len(there) > 20 else "")
    raise TableError(f"{file} has no column {', '.join(hints)}; it has {shown}: {remedy}")


def read_head(table: Table, columns: Sequence[str]) -> Batch | None:
    """The first rows of a table; None where it has none."""
    with contextlib.closing(table.batches(columns)) as batches:
        return next(batches, None)
