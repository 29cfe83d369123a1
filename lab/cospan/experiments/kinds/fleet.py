"""A fleet: all methods on the same data, how fast each learns, and a site that joins late."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from cospan.experiments.claims import judged
from cospan.experiments.estimates import mean
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.methods.catalogue import INDEPENDENT, JOINT, LSTD
from cospan.experiments.new_site import NEW_SITE, PLAIN, NewSiteTask
from cospan.experiments.plots.axes import COLOURS, dress, log_scale
from cospan.experiments.plots.curves import draw_errors
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import Point, RunnableTask, method_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FINER = "d = {}"


def tasks(plan: Plan) -> list[RunnableTask]:
    """The fleet; newcomers, held out in turn; and finer features, if the plan has them."""
    horizons = tuple(round_ for round_ in plan.settings if round_ <= plan.rounds)
    found: list[RunnableTask] = [plan.task(seed, also_at=horizons) for seed in plan.seeds]
    (joint,) = (each for each in plan.compared_methods() if each.name == JOINT)
    new = plan.options["new_site"]
    for seed in plan.seeds[: new["seeds"]]:
        for newcomers in new["newcomers"]:
            outside = tuple(newcomers)
            found.append(
                NewSiteTask(
                    seed=seed,
                    workload=plan.workload,
                    fleet=tuple(index for index in range(plan.agents) if index not in outside),
                    newcomers=outside,
                    rounds=plan.rounds,
                    horizons=tuple(new["horizons"]),
                    joint=joint,
                    rank=plan.rank,
                )
            )
    return found + _finer(plan)


def _finer(plan: Plan) -> list[RunnableTask]:
    """Runs with other feature maps, `[options.finer]`: for each its workload and number of rounds."""
    finer: dict[str, Any] = plan.options.get("finer", {})
    names = (JOINT, "independent TD", LSTD)
    methods = tuple(each for each in plan.compared_methods() if each.name in names)
    return [
        plan.task(
            seed,
            workload=workload,
            rounds=rounds,
            also_at=tuple(each for each in plan.settings if each <= rounds),
            setting=_FINER.format(dim),
            methods=methods,
        )
        for dim, (workload, rounds) in finer.get("maps", {}).items()
        for seed in plan.seeds[: finer["seeds"]]
    ]


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """The claims, and tables over the amount of data."""
    fleet = [point for point in points if not point.setting]
    return ExperimentOutcome(
        findings=(*judged(plan.options["claims"], fleet), *_new_site_findings(plan, points)),
        tables=(
            _data_table(plan, fleet, "Value error over the amount of data"),
            _new_site_table(plan, points),
            *_finer_tables(plan, points),
        ),
    )


def _unit(plan: Plan, rounds: int) -> str:
    """A number of rounds in the plan's unit of data."""
    count = rounds * plan.options["units_per_round"]
    return f"{count:,g} {plan.options['unit']}"


def _at(points: Sequence[Point], method: str, rounds: int) -> Float[np.ndarray, " seeds"]:
    """Value errors of the whole fleet after a number of rounds, one for each seed."""
    found = {p.seed: p.value_error for p in points if (p.method, p.rounds, p.agent) == (method, rounds, -1)}
    return np.array([found[seed] for seed in sorted(found)])


def _data_table(plan: Plan, points: Sequence[Point], title: str) -> Table:
    last = max(point.rounds for point in points)
    horizons = [horizon for horizon in plan.settings if horizon <= last]
    rows = tuple(
        (method, *(estimate(mean(_at(points, method, horizon))) for horizon in horizons))
        for method in method_names(points)
    )
    return Table(("", *(_unit(plan, horizon) for horizon in horizons)), rows, title)


def newcomers_errors(points: Sequence[Point], method: str, rounds: int) -> Float[np.ndarray, " seeds"]:
    """Median over all newcomers of their value errors, one for each seed."""
    own = [p for p in points if (p.setting, p.method, p.rounds) == (NEW_SITE, method, rounds)]
    seeds = sorted({point.seed for point in own})
    return np.array([np.median([p.value_error for p in own if p.seed == seed]) for seed in seeds])


def _new_site_methods(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point.method for point in points if point.setting == NEW_SITE))


def _new_site_findings(plan: Plan, points: Sequence[Point]) -> tuple[Finding, ...]:
    found = []
    new = plan.options["new_site"]
    baselines = [method for method in _new_site_methods(points) if method not in (JOINT, PLAIN)]
    for rounds in new["horizons"]:
        ratio = mean(newcomers_errors(points, JOINT, rounds) / _best_of(points, baselines, rounds))
        judged_here = rounds == new["judged_at"]
        bound = f" (bound {new['at_most']:g})" if judged_here else ""
        found.append(
            Finding(
                f"new-site-{rounds}",
                f"a new site after {_unit(plan, rounds)}: {estimate(ratio)} times the best of independent TD and "
                f"LSTD on the same data{bound}",
                ratio,
                holds=ratio.value <= new["at_most"] if judged_here else None,
                sign=ratio.value <= 1.0 if judged_here else None,
            )
        )
    return tuple(found)


def _new_site_groups(points: Sequence[Point]) -> dict[str, list[str]]:
    """Rows of tables and pictures, and the methods of which each shows the best."""
    methods = _new_site_methods(points)
    return {
        JOINT: [JOINT],
        PLAIN: [PLAIN],
        f"{INDEPENDENT}, best step": [each for each in methods if each.startswith(INDEPENDENT)],
        f"{LSTD}, best λ and ridge": [each for each in methods if each.startswith(LSTD)],
    }


def _best_of(points: Sequence[Point], methods: Sequence[str], rounds: int) -> Float[np.ndarray, " seeds"]:
    return np.asarray(np.min([newcomers_errors(points, method, rounds) for method in methods], axis=0))


def _new_site_table(plan: Plan, points: Sequence[Point]) -> Table:
    horizons = plan.options["new_site"]["horizons"]
    rows = tuple(
        (name, *(estimate(mean(_best_of(points, methods, horizon))) for horizon in horizons))
        for name, methods in _new_site_groups(points).items()
    )
    return Table(("", *(_unit(plan, horizon) for horizon in horizons)), rows, "A new site, median over new sites")


def _finer_tables(plan: Plan, points: Sequence[Point]) -> tuple[Table, ...]:
    finer = plan.options.get("finer", {})
    maps = finer.get("maps", {}) if finer.get("seeds") else {}
    return tuple(
        _data_table(plan, [p for p in points if p.setting == _FINER.format(dim)], f"Features of dimension {dim}")
        for dim in maps
    )


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """Errors of the fleet and of a new site over the amount of data."""
    left, right = figure.subplots(1, 2)
    draw_errors(left, [point for point in points if not point.setting], "Relative value error of the fleet")
    left.legend(frameon=False, fontsize=8)
    _draw_new_site(right, plan, points)


def _draw_new_site(axes: "Axes", plan: Plan, points: Sequence[Point]) -> None:
    horizons = plan.options["new_site"]["horizons"]
    x = np.array(horizons) * plan.options["units_per_round"]
    heights: list[float] = []
    for colour, (name, members) in zip(COLOURS, _new_site_groups(points).items(), strict=False):
        errors = [float(_best_of(points, members, horizon).mean()) for horizon in horizons]
        axes.plot(x, errors, "o-", color=colour, linewidth=2.0, label=name)
        heights += errors
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{each:g}" for each in x])
    axes.minorticks_off()
    log_scale(axes, min(heights) / 1.25, max(heights) * 1.25)
    dress(axes, "A new site, the basis learnt without it", plan.options["unit"])
