"""When sharing pays: the ratio to LSTD alone by data per site, by how alike the sites are, and by d."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.kinds.sharing.against_alone import SiteErrors
from cospan.experiments.methods.catalogue import JOINT
from cospan.experiments.methods.fleet_variants import partly_shared
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import Point, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SETTING = "d = {}, {:.0%} outside"


def tasks(plan: Plan) -> list[Task]:
    """One run for each d, share outside and seed."""
    return [
        plan.task(
            seed,
            workload=partial(partly_shared, dim, outside),
            setting=_SETTING.format(dim, outside),
            also_at=tuple(plan.settings),
            each_agent=True,
            stops=2,
        )
        for dim, outside in itertools.product(plan.options["dims"], plan.options["outside"])
        for seed in plan.seeds
    ]


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """Where sharing gains most, where it gains least, and tables of all ratios."""
    sites = SiteErrors.of(points)
    cells = itertools.product(plan.options["dims"], plan.options["outside"], plan.settings)
    found = {cell: sites.against_alone(JOINT, cell[2], _SETTING.format(*cell[:2])).median for cell in cells}
    (best, gained), (worst, lost) = (choose(found.items(), key=lambda each: each[1].value) for choose in (min, max))
    at_most = plan.options["at_most"]
    findings = (
        Finding(
            "most",
            f"sharing gains most with {_said(plan, *best)}: {estimate(gained)} times the error of LSTD alone",
            gained,
            sign=gained.value <= 1.0,
        ),
        Finding(
            "least",
            f"it gains least with {_said(plan, *worst)}: {estimate(lost)} times (bound {at_most:g})",
            lost,
            holds=lost.value <= at_most,
        ),
    )
    columns = ("variance outside", *(_steps(plan, rounds) for rounds in plan.settings))
    tables = tuple(
        Table(
            columns,
            tuple(
                (f"{outside:.0%}", *(estimate(found[dim, outside, rounds]) for rounds in plan.settings))
                for outside in plan.options["outside"]
            ),
            f"d = {dim}: error of the joint method, times that of LSTD alone",
        )
        for dim in plan.options["dims"]
    )
    return ExperimentOutcome(findings, tables)


def _steps(plan: Plan, rounds: int) -> str:
    return f"{rounds * plan.options['units_per_round']:,} steps"


def _said(plan: Plan, dim: int, outside: float, rounds: int) -> str:
    return f"d = {dim}, {_steps(plan, rounds)} a site and {outside:.0%} of the variance outside the subspace"


def _ratios(plan: Plan, sites: SiteErrors, dim: int) -> Float[np.ndarray, "shares horizons"]:
    return np.array(
        [
            [
                sites.against_alone(JOINT, rounds, _SETTING.format(dim, outside)).median.value
                for rounds in plan.settings
            ]
            for outside in plan.options["outside"]
        ]
    )


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """A map for each d: blue where sharing pays, white where it makes no difference."""
    from matplotlib.colors import LogNorm

    sites, dims = SiteErrors.of(points), plan.options["dims"]
    for number, (axes, dim) in enumerate(zip(figure.subplots(1, len(dims), squeeze=False)[0], dims, strict=True)):
        ratios = _ratios(plan, sites, dim)
        axes.imshow(ratios, norm=LogNorm(0.1, 10.0), cmap="RdBu_r", aspect="auto", origin="lower")
        for (row, column), ratio in np.ndenumerate(ratios):
            pale = 0.3 < ratio < 3.0
            axes.text(column, row, f"{ratio:.2f}", ha="center", va="center", color="0.1" if pale else "1.0")
        axes.set_title(f"d = {dim}", fontsize=10.5, fontweight="bold", loc="left")
        axes.set_xticks(range(len(plan.settings)), [_steps(plan, each).split()[0] for each in plan.settings])
        axes.set_yticks(range(len(ratios)), [f"{each:.0%}" for each in plan.options["outside"]])
        axes.set_xlabel("environment steps per site")
        if not number:
            axes.set_ylabel("variance of V outside the shared subspace")
