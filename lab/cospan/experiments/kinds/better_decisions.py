"""Policies made from learnt values: what they save, with the fleet and alone, with the gate and without."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict

from cospan.client.workloads.models.microgrids import load_site
from cospan.experiments.decisions.schedule import ALONE, ALONE_UNGATED, GATED, GIVEN, JOINT, JOINT_UNGATED, Schedule
from cospan.experiments.decisions.tasks import BetterDecisionsTask
from cospan.experiments.estimates import Estimate, mean
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.plots.method_style import JOINT_STYLE, LSTD_STYLE
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS = (GIVEN, ALONE, JOINT, ALONE_UNGATED, JOINT_UNGATED)
_COLOURS = {GIVEN: "0.5", ALONE: LSTD_STYLE.colour, JOINT: JOINT_STYLE.colour}
"""Those of learning alone and with the fleet on all pages."""
DAYS = 365.0
"""Of a year, in which money is told."""
HEADROOM = 0.97
"""The most that foresight of the day may cost, times the given policy's cost, at a site that has headroom."""
_WORSE = 1e-4
"""Cost above the given policy's, as a share of it, from which on a policy counts as worse."""


class FleetEntry(BaseModel):
    """One of `[options.fleets]`: a setting, its `Schedule`, whether aims are about it, how many seeds it has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    setting: str
    workload: str
    agents: int
    steps: int
    evaluation: int
    trial: int
    rounds: int
    later_rounds: int
    rank: int
    aimed: bool = False
    seeds: int | None = None  # all of the plan

    @property
    def schedule(self) -> Schedule:
        """Of its tasks."""
        return Schedule(self.steps, self.evaluation, self.trial, self.rounds, self.later_rounds, self.rank)


def _fleets(plan: Plan, workload: str | None = None) -> list[FleetEntry]:
    entries = [FleetEntry.model_validate(each) for each in plan.options["fleets"]]
    return [each for each in entries if workload in (None, each.workload)]


def tasks(plan: Plan) -> list[BetterDecisionsTask]:
    """One run for each fleet and seed."""
    return [
        BetterDecisionsTask(seed, fleet.workload, fleet.agents, fleet.schedule, fleet.setting)
        for fleet in _fleets(plan)
        for seed in plan.seeds[: fleet.seeds]
    ]


class _Found:
    """The points by setting, method and step."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points: dict[tuple[str, str, int], dict[int, list[Point]]] = {}
        for point in points:
            runs = self._points.setdefault((point.setting, point.method, point.rounds), {})
            runs.setdefault(point.seed, []).append(point)

    def has(self, setting: str, method: str, step: int) -> bool:
        """Whether it was measured."""
        return (setting, method, step) in self._points

    def shares(self, setting: str, method: str, step: int) -> Float[np.ndarray, "s n"]:
        """Cost or gain as a share, by seed and agent."""
        runs = self._points[setting, method, step]
        return np.array([[point.value_error for point in runs[seed]] for seed in sorted(runs)])

    def money(self, setting: str, method: str, step: int) -> Float[np.ndarray, "s n"]:
        """Cost of a day in currency, or gain, by seed and agent."""
        runs = self._points[setting, method, step]
        return np.array([[point.probed_value or 0.0 for point in runs[seed]] for seed in sorted(runs)])

    def summed(self, setting: str, method: str, step: int) -> Float[np.ndarray, " s"]:
        """Cost summed over the sites, each in units of its mean load, as a share of the given policy's."""
        cost, given = self.money(setting, method, step), self.money(setting, GIVEN, 0)
        loads = np.array([load_site(index)[0].mean_load for index in range(cost.shape[1])])
        return np.asarray((cost / loads).sum(axis=1) / (given / loads).sum(axis=1))


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """What is saved, whether no agent gets worse, and what sharing adds."""
    found = _Found(points)
    findings: list[Finding] = []
    for fleet in _fleets(plan):
        findings += (
            _of_microgrids(plan, found, fleet) if fleet.workload == "microgrids" else _of_queues(found, fleet)
        )
    tables = [_methods_table(plan, found)]
    tables += [_sites_table(plan, found, fleet) for fleet in _fleets(plan, "microgrids")[:1]]
    return ExperimentOutcome(tuple(findings), tuple(tables))


def _finding(name: str, text: str, value: Estimate, *, holds: bool | None, sign: bool | None = None) -> Finding:
    return Finding(name.replace(" ", "-").replace(",", ""), text, value, holds=holds, sign=sign)


def _of_microgrids(plan: Plan, found: _Found, fleet: FleetEntry) -> Iterator[Finding]:
    setting, last, aims = fleet.setting, fleet.steps, plan.options["aims"]
    joint, alone = (found.summed(setting, method, last) for method in (JOINT, ALONE))
    cost = mean(joint)
    yield _finding(
        f"{setting} cost",
        f"{setting}: with the fleet the summed cost is {_share(cost)} times the given policy's"
        f"{_aim(fleet, 'at most', aims['cost'])}",
        cost,
        holds=cost.value <= aims["cost"] if fleet.aimed else None,
        sign=cost.value < 1.0,
    )
    share = mean(_of_headroom(plan, found, fleet, JOINT))
    yield _finding(
        f"{setting} headroom",
        f"{setting}: {_share(share)} of what foresight of the day could save is saved, on average over the sites "
        f"where that is 3 % or more{_aim(fleet, 'at least', aims['headroom'])}",
        share,
        holds=share.value >= aims["headroom"] if fleet.aimed else None,
    )
    worst = Estimate(float(found.shares(setting, JOINT, last).max()))
    yield _finding(
        f"{setting} worst site",
        f"{setting}: the site that does worst in any run has {worst.value:.4f} times the cost of its given policy"
        f"{_aim(fleet, 'at most', aims['worst'])}",
        worst,
        holds=worst.value <= aims["worst"] if fleet.aimed else None,
    )
    ratio = mean((1.0 - joint) / np.maximum(1.0 - alone, 1e-9))
    yield _finding(
        f"{setting} with the fleet against alone",
        f"{setting}: what is saved with the fleet is {estimate(ratio)} times what is saved alone"
        f"{_aim(fleet, 'at least', aims['ratio'])}",
        ratio,
        holds=ratio.value >= aims["ratio"] if fleet.aimed else None,
    )
    yield from _without_a_gate(found, fleet)


def _without_a_gate(found: _Found, fleet: FleetEntry) -> Iterator[Finding]:
    for method in GATED.values():
        shares = found.shares(fleet.setting, method, fleet.steps)
        worse = mean((shares > 1.0 + _WORSE).sum(axis=1).astype(float))
        yield _finding(
            f"{fleet.setting} worse {method}",
            f"{fleet.setting}: {method}, {estimate(worse)} of {fleet.agents} sites are worse than their given "
            f"policy, by up to {max(0.0, float(shares.max()) - 1.0):.1%}",
            worse,
            holds=None,
        )


def _of_queues(found: _Found, fleet: FleetEntry) -> Iterator[Finding]:
    setting, last = fleet.setting, fleet.steps
    for method in (JOINT, ALONE):
        shares = found.shares(setting, method, last)
        value = mean(shares.mean(axis=1))
        yield _finding(
            f"{setting} gain {method}",
            f"{setting}: {method}, the gain is {_share(value)} of the optimum{_aim(fleet, 'at least', 0.98)}",
            value,
            holds=value.value >= 0.98 if fleet.aimed and method == JOINT else None,
            sign=value.value > float(found.shares(setting, GIVEN, 0).mean()) if method == JOINT else None,
        )
        lost = Estimate(float((shares - found.shares(setting, GIVEN, 0)).min()))
        yield _finding(
            f"{setting} least {method}",
            f"{setting}: {method}, the queue that does worst has {shares.min():.3f} of its optimum, and the least "
            f"change from its given policy is {lost.value:+.3f}",
            lost,
            holds=lost.value >= 0.0 if fleet.aimed and method == JOINT else None,
        )


def _aim(fleet: FleetEntry, words: str, bound: float) -> str:
    return f" (aim: {words} {bound:g})" if fleet.aimed else ""


def _share(value: Estimate) -> str:
    if value.low is None or value.high is None:
        return f"{value.value:.4f}"
    return f"{value.value:.4f} ({value.low:.4f} to {value.high:.4f})"


def _of_headroom(plan: Plan, found: _Found, fleet: FleetEntry, method: str) -> Float[np.ndarray, " s"]:
    bounds = np.array(plan.options["foresight"])[: fleet.agents]
    there = np.flatnonzero(bounds <= HEADROOM)
    shares = found.shares(fleet.setting, method, fleet.steps)[:, there]
    return np.asarray(((1.0 - shares) / (1.0 - bounds[there])).mean(axis=1))


def _methods_table(plan: Plan, found: _Found) -> Table:
    rows = []
    for fleet in _fleets(plan):
        for method in METHODS:
            for step in (0,) if method == GIVEN else sorted({1, fleet.steps}):
                if not found.has(fleet.setting, method, step):
                    continue
                shares, is_cost = found.shares(fleet.setting, method, step), fleet.workload == "microgrids"
                worth = found.summed(fleet.setting, method, step) if is_cost else shares.mean(axis=1)
                worst, head = shares.max() if is_cost else shares.min(), ""
                if is_cost and step == fleet.steps:
                    head = estimate(mean(_of_headroom(plan, found, fleet, method)))
                rows.append((fleet.setting, method, str(step), _share(mean(worth)), f"{worst:.4f}", head))
    columns = ("", "policy", "steps made", "cost, or gain / optimum", "worst site of all runs", "of the headroom")
    return Table(
        columns, tuple(rows), "Cost as a share of the given policy's (microgrids), gain as one of the optimum"
    )


def _sites_table(plan: Plan, found: _Found, fleet: FleetEntry) -> Table:
    given = found.money(fleet.setting, GIVEN, 0)
    joint, alone = (found.money(fleet.setting, method, fleet.steps) for method in (JOINT, ALONE))
    shares = found.shares(fleet.setting, JOINT, fleet.steps).mean(axis=0)
    rows = [
        (
            str(site),
            f"{given[:, site].mean() * DAYS:,.0f}",
            f"{plan.options['foresight'][site]:.3f}",
            f"{shares[site]:.3f}",
            _money(mean((given - joint)[:, site] * DAYS)),
            _money(mean((given - alone)[:, site] * DAYS)),
        )
        for site in range(fleet.agents)
    ]
    columns = ("site", "cost a year", "foresight", "with the fleet", "saved a year", "saved a year, alone")
    return Table(columns, tuple(rows), f"In currency, {fleet.setting}, and as shares of the given policy's cost")


def _money(value: Estimate) -> str:
    if value.low is None or value.high is None:
        return f"{value.value:,.0f}"
    return f"{value.value:,.0f} ({value.low:,.0f} to {value.high:,.0f})"


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """The queues of all runs in ascending order, and the microgrids with headroom one by one."""
    left, right = figure.subplots(1, 2)
    found = _Found(points)
    _draw_queues(left, found, _fleets(plan, "queues")[0])
    _draw_sites(right, plan, found, _fleets(plan, "microgrids")[0])


def _draw_queues(axes: "Axes", found: _Found, fleet: FleetEntry) -> None:
    for method, colour in _COLOURS.items():
        shares = np.sort(found.shares(fleet.setting, method, 0 if method == GIVEN else fleet.steps), axis=None)
        axes.plot(np.linspace(0.0, 1.0, len(shares)), shares, color=colour, label=method)
    axes.set_ylim(0.0, 1.02)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    _title(axes, f"Gain as a share of the optimum, {fleet.setting}", "share of the queues of all runs")


def _draw_sites(axes: "Axes", plan: Plan, found: _Found, fleet: FleetEntry) -> None:
    bounds = np.array(plan.options["foresight"])[: fleet.agents]
    there = [site for site in np.argsort(bounds) if bounds[site] <= HEADROOM]
    places = np.arange(len(there))
    axes.scatter(places, bounds[there], marker="_", s=200, color="0.3", label="foresight of the day")
    styles = [
        (ALONE, ALONE, True),
        (JOINT, JOINT, True),
        (ALONE_UNGATED, ALONE, False),
        (JOINT_UNGATED, JOINT, False),
    ]
    for method, gated, is_filled in styles:
        costs = found.shares(fleet.setting, method, fleet.steps)[:, there].mean(axis=0)
        beside = places + (0.12 if gated == JOINT else -0.12)
        face = _COLOURS[gated] if is_filled else "none"
        axes.scatter(beside, costs, s=36, facecolors=face, edgecolors=_COLOURS[gated], label=method)
    axes.axhline(1.0, color="0.7", linewidth=1.0)
    axes.set_xticks(places, [str(site) for site in there])
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    _title(axes, f"Cost, times the given policy's, {fleet.setting}", "site")


def _title(axes: "Axes", title: str, below: str) -> None:
    """As `dress`, with a legend in place of names at the lines' ends."""
    axes.set_title(title, fontsize=10.5, fontweight="bold", loc="left")
    axes.set_xlabel(below)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
