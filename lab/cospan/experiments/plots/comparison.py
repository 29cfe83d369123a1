"""`comparison.png` and `.svg`: value error over steps and over bytes, angle to B* over rounds."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cospan.core.specification import RunSpecification
from cospan.experiments.comparison import Summary
from cospan.experiments.plots.axes import finish, import_matplotlib, save
from cospan.experiments.plots.curves import MEAN_OF_SEEDS, Curve, scale_errors
from cospan.experiments.plots.method_style import styles_of
from cospan.experiments.runner import Point


def draw_comparison(
    folder: Path, spec: RunSpecification, points: Sequence[Point], found: Sequence[Summary]
) -> None:
    """Draws both files; each curve is the mean over the seeds, with its 95 % interval.

    Args:
        folder: for the files.
        spec: of the runs.
        points: of all methods and seeds.
        found: the methods, best first.
    """
    import_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16.5, 4.6), dpi=130, layout="constrained")
    values, sent, angles = figure.subplots(1, 3)
    length = float(spec.method.steps_per_round)
    styles = styles_of([summary.method for summary in found])
    curves: dict[str, Curve] = {}
    costly: dict[str, Curve] = {}
    for summary in found:
        name = summary.method
        own = [point for point in points if point.method == name]
        rounds = sorted({point.rounds for point in own})
        at = [[point for point in own if point.rounds == number] for number in rounds]
        steps = np.array(rounds) * length
        curves[name] = Curve.over(_by_run([[point.value_error for point in group] for group in at]))
        curves[name].draw(values, steps, styles[name], name)
        cost = np.array([np.mean([point.sent for point in group]) for group in at])
        if cost.any():
            costly[name] = curves[name]
            costly[name].draw(sent, cost / 1e3, styles[name], name)
        angle = [[_known(point.subspace_error) for point in group] for group in at]
        if not np.isnan(angle[-1]).all():
            Curve.over(_by_run(angle)).draw(angles, steps, styles[name], name)
    several = MEAN_OF_SEEDS if len({point.seed for point in points}) > 1 else ""
    scale_errors(values, curves)
    scale_errors(sent, costly)
    finish(values, f"Relative value error{several}", "environment steps per agent", "rounds", 1.0 / length)
    finish(sent, "The same, by what it costs", "kilobytes sent and received per agent", "megabytes", 1e-3)
    angles.set_ylim(0.0, 1.05)
    finish(angles, "Sine of the largest angle to B*", "environment steps per agent", "rounds", 1.0 / length)
    figure.suptitle(
        f"{spec.workload}: {spec.agents} agents, d = {spec.feature_dim}, r = {spec.rank}", fontsize=10, color="0.35"
    )
    for suffix in ("png", "svg"):
        save(figure, folder / f"comparison.{suffix}")


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _by_run(groups: Sequence[Sequence[float]]) -> list[list[float]]:
    """Numbers by run, of numbers by round; nan where a run has fewer rounds than others."""
    runs = max(map(len, groups))
    return [[group[run] if run < len(group) else math.nan for group in groups] for run in range(runs)]
