"""Names of lines at their right ends, in their colours: nothing covers the data."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_POINTS_PER_INCH = 72.0
_LEADING = 1.25
_INNER = 0.72
"""Share of a figure's height that its axes have, about; titles and labels take the rest."""
_MOST = 9
"""With more lines than this a legend beside the axes is easier to read."""


def label_lines(axes: "Axes", size: float = 8.5) -> None:
    """Writes the label of each line beside its last point; labels that would overlap are moved apart.

    Args:
        axes: with its final scale and limits.
        size: of the letters, in points.
    """
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    ends = [(end, line) for line in lines if (end := _end(axes, line)) is not None]
    if not ends:
        return
    if len(ends) > _MOST:
        axes.legend(frameon=False, fontsize=size - 1.0, loc="upper left", bbox_to_anchor=(1.01, 1.0))
        return
    figure, spec = axes.get_figure(root=True), axes.get_subplotspec()
    assert figure is not None
    rows = 1 if spec is None else spec.get_gridspec().nrows
    height = figure.get_figheight() * _POINTS_PER_INCH * _INNER / rows
    places = spread([end for end, _ in ends], size * _LEADING / height)
    for place, (_, line) in zip(places, ends, strict=True):
        axes.annotate(
            str(line.get_label()),
            xy=_shown_end(axes, line),
            xytext=(1.03, place),
            xycoords="data",
            textcoords="axes fraction",
            color=line.get_color(),
            fontsize=size,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": line.get_color(),
                "linewidth": 0.5,
                "alpha": 0.6,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )


def _last_point(line: "Line2D") -> tuple[float, float]:
    """The last known point of a line that has one."""
    x, y = (np.asarray(values, dtype=np.float64) for values in line.get_data())
    last = np.flatnonzero(np.isfinite(y))[-1]
    return float(x[last]), float(y[last])


def _shown_end(axes: "Axes", line: "Line2D") -> tuple[float, float]:
    """The last point of a line, moved to the edge of the axes where it lies beyond."""
    x, y = _last_point(line)
    low, high = sorted(axes.get_ylim())
    return x, min(max(y, low), high)


def _end(axes: "Axes", line: "Line2D") -> float | None:
    """The height of a line's last point as a fraction of the axes, 0 to 1; None where it has no point."""
    if not np.isfinite(np.asarray(line.get_ydata(), dtype=np.float64)).any():
        return None
    low, high = axes.get_ylim()
    _, last = _last_point(line)
    if axes.get_yscale() == "log":
        low, high, last = math.log(low), math.log(high), math.log(max(last, 1e-300))
    return min(max((last - low) / (high - low), 0.0), 1.0)


def spread(ends: Sequence[float], gap: float) -> list[float]:
    """Heights at least `gap` apart, in the order of `ends`, each as near to its end as that allows.

    Args:
        ends: heights as fractions of the axes.
        gap: the smallest distance.
    """
    order = sorted(range(len(ends)), key=lambda index: ends[index])
    groups: list[list[float]] = []  # of neighbours that touch: the sum of their wishes and their number
    for rank, index in enumerate(order):
        groups.append([ends[index] - rank * gap, 1.0])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            last = groups.pop()
            groups[-1] = [groups[-1][0] + last[0], groups[-1][1] + last[1]]
    starts = [total / count for total, count in groups for _ in range(int(count))]
    placed = [0.0] * len(ends)
    for rank, (index, start) in enumerate(zip(order, starts, strict=True)):
        placed[index] = start + rank * gap
    over = max(placed) - 1.0
    return [place - max(over, 0.0) for place in placed]
