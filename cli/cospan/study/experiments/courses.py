"""One time scale or two: how many samples each needs to reach an error."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cospan.study.curves import draw_errors, samples_to
from cospan.study.experiment import Finding, Outcome, Plan, Table
from cospan.study.play import Played, Point, Task, errors_of
from cospan.study.statistics import Estimate, mean
from cospan.study.tables import estimate, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ONE, TWO = "one time scale", "two time scales"


def tasks(plan: Plan) -> list[Task]:
    """One run for each seed."""
    return [plan.task(seed, stops=120) for seed in plan.seeds]


def outcome(plan: Plan, played: Sequence[Played]) -> Outcome:
    """Samples to reach each error, and the error at the end."""
    points = [point for each in played for point in each.points]
    methods = list(dict.fromkeys(point.method for point in points))
    rows = []
    for method in methods:
        cells = [_samples(points, method, plan.seeds, threshold) for threshold in plan.settings]
        rows.append((method, *(_said(cell) for cell in cells), estimate(mean(errors_of(points, method)))))
    ends = errors_of(points, TWO) / errors_of(points, ONE)
    slower = _slower(points, plan)
    return Outcome(
        findings=(
            Finding(
                "slower",
                f"two time scales need {_times(slower)} as many samples to reach the smallest error of "
                f"{', '.join(map(number, plan.settings))} that they reach at all, each with its own best ζ",
                Estimate(slower),
                holds=slower > 1.0,
                sign=slower > 1.0,
            ),
            Finding("end", f"at the end their error is {estimate(mean(ends))} times as large", mean(ends)),
        ),
        tables=(
            Table(
                ("median over seeds", *(f"steps to {number(x)}" for x in plan.settings), "error at the end"),
                tuple(rows),
            ),
        ),
    )


def _samples(points: Sequence[Point], method: str, seeds: Sequence[int], threshold: float) -> float:
    return float(np.median([samples_to(points, method, seed, threshold) for seed in seeds]))


def _slower(points: Sequence[Point], plan: Plan) -> float:
    """The ratio of samples at the smallest threshold that two time scales reach; inf where they reach none."""
    for threshold in sorted(plan.settings):
        two, one = (_samples(points, method, plan.seeds, threshold) for method in (TWO, ONE))
        if np.isfinite(two):
            return two / one
    return float("inf")


def _times(ratio: float) -> str:
    return f"{number(ratio)} times" if np.isfinite(ratio) else "infinitely many times"


def _said(steps: float) -> str:
    return f"{steps:,.0f}" if np.isfinite(steps) else "never"


def draw(figure: "Figure", plan: Plan, played: Sequence[Played]) -> None:
    """The errors' courses."""
    points = [point for each in played for point in each.points]
    draw_errors(figure.subplots(1, 1), points, "Relative value error, median over agents")
