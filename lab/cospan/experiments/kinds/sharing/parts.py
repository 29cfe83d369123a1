"""A method with one part left out at a time, on several fleets: what each part does to the sites."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cospan.experiments.estimates import mean
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.kinds.sharing.against_alone import TOLERANCE, SiteErrors, compared
from cospan.experiments.kinds.sweep import LEFT_OUT, draw_rows
from cospan.experiments.methods.catalogue import LSTD_ALONE
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import Point, Task, method_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tasks(plan: Plan) -> list[Task]:
    """One run for each setting and seed; `[options.runs]` has the workload, agents and rounds of a setting."""
    return [
        plan.task(seed, setting=setting, each_agent=True, stops=2, **plan.options["runs"][setting])
        for setting in plan.settings
        for seed in plan.seeds
    ]


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """Of each setting the ratio of the whole method to LSTD alone, those of its parts to the whole, and a table."""
    sites, methods = SiteErrors.of(points), method_names(points)
    return ExperimentOutcome(
        tuple(each for setting in plan.settings for each in _findings(plan, sites, methods, setting)),
        tuple(_table(plan, sites, methods, setting) for setting in plan.settings),
    )


def _at_the_end(plan: Plan, sites: SiteErrors, method: str, setting: str) -> Float[np.ndarray, "seeds agents"]:
    return sites.at(method, plan.options["runs"][setting]["rounds"], setting)


def _findings(plan: Plan, sites: SiteErrors, methods: Sequence[str], setting: str) -> Iterator[Finding]:
    """The first method is the whole one; the names of those without a part begin with `LEFT_OUT`."""
    whole = _at_the_end(plan, sites, methods[0], setting)
    found = compared(whole, _at_the_end(plan, sites, LSTD_ALONE, setting)).median
    yield Finding(
        f"{methods[0]}-{setting}",
        f"{setting}: the median site's error with {methods[0]} is {estimate(found)} times that of LSTD alone "
        "(bound 1)",
        found,
        holds=found.value <= 1.0,
        sign=found.value <= 1.0,
    )
    for method in methods:
        if method.startswith(LEFT_OUT):
            against = compared(_at_the_end(plan, sites, method, setting), whole)
            yield Finding(
                f"{method}-{setting}",
                f"{setting} {method}: the median site's error is {estimate(against.median)} times that of "
                f"{methods[0]}, the mean over the sites {estimate(against.mean)} times",
                against.median,
            )


def _table(plan: Plan, sites: SiteErrors, methods: Sequence[str], setting: str) -> Table:
    alone = _at_the_end(plan, sites, LSTD_ALONE, setting)
    rows = []
    for method in methods:
        own = _at_the_end(plan, sites, method, setting)
        against = compared(own, alone)
        rows.append(
            (
                method,
                estimate(mean(np.median(own, axis=1))),
                estimate(against.median),
                estimate(against.mean),
                f"{against.worse_in_a_run.value:.1f} of {against.sites}",
            )
        )
    columns = (
        "",
        "median error",
        "median, × LSTD alone",
        "mean, × LSTD alone",
        f"sites above {TOLERANCE:g} × their own LSTD, in one run",
    )
    return Table(columns, tuple(rows), f"{setting[0].upper()}{setting[1:]}; median and mean are over the sites")


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """A panel for each setting, with a row for each method."""
    panels = figure.subplots(1, len(plan.settings), squeeze=False)[0]
    for place, (axes, setting) in enumerate(zip(panels, plan.settings, strict=True)):
        draw_rows(axes, [point for point in points if point.setting == setting], f"{setting}: median error; 95 %")
        if place:
            axes.set_yticklabels([])
