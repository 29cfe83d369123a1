"""One time scale or two: how many samples each needs to reach an error."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cospan.experiments.estimates import mean
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.plots.curves import draw_errors, samples_to
from cospan.experiments.plots.tables import estimate, number
from cospan.experiments.runner import Point, Task, errors_of, method_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ONE, TWO = "one time scale", "two time scales"
BEST_ONE, BEST_TWO = f"{ONE}, its own best ζ", f"{TWO}, their own best ζ"


def tasks(plan: Plan) -> list[Task]:
    """One run for each seed."""
    return [plan.task(seed, stops=120) for seed in plan.seeds]


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """Samples to reach each error, and the error at the end."""
    rows = []
    for method in method_names(points):
        cells = [_samples(points, method, plan.seeds, threshold) for threshold in plan.settings]
        rows.append((method, *(_said(cell) for cell in cells), estimate(mean(errors_of(points, method)))))
    return ExperimentOutcome(
        findings=(
            _slower_finding("same-step", ONE, TWO, "with the same ζ", points, plan, claimed=True),
            _slower_finding("best-step", BEST_ONE, BEST_TWO, "each with its own best ζ", points, plan),
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


def _slower_finding(
    name: str, one: str, two: str, how: str, points: Sequence[Point], plan: Plan, *, claimed: bool = False
) -> Finding:
    """The ratio of samples of two time scales to one, at the smallest error that both reach."""
    ends = mean(errors_of(points, two) / errors_of(points, one))
    for threshold in sorted(plan.settings):
        slow, fast = (_samples(points, method, plan.seeds, threshold) for method in (two, one))
        if np.isfinite(slow) and np.isfinite(fast):
            reached = f"{number(slow / fast)} times as many samples to the error {number(threshold)}, the smallest "
            reached += "of the table that both reach"
            slower = slow > fast
            break
    else:
        reached, slower = "never reach an error of the table that one time scale reaches", True
    verb = "" if reached.startswith("never") else "need "
    return Finding(
        name,
        f"{how}, two time scales {verb}{reached}; at the end their error is {estimate(ends)} times as large",
        ends,
        holds=slower and ends.value > 1.0 if claimed else None,
        sign=ends.value > 1.0 if claimed else None,
    )


def _said(steps: float) -> str:
    return f"{steps:,.0f}" if np.isfinite(steps) else "never"


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """The learning curves."""
    draw_errors(figure.subplots(1, 1), points, "Relative value error, median over agents")
