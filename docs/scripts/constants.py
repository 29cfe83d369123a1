"""Writes the tables of a run's constants into docs/notation.md, between its markers: `constants.py [--check]`."""

import sys
from dataclasses import MISSING
from enum import Enum
from pathlib import Path
from typing import Any

from cospan.core.fields import FieldEntry, entries
from cospan.core.method import PRESETS, Method
from cospan.core.run_fields import RunFields

PAGE = Path(__file__).resolve().parents[1] / "notation.md"
BEGIN, END = "<!-- constants: made by docs/scripts/constants.py -->", "<!-- end of constants -->"


def tables() -> str:
    """The constants of the learning rule with the values of the presets, and the other fields of a run."""
    presets = {name: make(1) for name, make in PRESETS.items()}
    head = ("symbol", "name", "unit", "values", *presets, "meaning")
    rule = [
        (*_start(field), *(_shown(field, getattr(method, field.name)) for method in presets.values()), _end(field))
        for field in entries(Method)
    ]
    run = [(*_start(field), _shown(field, field.default), _end(field)) for field in entries(RunFields)]
    return "\n".join(
        (
            "The constants of the learning rule (`[method]` in a spec.toml), with their values in each preset:\n",
            *_table(head, rule),
            "\nThe other fields of a run, with their defaults:\n",
            *_table(("symbol", "name", "unit", "values", "default", "meaning"), run),
        )
    )


def page(text: str) -> str:
    """The page with its tables brought up to date."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = (head, ("---",) * len(head), *rows)
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines]


def _start(field: FieldEntry) -> tuple[str, ...]:
    values = str(field.entry.range) if field.entry.range else field.allowed
    return field.entry.symbol, f"`{field.name}`", field.entry.unit, values.replace(" and finite", "")


def _end(field: FieldEntry) -> str:
    return field.entry.meaning


def _shown(field: FieldEntry, value: Any) -> str:
    if value is MISSING or field.name == "steps_per_round":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return str(value.value)
    return value if isinstance(value, str) else f"{value:g}"


if __name__ == "__main__":
    made = page(PAGE.read_text(encoding="utf-8"))
    if "--check" not in sys.argv:
        PAGE.write_text(made, encoding="utf-8")
    elif made != PAGE.read_text(encoding="utf-8"):
        sys.exit("docs/notation.md is not what the fields give: run 'make notation'")
