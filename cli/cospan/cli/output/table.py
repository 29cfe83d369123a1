"""Tables in plain columns: readable on any terminal, through any pipe, in any log."""

from collections.abc import Sequence

from cospan.wire.text import MAX_RECORD, printable

MOST_ROWS = 100
"""Of agents: a group brings thousands, and all of them are in the files and in `--json`."""
_GAP = "  "
_SHORTEST = 6


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = (), width: int | None = None
) -> list[str]:
    """The lines of a table, header first.

    Args:
        columns: the header.
        rows: the cells.
        numbers: columns to align at the right.
        width: characters of a line. Where the table is wider the widest cells of text are cut; None for no bound.

    Cells are shown as `cospan.wire.text.printable` gives them: agents, workloads and users choose what is in them.
    """
    rows = [[printable(cell, MAX_RECORD) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    if width is not None:
        _shrink(widths, numbers, width - len(_GAP) * (len(columns) - 1))
    return [_line(row, widths, numbers) for row in (columns, *rows)]


def _shrink(widths: list[int], numbers: Sequence[int], room: int) -> None:
    """Narrows the widest column of text, one character at a time, until all fit or none can give any more."""
    while sum(widths) > room:
        texts = [index for index in range(len(widths)) if index not in numbers and widths[index] > _SHORTEST]
        if not texts:
            return
        widest = max(texts, key=lambda index: widths[index])
        widths[widest] -= 1


def _line(row: Sequence[str], widths: Sequence[int], numbers: Sequence[int]) -> str:
    cells = []
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        text = cell if len(cell) <= width else f"{cell[: width - 1]}~"
        cells.append(text.rjust(width) if index in numbers else text.ljust(width))
    return _GAP.join(cells).rstrip()
