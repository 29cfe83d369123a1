"""A fleet: all methods on the same data, and what sharing does to each site, by the amount of data."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cospan.experiments.estimates import Estimate, mean
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.kinds.sharing.against_alone import TOLERANCE, Against, SiteErrors
from cospan.experiments.methods.catalogue import JOINT, LSTD_ALONE
from cospan.experiments.plots.axes import dress, log_scale, note_beyond
from cospan.experiments.plots.curves import draw_errors, draw_estimates, ends_of
from cospan.experiments.plots.method_style import styles_of
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import WHOLE_FLEET, Point, Task, method_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TOO_FAR = 2.5
"""A method whose ratios are all above is left out of the picture of ratios."""


def tasks(plan: Plan) -> list[Task]:
    """One run for each seed."""
    horizons, stops = horizons_of(plan, plan.rounds), plan.options["stops"]
    return [plan.task(seed, also_at=horizons, each_agent=True, stops=stops) for seed in plan.seeds]


def horizons_of(plan: Plan, rounds: int) -> tuple[int, ...]:
    """The numbers of rounds of the plan's tables, as far as a run of this length has them."""
    return tuple(each for each in plan.settings if each <= rounds)


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """The bounds of the plan, and tables."""
    sites = SiteErrors.of(points)
    horizons, methods = horizons_of(plan, plan.rounds), method_names(points)
    tables = (
        _data_table(plan, sites, horizons, methods),
        _against_table(plan, sites, horizons, [each for each in methods if each != LSTD_ALONE]),
    )
    return ExperimentOutcome(
        tuple(each for horizon in horizons for each in _findings(plan, sites, horizon)), tables
    )


def _findings(plan: Plan, sites: SiteErrors, rounds: int) -> Iterator[Finding]:
    """What the plan bounds after a number of rounds; without bounds only the ratio."""
    found = sites.against_alone(JOINT, rounds)
    bounds: dict[str, float] = next(
        (each for each in plan.options.get("bounds", []) if each["rounds"] == rounds), {}
    )
    at_most = bounds.get("median")
    after = f"after {unit(plan, rounds)}"
    aim = f" (bound {at_most:g}, aim {bounds['aim']:g})" if "aim" in bounds else ""
    aim = aim or (f" (bound {at_most:g})" if at_most else "")
    yield Finding(
        f"median-{rounds}",
        f"{after} the median site's error is {estimate(found.median)} times that of LSTD alone{aim}",
        found.median,
        holds=None if at_most is None else found.median.value <= at_most,
        sign=None if at_most is None else found.median.value <= 1.0,
    )
    if (most := plan.options.get("mean_at_most")) is not None:
        yield Finding(
            f"mean-{rounds}",
            f"{after} the mean over the sites is {estimate(found.mean)} times that of LSTD alone (bound {most:g})",
            found.mean,
            holds=found.mean.value <= most,
        )
    if (most := plan.options.get("worse_at_most")) is not None:
        same = plan.options["same_sites"]
        worse = Estimate(float(found.worse)) if same else found.worse_in_a_run
        yield Finding(
            f"worse-{rounds}",
            f"{after} {worse.value:g} of {found.sites} sites have more than {TOLERANCE:g} times the error of their "
            f"own LSTD, {'their errors averaged over the seeds' if same else 'on average over the seeds'} "
            f"(bound {most})",
            worse,
            holds=worse.value <= most,
        )


def unit(plan: Plan, rounds: int) -> str:
    """A number of rounds in the plan's unit of data."""
    return f"{rounds * plan.options['units_per_round']:,g} {plan.options['unit']}"


def _data_table(plan: Plan, sites: SiteErrors, horizons: Sequence[int], methods: Sequence[str]) -> Table:
    rows = tuple(
        (method, *(estimate(mean(np.median(sites.at(method, horizon), axis=1))) for horizon in horizons))
        for method in methods
    )
    return Table(
        ("", *(unit(plan, each) for each in horizons)), rows, "Relative value error, median over the sites"
    )


def _against_table(plan: Plan, sites: SiteErrors, horizons: Sequence[int], methods: Sequence[str]) -> Table:
    rows: list[tuple[str, ...]] = []
    for method in methods:
        found = [sites.against_alone(method, horizon) for horizon in horizons]
        rows += against_rows(method, found, same_sites=plan.options["same_sites"])
    return Table(("", *(unit(plan, each) for each in horizons)), tuple(rows), "Against LSTD alone")


def against_rows(name: str, found: Sequence[Against], *, same_sites: bool) -> list[tuple[str, ...]]:
    """The rows of a table: ratios of medians and of means, and the sites that would do better alone.

    Args:
        name: of the method.
        found: at each amount of data.
        same_sites: whether a site is the same with every seed, so that its errors can be averaged.
    """
    worse = f"{name}: sites above {TOLERANCE:g} × their own"
    in_a_run = (f"{worse}, in one run", *(f"{e.worse_in_a_run.value:.1f} of {e.sites}" for e in found))
    averaged = (f"{worse}, their errors averaged over the seeds", *(f"{e.worse} of {e.sites}" for e in found))
    return [
        (f"{name}: median over sites, ×", *(estimate(each.median) for each in found)),
        (f"{name}: mean over sites, ×", *(estimate(each.mean) for each in found)),
        in_a_run,
        *([averaged] if same_sites else []),
    ]


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """Errors of the fleet, and the ratio to LSTD alone, over the amount of data."""
    left, right = figure.subplots(1, 2)
    whole = [point for point in points if point.agent == WHOLE_FLEET]
    draw_errors(left, whole, "Relative value error, median over the sites")
    _draw_ratios(right, plan, SiteErrors.of(points), [each for each in method_names(whole) if each != LSTD_ALONE])


def _draw_ratios(axes: "Axes", plan: Plan, sites: SiteErrors, methods: Sequence[str]) -> None:
    horizons = horizons_of(plan, plan.rounds)
    x = np.array(horizons) * plan.options["units_per_round"]
    heights = [1.0]
    beyond = []
    for method, style in styles_of(methods).items():
        found = [sites.against_alone(method, each) for each in horizons]
        if min(each.median.value for each in found) > _TOO_FAR:
            beyond.append(method)  # TD alone would flatten everything else
            continue
        means = [each.mean.value for each in found]
        draw_estimates(axes, x, [each.median for each in found], style, f"{method}, median")
        axes.plot(x, means, ":", color=style.colour, label=f"{method}, mean")
        heights += ends_of([each.median for each in found]) + means
    bounds = {each["rounds"]: each["median"] for each in plan.options.get("bounds", [])}
    known = [each for each in horizons if each in bounds]
    if known:
        places = [each * plan.options["units_per_round"] for each in known]
        axes.plot(places, [bounds[each] for each in known], "_", color="0.3", markersize=14, label="bound, median")
    axes.axhline(1.0, color="0.3", linewidth=1.0)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{each:,g}" for each in x])
    axes.minorticks_off()
    log_scale(axes, min(heights) / 1.25, max(heights) * 1.25)
    note_beyond(axes, beyond)
    dress(axes, "Error over that of LSTD alone (95 % intervals)", plan.options["unit"])
