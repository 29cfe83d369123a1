"""Pictures of value functions over one or two coordinates of an observation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cospan.experiments.plots.axes import COLOURS
from cospan.experiments.plots.line_labels import label_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "os^DvPXd"
_MOST_DOTS = 2000
_FEW = 48
"""Points of a line from which on it has no markers."""


@dataclass(frozen=True, eq=False, slots=True)
class Axis:
    """One coordinate of a picture.

    Attributes:
        name: of the coordinate.
        grid: its values in the picture, ascending, shape (m,).
        met: its values in the visited states, shape (n,).
    """

    name: str
    grid: Float[np.ndarray, " m"]
    met: Float[np.ndarray, " n"]


@dataclass(frozen=True, eq=False, slots=True)
class Surface:
    """What one site has learnt over the grid: V less its value at the typical observation.

    Attributes:
        label: of the site.
        values: shape (m,), or (m₁, m₂) over two coordinates.
        low: lower ends of the intervals; None where they are unknown.
        high: upper ends.
        truth: the true numbers; None where they are unknown.
        unknown: why there are no intervals, as a sentence; else empty.
    """

    label: str
    values: Float[np.ndarray, "*grid"]
    low: Float[np.ndarray, "*grid"] | None = None
    high: Float[np.ndarray, "*grid"] | None = None
    truth: Float[np.ndarray, "*grid"] | None = None
    unknown: str = ""


def line_figure(axis: Axis, surfaces: Sequence[Surface], title: str, held: str, coverage: float) -> "Figure":
    """V over one coordinate: a line for each site, with its intervals, and the truth where it is known."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.6), dpi=130, layout="constrained")
    axes = figure.subplots(1, 1)
    marker_shown = len(axis.grid) <= _FEW
    for number, surface in enumerate(surfaces):
        colour = COLOURS[number % len(COLOURS)]
        if surface.low is not None and surface.high is not None:
            axes.fill_between(axis.grid, surface.low, surface.high, color=colour, alpha=0.2, linewidth=0)
        marker = _MARKERS[number % len(_MARKERS)] if marker_shown else None
        axes.plot(axis.grid, surface.values, color=colour, marker=marker, markersize=4, label=surface.label)
        if surface.truth is not None:
            label = "true" if len(surfaces) == 1 else "_"
            axes.plot(axis.grid, surface.truth, "--", color="0.25" if len(surfaces) == 1 else colour, label=label)
    axes.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
    bounds, is_cut = _bounds(surfaces)
    axes.set_ylim(*bounds)
    rug = np.unique(axis.met)
    axes.plot(rug, np.full(len(rug), 0.012), "|", color="0.45", markersize=7, transform=axes.get_xaxis_transform())
    _dress(axes, title, _below(held, surfaces, coverage, is_cut=is_cut), axis.name)
    axes.set_ylabel("value, less that of the typical state")
    label_lines(axes)
    return figure


def _bounds(surfaces: Sequence[Surface]) -> tuple[tuple[float, float], bool]:
    """The range to show, and whether a band is cut off by it.

    At a state that was hardly ever visited a band may be a hundred times as wide as all lines are high.
    """
    lines = [each for surface in surfaces for each in (surface.values, surface.truth) if each is not None]
    bands = [each for surface in surfaces for each in (surface.low, surface.high) if each is not None]
    low, high = min(0.0, *(each.min() for each in lines)), max(0.0, *(each.max() for each in lines))
    room = (high - low) or 1.0
    least, most = (function([function(each) for each in (*lines, *bands)]) for function in (np.min, np.max))
    least, most = min(low, float(least)), max(high, float(most))
    shown = max(least, low - room), min(most, high + room)
    margin = 0.05 * ((shown[1] - shown[0]) or 1.0)
    return (float(shown[0] - margin), float(shown[1] + margin)), shown != (least, most)


def map_figure(axes_of: Sequence[Axis], surface: Surface, title: str, held: str, coverage: float) -> "Figure":
    """V over two coordinates as a map, with the visited states, and beside it how sure it is."""
    from matplotlib.figure import Figure

    known = surface.low is not None and surface.high is not None
    figure = Figure(figsize=(12.5 if known else 7.4, 5.0), dpi=130, layout="constrained")
    panels = figure.subplots(1, 2 if known else 1, squeeze=False)[0]
    _map(panels[0], axes_of, surface.values, ("cividis", "white"), "value, less that of the typical state")
    _dress(panels[0], title, _below(held, [surface], coverage), axes_of[0].name)
    if surface.low is not None and surface.high is not None:
        half = (surface.high - surface.low) / 2.0
        _map(panels[1], axes_of, half, ("Purples", "0.2"), f"half the width of the {coverage:.0%} interval")
        _dress(panels[1], "How sure it is", "dots: visited states", axes_of[0].name)
    for axes in panels:
        axes.set_ylabel(axes_of[1].name)
        axes.grid(visible=False)
    return figure


def _map(
    axes: "Axes",
    axes_of: Sequence[Axis],
    heights: Float[np.ndarray, "m1 m2"],
    colours: tuple[str, str],
    meaning: str,
) -> None:
    """One panel; its colours are those of the heights, and that of the dots."""
    first, second = axes_of
    mesh = axes.pcolormesh(first.grid, second.grid, heights.T, cmap=colours[0], shading="nearest", rasterized=True)
    if min(heights.shape) > 1 and np.ptp(heights) > 0.0:
        lines = axes.contour(first.grid, second.grid, heights.T, colors="0.15", linewidths=0.6)
        axes.clabel(lines, fontsize=7)
    every = max(1, len(first.met) // _MOST_DOTS)
    axes.plot(first.met[::every], second.met[::every], ".", color=colours[1], markersize=2.2, alpha=0.6)
    axes.figure.colorbar(mesh, ax=axes, label=meaning)


def _below(held: str, surfaces: Sequence[Surface], coverage: float, *, is_cut: bool = False) -> str:
    """What is held, and what the bands, dashes and dots are."""
    parts = [held] if held else []
    if surfaces[0].values.ndim > 1:
        return "; ".join((*parts, "dots: visited states"))
    if any(surface.low is not None for surface in surfaces):
        parts.append(f"bands: {coverage:.0%} intervals" + (", in part beyond the picture" if is_cut else ""))
    if len(surfaces) > 1 and any(surface.truth is not None for surface in surfaces):
        parts.append("dashed: true values")
    return "; ".join((*parts, "ticks: visited states"))


def _dress(axes: "Axes", title: str, below: str, name: str) -> None:
    axes.set_title(f"{title}\n", fontsize=10.5, fontweight="bold", loc="left")
    axes.text(0.0, 1.02, below, transform=axes.transAxes, fontsize=8, color="0.35")
    axes.set_xlabel(name)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
