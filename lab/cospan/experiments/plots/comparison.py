"""`comparison.png` and `.svg`: value error over steps and over bytes, angle to B* over rounds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cospan.core.specification import RunSpecification
from cospan.experiments.comparison import Summary
from cospan.experiments.plots.axes import COLOURS, finish, import_matplotlib, log_scale, save
from cospan.experiments.runner import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WORST = 2.0


def draw_comparison(
    folder: Path, spec: RunSpecification, points: Sequence[Point], found: Sequence[Summary]
) -> None:
    """Draws both files; each curve is the mean over the seeds.

    Args:
        folder: for the files.
        spec: of the runs.
        points: of all methods and seeds.
        found: the methods in the order of the legend, best first.
    """
    import_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.0, 4.6), dpi=130, layout="constrained")
    values, sent, angles = figure.subplots(1, 3)
    length = float(spec.method.steps_per_round)
    for colour, summary in zip(COLOURS, found, strict=False):
        own = [point for point in points if point.method == summary.method]
        rounds = sorted({point.rounds for point in own})
        at = [[point for point in own if point.rounds == number] for number in rounds]
        errors = np.array([np.mean([point.value_error for point in group]) for group in at])
        style = {"color": colour, "linewidth": 2.0, "label": summary.method}
        values.plot(np.array(rounds) * length, np.minimum(errors, _WORST), **style)
        cost = np.array([np.mean([point.sent for point in group]) for group in at])
        if cost.any():
            sent.plot(cost / 1e3, np.minimum(errors, _WORST), **style)
        known = [[point.subspace_error for point in group if point.subspace_error is not None] for group in at]
        if any(known):
            angles.plot(rounds, [np.mean(group) if group else np.nan for group in known], **style)
    _finish_errors(values, points)
    _finish_errors(sent, points)
    finish(values, "Relative value error", "environment steps per agent", "rounds", 1.0 / length)
    finish(sent, "The same, by what it costs", "kilobytes sent and received per agent", "megabytes", 1e-3)
    angles.set_ylim(0.0, 1.05)
    finish(angles, "Sine of the largest angle to B*", "rounds", "environment steps per agent", length)
    figure.suptitle(
        f"{spec.workload}: {spec.agents} agents, d = {spec.feature_dim}, r = {spec.rank}", fontsize=10, color="0.35"
    )
    for suffix in ("png", "svg"):
        save(figure, folder / f"comparison.{suffix}")


def _finish_errors(axes: "Axes", points: Sequence[Point]) -> None:
    errors = [point.value_error for point in points if 0.0 < point.value_error < np.inf]
    log_scale(axes, min(errors) / 1.25, min(max(errors), _WORST) * 1.25)
