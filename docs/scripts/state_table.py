"""Writes the coordinator's transitions into docs/architecture.md: `make state-table`.

python docs/scripts/state_table.py [--check]

The page then holds what `cospan.server.machine.dispatch.TRANSITIONS` holds. With --check nothing is written, and
the exit code is 1 if they differ.
"""

import sys
from pathlib import Path

from cospan.server.machine.dispatch import TRANSITIONS, Transition
from cospan.wire.messages import RunPhase

PAGE = Path(__file__).resolve().parents[1] / "architecture.md"
BEGIN = "<!-- state table: written by `make state-table` -->\n"
END = "<!-- end of the state table -->\n"


def state_table() -> str:
    """The table, in Markdown."""
    rows = [row for transition in TRANSITIONS for row in _rows(transition)]
    return "| event | phase | if | what follows |\n|---|---|---|---|\n" + "".join(rows)


def _rows(transition: Transition) -> list[str]:
    phases = (
        "any" if len(transition.phases) == len(RunPhase) else ", ".join(each.name for each in transition.phases)
    )
    event = transition.event.__name__
    return [
        f"| `{event}` | {phases} | {condition} | {effect} |\n" for condition, effect in transition.effects.items()
    ]


def with_table(page: str) -> str:
    """The page with the table between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{state_table()}{END}{after}"


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    expected = with_table(page)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(expected, encoding="utf-8")
    elif page != expected:
        sys.stderr.write(f"the state table of {PAGE.name} is not that of the machine: run 'make state-table'\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
