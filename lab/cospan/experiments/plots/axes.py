"""Axes, colours and atomic writing of all pictures."""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cospan.experiments.plots.line_labels import label_lines
from cospan.wire.files.safe_files import writing_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#8C564B")
"""The palette of Okabe and Ito, which colour-blind people can tell apart, and two more."""
_NARROW, _ABOUT_A_DECADE, _FEW_DECADES = 4.0, 20.0, 5000.0
"""Ratios of the ends of an axis."""


def import_matplotlib() -> None:
    """Imports matplotlib without the backend of MPLBACKEND: only files are drawn.

    An unknown name, such as a notebook's without the notebook's packages, would make the import fail.

    Raises:
        ImportError: it is not installed.
        Exception: any other, for example because a matplotlibrc cannot be read.
    """
    named = os.environ.pop("MPLBACKEND", None)
    try:
        importlib.import_module("matplotlib")
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named


def log_scale(axes: "Axes", low: float, high: float, *, axis: Literal["x", "y"] = "y") -> None:
    """A logarithmic axis with plain numbers at 1, 3, 10, 30, …; closer ones where it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set(**{f"{axis}scale": "log", f"{axis}lim": (low, high)})
    scaled = axes.xaxis if axis == "x" else axes.yaxis
    scaled.set_major_locator(LogLocator(subs=_ticks_within_a_decade(high / low), numticks=12))
    scaled.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
    scaled.set_minor_locator(NullLocator())


def _ticks_within_a_decade(span: float) -> tuple[float, ...]:
    """Multiples of powers of ten that give some five ticks on an axis whose ends have this ratio."""
    if span < _NARROW:
        return (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    if span < _ABOUT_A_DECADE:
        return (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    return (1.0, 3.0) if span < _FEW_DECADES else (1.0,)


def note_beyond(axes: "Axes", names: Sequence[str]) -> None:
    """Names, at the top of the axes, what lies above them: nothing is cut off without a word."""
    if names:
        note = f"above the axis: {', '.join(names)}"
        axes.text(0.01, 0.985, note, transform=axes.transAxes, va="top", fontsize=8)


def finish(axes: "Axes", title: str, below: str, above: str, scale: float) -> None:
    """`dress`, and a second x axis above, which shows `scale` times the values below."""
    axes.set_xlim(left=0.0)
    top = axes.secondary_xaxis("top", functions=(lambda x: np.asarray(x) * scale, lambda x: np.asarray(x) / scale))
    top.set_xlabel(above, fontsize=9, color="0.35")
    top.tick_params(labelsize=8, colors="0.35")
    top.spines["top"].set_visible(False)
    dress(axes, title, below)


def dress(axes: "Axes", title: str, below: str) -> None:
    """Title, label, grid, and the names of the lines at their ends."""
    axes.set_title(title, fontsize=10.5, fontweight="bold", loc="left")
    axes.set_xlabel(below)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, which="major", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    label_lines(axes)


def save(figure: Any, path: Path) -> None:
    """Writes a figure in the format of the path's suffix; it appears whole or not at all."""
    with writing_whole(path, durable=False) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."))
