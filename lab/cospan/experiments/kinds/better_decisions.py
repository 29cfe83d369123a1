"""Policies made from learnt values: what they save, with the fleet and alone, with the gate and without."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict

from cospan.client.workloads.models.microgrids import load_site
from cospan.experiments.decisions.schedule import ALONE, ALONE_UNGATED, GIVEN, JOINT, JOINT_UNGATED, Schedule
from cospan.experiments.decisions.tasks import BetterDecisionsTask
from cospan.experiments.estimates import Estimate, mean, resampled
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
"""Cost above the given policy's, as a share of it, from which on a policy counts as worse; below it, as better."""


class FleetEntry(BaseModel):
    """One of `[options.fleets]`: a setting, its `Schedule`, the aims that are about it, how many seeds it has."""

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
    aims: tuple[str, ...] = ()  # of options.aims
    shown: bool = False  # whether it is the one that site by site is told of
    seeds: int | None = None  # all of the plan

    @property
    def schedule(self) -> Schedule:
        """Of its tasks."""
        return Schedule(self.steps, self.evaluation, self.trial, self.rounds, self.later_rounds, self.rank)

    @property
    def days(self) -> int:
        """Blocks of all steps."""
        return self.schedule.blocks


def _fleets(plan: Plan, workload: str | None = None) -> list[FleetEntry]:
    entries = [FleetEntry.model_validate(each) for each in plan.options["fleets"]]
    return [each for each in entries if workload in (None, each.workload)]


def _shown(plan: Plan) -> FleetEntry:
    fleets = _fleets(plan, "microgrids")
    return next((each for each in fleets if each.shown), fleets[0])


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
        cost, given = (self._normalised(setting, *each) for each in ((method, step), (GIVEN, 0)))
        return np.asarray(cost.sum(axis=1) / given.sum(axis=1))

    def summed_bound(self, setting: str, bounds: Float[np.ndarray, " n"]) -> float:
        """Of costs that are these shares of the given policy's, the same sum; the mean over the runs."""
        given = self._normalised(setting, GIVEN, 0)
        return float(np.mean(given @ bounds / given.sum(axis=1)))

    def _normalised(self, setting: str, method: str, step: int) -> Float[np.ndarray, "s n"]:
        cost = self.money(setting, method, step)
        return np.asarray(cost / [load_site(index)[0].mean_load for index in range(cost.shape[1])])


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """What is saved, whether no agent gets worse, and what sharing adds."""
    found = _Found(points)
    findings: list[Finding] = []
    for fleet in _fleets(plan):
        findings += (
            _of_microgrids(plan, found, fleet) if fleet.workload == "microgrids" else _of_queues(plan, found, fleet)
        )
    tables = (_microgrids_table(plan, found), _queues_table(plan, found), _sites_table(plan, found))
    return ExperimentOutcome(tuple(findings), tables)


def _finding(name: str, text: str, value: Estimate, *, holds: bool | None, sign: bool | None = None) -> Finding:
    return Finding(name.replace(" ", "-").replace(",", ""), text, value, holds=holds, sign=sign)


def _of_microgrids(plan: Plan, found: _Found, fleet: FleetEntry) -> Iterator[Finding]:
    """Cost and what sharing adds of every fleet, the others of those that are to reach them."""
    setting, aims = fleet.setting, _Aims(plan, fleet)
    cost = mean(found.summed(setting, JOINT, fleet.steps))
    yield _finding(
        f"{setting} cost",
        f"{setting}: with the fleet the summed cost is {_share(cost)} times the given policy's"
        f"{aims.told('cost', 'at most')}",
        cost,
        holds=aims.at_most("cost", cost),
        sign=cost.value < 1.0,
    )
    if "headroom" in fleet.aims:
        share = mean(_of_headroom(plan, found, fleet, JOINT))
        yield _finding(
            f"{setting} headroom",
            f"{setting}: {_share(share)} of what foresight of the day could save is saved, on average over the "
            f"sites where that is 3 % or more{aims.told('headroom', 'at least')}",
            share,
            holds=aims.at_least("headroom", share),
        )
    if "worst" in fleet.aims:
        worst = Estimate(float(found.shares(setting, JOINT, fleet.steps).max()))
        yield _finding(
            f"{setting} worst site",
            f"{setting}: the site that does worst in any run has {worst.value:.4f} times the cost of its given "
            f"policy{aims.told('worst', 'at most')}",
            worst,
            holds=aims.at_most("worst", worst),
        )
    ratio = _against_alone(found, fleet, JOINT)
    yield _finding(
        f"{setting} with the fleet against alone",
        f"{setting}: what is saved with the fleet is {estimate(ratio)} times what is saved alone"
        f"{aims.told('ratio', 'at least')}",
        ratio,
        holds=aims.at_least("ratio", ratio),
    )


class _Aims:
    """Those that are about one fleet, of all in `options.aims`."""

    def __init__(self, plan: Plan, fleet: FleetEntry) -> None:
        self._bounds = {name: float(plan.options["aims"][name]) for name in fleet.aims}

    def told(self, name: str, words: str) -> str:
        """As a finding ends with it; empty where it is not aimed at."""
        return f" (aim: {words} {self._bounds[name]:g})" if name in self._bounds else ""

    def at_most(self, name: str, value: Estimate) -> bool | None:
        """Whether it is reached; None where it is not aimed at."""
        return value.value <= self._bounds[name] if name in self._bounds else None

    def at_least(self, name: str, value: Estimate) -> bool | None:
        """Whether it is reached; None where it is not aimed at."""
        return value.value >= self._bounds[name] if name in self._bounds else None


def _against_alone(found: _Found, fleet: FleetEntry, method: str) -> Estimate:
    """What is saved with the fleet, over what the same gate or none saves alone.

    Of sums over the runs, and not the mean of each run's ratio: where a run alone saves next to nothing, its ratio
    would be all that counts.
    """
    alone = {joint: own for own, joint in ((ALONE, JOINT), (ALONE_UNGATED, JOINT_UNGATED))}[method]
    saved = [1.0 - found.summed(fleet.setting, each, fleet.steps) for each in (method, alone)]
    return resampled(lambda joint, own: float(joint / max(own, 1e-9)), *saved)


def _of_queues(plan: Plan, found: _Found, fleet: FleetEntry) -> Iterator[Finding]:
    setting, last, aims = fleet.setting, fleet.steps, _Aims(plan, fleet)
    for method in (JOINT, ALONE):
        shares = found.shares(setting, method, last)
        value = mean(shares.mean(axis=1))
        yield _finding(
            f"{setting} gain {method}",
            f"{setting}: {method}, the gain is {_share(value)} of the optimum{aims.told('gain', 'at least')}",
            value,
            holds=aims.at_least("gain", value) if method == JOINT else None,
            sign=value.value > float(found.shares(setting, GIVEN, 0).mean()) if method == JOINT else None,
        )
        lost = Estimate(float((shares - found.shares(setting, GIVEN, 0)).min()))
        yield _finding(
            f"{setting} least {method}",
            f"{setting}: {method}, the queue that does worst has {shares.min():.3f} of its optimum, and the least "
            f"change from its given policy is {lost.value:+.3f}",
            lost,
            holds=aims.at_least("change", lost) if method == JOINT else None,
        )


def _share(value: Estimate) -> str:
    if value.low is None or value.high is None:
        return f"{value.value:.4f}"
    return f"{value.value:.4f} ({value.low:.4f} to {value.high:.4f})"


def _of_headroom(plan: Plan, found: _Found, fleet: FleetEntry, method: str) -> Float[np.ndarray, " s"]:
    bounds = np.array(plan.options["foresight"])[: fleet.agents]
    there = np.flatnonzero(bounds <= HEADROOM)
    shares = found.shares(fleet.setting, method, fleet.steps)[:, there]
    return np.asarray(((1.0 - shares) / (1.0 - bounds[there])).mean(axis=1))


def _microgrids_table(plan: Plan, found: _Found) -> Table:
    rows = []
    for fleet in _fleets(plan, "microgrids"):
        for method in METHODS[1:]:
            shares = found.shares(fleet.setting, method, fleet.steps)
            is_joint = method in (JOINT, JOINT_UNGATED)
            rows.append(
                (
                    fleet.setting,
                    method,
                    _share(mean(found.summed(fleet.setting, method, fleet.steps))),
                    f"{shares.max():.4f}",
                    f"{(shares < 1.0 - _WORSE).sum(axis=1).mean():.1f}",
                    f"{(shares > 1.0 + _WORSE).sum(axis=1).mean():.1f}",
                    estimate(mean(_of_headroom(plan, found, fleet, method))),
                    estimate(_against_alone(found, fleet, method)) if is_joint else "",
                )
            )
    sites = ("worst site", "sites better", "sites worse")
    columns = ("", "policy", "cost", *sites, "of the headroom", "saved, times alone")
    return Table(
        columns,
        tuple(rows),
        "Microgrids; costs as shares of the given policy's, the worst of all runs, sites in a run",
    )


def _queues_table(plan: Plan, found: _Found) -> Table:
    rows = []
    for fleet in _fleets(plan, "queues"):
        for method in METHODS:
            for step in (0,) if method == GIVEN else sorted({1, fleet.steps}):
                shares = found.shares(fleet.setting, method, step)
                gain = _share(mean(shares.mean(axis=1)))
                rows.append((fleet.setting, method, str(step), gain, f"{shares.min():.4f}"))
    columns = ("", "policy", "steps made", "gain / optimum", "worst queue of all runs")
    return Table(columns, tuple(rows), "Queues; gains as shares of the optimum")


def _sites_table(plan: Plan, found: _Found) -> Table:
    shown = _shown(plan)
    several = [each for each in _fleets(plan, "microgrids") if each.steps == shown.steps]
    given = found.money(shown.setting, GIVEN, 0)
    joint, alone = (found.money(shown.setting, method, shown.steps) for method in (JOINT, ALONE))
    shares = [found.shares(each.setting, JOINT, each.steps).mean(axis=0) for each in several]
    rows = [
        (
            str(site),
            f"{given[:, site].mean() * DAYS:,.0f}",
            f"{plan.options['foresight'][site]:.3f}",
            *(f"{each[site]:.3f}" for each in shares),
            _money(mean((given - joint)[:, site] * DAYS)),
            _money(mean((given - alone)[:, site] * DAYS)),
        )
        for site in range(shown.agents)
    ]
    names = tuple(each.setting.partition(", ")[2] for each in several)
    columns = ("site", "cost a year", "foresight", *names, "saved a year", "saved a year, alone")
    return Table(
        columns,
        tuple(rows),
        f"With the fleet, gated, as shares of the given policy's cost, and in currency ({shown.setting})",
    )


def _money(value: Estimate) -> str:
    if value.low is None or value.high is None:
        return f"{value.value:,.0f}"
    return f"{value.value:,.0f} ({value.low:,.0f} to {value.high:,.0f})"


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """What is saved by days, the microgrids with headroom one by one, and all queues in ascending order."""
    days, sites, queues = figure.subplots(1, 3)
    found = _Found(points)
    _draw_days(days, plan, found)
    _draw_sites(sites, plan, found, _shown(plan))
    _draw_queues(queues, found, _fleets(plan, "queues")[0])


_STYLES = ((ALONE, ALONE, True), (JOINT, JOINT, True), (ALONE_UNGATED, ALONE, False), (JOINT_UNGATED, JOINT, False))
"""Of each method, the one whose colour it has, and whether it is filled."""


def _draw_days(axes: "Axes", plan: Plan, found: _Found) -> None:
    fleets = sorted(_fleets(plan, "microgrids"), key=lambda fleet: fleet.days)
    days = [fleet.days for fleet in fleets]
    for method, gated, is_filled in _STYLES:
        saved = [100.0 * (1.0 - found.summed(fleet.setting, method, fleet.steps)) for fleet in fleets]
        colour = _COLOURS[gated]
        axes.plot(
            days,
            [each.mean() for each in saved],
            color=colour,
            linestyle="-" if is_filled else "--",
            marker="o",
            markersize=5,
            markerfacecolor=colour if is_filled else "none",
            label=method,
        )
        for day, each in zip(days, saved, strict=True):
            axes.plot([day, day], [each.min(), each.max()], color=colour, linewidth=0.8, alpha=0.5)
    last = fleets[-1]
    bound = found.summed_bound(last.setting, np.array(plan.options["foresight"])[: last.agents])
    axes.axhline(100.0 * (1.0 - bound), color="0.3", linewidth=1.0, label="foresight of the day")
    axes.set_xscale("log")
    axes.set_xticks(days, [str(each) for each in days])
    axes.minorticks_off()
    axes.tick_params(axis="x", labelsize=8)
    axes.axhline(0.0, color="0.7", linewidth=1.0)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    _title(axes, "Saved, % of the summed cost", "days of each microgrid")


def _draw_queues(axes: "Axes", found: _Found, fleet: FleetEntry) -> None:
    for method, colour in _COLOURS.items():
        shares = np.sort(found.shares(fleet.setting, method, 0 if method == GIVEN else fleet.steps), axis=None)
        axes.plot(np.linspace(0.0, 1.0, len(shares)), shares, color=colour, label=method)
    axes.set_ylim(0.0, 1.02)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    _title(axes, "Gain, times the optimum", f"share of all runs' {fleet.setting}")


def _draw_sites(axes: "Axes", plan: Plan, found: _Found, fleet: FleetEntry) -> None:
    bounds = np.array(plan.options["foresight"])[: fleet.agents]
    there = [site for site in np.argsort(bounds) if bounds[site] <= HEADROOM]
    places = np.arange(len(there))
    axes.scatter(places, bounds[there], marker="_", s=200, color="0.3", label="foresight of the day")
    for method, gated, is_filled in _STYLES:
        costs = found.shares(fleet.setting, method, fleet.steps)[:, there].mean(axis=0)
        beside = places + (0.12 if gated == JOINT else -0.12)
        face = _COLOURS[gated] if is_filled else "none"
        axes.scatter(beside, costs, s=36, facecolors=face, edgecolors=_COLOURS[gated], label=method)
    axes.axhline(1.0, color="0.7", linewidth=1.0)
    axes.set_xticks(places, [str(site) for site in there])
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    _title(axes, "Cost, times the given policy's", f"site; {fleet.setting}")


def _title(axes: "Axes", title: str, below: str) -> None:
    """As `dress`, with a legend in place of names at the lines' ends."""
    axes.set_title(title, fontsize=10.5, fontweight="bold", loc="left")
    axes.set_xlabel(below)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
