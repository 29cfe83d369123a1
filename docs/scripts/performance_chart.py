"""Draws docs/figures/performance.svg from the tables of docs/performance.md: `make figures`.

python docs/scripts/performance_chart.py [--check]

One row for each thing that Cospan's coordinator is compared with. The picture has the colours of the reader's
scheme, light or dark. With --check nothing is written, and the exit code is 1 if the picture is another.
"""

import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
PAGE, PICTURE = DOCS / "performance.md", DOCS / "figures" / "performance.svg"
WIDTH, LEFT, RIGHT, TOP, ROW, BOTTOM = 900, 270, 110, 62, 34, 52
FIRST, LAST = -1.3, 4.0
"""Powers of ten at the ends of the axis."""
STYLE = """
.back { fill: #ffffff } .text { fill: #263238 } .faint { fill: #5b676d } .grid { stroke: #dfe4e6 }
.one { stroke: #5b676d; stroke-dasharray: 4 3 } .main { stroke: #00796b; fill: #00796b }
.other { stroke: #b34700; fill: #ffffff }
@media (prefers-color-scheme: dark) {
.back { fill: #1e2129 } .text { fill: #e3e6ea } .faint { fill: #a9b0ba } .grid { stroke: #363b47 }
.one { stroke: #a9b0ba } .main { stroke: #4db6ac; fill: #4db6ac } .other { stroke: #ffab70; fill: #1e2129 }
}
text { font: 13px system-ui, sans-serif }
""".strip()


@dataclass(frozen=True, slots=True)
class Ratio:
    """A median, and the ends of its interval or range."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """What is compared with, its ratios, and those of a smaller fleet."""

    title: str
    ratios: tuple[Ratio, ...]
    small: Ratio | None = None


def rows(page: str) -> list[Row]:
    """The rows of the picture.

    Raises:
        ValueError: a table of the page is not there.
    """
    ceilings = [
        Row(f"bare server, {agents} agents, {shape}", (_range_of(four, _ratio(first)),))
        for agents, shape, four, first, *_ in _table(page, "agents", "ratio to the ceiling")
    ]
    peers = [
        Row(peer.split(":")[0], (_ratio(first), _ratio(second)), _ratio(two))
        for peer, two, first, second, _ in _table(page, "peer", "8 agents")
    ]
    return [*ceilings, *peers]


def picture(rows: list[Row]) -> str:
    """The SVG."""
    height = TOP + ROW * len(rows) + BOTTOM
    title = "Rounds per second of Cospan, times those of a bare server, MPI, Ray and Flower"
    words = "; ".join(f"{row.title}: {' and '.join(f'{each.median:,g}' for each in row.ratios)}" for row in rows)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{title}</title><desc>{escape(words)}</desc>",
            f"<style>{STYLE}</style>",
            f'<rect class="back" width="{WIDTH}" height="{height}"/>',
            *_axis(height),
            *(line for number, row in enumerate(rows) for line in _row(row, TOP + ROW * number + ROW / 2)),
            *_legend(height),
            "</svg>\n",
        )
    )


def _axis(height: int) -> Iterator[str]:
    title = "Cospan's rounds per second, times those of …"
    yield f'<text class="text" x="{LEFT}" y="22" font-weight="600">{title}</text>'
    for power in range(math.ceil(FIRST), int(LAST) + 1):
        kind = "one" if power == 0 else "grid"
        x = _x(10.0**power)
        yield f'<line class="{kind}" x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height - BOTTOM}"/>'
        yield f'<text class="faint" x="{x:.1f}" y="{TOP - 14}" text-anchor="middle">{10.0**power:,g} ×</text>'


def _row(row: Row, y: float) -> Iterator[str]:
    yield f'<text class="text" x="{LEFT - 16}" y="{y + 4:.1f}" text-anchor="end">{escape(row.title)}</text>'
    offsets = [0.0] if len(row.ratios) == 1 else [-5.0, 5.0]
    if row.small is not None:
        yield from _mark(row.small, y, "other")
    for ratio, offset in zip(row.ratios, offsets, strict=True):
        yield from _mark(ratio, y + offset, "main")
    end = _x(max(ratio.high for ratio in (*row.ratios, *([row.small] if row.small else ())))) + 14
    medians = ", ".join(f"{ratio.median:,g}" for ratio in row.ratios)
    yield f'<text class="text" x="{end:.1f}" y="{y + 4:.1f}">{medians}</text>'


def _mark(ratio: Ratio, y: float, kind: str) -> Iterator[str]:
    yield (
        f'<line class="{kind}" x1="{_x(ratio.low):.1f}" y1="{y:.1f}" x2="{_x(ratio.high):.1f}" y2="{y:.1f}" '
        'stroke-width="3"/>'
    )
    yield f'<circle class="{kind}" cx="{_x(ratio.median):.1f}" cy="{y:.1f}" r="4.5" stroke-width="2"/>'


def _legend(height: int) -> Iterator[str]:
    y = height - 20
    for x, kind, text in (
        (LEFT, "main", "8 agents, or as named; medians beside"),
        (LEFT + 300, "other", "2 agents"),
    ):
        yield f'<circle class="{kind}" cx="{x}" cy="{y - 4}" r="4.5" stroke-width="2"/>'
        yield f'<text class="faint" x="{x + 12}" y="{y}">{text}</text>'


def _x(value: float) -> float:
    return LEFT + (math.log10(value) - FIRST) / (LAST - FIRST) * (WIDTH - LEFT - RIGHT)


def _table(page: str, first: str, other: str) -> list[list[str]]:
    """The rows of the table whose first column is `first`, and another column begins with `other`."""
    for table in re.findall(r"(?:^\|.*\|\n)+", page, flags=re.MULTILINE):
        head, _, *body = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines())
        if head[0] == first and any(cell.startswith(other) for cell in head):
            return body
    raise ValueError(f"{PAGE.name} has no table of {first!r} with a column {other!r}")


def _ratio(cell: str) -> Ratio:
    """`0.78 (0.76 to 0.80)`."""
    return Ratio(*_numbers(cell))


def _range_of(cell: str, ratio: Ratio) -> Ratio:
    """The ends of a list of ratios."""
    found = _numbers(cell)
    return Ratio(ratio.median, min(found), max(found))


def _numbers(cell: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?", cell)]


def main() -> int:
    """Writes the picture, or compares it; 1 if it differs."""
    drawn = picture(rows(PAGE.read_text(encoding="utf-8")))
    if "--check" not in sys.argv[1:]:
        PICTURE.write_text(drawn, encoding="utf-8")
    elif not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != drawn:
        sys.stderr.write("docs/figures/performance.svg is not drawn from docs/performance.md: run 'make figures'\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
