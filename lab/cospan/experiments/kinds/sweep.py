"""Experiments that vary one setting and compare the final value errors."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cospan.experiments.claims import judged
from cospan.experiments.estimates import mean
from cospan.experiments.experiment import ExperimentOutcome, Plan
from cospan.experiments.methods.attacks import Attack
from cospan.experiments.methods.fleet_variants import heterogeneous
from cospan.experiments.plots.axes import dress, log_scale, note_beyond
from cospan.experiments.plots.curves import draw_estimates, draw_separate_estimates, ends_of
from cospan.experiments.plots.method_style import JOINT_STYLE, styles_of
from cospan.experiments.plots.tables import error_table, number
from cospan.experiments.runner import Point, Task, errors_of, finals, method_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLE = "Relative value error at the end, median over agents; 95 % intervals"
_WORST = 5.0
_BESIDE = 0.09
"""Between the points of two methods, where 1 is the distance of two settings."""
LEFT_OUT = "…"
"""The names of methods that differ in one part from the one above them begin with it."""


def _steps_per_round(plan: Plan, setting: Any) -> dict[str, Any]:
    """L, with the same number of samples for each L."""
    return {"steps_per_round": int(setting), "rounds": plan.options["samples"] // int(setting)}


def _attack(plan: Plan, setting: Any) -> dict[str, Any]:
    """What the last agents send; the errors are those of the others."""
    attackers = plan.options["attackers"]
    return {
        "counted": tuple(range(plan.agents - attackers)),
        "attack": None if setting == "none" else Attack(str(setting), attackers),
    }


VARIED: dict[str, Callable[[Plan, Any], dict[str, Any]]] = {
    "rank": lambda _plan, setting: {"rank": int(setting)},
    "steps_per_round": _steps_per_round,
    "heterogeneity": lambda _plan, setting: {"workload": partial(heterogeneous, float(setting))},
    "attack": _attack,
    "nothing": lambda _plan, _setting: {},
}


def tasks(plan: Plan) -> list[Task]:
    """One run for each setting and seed."""
    varied = VARIED[plan.options["varied"]]
    return [
        plan.task(seed, setting=str(setting), **varied(plan, setting))
        for setting in plan.settings
        for seed in plan.seeds
    ]


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """The claims of the spec file, and a table of all errors."""
    table = error_table(points, plan.options["axis"])
    return ExperimentOutcome(judged(plan.options.get("claims", []), points), (table,))


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """Errors against the settings, or a row for each method if there is only one setting."""
    axes = figure.subplots(1, 1)
    if len(plan.settings) == 1:
        draw_rows(axes, points, _TITLE)
    else:
        _settings(axes, plan, points)


def _settings(axes: "Axes", plan: Plan, points: Sequence[Point]) -> None:
    numeric = all(isinstance(setting, int | float) for setting in plan.settings)
    names = [str(setting) for setting in plan.settings]
    x = np.array(plan.settings, dtype=float) if numeric else np.arange(len(names), dtype=float)
    heights: list[float] = []
    beyond = []
    styles = styles_of(method_names(points))
    for place, (method, style) in enumerate(styles.items()):
        errors = [mean(errors_of(points, method, name)) for name in names]
        if numeric:
            draw_estimates(axes, x, errors, style, method)
        else:
            draw_separate_estimates(axes, x + _BESIDE * (place - (len(styles) - 1) / 2), errors, style, method)
        heights += ends_of(errors)
        if not all(each.value <= _WORST for each in errors):
            beyond.append(method)
    if numeric and plan.options.get("log_axis"):
        axes.set_xscale("log")
    axes.set_xticks(x, [f"{setting:,g}" if numeric else str(setting) for setting in plan.settings])
    axes.minorticks_off()
    log_scale(axes, min(heights) / 1.25, min(max(heights), _WORST) * 1.25)
    note_beyond(axes, beyond)
    dress(axes, _TITLE, plan.options["axis"])


def draw_rows(axes: "Axes", points: Sequence[Point], title: str) -> None:
    """The methods of points of one setting, from top to bottom; an error above `_WORST` is a number at the edge."""
    methods, setting = method_names(points), finals(points)[0].setting
    errors = [mean(errors_of(points, method, setting)) for method in methods]
    ends = [end for end in ends_of(errors) if end <= _WORST]
    low, high = min(ends) / 1.25, max(ends) * 1.6
    styles = styles_of([method for method in methods if not method.startswith(LEFT_OUT)])
    style = JOINT_STYLE
    for row, (method, error) in enumerate(zip(methods, errors, strict=True)):
        style = styles.get(method, style)  # a variant has that of the method above it, with open markers
        face = style.colour if method in styles else "white"
        if error.low is not None and error.high is not None and error.low <= high:
            axes.plot([error.low, min(error.high, high)], [row, row], color=style.colour, linewidth=1.8)
        if error.value <= high:
            axes.plot([error.value], [row], style.marker, color=style.colour, markerfacecolor=face)
        else:
            axes.annotate(
                f"{number(error.value)} →",
                xy=(high, row),
                xytext=(-8, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=8,
                color=style.colour,
            )
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.invert_yaxis()
    log_scale(axes, low, high, axis="x")
    dress(axes, title, "")
