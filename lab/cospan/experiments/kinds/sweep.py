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
from cospan.experiments.plots.axes import COLOURS, dress, log_scale, note_beyond
from cospan.experiments.plots.curves import draw_estimates, ends_of
from cospan.experiments.plots.method_style import styles_of
from cospan.experiments.plots.tables import error_table
from cospan.experiments.runner import Point, Task, errors_of, finals, method_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORST = 5.0


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
    """Errors against the settings, or bars if there is only one setting."""
    if len(plan.settings) == 1:
        _bars(figure, points)
        return
    axes = figure.subplots(1, 1)
    numeric = all(isinstance(setting, int | float) for setting in plan.settings)
    names = [str(setting) for setting in plan.settings]
    x = np.array(plan.settings, dtype=float) if numeric else np.arange(len(names), dtype=float)
    heights: list[float] = []
    beyond = []
    for method, style in styles_of(method_names(points)).items():
        errors = [mean(errors_of(points, method, name)) for name in names]
        draw_estimates(axes, x, errors, style, method)
        heights += ends_of(errors)
        if not all(each.value <= _WORST for each in errors):
            beyond.append(method)
    if numeric and plan.options.get("log_axis"):
        axes.set_xscale("log")
    axes.set_xticks(x, names)
    axes.minorticks_off()
    log_scale(axes, min(heights) / 1.25, min(max(heights), _WORST) * 1.25)
    note_beyond(axes, beyond)
    dress(axes, "Relative value error at the end, median over agents; 95 % intervals", plan.options["axis"])


def _bars(figure: "Figure", points: Sequence[Point]) -> None:
    axes = figure.subplots(1, 1)
    methods = method_names(points)
    for row, method in enumerate(methods):
        error = mean(np.minimum(errors_of(points, method, finals(points)[0].setting), _WORST))
        axes.barh(row, error.value, color=COLOURS[0] if row == 0 else COLOURS[5])
        if error.low is not None and error.high is not None:
            axes.plot([error.low, error.high], [row, row], color="0.2", linewidth=1.5)
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    axes.set_xscale("log")
    dress(axes, "Relative value error at the end, median over agents", "")
