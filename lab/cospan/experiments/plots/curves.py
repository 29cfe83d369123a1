"""Learning curves: how they are drawn, and when they stay below a threshold."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cospan.experiments.estimates import Estimate
from cospan.experiments.plots.axes import COLOURS, finish, log_scale
from cospan.experiments.runner import WHOLE_FLEET, Point, method_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORST = 2.0


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
    """Value errors of all methods over environment steps: each run thin, their mean thick."""
    methods = method_names(points)
    seeds = sorted({point.seed for point in points})
    lowest, highest = np.inf, 0.0
    for colour, method in zip(COLOURS, methods, strict=False):
        runs = [learning_curve(points, method, seed) for seed in seeds]
        steps = [point.steps for point in runs[0]]
        errors = np.minimum([[point.value_error for point in run] for run in runs], WORST)
        for run in errors:
            axes.plot(steps, run, color=colour, linewidth=0.6, alpha=0.35)
        axes.plot(steps, errors.mean(axis=0), color=colour, linewidth=2.0, label=method)
        lowest, highest = min(lowest, float(errors.min())), max(highest, float(errors.max()))
    log_scale(axes, lowest / 1.25, highest * 1.25)
    per_round = points[0].steps / points[0].rounds
    finish(axes, title, "environment steps per agent", "rounds", 1.0 / per_round)


def draw_estimates(
    axes: "Axes", x: Float[np.ndarray, " n"], estimates: Sequence[Estimate], colour: str, label: str
) -> None:
    """A curve of estimates, with a band of their intervals if all are known."""
    axes.plot(x, [each.value for each in estimates], "o-", color=colour, linewidth=2.0, label=label)
    low = [each.low for each in estimates if each.low is not None]
    high = [each.high for each in estimates if each.high is not None]
    if len(low) == len(estimates):
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
