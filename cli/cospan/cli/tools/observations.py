"""Observations from a file, in blocks: a table of numbers (CSV), or an array (npy)."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import Float

from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.text import listed

BLOCK_ROWS = 10_000
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """Consecutive rows of a file.

    Attributes:
        cells: of each row, as they are in the file; text.
        observations: of each row; nan where a cell is missing.
    """

    cells: list[list[str]]
    observations: Float[np.ndarray, "n k"]


@dataclass(frozen=True, eq=False, slots=True)
class ObservationFile:
    """A file of observations.

    Attributes:
        path: of the file.
        names: of its columns; those of an array are x0, x1, ….
        chosen: places of the columns that make an observation, in its order.
    """

    path: Path
    names: tuple[str, ...]
    chosen: tuple[int, ...]

    def blocks(self) -> Iterator[Block]:
        """Its rows from the beginning.

        Raises:
            RunFileError: a row has another number of cells, or a cell that is no number; the text names it.
        """
        if self.path.suffix == ".npy":
            yield from _of_array(self)
            return
        with _opened(self.path) as file:
            rows = csv.reader(_lines(self.path, file))
            next(rows, None)
            cells: list[list[str]] = []
            numbers: list[list[float]] = []
            for number, row in enumerate(rows, 1):
                if not row:
                    continue
                cells.append(row)
                numbers.append(self._numbers(row, number))
                if len(cells) == BLOCK_ROWS:
                    yield Block(cells, np.array(numbers))
                    cells, numbers = [], []
            if cells:
                yield Block(cells, np.array(numbers))

    def _numbers(self, row: Sequence[str], number: int) -> list[float]:
        if len(row) != len(self.names):
            raise RunFileError(
                f"row {number} of {self.path} has {len(row)} cells, and the header {len(self.names)}; give every "
                "row as many"
            )
        found = []
        for place in self.chosen:
            text = row[place].strip()
            try:
                value = math.nan if text.casefold() in _MISSING else float(text)
            except ValueError:
                raise RunFileError(
                    f"row {number} of {self.path} has {text[:40]!r} in column {self.names[place]!r}, which is no "
                    "number; correct it, or choose other columns with --columns"
                ) from None
            found.append(value if math.isfinite(value) else math.nan)
        return found


def observation_file(path: Path, columns: Sequence[str] = ()) -> ObservationFile:
    """A file of observations.

    Args:
        path: a CSV file with a header, or an array of NumPy (npy) with an observation in each row.
        columns: that make an observation, in its order; all if empty.

    Raises:
        RunFileError: it cannot be read.
        InvalidValueError: it has no such column, or is another kind of file.
    """
    if path.suffix == ".npy":
        names = tuple(f"x{place}" for place in range(_array(path).shape[1]))
    elif path.suffix == ".csv":
        with _opened(path) as file:
            names = tuple(name.strip() for name in next(csv.reader(_lines(path, file)), ()))
    else:
        raise InvalidValueError(f"--observations is {path}; it must be a .csv file with a header, or a .npy array")
    if not names:
        raise RunFileError(f"{path} is empty; give a header, and an observation in each row")
    lacking = [name for name in columns if name not in names]
    if lacking:
        raise InvalidValueError(f"{path} has no column {listed(lacking)}; it has {listed(names, 20)}")
    return ObservationFile(path, names, tuple(map(names.index, columns)) or tuple(range(len(names))))


def _opened(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as failure:
        raise RunFileError(f"cannot read {path}: {failure.strerror}; name another file") from failure


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """Lines of bounded length."""
    try:
        while line := file.readline(_LONGEST_LINE):
            if len(line) == _LONGEST_LINE:
                raise RunFileError(f"{path} has a line of {_LONGEST_LINE} characters or more; it is no table")
            yield line
    except UnicodeDecodeError as failure:
        raise RunFileError(f"{path} is not text in UTF-8: {failure.reason}; save it as CSV in UTF-8") from failure


def _array(path: Path) -> Float[np.ndarray, "n k"]:
    try:
        values: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as failure:
        raise RunFileError(f"cannot read {path} as an array: {failure}; save it with numpy.save") from failure
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise RunFileError(
            f"{path} holds an array of shape {values.shape} and type {values.dtype}; give numbers with an "
            "observation in each row"
        )
    return values


def _of_array(file: ObservationFile) -> Iterator[Block]:
    values = _array(file.path)
    for begin in range(0, len(values), BLOCK_ROWS):
        part = np.asarray(values[begin : begin + BLOCK_ROWS], dtype=np.float64)
        chosen = part[:, list(file.chosen)]
        cells = [[repr(cell) for cell in row] for row in part.tolist()]
        yield Block(cells, np.where(np.isfinite(chosen), chosen, np.nan))


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
