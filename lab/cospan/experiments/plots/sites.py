"""One line for each site: from its error with the best it can do alone to that with the fleet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cospan.experiments.plots.method_style import JOINT_STYLE, LSTD_STYLE, TD_STYLE, MethodStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 60
"""With more sites than this the picture has a point for each, in place of a line."""
_PER_SITE, _MARGIN = 0.2, 1.45
"""Inches."""
_WORSE = "#D55E00"
_HEADER = -1.1
"""The row of the names, above the first site."""


@dataclass(frozen=True, slots=True)
class SiteChange:
    """A site with both errors; all numbers are above 0.

    Attributes:
        name: of the site, for people.
        alone: relative value error of the method that it is compared with.
        joint: with the fleet.
    """

    name: str
    alone: float
    joint: float

    @property
    def ratio(self) -> float:
        """Below 1 sharing pays."""
        return self.joint / self.alone


@dataclass(frozen=True, slots=True)
class Ink:
    """Colours of what is not data.

    Attributes:
        text: of letters.
        faint: of axes and less important letters.
        grid: of grid lines.
        background: of the picture; "none" where it is transparent.
    """

    text: str = "#1f2328"
    faint: str = "#59636e"
    grid: str = "#d1d9e0"
    background: str = "white"


LIGHT, DARK = Ink(), Ink("#e6edf3", "#9198a1", "#3d444d", "none")


def sites_figure(sites: Sequence[SiteChange], method: str, title: str, ink: Ink = LIGHT) -> "Figure":
    """The picture of all sites.

    Args:
        sites: in any order; the best ratio is drawn at the top.
        method: that they are compared with, LSTD alone or TD alone.
        title: of the picture.
        ink: colours of letters, axes and background.
    """
    from matplotlib.figure import Figure

    ordered = sorted(sites, key=lambda site: site.ratio)
    style = TD_STYLE if method == "TD alone" else LSTD_STYLE
    many = len(ordered) > MOST_LINES
    height = 5.2 if many else _MARGIN + _PER_SITE * max(len(ordered), 5)
    figure = Figure(figsize=(8.4, height), dpi=130, layout="constrained")
    figure.set_facecolor(ink.background)
    axes = figure.subplots(1, 1)
    axes.set_facecolor("none")
    (_points if many else _lines)(axes, ordered, method, style, ink)
    better = sum(site.ratio < 1.0 for site in ordered)
    counted = f"{better} of {len(ordered)} sites have a smaller error with the fleet than with {method}"
    axes.set_title(f"{title}\n{counted}", loc="left", fontsize=10, color=ink.text)
    _dress(axes, ink)
    return figure


def _lines(axes: "Axes", sites: Sequence[SiteChange], method: str, style: MethodStyle, ink: Ink) -> None:
    """A dumbbell for each site, with its ratio at the right."""
    for row, site in enumerate(sites):
        colour, line = (_WORSE, "--") if site.ratio > 1.0 else (JOINT_STYLE.colour, "-")
        axes.plot([site.alone, site.joint], [row, row], line, color=colour, linewidth=1.6, alpha=0.75, zorder=1)
        sign = "!" if site.ratio > 1.0 else ""
        axes.annotate(
            f"{sign} {site.ratio:.2f} ×".strip(),
            xy=(1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color=_WORSE if sign else ink.text,
            annotation_clip=False,
        )
    rows = range(len(sites))
    alone, joint = [site.alone for site in sites], [site.joint for site in sites]
    axes.scatter(alone, rows, s=30, marker=style.marker, color=style.colour, zorder=2)
    axes.scatter(joint, rows, s=34, marker=JOINT_STYLE.marker, color=JOINT_STYLE.colour, zorder=3)
    first = sites[0]
    for value, name, colour in (
        (first.alone, method, style.colour),
        (first.joint, "with the fleet", JOINT_STYLE.colour),
    ):
        right = value == max(first.alone, first.joint)
        axes.annotate(
            name,
            xy=(value, _HEADER),
            xytext=(-4 if right else 4, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=9,
            fontweight="bold",
            color=colour,
        )
    axes.set_yticks(rows, [site.name for site in sites], fontsize=8)
    axes.annotate(
        "ratio", xy=(1.01, _HEADER), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=ink.faint
    )
    axes.set_ylim(len(sites) - 0.4, _HEADER - 0.6)
    axes.set_xscale("log")
    low, high = min(alone + joint), max(alone + joint)
    axes.set_xlim(low / 1.6, high * 1.6)
    axes.set_xlabel("relative value error (0 is exact, 1 is no better than a constant)", fontsize=9)


def _points(axes: "Axes", sites: Sequence[SiteChange], method: str, style: MethodStyle, ink: Ink) -> None:
    """A point for each site; below the diagonal sharing pays."""
    ends = [end for site in sites for end in (site.alone, site.joint)]
    low, high = min(ends) / 1.25, max(ends) * 1.25
    axes.plot([low, high], [low, high], color=ink.faint, linewidth=1.0)
    for colour, marker, chosen in (
        (JOINT_STYLE.colour, JOINT_STYLE.marker, [site for site in sites if site.ratio <= 1.0]),
        (_WORSE, "x", [site for site in sites if site.ratio > 1.0]),
    ):
        axes.scatter(
            [site.alone for site in chosen],
            [site.joint for site in chosen],
            s=14,
            marker=marker,
            color=colour,
            alpha=0.7,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel(f"relative value error, {method}", fontsize=9, color=style.colour)
    axes.set_ylabel("relative value error with the fleet", fontsize=9, color=JOINT_STYLE.colour)


def _dress(axes: "Axes", ink: Ink) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=12))
            axis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
            axis.set_minor_locator(NullLocator())
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(ink.faint)
    axes.tick_params(colors=ink.text, labelsize=8, left=False)
    axes.grid(visible=True, axis="x", color=ink.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    if axes.xaxis.label.get_color() == "black":
        axes.xaxis.label.set_color(ink.text)
