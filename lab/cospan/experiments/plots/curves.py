"""Learning curves: how they are drawn, and when they stay below a threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cospan.experiments.estimates import Estimate, mean
from cospan.experiments.plots.axes import finish, log_scale, note_beyond
from cospan.experiments.plots.method_style import MethodStyle, styles_of
from cospan.experiments.runner import WHOLE_FLEET, Point, method_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORST = 2.0
"""Errors above it are off the chart: 1 is no better than a constant."""
MEAN_OF_SEEDS = " (mean over the seeds, 95 % interval)"
_MARKERS = 12


def learning_curve(points: Sequence[Point], method: str, seed: int, agent: int = WHOLE_FLEET) -> list[Point]:
    """One method's points of one run, by round."""
    own = [point for point in points if (point.method, point.seed, point.agent) == (method, seed, agent)]
    return sorted(own, key=lambda point: point.rounds)


def settles(good: Sequence[bool], steps: Sequence[int]) -> float:
    """The first of the steps from which all are good to the end; inf if the last is not."""
    last_bad = max((index for index, is_good in enumerate(good) if not is_good), default=-1)
    return float(steps[last_bad + 1]) if last_bad + 1 < len(steps) else np.inf


def samples_to(points: Sequence[Point], method: str, seed: int, threshold: float) -> float:
    """Steps of one agent until the fleet's median value error stays below a threshold; inf for never."""
    own = learning_curve(points, method, seed)
    return settles([point.value_error <= threshold for point in own], [point.steps for point in own])


def draw_errors(axes: "Axes", points: Sequence[Point], title: str) -> None:
    """Value errors of all methods over environment steps: the mean over the seeds, and its 95 % interval."""
    methods = method_names(points)
    seeds = sorted({point.seed for point in points})
    styles = styles_of(methods)
    found: dict[str, Curve] = {}
    for method in methods:
        runs = [learning_curve(points, method, seed) for seed in seeds]
        found[method] = Curve.over([[point.value_error for point in run] for run in runs])
        steps = np.array([point.steps for point in runs[0]])
        found[method].draw(axes, steps, styles[method], method)
    scale_errors(axes, found)
    per_round = points[0].steps / points[0].rounds
    title += MEAN_OF_SEEDS if len(seeds) > 1 else ""
    finish(axes, title, "environment steps per agent", "rounds", 1.0 / per_round)


@dataclass(frozen=True, eq=False, slots=True)
class Curve:
    """Means over runs with their 95 % bootstrap intervals, by point; nan where unknown.

    Attributes:
        middle: the means.
        low: lower ends; equal to the means with one run.
        high: upper ends.
    """

    middle: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]

    @classmethod
    def over(cls, runs: Sequence[Sequence[float]]) -> "Curve":
        """Of runs with equally many points."""
        values = np.array(runs, dtype=np.float64)
        estimates = [mean(column) for column in values.T]
        middle = np.array([each.value for each in estimates])
        low = np.array([each.value if each.low is None else each.low for each in estimates])
        high = np.array([each.value if each.high is None else each.high for each in estimates])
        return cls(middle, low, high)

    def draw(self, axes: "Axes", x: Float[np.ndarray, " n"], style: MethodStyle, label: str) -> None:
        """A line with some markers, and a band."""
        every = max(1, len(x) // _MARKERS)
        axes.fill_between(x, self.low, self.high, color=style.colour, alpha=0.18, linewidth=0)
        axes.plot(
            x,
            self.middle,
            color=style.colour,
            marker=style.marker,
            markevery=every,
            markersize=4.5,
            linewidth=1.8,
            label=label,
        )


def scale_errors(axes: "Axes", curves: Mapping[str, Curve]) -> None:
    """A logarithmic axis up to an error of `WORST`; curves that lie above it somewhere are named."""
    heights = np.concatenate([np.concatenate([curve.low, curve.middle, curve.high]) for curve in curves.values()])
    known = heights[np.isfinite(heights) & (heights > 0.0)]
    if not known.size:
        return
    low, high = float(known.min()) / 1.25, min(float(known.max()), WORST) * 1.25
    log_scale(axes, low, high)
    beyond = [name for name, curve in curves.items() if not (curve.middle <= high).all()]
    note_beyond(axes, beyond)


def draw_estimates(
    axes: "Axes", x: Float[np.ndarray, " n"], estimates: Sequence[Estimate], style: MethodStyle, label: str
) -> None:
    """A curve of estimates, with a band of their intervals if all are known."""
    heights = [each.value for each in estimates]
    axes.plot(x, heights, "-", marker=style.marker, color=style.colour, linewidth=1.8, markersize=5.0, label=label)
    low = [each.low for each in estimates if each.low is not None]
    high = [each.high for each in estimates if each.high is not None]
    if len(low) == len(estimates):
        axes.fill_between(x, low, high, color=style.colour, alpha=0.18, linewidth=0)


def draw_separate_estimates(
    axes: "Axes", x: Float[np.ndarray, " n"], estimates: Sequence[Estimate], style: MethodStyle, label: str
) -> None:
    """Points with their intervals, not joined: for settings that have no order."""
    for place, each in zip(x, estimates, strict=True):
        if each.low is not None and each.high is not None:
            axes.plot([place, place], [each.low, each.high], color=style.colour, linewidth=1.5, label="_")
    heights = [each.value for each in estimates]
    axes.plot(x, heights, style.marker, color=style.colour, markersize=5.0, label=label)


def ends_of(estimates: Sequence[Estimate]) -> list[float]:
    """All finite numbers of estimates and their intervals: what an axis has to show."""
    found = [end for each in estimates for end in (each.value, each.low, each.high) if end is not None]
    return [end for end in found if np.isfinite(end)]
