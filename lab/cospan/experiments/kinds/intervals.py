"""Intervals of values and of the gain: how often they hold the true number, by workload and amount of data."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict

from cospan.experiments.estimates import Estimate, mean
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.interval_coverage import GAIN, LEVELS, ONE, PAIRS, POSTERIOR, CoverageTask, name_of
from cospan.experiments.plots.axes import COLOURS, dress
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import Point

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 0.9
"""Of the intervals that the aim is about."""


class FleetEntry(BaseModel):
    """One of `[options.fleets]`.

    Attributes:
        workload: its name.
        agents: n.
        rounds: after which intervals are asked for, ascending.
        data: the same in the unit of the data, in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    workload: str
    agents: int
    rounds: list[int]
    data: list[str]


def _fleets(plan: Plan) -> list[FleetEntry]:
    return [FleetEntry.model_validate(each) for each in plan.options["fleets"]]


def _rows(plan: Plan) -> Iterator[tuple[str, str, int]]:
    """Workload, the words for workload and amount of data, and the rounds."""
    for fleet in _fleets(plan):
        for rounds, data in zip(fleet.rounds, fleet.data, strict=True):
            yield fleet.workload, f"{fleet.workload} after {data}", rounds


def tasks(plan: Plan) -> list[CoverageTask]:
    """One run for each workload and seed."""
    return [
        CoverageTask(seed, fleet.workload, fleet.agents, tuple(fleet.rounds), fleet.workload)
        for fleet in _fleets(plan)
        for seed in plan.seeds
    ]


class _Found:
    """The points by setting, method and rounds."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points: dict[tuple[str, str, int], list[Point]] = {}
        for point in points:
            self._points.setdefault((point.setting, point.method, point.rounds), []).append(point)

    def numbers(self, setting: str, kind: str, level: float, rounds: int, column: str) -> Float[np.ndarray, "s n"]:
        """A column of the points, by seed and agent."""
        runs: dict[int, list[float]] = {}
        for point in self._points[setting, name_of(kind, level), rounds]:
            runs.setdefault(point.seed, []).append(float(getattr(point, column)))
        return np.array(list(runs.values()))

    def coverage(self, setting: str, kind: str, level: float, rounds: int) -> Estimate:
        """Over the agents, averaged over the runs."""
        return mean(self.numbers(setting, kind, level, rounds, "coverage").mean(axis=1))

    def of_sites(self, setting: str, rounds: int) -> Float[np.ndarray, " n"]:
        """The coverage of each site's pairs, averaged over the runs."""
        return np.asarray(self.numbers(setting, PAIRS, LEVEL, rounds, "coverage").mean(axis=0))


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """Whether intervals of 90 % hold the true number as often as they say, and tables."""
    found = _Found(points)
    findings = tuple(
        each for kind in (PAIRS, GAIN) for row in _rows(plan) for each in _findings(plan, found, kind, row)
    )
    return ExperimentOutcome(findings, (_levels_table(plan, found), _parts_table(plan, found)))


def _findings(plan: Plan, found: _Found, kind: str, row: tuple[str, str, int]) -> Iterator[Finding]:
    (setting, words, rounds), (low, high) = row, plan.options["aim"]
    coverage = found.coverage(setting, kind, LEVEL, rounds)
    yield Finding(
        f"{kind} {words}".replace(" ", "-"),
        f"{words}, 90 % intervals of {'the gain' if kind == GAIN else kind} hold the true number in "
        f"{estimate(coverage)} of the cases (aim {low:g} to {high:g})",
        coverage,
        holds=low <= coverage.value <= high,
        sign=coverage.value >= plan.options["least"],
    )


def _levels_table(plan: Plan, found: _Found) -> Table:
    rows = tuple(
        (words, *(f"{found.coverage(setting, PAIRS, level, rounds).value:.3f}" for level in LEVELS))
        for setting, words, rounds in _rows(plan)
    )
    return Table(
        ("", *(f"{level:.0%}" for level in LEVELS)), rows, "Share of the intervals of V(a) − V(b) that hold it"
    )


def _parts_table(plan: Plan, found: _Found) -> Table:
    rows = []
    for setting, words, rounds in _rows(plan):
        sites = found.of_sites(setting, rounds)
        kinds = (found.coverage(setting, kind, LEVEL, rounds).value for kind in (POSTERIOR, PAIRS, ONE, GAIN))
        width = np.median(found.numbers(setting, PAIRS, LEVEL, rounds, "half_width"))
        rows.append((words, *(f"{each:.3f}" for each in kinds), f"{sites.min():.2f}", f"{width:.2f}"))
    columns = ("", f"{POSTERIOR}: {PAIRS}", PAIRS, ONE, GAIN, "least of the sites", "half width, × sd of V")
    return Table(columns, tuple(rows), "Intervals of 90 %")


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """What the intervals hold against what they say, and the sites one by one."""
    left, right = figure.subplots(1, 2)
    found = _Found(points)
    for number, (setting, words, rounds) in enumerate(_rows(plan)):
        colour = COLOURS[number % len(COLOURS)]
        held = [found.coverage(setting, PAIRS, level, rounds).value for level in LEVELS]
        left.plot(LEVELS, held, "o-", color=colour, label=words)
        sites = np.sort(found.of_sites(setting, rounds))
        right.plot(np.linspace(0.0, 1.0, len(sites)), sites, "o-", color=colour, markersize=3)
    left.plot([0.45, 1.0], [0.45, 1.0], color="0.3", linewidth=1.0)
    dress(left, "Share of intervals that hold the true V(a) − V(b)", "what they say")
    left.legend(frameon=False, fontsize=8)
    low, high = plan.options["aim"]
    right.axhspan(low, high, color="0.92")
    right.axhline(LEVEL, color="0.3", linewidth=1.0)
    dress(right, "The same of each site at 90 %, averaged over the seeds", "share of the sites")
