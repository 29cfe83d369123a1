"""Results of a benchmark: rows of named numbers, and the columns of its table."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TypeAlias

from cospan.experiments.estimates import Estimate

Cell: TypeAlias = str | int | float | None
Row: TypeAlias = Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: its key in the rows, its header, and the format of its numbers."""

    key: str
    header: str
    form: str = ""


SHAPE_COLUMNS = (Column("feature_dim", "d", "d"), Column("rank", "r", "d"))
"""Columns of the shape of a gradient."""


def interval_columns(name: str, prefix: str, header: str, form: str) -> tuple[Column, Column, Column]:
    """Columns of an estimate: `name`, `prefix`_low and `prefix`_high."""
    return Column(name, header, form), Column(f"{prefix}_low", "from", form), Column(f"{prefix}_high", "to", form)


def interval_cells(name: str, prefix: str, estimate: Estimate | None) -> dict[str, Cell]:
    """The cells of `interval_columns`; empty cells for None."""
    value, low, high = (None, None, None) if estimate is None else astuple(estimate)
    return {name: value, f"{prefix}_low": low, f"{prefix}_high": high}


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one benchmark.

    Attributes:
        name: of the benchmark.
        notes: what was measured, one sentence each.
        columns: of the table.
        rows: one for each case; all have the same keys.
    """

    name: str
    notes: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def cells(self) -> list[list[str]]:
        """The table's cells, as text."""
        return [[_text(row[column.key], column.form) for column in self.columns] for row in self.rows]

    def document(self, machine: Mapping[str, Cell]) -> dict[str, object]:
        """The JSON document; the numbers of a single case are also at the top level."""
        rows = [dict(row) for row in self.rows]
        first = rows[0] if len(rows) == 1 else {}
        return {"benchmark": self.name, "machine": dict(machine), "notes": list(self.notes), **first, "cases": rows}


def lines_of(machine: Mapping[str, Cell]) -> Sequence[str]:
    """The machine in one line."""
    return [", ".join(f"{key} {value}" if key != "cpu" else str(value) for key, value in machine.items())]


def _text(value: Cell, form: str) -> str:
    if value is None:
        return ""
    return format(value, form) if form and not isinstance(value, str) else str(value)
