"""What differential privacy costs: the error against ε, for fleets of several sizes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cospan.experiments.estimates import Estimate, mean
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.plots.axes import dress, log_scale
from cospan.experiments.plots.curves import draw_estimates
from cospan.experiments.plots.method_style import styles_of
from cospan.experiments.plots.tables import estimate
from cospan.experiments.private_fleet import ALONE, WITHOUT, PrivacyTask, name_of
from cospan.experiments.runner import Point, errors_of
from cospan.wire.privacy_budget import noise_multiplier

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def tasks(plan: Plan) -> list[PrivacyTask]:
    """One run for each number of agents and seed."""
    assert plan.steps_per_round is not None
    return [
        PrivacyTask(
            seed=seed,
            workload=plan.workload,
            agents=agents,
            rounds=plan.rounds,
            steps_per_round=plan.steps_per_round,
            epsilons=_epsilons(plan),
            delta=plan.options["delta"],
            bounds=plan.options["bounds"],
            setting=str(agents),
        )
        for agents in plan.settings
        for seed in plan.seeds
    ]


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """Whether a small fleet gains nothing and a large one nearly everything, and whether any loses."""
    aim, epsilon = plan.options["aim"], plan.options["aim"]["epsilon"]
    small, large = str(aim["small"]), str(aim["large"])
    nothing = _ratio(points, name_of(epsilon), ALONE, small)
    price = _ratio(points, name_of(epsilon), WITHOUT, large)
    worst = max(
        (_ratio(points, name_of(each), ALONE, str(agents)) for each in _epsilons(plan) for agents in plan.settings),
        key=lambda found: found.value,
    )
    return ExperimentOutcome(
        findings=(
            Finding(
                "small",
                f"with {small} agents and ε = {epsilon:g} the value error is {estimate(nothing)} times that of "
                f"LSTD alone (claimed: {aim['nothing']:g} or more, so nothing is gained)",
                nothing,
                holds=nothing.value >= aim["nothing"],
                sign=nothing.value >= 0.5,
            ),
            Finding(
                "large",
                f"with {large} agents and ε = {epsilon:g} it is {estimate(price)} times that of the same fleet "
                f"without noise and clip (claimed: at most {aim['price']:g})",
                price,
                holds=price.value <= aim["price"],
                sign=price.value <= plan.options["sign_price"],
            ),
            Finding(
                "harm",
                f"the largest ratio to LSTD alone, over all fleets and ε, is {estimate(worst)} (claimed: at most "
                f"{aim['harm']:g}: noise costs the gain of sharing, and no more)",
                worst,
                holds=worst.value <= aim["harm"],
                sign=worst.value <= 2.0,
            ),
        ),
        tables=(_errors(plan, points), _noise(plan)),
    )


def _epsilons(plan: Plan) -> tuple[float, ...]:
    return tuple(float(each) for each in plan.options["epsilons"])


def _ratio(points: Sequence[Point], of: str, to: str, setting: str) -> Estimate:
    ratios: Float[np.ndarray, " seeds"] = errors_of(points, of, setting) / errors_of(points, to, setting)
    return mean(ratios)


def _errors(plan: Plan, points: Sequence[Point]) -> Table:
    names = [ALONE, *(name_of(each) for each in _epsilons(plan)), WITHOUT]
    rows = tuple(
        (f"{agents:,}", *(estimate(mean(errors_of(points, name, str(agents)))) for name in names))
        for agents in plan.settings
    )
    return Table(("agents", *names), rows, "Value errors")


def _noise(plan: Plan) -> Table:
    """z of each ε, and the noise in the fleet's mean gradient, in entries, as a share of the clip's bound."""
    multipliers = [noise_multiplier(each, plan.options["delta"], plan.rounds) for each in _epsilons(plan)]
    rows = [("z", *(f"{z:.2f}" for z in multipliers))]
    rows += [(f"{agents:,} agents", *(f"{z / agents:.5f}" for z in multipliers)) for agents in plan.settings]
    title = (
        f"Noise multiplier z for δ = {plan.options['delta']:g} over {plan.rounds} rounds, and z / n, the deviation "
        "of the noise in each number of a mean over the fleet, in units of the clip's bound"
    )
    return Table(("", *(name_of(each) for each in _epsilons(plan))), tuple(rows), title)


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """The error against the size of the fleet by ε, and against ε by the size of the fleet."""
    left, right = figure.subplots(1, 2)
    counts = np.array(plan.settings, dtype=float)
    names = [ALONE, *(name_of(each) for each in _epsilons(plan)), WITHOUT]
    found = {name: [mean(errors_of(points, name, str(agents))) for agents in plan.settings] for name in names}
    values = [each.value for estimates in found.values() for each in estimates]
    low, high = 0.7 * min(values), 1.5 * max(values)
    for name, style in styles_of(names).items():
        draw_estimates(left, counts, found[name], style, name)
    _ticks(left, plan.settings)
    log_scale(left, low, high)
    dress(left, "Relative value error, median over agents; 95 % intervals", "agents")
    epsilons = np.array(_epsilons(plan))
    sizes = [f"{agents:,} agents" for agents in plan.settings]
    for place, (size, style) in enumerate(styles_of(sizes).items()):
        own = [found[name_of(each)][place] for each in _epsilons(plan)]
        draw_estimates(right, epsilons, own, style, size)
    _ticks(right, _epsilons(plan))
    log_scale(right, low, high)
    dress(right, f"The same against ε (δ = {plan.options['delta']:g}, {plan.rounds} rounds)", "ε")


def _ticks(axes: "Axes", values: Sequence[float]) -> None:
    """A logarithmic x axis with a tick at each value."""
    axes.set_xscale("log")
    axes.set_xticks(values, labels=[f"{value:,g}" for value in values])
    axes.minorticks_off()
