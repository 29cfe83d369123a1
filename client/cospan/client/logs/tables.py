"""Tables in batches: CSV and Parquet files, folders of them, and data frames; memory stays as it is.

A batch holds the columns that are asked for as they are: numbers as float64 (nan where missing), times as
nanoseconds, text as text. Rows are counted from 1 within a file; in CSV row 1 is the first below the header.
"""

import contextlib
import csv
import difflib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from cospan.wire.errors import CospanError, InvalidValueError

BATCH_ROWS = 16384
"""Rows of a batch: some megabytes."""
_LONGEST_CELL = 1 << 20
SUFFIXES = (".csv", ".parquet")

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

    def batches(self, columns: Sequence[str], wait: Waiting | None = None) -> Iterator[Batch]:
        """The rows from the beginning.

        Args:
            columns: that are needed.
            wait: see `Waiting`; None where the table does not grow.

        Raises:
            TableError: a file cannot be read, or lacks a column.
        """
        ...


def missing_columns(columns: Sequence[str], there: Sequence[str], file: str) -> None:
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
    raise TableError(
        f"{file} has no column {', '.join(hints)}; it has {shown}: correct the mapping, or take the file of this "
        "mapping's fleet"
    )


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
        return header_of(self.path)

    def batches(self, columns: Sequence[str], wait: Waiting | None = None) -> Iterator[Batch]:
        """See `Table`; a last line without an end is not read while the file may grow."""
        file = str(self.path)
        try:
            with self.path.open("rb") as raw:
                yield from self._batches(raw, columns, wait)
        except OSError as failure:
            raise TableError(f"{file} cannot be read: {failure.strerror}; name a file that can") from failure
        except UnicodeDecodeError as failure:
            raise TableError(f"{file} is not UTF-8 text ({failure.reason}); save it as UTF-8") from failure

    def _batches(self, raw: IO[bytes], columns: Sequence[str], wait: Waiting | None) -> Iterator[Batch]:
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


@dataclass(frozen=True, eq=False, slots=True)
class ParquetFile:
    """A Parquet file, read by record batches. It needs pyarrow (`cospan[logs]`)."""

    path: Path

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    def columns(self) -> list[str]:
        """Those of its schema."""
        return header_of(self.path)

    def batches(self, columns: Sequence[str], wait: Waiting | None = None) -> Iterator[Batch]:
        """See `Table`; such a file does not grow."""
        del wait
        arrow, parquet = _pyarrow(str(self.path))
        file, row = str(self.path), 1
        try:
            # Buffered ahead, a file would be in memory as a whole when its last row is read.
            with parquet.ParquetFile(self.path, page_checksum_verification=True, pre_buffer=False) as table:
                missing_columns(columns, table.schema_arrow.names, file)
                for record in table.iter_batches(batch_size=BATCH_ROWS, columns=list(dict.fromkeys(columns))):
                    if record.num_rows:
                        yield _of_arrow(record, columns, row, file)
                    row += record.num_rows
        except (OSError, arrow.ArrowException, EOFError) as failure:
            raise TableError(
                f"{file} cannot be read from row {row} on: {str(failure).splitlines()[0][:200]}; the file is "
                "damaged or not what its schema says: write it again"
            ) from failure


@contextlib.contextmanager
def parquet_writer(file: IO[bytes], names: Sequence[str]) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes a Parquet file of float64 columns, a block of rows (n, columns) at a time; nan is written as missing.

    Raises:
        InvalidValueError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow("a Parquet file")
    schema = arrow.schema([(name, arrow.float64()) for name in names])
    with parquet.ParquetWriter(file, schema, write_page_checksum=True) as writer:

        def write(rows: np.ndarray) -> None:
            columns = [arrow.array(np.ascontiguousarray(column), from_pandas=True) for column in rows.T]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))

        yield write


def _pyarrow(what: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as failure:
        raise InvalidValueError(f"{what} needs pyarrow; pip install '.[logs]'") from failure
    return pyarrow, pyarrow.parquet


def _of_arrow(record: Any, columns: Sequence[str], row: int, file: str) -> Batch:
    from pyarrow import compute, types

    found, times = {}, set()
    for name in columns:
        column = record.column(name)
        if types.is_dictionary(column.type):
            column = column.dictionary_decode()
        kind = column.type
        if types.is_timestamp(kind) or types.is_date(kind):
            values = (
                column.cast("timestamp[ns]", safe=False).to_numpy(zero_copy_only=False).astype("datetime64[ns]")
            )
            found[name] = values.astype(np.int64)  # NaT is the least integer
            times.add(name)
        elif types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
            numbers = compute.cast(column, "float64", safe=False).to_numpy(zero_copy_only=False)
            found[name] = np.asarray(numbers, dtype=np.float64)
        elif types.is_string(kind) or types.is_large_string(kind):
            found[name] = column.to_numpy(zero_copy_only=False)
        elif types.is_null(kind):
            found[name] = np.full(len(column), np.nan)
        else:
            raise TableError(
                f"{file} has a column {name!r} of type {kind}; a mapping can use numbers, times, truth values and "
                "text"
            )
    return Batch(found, row, file, row == 1, frozenset(times))


@dataclass(frozen=True, eq=False, slots=True)
class Folder:
    """The files of one site, in the order of their names."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def columns(self) -> list[str]:
        """Those of its first file."""
        return header_of(next(iter(files_in(self.path))))

    def batches(self, columns: Sequence[str], wait: Waiting | None = None) -> Iterator[Batch]:
        """See `Table`; while it may grow, the newest file is followed until a newer one appears."""
        done: set[Path] = set()
        while True:
            files = [path for path in files_in(self.path) if path not in done]
            if not files:
                if wait is not None and wait():
                    continue
                break
            for place, path in enumerate(files):
                done.add(path)
                newest = wait is not None and place == len(files) - 1
                yield from file_of(path).batches(columns, self._until_newer(wait, done) if newest else None)
        if not done:
            raise TableError(f"{self.path} has no CSV or Parquet file; name a folder with the files of one site")

    def _until_newer(self, wait: Waiting | None, done: set[Path]) -> Waiting:
        def waits() -> bool:
            return not any(path not in done for path in files_in(self.path)) and wait is not None and wait()

        return waits


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """A data frame of pandas, polars or any library with `columns` and columns that have `to_numpy()`."""

    name: str
    frame: Any

    def columns(self) -> list[str]:
        """Those of the frame."""
        return [str(name) for name in self.frame.columns]

    def batches(self, columns: Sequence[str], wait: Waiting | None = None) -> Iterator[Batch]:
        """See `Table`."""
        del wait
        missing_columns(columns, [str(name) for name in self.frame.columns], f"the frame {self.name!r}")
        values = {name: _plain(self.frame[name].to_numpy()) for name in columns}
        times = frozenset(name for name, each in values.items() if each.dtype.kind == "M")
        for name in times:
            values[name] = values[name].astype("datetime64[ns]").astype(np.int64)
        rows = len(next(iter(values.values())))
        for begin in range(0, rows, BATCH_ROWS):
            part = {name: each[begin : begin + BATCH_ROWS] for name, each in values.items()}
            yield Batch(part, begin + 1, f"the frame {self.name!r}", begin == 0, times)


def _plain(values: np.ndarray) -> np.ndarray:
    """Numbers as float64, times and text as they are; times with a zone, which pandas gives as objects, in UTC."""
    if values.dtype.kind in "fiub":
        return values.astype(np.float64)
    if values.dtype.kind == "O" and len(values) and hasattr(values[0], "tzinfo"):
        return np.array(
            [each.astimezone(UTC).replace(tzinfo=None) if each.tzinfo else each for each in values],
            "datetime64[ns]",
        )
    return values if values.dtype.kind == "M" else values.astype(object)


def file_of(path: Path) -> Table:
    """The table of a file, by its suffix.

    Raises:
        InvalidValueError: it is neither CSV nor Parquet.
    """
    match path.suffix.lower():
        case ".csv":
            return CsvFile(path)
        case ".parquet":
            return ParquetFile(path)
    raise InvalidValueError(f"{path} is neither a .csv nor a .parquet file; convert it, or name another")


def files_in(folder: Path) -> list[Path]:
    """The CSV and Parquet files of a folder, by name."""
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    except OSError as failure:
        raise TableError(f"{folder} cannot be read: {failure.strerror}; name another folder") from failure
    return sorted(path for path in found if not path.name.startswith("."))


def tables_of(data: str, base: Path | None = None) -> list[Table]:
    """The tables of the sites, in the order of their names: what a folder holds, or a pattern finds.

    Args:
        data: a file, a folder, a pattern as stations/*.csv, or minari:DATASET.
        base: the folder that a relative path starts from; None for the working folder.

    Raises:
        InvalidValueError: there is nothing.
    """
    if data.startswith("minari:"):
        from cospan.client.logs.minari_table import MinariTable

        return [MinariTable(data.removeprefix("minari:"))]
    path = Path(data) if base is None else base / data
    if path.is_file():
        return [file_of(path)]
    if path.is_dir():
        folders = sorted(each for each in path.iterdir() if each.is_dir() and files_in(each))
        found: list[Table] = [file_of(each) for each in files_in(path)]
        found += [Folder(each) for each in folders]
    elif any(letter in path.name for letter in "*?["):
        matching = [each for each in path.parent.glob(path.name) if not each.name.startswith(".")]
        found = [Folder(each) if each.is_dir() else file_of(each) for each in matching]
    else:
        raise InvalidValueError(f"there is no file or folder {path}; name the logs, as --logs stations/")
    if not found:
        raise InvalidValueError(f"{path} has no CSV or Parquet file; name the folder of the logs")
    return sorted(found, key=lambda table: table.name)


def table_of(data: str) -> Table:
    """The table of one site: a file, or a folder of its files.

    Raises:
        InvalidValueError: there is none.
    """
    path = Path(data)
    return Folder(path) if path.is_dir() else tables_of(data)[0]


def read_head(table: Table, columns: Sequence[str]) -> Batch | None:
    """The first rows of a table; None where it has none."""
    return next(iter(table.batches(columns)), None)


def header_of(path: Path) -> list[str]:
    """The names of the columns of a file.

    Raises:
        TableError: it cannot be read.
    """
    if path.suffix.lower() == ".parquet":
        arrow, parquet = _pyarrow(str(path))
        try:
            return list(parquet.read_schema(path).names)
        except (OSError, arrow.ArrowException) as failure:
            raise TableError(f"{path} is no Parquet file: {str(failure)[:200]}; write it again") from failure
    try:
        with path.open("rb") as raw:
            line = io.TextIOWrapper(raw, "utf-8-sig").readline(_LONGEST_CELL)
    except (OSError, UnicodeDecodeError) as failure:
        raise TableError(f"{path} cannot be read: {failure}; save it as CSV in UTF-8") from failure
    return [name.strip() for name in next(csv.reader([line], delimiter=_delimiter(line)), [])]
