"""Agents that do not belong: what sharing does to each group of a mixed fleet, and to fleets of one or two."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cospan.experiments.estimates import Estimate, mean, resampled
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.kinds.sharing.against_alone import TOLERANCE, Against, SiteErrors
from cospan.experiments.methods.catalogue import JOINT, LSTD_ALONE
from cospan.experiments.methods.fleet_variants import SIZES, beginning_at, misaligned
from cospan.experiments.plots.axes import COLOURS, dress, log_scale
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import Point, Task, method_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALIGNED, OTHERS = "aligned", "misaligned"
_NONE, _FIFTH = "0 %", "20 %"


def tasks(plan: Plan) -> list[Task]:
    """One run for each setting and seed; small fleets have more seeds, for they have fewer agents to average."""
    return [
        plan.task(seed, setting=setting, each_agent=True, stops=2, **_varied(plan, setting, number))
        for setting in plan.settings
        for number, seed in enumerate([*plan.seeds, *(plan.options["further_seeds"] if _is_small(setting) else [])])
    ]


def _is_small(setting: str) -> bool:
    return setting.split(maxsplit=1)[0] in ("1", "2")


def _varied(plan: Plan, setting: str, number: int) -> dict[str, Any]:
    """What a setting changes; `number` is the place of the seed."""
    noise, count = plan.options["noise"], setting.split(maxsplit=1)[0]
    if _is_small(setting) and "microgrid" in setting:
        first = int(count) * number % 24
        return {
            "workload": partial(beginning_at, "microgrids", first),
            "agents": int(count),
            "rounds": plan.options["days"],
            "steps_per_round": 24,
        }
    if _is_small(setting):
        return {"workload": partial(misaligned, int(count), 0.0, noise, 1.0), "agents": int(count)}
    loudest = plan.options["loudest"] if setting == "noisy" else 1.0
    rank = SIZES.rank if setting == "second fleet" else None
    return {"workload": partial(misaligned, plan.agents, _share(setting), noise, loudest, second_rank=rank)}


def _share(setting: str) -> float:
    """Of misaligned agents."""
    if setting == "second fleet":
        return 0.5
    return float(setting.removesuffix(" %")) / 100.0 if setting.endswith("%") else 0.0


def groups_of(plan: Plan, setting: str) -> Mapping[str, Sequence[int]]:
    """The agents of each group, which is not empty."""
    if _is_small(setting):
        return {"all": range(int(setting.split(maxsplit=1)[0]))}
    if setting == "noisy":
        return {"the others": range(1, plan.agents), "the noisy one": range(1)}
    aligned = plan.agents - round(_share(setting) * plan.agents)
    names = ("first fleet", "second fleet") if setting == "second fleet" else (ALIGNED, OTHERS)
    parts = (range(aligned), range(aligned, plan.agents))
    return {name: part for name, part in zip(names, parts, strict=True) if part}


def _rounds(plan: Plan, setting: str) -> int:
    return int(plan.options["days"]) if "microgrid" in setting else plan.rounds


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """Every group against LSTD alone, and what of their gain the aligned agents keep."""
    sites = SiteErrors.of(points)
    found = {
        (setting, group): sites.against_alone(JOINT, _rounds(plan, setting), setting, agents)
        for setting in plan.settings
        for group, agents in groups_of(plan, setting).items()
    }
    findings = [*_findings(plan, found), *_kept(plan, sites)]
    return ExperimentOutcome(tuple(findings), (_table(plan, sites, found, method_names(points)),))


def _findings(plan: Plan, found: Mapping[tuple[str, str], Against]) -> Iterator[Finding]:
    at_most = plan.options["at_most"]
    for (setting, group), against in found.items():
        yield Finding(
            f"{setting} {group}".replace(" ", "-"),
            f"{setting}, {group}: the joint method's median error is {estimate(against.median)} times that of LSTD "
            f"alone (bound {at_most:g})",
            against.median,
            holds=against.median.value <= at_most,
            sign=against.median.value <= plan.options["sign_at_most"],
        )


def _kept(plan: Plan, sites: SiteErrors) -> Iterator[Finding]:
    """Of the agents that are aligned in both: 1 − the ratio at 20 %, over 1 − the ratio at none."""
    if not {_NONE, _FIFTH} <= set(plan.settings):
        return
    agents = groups_of(plan, _FIFTH)[ALIGNED]
    medians = [
        np.median(sites.at(method, plan.rounds, setting, agents), axis=1)
        for setting in (_FIFTH, _NONE)
        for method in (JOINT, LSTD_ALONE)
    ]
    kept = resampled(lambda a, b, c, d: float((1.0 - a / b) / (1.0 - c / d)), *medians)
    yield Finding(
        "kept",
        f"with 20 % misaligned agents the aligned ones keep {estimate(kept)} of their gain over LSTD alone (at "
        "least 0.8)",
        kept,
        holds=kept.value >= 0.8,
    )


def _table(
    plan: Plan, sites: SiteErrors, found: Mapping[tuple[str, str], Against], methods: Sequence[str]
) -> Table:
    rows = []
    for (setting, group), against in found.items():
        agents, rounds = groups_of(plan, setting)[group], _rounds(plan, setting)
        errors = [mean(np.median(sites.at(each, rounds, setting, agents), axis=1)) for each in methods]
        rows.append(
            (
                f"{setting}, {group}",
                *(f"{each.value:.3g}" for each in errors),
                estimate(against.median),
                estimate(against.mean),
                _worse(against),
            )
        )
    columns = ("", *methods, "joint, × LSTD: median", "mean", f"share above {TOLERANCE:g} × their own")
    return Table(columns, tuple(rows), "Relative value error, median over the group")


def _worse(against: Against) -> str:
    """Of all agents in all runs."""
    share: Estimate = against.worse_in_a_run
    return f"{100.0 * share.value / against.sites:.0f} %"


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """The ratio to LSTD alone of each group, with its interval."""
    axes, sites = figure.subplots(1, 1), SiteErrors.of(points)
    names: list[str] = []
    heights = [1.0]
    for setting in plan.settings:
        for number, (group, agents) in enumerate(groups_of(plan, setting).items()):
            ratio = sites.against_alone(JOINT, _rounds(plan, setting), setting, agents).median
            low, high = ratio.low or ratio.value, ratio.high or ratio.value
            place = len(names)
            axes.plot([place, place], [low, high], color=COLOURS[number], linewidth=1.5)
            axes.plot([place], [ratio.value], "o", color=COLOURS[number])
            names.append(f"{setting},\n{group}")
            heights += [low, high]
    axes.axhline(1.0, color="0.3", linewidth=1.0)
    axes.axhline(plan.options["at_most"], color="0.3", linewidth=1.0, linestyle=":")
    axes.set_xticks(range(len(names)), names, fontsize=7.5)
    log_scale(axes, min(heights) / 1.25, max(heights) * 1.25)
    dress(axes, "Joint method: times the error of LSTD alone, median of the group (dotted: the bound)", "")
