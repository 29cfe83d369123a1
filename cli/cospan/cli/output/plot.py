"""`convergence.png`: learning curves of value errors and of the shared subspace."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from cospan.cli.run_folder.progress_log import RoundRow
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.curve_values import learning_curves
from cospan.core.specification import RunSpecification
from cospan.core.statistics import best_of_rows
from cospan.experiments.plots.axes import finish, import_matplotlib, log_scale, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ADVICE = "no convergence.png: matplotlib is not installed; pip install '.[plot]'"
_JOINT, _TD, _LSTD, _SUBSPACE, _MOVEMENT = "#0072B2", "#D55E00", "#CC79A7", "#009E73", "#A0A0A0"
"""Of the palette of Okabe and Ito, which colour-blind people can tell apart."""
_MOST_POINTS = 1500
_LONGEST_FAILURE = 200


@dataclass(frozen=True, eq=False, slots=True)
class Band:
    """Quartiles over agents, by round: `low` and `high` are the first and the third."""

    rounds: Int[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    middle: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]


def draw_convergence(
    path: Path, spec: RunSpecification, rows: Sequence[RoundRow], agents: Sequence[AgentResult]
) -> str:
    """Draws the picture; returns advice where that is not possible, else "".

    Args:
        path: of the PNG file; it appears whole or not at all.
        spec: of the run.
        rows: its rounds.
        agents: the agents' files.
    """
    try:
        import_matplotlib()
        _draw(path, spec, rows, agents)
    except ImportError as failure:
        return ADVICE if failure.name in (None, "matplotlib") else _cannot(path, failure)
    except Exception as failure:
        return _cannot(path, failure)
    return ""


def _cannot(path: Path, failure: Exception) -> str:
    words = " ".join(str(failure).split())[:_LONGEST_FAILURE]
    return (
        f"no {path.name}: drawing failed with {type(failure).__name__}: {words}; all numbers are in the run folder"
    )


def _draw(path: Path, spec: RunSpecification, rows: Sequence[RoundRow], agents: Sequence[AgentResult]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.4), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_values(left, spec, agents)
    _draw_subspace(right, spec, rows)
    figure.suptitle(
        f"{spec.workload}: {spec.agents} agents, d = {spec.feature_dim}, r = {spec.rank}, "
        f"L = {spec.method.steps_per_round}, seed {spec.seed}",
        fontsize=10,
        color="0.35",
    )
    save(figure, path)


def quartiles(rounds: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> Band | None:
    """The quartiles over agents of what each recorded, by round; None if nothing is known.

    Args:
        rounds: of each agent, the rounds it took part in.
        values: of each agent, one number a round; those that are not finite are left out.
    """
    known_rounds = np.unique(np.concatenate([*rounds, np.array([], dtype=np.int64)]))
    grid = np.full((len(rounds), known_rounds.size), np.nan)
    for row, (numbers, known) in enumerate(zip(rounds, values, strict=True)):
        grid[row, np.searchsorted(known_rounds, numbers)] = known
    grid[~np.isfinite(grid)] = np.nan
    there = np.flatnonzero(np.isfinite(grid).any(axis=0))
    if not there.size:
        return None
    if there.size > _MOST_POINTS:
        there = there[np.unique(np.linspace(0, there.size - 1, _MOST_POINTS).astype(int))]
    low, middle, high = np.nanpercentile(grid[:, there], (25.0, 50.0, 75.0), axis=0)
    return Band(known_rounds[there], low, middle, high)


def _draw_values(axes: "Axes", spec: RunSpecification, agents: Sequence[AgentResult]) -> None:
    """Value errors where the truth is known, else the mean rewards that the agents expect."""
    joint = quartiles(*learning_curves(agents, lambda agent: agent.array("curve_value_error")))
    steps, per_round = "environment steps per agent", spec.method.steps_per_round
    if joint is None:
        gain = quartiles(*learning_curves(agents, lambda agent: agent.array("curve_gain_estimate")))
        _draw_bands(axes, per_round, [(gain, "joint method", _JOINT)])
        finish(axes, "Estimated mean reward per step (no true values are known)", steps, "rounds", 1.0 / per_round)
        return
    td = quartiles(*learning_curves(agents, lambda agent: best_of_rows(agent.array("curve_td_alone_error"))))
    lstd = quartiles(*learning_curves(agents, lambda agent: agent.array("curve_lstd_alone_error")))
    bands = [(td, "TD alone, best step", _TD), (lstd, "LSTD alone", _LSTD), (joint, "joint", _JOINT)]
    _draw_bands(axes, per_round, bands)
    log_scale(axes, *_limits([band for band, _, _ in bands if band is not None]))
    finish(axes, "Relative value error: median and quartiles over agents", steps, "rounds", 1.0 / per_round)


def _draw_bands(axes: "Axes", per_round: int, bands: Sequence[tuple[Band | None, str, str]]) -> None:
    for band, label, colour in bands:
        if band is not None:
            steps = (band.rounds + 1) * per_round
            axes.fill_between(steps, band.low, band.high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(steps, band.middle, color=colour, linewidth=2.0, label=label)


def _limits(bands: Sequence[Band]) -> tuple[float, float]:
    """Limits that show all medians, but not the largest quartiles of the first rounds."""
    low = min(float(band.low.min()) for band in bands)
    high = max(float(band.middle.max()) for band in bands)
    return max(low, 1e-12) / 1.25, max(high, 1e-12) * 1.25


def _draw_subspace(axes: "Axes", spec: RunSpecification, rows: Sequence[RoundRow]) -> None:
    chosen = rows
    if len(rows) > _MOST_POINTS:
        chosen = [rows[int(index)] for index in np.unique(np.linspace(0, len(rows) - 1, _MOST_POINTS).astype(int))]
    curves = (
        ("to the basis of the round before", _MOVEMENT, 1.0, [row.basis_movement for row in chosen]),
        ("to the true subspace B*", _SUBSPACE, 2.0, [row.subspace_error for row in chosen]),
    )
    heights: list[float] = []
    for label, colour, width, values in curves:
        points = [(row.round + 1, value) for row, value in zip(chosen, values, strict=True) if value]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=width, label=label)
            heights += [height for _, height in points]
    if heights:
        log_scale(axes, min(heights) / 1.25, max(heights) * 1.25)
    title = "The shared basis: sine of its largest angle"
    finish(axes, title, "rounds", "environment steps per agent", float(spec.method.steps_per_round))
