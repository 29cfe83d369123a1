"""The value of one fixed start state over training, as in the paper's first experiment."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cospan.client.environment.workload_loader import load_workload
from cospan.client.workloads.acrobot import start_features
from cospan.experiments.estimates import Estimate, mean
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.methods.catalogue import JOINT, TD_ALONE
from cospan.experiments.plots.axes import dress
from cospan.experiments.plots.curves import Curve, learning_curve, settles
from cospan.experiments.plots.method_style import styles_of
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import Point, Task, errors_of, method_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNIFORM = "FedTD-Uniform"
TOLERANCE = 0.05


def tasks(plan: Plan) -> list[Task]:
    """One run for each seed."""
    return [plan.task(seed, each_agent=True, probe=start_features, stops=200) for seed in plan.seeds]


def limits(plan: Plan) -> list[float]:
    """The start state's value under the TD(0) fixed point of each agent: what TD alone converges to."""
    workload = load_workload(plan.workload)
    sites = [workload.make_site(index, 0) for index in range(plan.agents)]
    return [
        float(site.reference.weights @ start_features(index))
        for index, site in enumerate(sites)
        if site.reference is not None
    ]


def samples(points: Sequence[Point], method: str, seed: int, agent: int, limit: float) -> float:
    """Steps from which on the value stays within 5 % of the limit; inf for never."""
    own = learning_curve(points, method, seed, agent)
    return settles([_off(point, limit) <= TOLERANCE for point in own], [point.steps for point in own])


def _last(points: Sequence[Point], method: str, seed: int, agent: int) -> Point:
    return learning_curve(points, method, seed, agent)[-1]


def _off(point: Point, limit: float) -> float:
    value = point.probed_value
    return abs(value - limit) / abs(limit) if value is not None and np.isfinite(value) else np.inf


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """For how many agents the joint method is sooner within 5 %, and where uniform averaging ends."""
    true = limits(plan)
    agents = range(plan.agents)
    sooner, farther = [], []
    for seed in plan.seeds:
        sooner.append(
            sum(
                samples(points, JOINT, seed, k, true[k]) < samples(points, TD_ALONE, seed, k, true[k])
                for k in agents
            )
        )
        farther.append(
            sum(
                _off(_last(points, UNIFORM, seed, k), true[k]) > _off(_last(points, JOINT, seed, k), true[k])
                for k in agents
            )
        )
    fewest, near = min(sooner), min(farther)
    errors = errors_of(points, JOINT) / errors_of(points, TD_ALONE)
    return ExperimentOutcome(
        findings=(
            Finding(
                "sooner",
                f"joint stays within 5 % of TD alone's limit in fewer samples for {_each(sooner)} of "
                f"{plan.agents} agents (at least 4 in every seed)",
                Estimate(float(fewest)),
                holds=fewest >= 4,
            ),
            Finding(
                "uniform",
                f"FedTD-Uniform ends farther from it than joint for {_each(farther)} of {plan.agents} agents",
                Estimate(float(near)),
                holds=2 * near > plan.agents,
            ),
            Finding(
                "value-error",
                f"over all states joint ends with {estimate(mean(errors))} times TD alone's value error",
                mean(errors),
                sign=float(errors.mean()) < 1.0,
            ),
        ),
        tables=(_samples_table(points, plan, true), _ends_table(points, plan, true)),
    )


def _each(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts))


def _samples_table(points: Sequence[Point], plan: Plan, true: Sequence[float]) -> Table:
    rows = []
    for method in method_names(points):
        middle = [
            float(np.median([samples(points, method, seed, k, true[k]) for seed in plan.seeds]))
            for k in range(plan.agents)
        ]
        rows.append((method, *(f"{each / 1000:.1f}" if np.isfinite(each) else "never" for each in middle)))
    columns = ("", *(f"agent {k}" for k in range(plan.agents)))
    return Table(columns, tuple(rows), "Thousand steps until V(start) stays within 5 %, median over seeds")


def _ends_table(points: Sequence[Point], plan: Plan, true: Sequence[float]) -> Table:
    rows = []
    for method in method_names(points):
        off = [
            100.0 * float(np.mean([_off(_last(points, method, seed, k), true[k]) for seed in plan.seeds]))
            for k in range(plan.agents)
        ]
        rows.append((method, *(f"{each:.1f} %" for each in off), estimate(mean(errors_of(points, method)))))
    columns = ("", *(f"agent {k}" for k in range(plan.agents)), "value error")
    return Table(columns, tuple(rows), "How far V(start) is off at the end, mean over seeds")


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """One panel for each agent: V(start) over samples, thin for each seed, and the 5 % band about the limit."""
    true = limits(plan)
    panels = figure.subplots(2, 3, sharex=True).flat
    for agent, axes in zip(range(plan.agents), panels, strict=False):
        band = sorted((true[agent] * (1.0 - TOLERANCE), true[agent] * (1.0 + TOLERANCE)))
        axes.axhspan(band[0], band[1], color="0.88")
        for method, style in styles_of((JOINT, TD_ALONE, UNIFORM)).items():
            runs = [learning_curve(points, method, seed, agent) for seed in plan.seeds]
            values = [[math.nan if (v := point.probed_value) is None else v for point in run] for run in runs]
            thousands = np.array([point.steps / 1000 for point in runs[0]])
            Curve.over(values).draw(axes, thousands, style, method if agent % 3 == 2 else "_")
        axes.set_ylim(1.6 * true[agent], 0.0)
        dress(axes, f"agent {agent}: V(start)", "thousand steps" if agent >= 3 else "")
