"""Parquet files, read by record batches and written by blocks of rows; both need pyarrow (`cospan[logs]`)."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from cospan.client.logs.tables.batch import BATCH_ROWS, Batch, TableError, Waiting, missing_columns
from cospan.wire.errors import InvalidValueError


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
        arrow, parquet = _pyarrow(str(self.path))
        try:
            return list(parquet.read_schema(self.path).names)
        except (OSError, arrow.ArrowException) as failure:
            raise TableError(f"{self.path} is no Parquet file: {str(failure)[:200]}; write it again") from failure

    def batches(self, columns: Sequence[str], wait: Waiting | None = None) -> Generator[Batch, None, None]:
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
