"""CSV files, which may grow while they are read."""

import csv
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from cospan.client.logs.tables.batch import BATCH_ROWS, Batch, TableError, Waiting, missing_columns

_LONGEST_CELL = 1 << 20


@dataclass(frozen=True, eq=False, slots=True)
class CsvFile:
    """A CSV file: a header, and rows of as many cells; comma, semicolon or tab, which the header shows."""

    path: Path

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    def columns(self) -> list[str]:
        """Those of its header."""
        try:
            with self.path.open("rb") as raw:
                line = raw.readline(_LONGEST_CELL).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as failure:
            raise TableError(f"{self.path} cannot be read: {failure}; save it as CSV in UTF-8") from failure
        return [name.strip() for name in next(csv.reader([line], delimiter=_delimiter(line)), [])]

    def batches(self, columns: Sequence[str], wait: Waiting | None = None) -> Generator[Batch, None, None]:
        """See `Table`; a last line without an end is not read while the file may grow."""
        file = str(self.path)
        try:
            with self.path.open("rb") as raw:
                yield from self._batches(raw, columns, wait)
        except OSError as failure:
            raise TableError(f"{file} cannot be read: {failure.strerror}; name a file that can") from failure
        except UnicodeDecodeError as failure:
            raise TableError(f"{file} is not UTF-8 text ({failure.reason}); save it as UTF-8") from failure

    def _batches(
        self, raw: IO[bytes], columns: Sequence[str], wait: Waiting | None
    ) -> Generator[Batch, None, None]:
        file, lines = str(self.path), _Lines(raw, str(self.path), wait)
        header = next(lines, None)
        while header is None and wait is not None and wait():
            header = next(lines, None)
        if header is None:
            raise TableError(f"{file} is empty; it must have a header and rows")
        dialect = _delimiter(header)
        names = [name.strip() for name in next(csv.reader([header], delimiter=dialect))]
        missing_columns(columns, names, file)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise TableError(f"{file} has two columns {twice!r}; rename one of them")
        places = [names.index(name) for name in columns]
        reader, row = csv.reader(lines, delimiter=dialect), 1
        while True:
            begin = row
            cells: list[list[str]] = []
            try:
                for record in reader:
                    if record and len(record) != len(names):
                        raise TableError(
                            f"{file} has {len(record)} cells in row {row}, and its header {len(names)}; correct "
                            "the row, or quote cells that hold the delimiter"
                        )
                    if record:
                        cells.append(record)
                        row += 1
                    if len(cells) == BATCH_ROWS:
                        break
            except csv.Error as failure:
                raise TableError(f"{file} is no CSV at row {row}: {failure}; correct the row") from failure
            if cells:
                rows = np.array(cells, dtype=object)
                found = {name: rows[:, place] for name, place in zip(columns, places, strict=True)}
                yield Batch(found, begin, file, begin == 1)
            elif wait is None or not wait():
                return
            else:
                reader = csv.reader(lines, delimiter=dialect)


class _Lines:
    """Complete lines of a file as text. At its end it stops, and can be asked again after the file has grown."""

    def __init__(self, raw: IO[bytes], file: str, wait: Waiting | None) -> None:
        self._raw, self._file, self._grows, self._first = raw, file, wait is not None, True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        place = self._raw.tell() if self._grows else 0
        line = self._raw.readline(_LONGEST_CELL)
        if self._grows:
            self._check_length(place)
        if not line or (self._grows and not line.endswith(b"\n")):
            self._raw.seek(place) if self._grows else None
            raise StopIteration
        if len(line) == _LONGEST_CELL:
            raise TableError(f"{self._file} has a line longer than 1 MiB; it is no table")
        if b"\0" in line:
            raise TableError(f"{self._file} has a zero byte and is no text; save it as CSV in UTF-8")
        text = line.decode("utf-8-sig" if self._first else "utf-8")
        self._first = False
        return text

    def _check_length(self, read: int) -> None:
        length = os.fstat(self._raw.fileno()).st_size
        if length < read:
            raise TableError(
                f"{self._file} has shrunk to {length} bytes after {read} had been read; a log that is followed may "
                "only grow: begin a new file in place of writing over it"
            )


def _delimiter(header: str) -> str:
    """The most frequent of comma, semicolon and tab in the header."""
    return max((",", ";", "\t"), key=header.count)
