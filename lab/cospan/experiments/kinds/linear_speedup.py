"""How fast the shared subspace is learnt by increasing numbers of agents."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cospan.experiments.estimates import log_slope, mean
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.plots.axes import dress, log_scale
from cospan.experiments.plots.curves import draw_estimates, ends_of
from cospan.experiments.plots.method_style import JOINT_STYLE, styles_of
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import Point, Task, errors_of, method_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

JOINT, ALONE = "joint", "alone"


def tasks(plan: Plan) -> list[Task]:
    """One run for each number of agents and seed."""
    return [plan.task(seed, agents=agents, setting=str(agents)) for agents in plan.settings for seed in plan.seeds]


def tail_squares(points: Sequence[Point], plan: Plan) -> Float[np.ndarray, "seeds n"]:
    """‖m‖²_F of each run, the mean over the second half of its rounds."""
    rows = []
    for seed in plan.seeds:
        row = []
        for agents in plan.settings:
            own = [p for p in points if (p.method, p.seed, p.setting, p.agent) == (JOINT, seed, str(agents), -1)]
            weights = np.diff([0, *(point.rounds for point in own)]).astype(float)
            late = np.array([point.rounds > plan.rounds // 2 for point in own])
            squares = np.array([point.subspace_squared for point in own], dtype=float)
            row.append(float(np.average(squares[late], weights=weights[late])))
        rows.append(row)
    return np.array(rows)


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """The slope of log ‖m‖²_F against log K."""
    squares = tail_squares(points, plan)
    slope = log_slope(np.array(plan.settings, dtype=float), squares)
    share = plan.options["rank"] / plan.options["feature_dim"]
    largest = str(plan.settings[-1])
    ratio = mean(errors_of(points, JOINT, largest) / errors_of(points, ALONE, largest))
    rows = []
    for column, agents in enumerate(plan.settings):
        name = str(agents)
        rows.append(
            (
                name,
                estimate(mean(squares[:, column])),
                *(estimate(mean(errors_of(points, method, name))) for method in method_names(points)),
            )
        )
    return ExperimentOutcome(
        findings=(
            Finding(
                "slope",
                f"the slope of log ‖m‖²_F against log K is {estimate(slope)}; −1 is the linear speedup",
                slope,
                holds=-1.15 <= slope.value <= -0.85,
                sign=slope.value < 0.0,
            ),
            Finding(
                "level",
                f"with {largest} agents the value error is {estimate(ratio)} times that of the same rule alone, "
                f"where r/d is {share:.2g}",
                ratio,
            ),
        ),
        tables=(Table(("agents", "‖m‖²_F", *(f"value error, {m}" for m in method_names(points))), tuple(rows)),),
    )


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """‖m‖²_F against K with a line of slope −1, and the value errors beside it."""
    counts = np.array(plan.settings, dtype=float)
    squares = tail_squares(points, plan)
    left, right = figure.subplots(1, 2)
    for row in squares:
        left.plot(counts, row, "o", color=JOINT_STYLE.colour, alpha=0.35, markersize=4)
    middle = np.exp(np.log(squares).mean(axis=0))
    left.plot(counts, middle, color=JOINT_STYLE.colour, linewidth=2.0, label="joint")
    centre = np.exp(np.log(middle).mean() + np.log(counts).mean())
    left.plot(counts, centre / counts, "--", color="0.4", label="slope −1")
    _scale(left, counts, [*squares.ravel(), *middle, *centre / counts])
    dress(left, "‖m‖²_F to B* (points: seeds; line: their geometric mean)", "agents K")
    heights: list[float] = []
    for method, style in styles_of(method_names(points)).items():
        errors = [mean(errors_of(points, method, str(agents))) for agents in plan.settings]
        draw_estimates(right, counts, errors, style, method)
        heights += ends_of(errors)
    share = plan.options["rank"] / plan.options["feature_dim"]
    alone = np.array([errors_of(points, ALONE, str(agents)).mean() for agents in plan.settings])
    right.plot(counts, share * alone, "--", color="0.4", label="(r/d) × alone")
    _scale(right, counts, [*heights, *share * alone])
    dress(right, "Relative value error, median over agents; 95 % intervals", "agents K")


def _scale(axes: "Axes", counts: Float[np.ndarray, " n"], heights: Sequence[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [f"{count:g}" for count in counts])
    axes.minorticks_off()
    log_scale(axes, min(heights) / 1.25, max(heights) * 1.25)
