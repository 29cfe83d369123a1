"""Pictures of a run: `convergence.png`, its learning curves, and `sites.png`, what sharing changes at each site."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from cospan.cli.run_folder.progress_log import RoundRow
from cospan.cli.run_folder.run_result import AgentRow
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.curve_values import learning_curves
from cospan.core.specification import RunSpecification
from cospan.core.statistics import best_of_rows
from cospan.experiments.plots.axes import finish, import_matplotlib, log_scale, note_beyond, save
from cospan.experiments.plots.method_style import JOINT_STYLE, LSTD_STYLE, TD_STYLE, MethodStyle
from cospan.experiments.plots.sites import LIGHT, Ink, SiteChange, sites_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ADVICE = "no pictures: matplotlib is not installed; pip install '.[plot]'"
_MOVEMENT = "#009E73"
_MARKERS = 12
_HIGHEST = 30.0
"""Times the largest median from which on quartiles are cut off, with a note."""
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
    return _drawn(path, lambda: _draw(path, spec, rows, agents))


def draw_sites(path: Path, spec: RunSpecification, rows: Sequence[AgentRow], *, ink: Ink = LIGHT) -> str:
    """Draws the picture of all sites whose errors are known, if there are any; returns advice as above.

    Args:
        path: of the file, PNG or SVG; it appears whole or not at all.
        spec: of the run.
        rows: the agents.
        ink: colours of letters and axes.
    """
    method, changes = site_changes(rows)
    if not changes:
        return ""
    steps = spec.rounds * spec.method.steps_per_round
    title = f"{spec.workload}, after {steps:,} steps a site, d = {spec.feature_dim}, seed {spec.seed}"
    return _drawn(path, lambda: save(sites_figure(changes, method, title, ink), path))


def site_changes(rows: Sequence[AgentRow]) -> tuple[str, list[SiteChange]]:
    """The sites with both errors, and the method they are compared with: LSTD alone, else TD alone."""
    for method, alone in (
        ("LSTD alone", [row.lstd_alone_error for row in rows]),
        ("TD alone", [row.td_alone_error for row in rows]),
    ):
        changes = [
            SiteChange(row.label or row.id, other, row.value_error)
            for row, other in zip(rows, alone, strict=True)
            if row.value_error and other
        ]
        if changes:
            return method, changes
    return "", []


def _drawn(path: Path, draw: Callable[[], None]) -> str:
    """Draws; returns advice where that is not possible, else ""."""
    try:
        import_matplotlib()
        draw()
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

    figure = Figure(figsize=(12.0, 4.4), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_values(left, spec, agents)
    _draw_movement(right, spec, rows)
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
        _draw_bands(axes, per_round, [(gain, "joint", JOINT_STYLE)])
        finish(axes, "Estimated mean reward per step: median and quartiles", steps, "rounds", 1.0 / per_round)
        return
    td = quartiles(*learning_curves(agents, lambda agent: best_of_rows(agent.array("curve_td_alone_error"))))
    lstd = quartiles(*learning_curves(agents, lambda agent: agent.array("curve_lstd_alone_error")))
    bands = [
        (td, "TD alone,\nbest step", TD_STYLE),
        (lstd, "LSTD alone", LSTD_STYLE),
        (joint, "joint", JOINT_STYLE),
    ]
    _draw_bands(axes, per_round, bands)
    known = [band for band, _, _ in bands if band is not None]
    low, high = _limits(known)
    log_scale(axes, low, high)
    note_beyond(axes, ["some upper quartiles"] if max(float(band.high.max()) for band in known) > high else [])
    finish(axes, "Relative value error: median and quartiles over agents", steps, "rounds", 1.0 / per_round)


def _draw_bands(axes: "Axes", per_round: int, bands: Sequence[tuple[Band | None, str, MethodStyle]]) -> None:
    for band, label, style in bands:
        if band is not None:
            steps = (band.rounds + 1) * per_round
            axes.fill_between(steps, band.low, band.high, color=style.colour, alpha=0.18, linewidth=0)
            axes.plot(
                steps,
                band.middle,
                color=style.colour,
                marker=style.marker,
                markevery=max(1, len(steps) // _MARKERS),
                markersize=4.5,
                linewidth=1.8,
                label=label,
            )


def _limits(bands: Sequence[Band]) -> tuple[float, float]:
    """Limits that show all medians and quartiles, but no quartile far above all medians."""
    low = min(float(band.low.min()) for band in bands)
    middle = max(float(band.middle.max()) for band in bands)
    high = min(max(float(band.high.max()) for band in bands), _HIGHEST * middle)
    return max(low, 1e-12) / 1.25, max(high, 1e-12) * 1.25


def _draw_movement(axes: "Axes", spec: RunSpecification, rows: Sequence[RoundRow]) -> None:
    """How far the basis moved in each round, over the same axes as the errors."""
    chosen = rows
    if len(rows) > _MOST_POINTS:
        chosen = [rows[int(index)] for index in np.unique(np.linspace(0, len(rows) - 1, _MOST_POINTS).astype(int))]
    per_round = spec.method.steps_per_round
    points = [((row.round + 1) * per_round, row.basis_movement) for row in chosen if row.basis_movement]
    if points:
        axes.plot(*zip(*points, strict=True), color=_MOVEMENT, linewidth=1.0)
        heights = [height for _, height in points]
        log_scale(axes, min(heights) / 1.25, max(heights) * 1.25)
    title = "The basis: sine of the angle it turns in a round"
    finish(axes, title, "environment steps per agent", "rounds", 1.0 / per_round)
