"""Axes, colours and atomic writing of all pictures."""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cospan.wire.files.safe_files import writing_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#8C564B")
"""The palette of Okabe and Ito, which colour-blind people can tell apart, and two more."""
_FEW_DECADES = 500.0


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


def log_scale(axes: "Axes", low: float, high: float) -> None:
    """A logarithmic y axis with plain numbers, readable also if it spans little more than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_yscale("log")
    axes.set_ylim(low, high)
    subs = (1.0, 2.0, 5.0) if high / low < _FEW_DECADES else (1.0,)
    within_a_decade = high / low < 10.0
    axes.yaxis.set_major_locator(MaxNLocator(6) if within_a_decade else LogLocator(subs=subs, numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def finish(axes: "Axes", title: str, below: str, above: str, scale: float) -> None:
    """`dress`, and a second x axis above, which shows `scale` times the values below."""
    axes.set_xlim(left=0.0)
    top = axes.secondary_xaxis("top", functions=(lambda x: np.asarray(x) * scale, lambda x: np.asarray(x) / scale))
    top.set_xlabel(above, fontsize=9, color="0.35")
    top.tick_params(labelsize=8, colors="0.35")
    top.spines["top"].set_visible(False)
    dress(axes, title, below)


def dress(axes: "Axes", title: str, below: str) -> None:
    """Title, label, grid and legend."""
    axes.set_title(title, fontsize=10.5, fontweight="bold", loc="left")
    axes.set_xlabel(below)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, which="major", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)


def save(figure: Any, path: Path) -> None:
    """Writes a figure in the format of the path's suffix; it appears whole or not at all."""
    with writing_whole(path, durable=False) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."))
