"""A new site: with what a fleet has learnt as its prior, and alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cospan.experiments.estimates import Estimate, mean
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.kinds.sharing.against_alone import TOLERANCE, SiteErrors, compared
from cospan.experiments.kinds.sharing.fleet import against_rows, unit
from cospan.experiments.methods.catalogue import JOINT
from cospan.experiments.new_site import VARIANT, NewSiteTask
from cospan.experiments.plots.axes import dress, log_scale
from cospan.experiments.plots.curves import draw_estimates, ends_of
from cospan.experiments.plots.method_style import styles_of
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import Point, method_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tasks(plan: Plan) -> list[NewSiteTask]:
    """One run for each seed: every n-th site is new, the others are the fleet; the folds take turns."""
    folds = plan.options["folds"]
    found = []
    for number, seed in enumerate(plan.seeds):
        newcomers = tuple(range(number % folds, plan.agents, folds))
        fleet = tuple(index for index in range(plan.agents) if index not in newcomers)
        horizons = tuple(plan.settings)
        found.append(
            NewSiteTask(
                seed, plan.workload, fleet, newcomers, plan.rounds, horizons, plan.compared_methods(), plan.rank
            )
        )
    return found


def best_variant(
    points: Sequence[Point], names: Sequence[str], rounds: int, sites: SiteErrors
) -> Float[np.ndarray, "seeds agents"]:
    """The errors of the variant that is best after a number of rounds: of the smallest mean of the runs' medians.

    Args:
        points: of all runs, which have the variants' names.
        names: of methods; the best of all their variants is taken.
        rounds: after which.
        sites: of the same points; each run has newcomers of its own, in the columns of their places.
    """
    own = [each for each in method_names(points) if each.split(VARIANT)[0] in names]
    found = [sites.at(each, rounds) for each in own]
    return min(found, key=lambda errors: float(np.median(errors, axis=1).mean()))


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """The ratio to the best alone, LSTD or TD, at every amount of data."""
    sites, names = SiteErrors.of(points), [each.name for each in plan.methods]
    alone = [each.name for each in plan.methods if each.kind != "joint"]
    findings, comparisons = [], []
    for rounds in plan.settings:
        own, best = (best_variant(points, each, rounds, sites) for each in ([JOINT], alone))
        found = compared(own, best)
        comparisons.append(found)
        at_most = plan.options["at_most"]
        findings.append(
            Finding(
                f"new-site-{rounds}",
                f"after {unit(plan, rounds)} the median new site's error is {estimate(found.median)} times that of "
                f"the best alone (bound {at_most:g})",
                found.median,
                holds=found.median.value <= at_most,
                sign=found.median.value <= 1.0,
            )
        )
        share = float((own > TOLERANCE * best).mean())
        findings.append(
            Finding(
                f"worse-{rounds}",
                f"after {unit(plan, rounds)} {100.0 * share:.0f} % of the new sites have more than {TOLERANCE:g} "
                "times the error of the best alone, each in one run",
                Estimate(share),
            )
        )
    columns = ("", *(unit(plan, each) for each in plan.settings))
    rows = [(name, *(estimate(_median(points, name, rounds, sites)) for rounds in plan.settings)) for name in names]
    against = against_rows(JOINT, comparisons, same_sites=False)
    return ExperimentOutcome(
        tuple(findings),
        (
            Table(columns, tuple(rows), "Relative value error, median over the new sites"),
            Table(columns, tuple(against), "Against the best alone, LSTD or TD"),
        ),
    )


def _median(points: Sequence[Point], name: str, rounds: int, sites: SiteErrors) -> Estimate:
    return mean(np.median(best_variant(points, [name], rounds, sites), axis=1))


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """Errors of the new sites over the days since they came."""
    axes = figure.subplots(1, 1)
    sites, x = SiteErrors.of(points), np.array(plan.settings, dtype=float) * plan.options["units_per_round"]
    heights: list[float] = []
    for name, style in styles_of([method.name for method in plan.methods]).items():
        errors = [_median(points, name, rounds, sites) for rounds in plan.settings]
        draw_estimates(axes, x, errors, style, name)
        heights += ends_of(errors)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{each:g}" for each in x])
    axes.minorticks_off()
    log_scale(axes, min(heights) / 1.25, max(heights) * 1.25)
    dress(axes, "Relative value error of a new site, median over new sites; 95 % intervals", plan.options["unit"])
