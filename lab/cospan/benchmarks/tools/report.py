"""What a benchmark gives: rows of named numbers, and which of them make its table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Cell: TypeAlias = str | int | float | None
Row: TypeAlias = Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: its key in the rows, its header, and how its numbers are written."""

    key: str
    header: str
    form: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one benchmark.

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
        """The JSON document; of a single case the numbers stand at the top as well."""
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
