"""The rounds of a run that is over, from the files of its folder."""

import csv
import io
from collections.abc import Iterator
from typing import TextIO

from cospan.cli.run_folder.layout import RunFolder
from cospan.dashboard.series import Round
from cospan.server.storage.reader import read_reports
from cospan.wire.errors import RunFileError
from cospan.wire.files.safe_files import MAX_ROUNDS_BYTES, reading

_LONGEST_LINE = 1000
"""Characters; a round has about 100."""
_ERRORS = {
    "subspace_error": "subspace_error",
    "value_error": "value_error",
    "lstd_alone_error": "lstd_alone",
    "td_alone_error": "td_alone",
}
"""Columns of `rounds.csv` → those of `RoundSeries`."""


def read_rounds(folder: RunFolder) -> Iterator[Round]:
    """Those of `rounds.csv`, or where it is not there of the stored run; oldest first.

    Raises:
        RunFileError: the file is damaged.
    """
    if not folder.rounds.exists():
        if folder.store.exists():
            for report in read_reports(folder.store):
                yield Round(report.closed_round, report.seconds, report.contributors, report.basis_movement)
        return
    try:
        with reading(folder.rounds, MAX_ROUNDS_BYTES) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            for row in csv.DictReader(_lines(text)):
                yield _round(row)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as failure:
        raise RunFileError(f"{folder.rounds} is no list of rounds, or is damaged: {failure}") from failure


def _lines(file: TextIO) -> Iterator[str]:
    """Lines, each of bounded length. Raises ValueError where one is longer."""
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise ValueError(f"a line has {_LONGEST_LINE} characters or more")
        yield line


def _round(row: dict[str, str]) -> Round:
    return Round(
        int(row["round"]),
        float(row["seconds"]),
        int(row["contributors"]),
        float(row["basis_movement"]),
        {column: float(row[name]) for name, column in _ERRORS.items() if row.get(name)},
    )
