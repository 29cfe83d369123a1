"""One fleet with several feature maps: what sharing does by the number of features and the amount of data."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.kinds.sharing.against_alone import Against, SiteErrors
from cospan.experiments.kinds.sharing.fleet import horizons_of, unit
from cospan.experiments.methods.catalogue import JOINT, LSTD_ALONE
from cospan.experiments.plots.axes import COLOURS, dress, log_scale
from cospan.experiments.plots.curves import draw_estimates, ends_of
from cospan.experiments.plots.method_style import MethodStyle
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import Point, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SETTING = "d = {}"


def tasks(plan: Plan) -> list[Task]:
    """One run for each feature map, `[options.maps]`, and seed: of its workload, rounds and number of seeds."""
    return [
        plan.task(
            seed,
            workload=workload,
            rounds=rounds,
            also_at=horizons_of(plan, rounds),
            setting=_SETTING.format(dim),
            each_agent=True,
            stops=2,
        )
        for dim, (workload, rounds, seeds) in plan.options["maps"].items()
        for seed in plan.seeds[:seeds]
    ]


def _found(plan: Plan, points: Sequence[Point]) -> Mapping[tuple[str, int], Against]:
    sites = SiteErrors.of(points)
    return {
        (_SETTING.format(dim), horizon): sites.against_alone(JOINT, horizon, _SETTING.format(dim))
        for dim, (_, rounds, _) in plan.options["maps"].items()
        for horizon in horizons_of(plan, rounds)
    }


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """At every d and amount of data the ratio to LSTD alone."""
    found = _found(plan, points)
    findings = tuple(
        Finding(
            f"{setting}-{rounds}".replace(" ", ""),
            f"{setting}, {unit(plan, rounds)}: the median site's error is {estimate(each.median)} times that of "
            "LSTD alone (bound 1)",
            each.median,
            holds=each.median.value <= 1.0,
            sign=each.median.value <= plan.options["sign_at_most"],
        )
        for (setting, rounds), each in found.items()
    )
    sites, rows = SiteErrors.of(points), []
    for (setting, rounds), each in found.items():
        errors = (np.median(sites.at(name, rounds, setting), axis=1).mean() for name in (JOINT, LSTD_ALONE))
        worse = f"{each.worse_in_a_run.value:.1f} of {each.sites}"
        cells = (*(f"{error:.3g}" for error in errors), estimate(each.median), estimate(each.mean), worse)
        rows.append((f"{setting}, {unit(plan, rounds)}", *cells))
    columns = ("", JOINT, LSTD_ALONE, "median over sites, ×", "mean over sites, ×", "sites above 1.1 ×, in one run")
    return ExperimentOutcome(findings, (Table(columns, tuple(rows), "Relative value error"),))


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """The ratio to LSTD alone over the amount of data, a curve for each d."""
    axes, found = figure.subplots(1, 1), _found(plan, points)
    heights = [1.0]
    for colour, marker, (dim, (_, rounds, _)) in zip(COLOURS, "osD^v", plan.options["maps"].items(), strict=False):
        horizons = horizons_of(plan, rounds)
        ratios = [found[_SETTING.format(dim), horizon].median for horizon in horizons]
        x = np.array(horizons) * plan.options["units_per_round"]
        draw_estimates(axes, x, ratios, MethodStyle(colour, marker), _SETTING.format(dim))
        heights += ends_of(ratios)
    axes.axhline(1.0, color="0.3", linewidth=1.0)
    axes.set_xscale("log")
    ticks = np.array(plan.settings) * plan.options["units_per_round"]
    axes.set_xticks(ticks, [f"{each:,g}" for each in ticks])
    axes.minorticks_off()
    log_scale(axes, min(heights) / 1.25, max(heights) * 1.25)
    title = "Times the error of LSTD alone, median over the sites (below 1: sharing pays; 95 % intervals)"
    dress(axes, title, plan.options["unit"])
