"""`cospan score`: what a learnt value function says of each row of a file."""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from gymnasium.spaces import Discrete
from jaxtyping import Float

from cospan.cli.settings.extras import require
from cospan.cli.tools.log_rows import LogRows, log_rows
from cospan.cli.tools.observations import Block, ObservationFile, csv_text, observation_file
from cospan.client.environment.ownership import close_site
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.value_function import ValueFunction
from cospan.client.workload import Site, Workload
from cospan.wire.console import say
from cospan.wire.errors import IntervalUnknownError, InvalidValueError, RunFileError, WorkloadBehaviourError
from cospan.wire.files.safe_files import writing_whole

COLUMNS = ("value", "value_low", "value_high", "gain")
PARQUET = ".parquet"


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """Options of `cospan score`.

    Attributes:
        value: the file of a value function.
        observations: the file with an observation in each row; None with a log.
        columns: of it that make an observation; all if empty.
        workload: whose features it was learnt with; None for a built-in one, which the file names.
        output: the file to write, CSV or Parquet; None for CSV on standard output.
        coverage: of the intervals.
        force: whether an existing file is overwritten.
        log: a site's log, in place of a file of observations.
        mapping: of the log.
    """

    value: Path
    observations: Path | None = None
    columns: tuple[str, ...] = ()
    workload: str | None = None
    output: Path | None = None
    coverage: float = 0.9
    force: bool = False
    log: str | None = None
    mapping: Path | None = None


def score_file(chosen: ScoreOptions) -> int:
    """Writes the rows of a file with their values; the exit code.

    Raises:
        RunFileError: a file cannot be read or written.
        InvalidValueError: an option has a value that is not allowed.
        WorkloadBehaviourError: the feature map cannot take an observation.
    """
    if not 0.0 < chosen.coverage < 1.0:
        raise InvalidValueError(f"--coverage is {chosen.coverage:g}; it must lie between 0 and 1, as 0.9")
    _check_output(chosen)
    table, value = _of_log(chosen) if chosen.observations is None else _of_file(chosen, chosen.observations)
    taken = [name for name in COLUMNS if name in table.names]
    if taken:
        raise InvalidValueError(
            f"{table.path} has a column {taken[0]!r} already, as this command writes; rename it"
        )
    whole = chosen.observations is not None and _is_discrete(value, chosen.workload)
    scorer = _Scorer(value, chosen.coverage, whole=whole)
    with _written(chosen.output, (*table.names, *COLUMNS)) as writer:
        for block in table.blocks():
            writer.write(block.cells, scorer.of(block, table))
    for line in scorer.notes(table):
        say(f"cospan: {line}")
    return 0


def _of_file(chosen: ScoreOptions, observations: Path) -> tuple[ObservationFile, ValueFunction]:
    """A file of observations, and the value function with the features of its workload."""
    given = [f"--{name}" for name in ("log", "mapping") if getattr(chosen, name) is not None]
    if given:
        raise InvalidValueError(f"{given[0]} reads a log in place of --observations {observations}; leave out one")
    table = observation_file(observations, chosen.columns)
    return table, ValueFunction.load(chosen.value, workload=chosen.workload)


def _of_log(chosen: ScoreOptions) -> tuple[LogRows, ValueFunction]:
    """A log, and the value function with the features of its mapping."""
    if chosen.log is None:
        raise InvalidValueError("no rows are named; give a file with --observations, or a log: --log and --mapping")
    if chosen.mapping is None:
        raise InvalidValueError(f"--log {chosen.log} needs --mapping, which says what its columns are")
    if chosen.columns or chosen.workload is not None:
        raise InvalidValueError("--mapping names columns and features; leave out --columns and --workload")
    from cospan.client.logs.mapping import load_mapping
    from cospan.client.logs.tables.sites import table_of

    mapping = load_mapping(chosen.mapping)
    value = ValueFunction.load(chosen.value, mapping.features)
    return log_rows(table_of(chosen.log), mapping), value


def _is_discrete(value: ValueFunction, workload: str | None) -> bool:
    """Whether observations are whole numbers, which a feature map may insist on."""
    made_by: Workload = load_workload(workload or value.workload)
    site = make_site(made_by, value.index, value.seed)
    if not isinstance(site, Site):
        return False
    try:
        return isinstance(site.env.observation_space, Discrete)
    finally:
        close_site(site)


class _Scorer:
    """Values of blocks, and what should be said of them."""

    def __init__(self, value: ValueFunction, coverage: float, *, whole: bool) -> None:
        self._value, self._coverage, self._whole = value, coverage, whole
        self._rows = self._missing = 0
        self._unknown = ""

    def of(self, block: Block, table: "ObservationFile | LogRows") -> Float[np.ndarray, "n 4"]:
        """The columns of `COLUMNS`; nan where the observation is not known, or the interval is not."""
        known = np.isfinite(block.observations).all(axis=1)
        self._rows, self._missing = self._rows + len(known), self._missing + int((~known).sum())
        found = np.full((len(known), len(COLUMNS)), math.nan)
        found[:, -1] = self._value.gain
        rows: Any = block.observations[known]
        if not len(rows):
            return found
        if self._whole:
            rows = self._as_whole(rows, table)
        values = self._value.values(rows)
        found[known, 0] = values
        found[known, 1:3] = self._ends(rows, values)
        return found

    def _as_whole(self, rows: Float[np.ndarray, "n k"], table: "ObservationFile | LogRows") -> Sequence[int]:
        if rows.shape[1] != 1:
            names = ", ".join(table.names[place] for place in table.chosen)
            raise InvalidValueError(
                f"an observation of {self._value.workload!r} is one whole number, and {table.path} has the columns "
                f"{names}; choose one with --columns"
            )
        odd = rows[rows != np.floor(rows)]
        if odd.size:
            raise WorkloadBehaviourError(
                f"{table.path} has the observation {odd[0]:g}; those of {self._value.workload!r} are whole numbers"
            )
        return [int(entry) for entry in rows[:, 0]]

    def _ends(self, rows: Any, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
        """The interval of each value, about it; nan where what was learnt does not tell."""
        unknown = np.full((len(values), 2), math.nan)
        if self._unknown:
            return unknown
        try:
            ends = self._value.intervals(rows, coverage=self._coverage)
        except IntervalUnknownError as failure:
            self._unknown = str(failure)
            return unknown
        shifted: np.ndarray = ends - ends.mean(axis=1, keepdims=True) + values[:, None]
        return shifted

    def notes(self, table: "ObservationFile | LogRows") -> list[str]:
        """Sentences on what was left out."""
        found = [
            f"scored {self._rows - self._missing:,} of {self._rows:,} rows of {table.path} with {self._value!r}"
        ]
        if self._missing:
            rows = "1 row has" if self._missing == 1 else f"{self._missing:,} rows have"
            why = "a missing cell" if isinstance(table, ObservationFile) else "a value that is not known"
            found.append(f"{rows} {why}, and no value")
        if self._unknown:
            found.append(f"intervals are empty: {self._unknown}")
        return found


class _Writer(Protocol):
    def write(self, cells: list[list[str]], scores: Float[np.ndarray, "n 4"]) -> None:
        """Adds rows."""
        ...


class _CsvWriter:
    """Writes the header with the first rows, so that an error in them leaves nothing."""

    def __init__(self, file: Any, names: Sequence[str]) -> None:
        self._file, self._header = file, [list(names)]

    def write(self, cells: list[list[str]], scores: Float[np.ndarray, "n 4"]) -> None:
        rows = [
            [*row, *("" if math.isnan(number) else repr(number) for number in own)]
            for row, own in zip(cells, scores.tolist(), strict=True)
        ]
        self._file.write(csv_text([*self._header, *rows]).encode())
        self._header = []

    def close(self) -> None:
        """Completes the file, also one without rows."""
        self._file.write(csv_text(self._header).encode())


class _ParquetWriter:
    """A column of the input is numbers if those of the first block are, else text."""

    def __init__(self, file: Any, names: Sequence[str]) -> None:
        import pyarrow
        from pyarrow import parquet

        self._arrow, self._parquet = pyarrow, parquet
        self._file, self._names = file, list(names)
        self._are_numbers: list[bool] = []
        self._writer: Any = None

    def write(self, cells: list[list[str]], scores: Float[np.ndarray, "n 4"]) -> None:
        inputs = list(zip(*cells, strict=True))
        if self._writer is None:
            self._begin([_are_numbers(column) for column in inputs])
        columns: list[Any] = []
        for name, column, is_number in zip(self._names, inputs, self._are_numbers, strict=False):
            if is_number and not _are_numbers(column):
                raise RunFileError(f"column {name!r} holds numbers first and text later; write CSV instead")
            columns.append(_numbers(column) if is_number else column)
        arrays = [self._arrow.array(column, from_pandas=True) for column in (*columns, *scores.T)]
        self._writer.write_table(self._arrow.table(arrays, schema=self._schema))

    def _begin(self, are_numbers: list[bool]) -> None:
        self._are_numbers = are_numbers
        kinds = [*are_numbers, *(True for _ in COLUMNS)]
        types = [self._arrow.float64() if is_number else self._arrow.string() for is_number in kinds]
        self._schema = self._arrow.schema(list(zip(self._names, types, strict=True)))
        self._writer = self._parquet.ParquetWriter(self._file, self._schema)

    def close(self) -> None:
        """Completes the file, also one without rows."""
        if self._writer is None:
            self._begin([False] * (len(self._names) - len(COLUMNS)))
        self._writer.close()


def _are_numbers(column: Sequence[str]) -> bool:
    try:
        _numbers(column)
    except ValueError:
        return False
    return True


def _numbers(column: Sequence[str]) -> Float[np.ndarray, " n"]:
    return np.array([float(cell) if cell.strip() else math.nan for cell in column])


def _check_output(chosen: ScoreOptions) -> None:
    output = chosen.output
    if output is None:
        return
    if output.suffix not in (".csv", PARQUET):
        raise InvalidValueError(f"--output is {output}; its name must end in .csv or {PARQUET}")
    if output.suffix == PARQUET:
        require("writing Parquet", ["pyarrow"], "logs")
    if output.exists() and not chosen.force:
        raise RunFileError(f"--output {output} exists; name another file, or give --force to overwrite it")
    source = chosen.observations or Path(chosen.log or "")
    if output.exists() and source.exists() and output.samefile(source):
        raise RunFileError(f"--output {output} is the file that is read; name another")


@contextmanager
def _written(output: Path | None, names: Sequence[str]) -> Iterator[_Writer]:
    """The writer of the rows; a file appears whole or not at all."""
    if output is None:
        plain = _CsvWriter(sys.stdout.buffer, names)
        yield plain
        plain.close()
        sys.stdout.buffer.flush()
        return
    try:
        with writing_whole(output) as file:
            writer = _ParquetWriter(file, names) if output.suffix == PARQUET else _CsvWriter(file, names)
            yield writer
            writer.close()
    except OSError as failure:
        raise RunFileError(f"cannot write {output}: {failure.strerror}; name another file") from failure
