"""Control by actor-critics (E3, E4): alone, with a shared trunk over gRPC, and with everything shared."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cospan.experiments.estimates import Estimate, mean
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, Table
from cospan.experiments.plots.axes import dress
from cospan.experiments.plots.curves import Curve
from cospan.experiments.plots.method_style import styles_of
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import WHOLE_FLEET, Point, TaskResult, method_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARED_TRUNK, ALONE, UNIFORM = "PMAAR-AC", "SingleAC", "FedAC-Uniform"
_SHARES = {SHARED_TRUNK: "trunk", ALONE: "nothing", UNIFORM: "everything"}
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
"""As with BLAS: the runs are side by side, and the matrices are small. JAX reads it when it is imported."""
_LAST = 3
"""Judgements that are averaged: one is of a few episodes."""
_AGENTS_NEEDED = 4
_QUARTILES = (25.0, 75.0)
"""Percentiles of the bands."""


@dataclass(frozen=True, slots=True)
class ControlTask:
    """One method with one seed; see `cospan.experiments.runner.RunnableTask`.

    Attributes:
        seed: of the run.
        setting: the method's name.
        rounds: of L steps each.
        steps_per_round: L.
        environment: its name.
        physics: (length, gravity, mirrored) of each agent.
        constants: of the learning rule.
        final_step: share of the first steps that the last round takes.
        judgements: how often policies are judged.
        episodes: of one judgement.
        sign: 1 where longer episodes are better, −1 where shorter ones are.
    """

    seed: int
    setting: str
    rounds: int
    steps_per_round: int
    environment: str
    physics: tuple[tuple[float, float, float], ...]
    constants: tuple[tuple[str, float], ...]
    final_step: float
    judgements: int
    episodes: int
    sign: float

    @property
    def agents(self) -> int:
        """n."""
        return len(self.physics)

    def run(self, on_round: Callable[[int], None] = lambda _: None) -> TaskResult:
        """Runs in this process, with a coordinator and its agents where something is shared."""
        os.environ.setdefault("XLA_FLAGS", _ONE_THREAD)
        from cospan.experiments.control.fleet import FleetPlan, Shares, run_fleet

        plan = FleetPlan(
            task=self.environment,
            physics=self.physics,
            shares=Shares(_SHARES[self.setting]),
            constants=dict(self.constants),
            final_step=self.final_step,
            rounds=self.rounds,
            steps_per_round=self.steps_per_round,
            judgements=self.judgements,
            episodes=self.episodes,
            seed=self.seed,
        )
        found = run_fleet(plan, on_round)
        points = [
            Point(
                setting="",
                method=self.setting,
                seed=self.seed,
                agent=each.agent,
                rounds=each.rounds,
                steps=each.rounds * self.steps_per_round,
                sent=found.sent * each.rounds,
                value_error=math.nan,
                gain=each.gain,
                episode_return=self.sign * each.episode_steps,
            )
            for each in found.judgements
        ]
        return TaskResult(self, (*_of_fleet(points), *points), {self.setting: found.basis_sha256})


def _of_fleet(points: Sequence[Point]) -> list[Point]:
    """The medians over the agents, by round."""
    found = []
    for rounds in sorted({point.rounds for point in points}):
        own = [point for point in points if point.rounds == rounds]
        gain = float(np.median([point.gain for point in own if point.gain is not None]))
        length = float(np.median([point.episode_return for point in own if point.episode_return is not None]))
        found.append(replace(own[0], agent=WHOLE_FLEET, gain=gain, episode_return=length))
    return found


def tasks(plan: Plan) -> list[ControlTask]:
    """One for each seed and method."""
    options = plan.options
    return [
        ControlTask(
            seed=seed,
            setting=method,
            rounds=plan.rounds,
            steps_per_round=plan.steps_per_round or 50,
            environment=plan.workload,
            physics=tuple((each[0], each[1], each[2]) for each in options["physics"][: plan.agents]),
            constants=tuple(sorted({**options["constants"], **_steps_of(options["steps"][method])}.items())),
            final_step=options["steps"][method].get("final_step", 1.0),
            judgements=options["judgements"],
            episodes=options["episodes"],
            sign=1.0 if options["longer_is_better"] else -1.0,
        )
        for seed in plan.seeds
        for method in options["steps"]
    ]


def _steps_of(method: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in method.items() if name != "final_step"}


# Results ------------------------------------------------------------------------------------------------------

Reading = Callable[[Point], float | None]
"""What is read off a point."""


def _gain(point: Point) -> float | None:
    return point.gain


def _return(point: Point) -> float | None:
    return point.episode_return


def curves_of(points: Sequence[Point], method: str, read: Reading) -> Float[np.ndarray, "seeds agents judgements"]:
    """Every agent's curve of every seed."""
    own = [point for point in points if point.method == method and point.agent != WHOLE_FLEET]
    found = {(point.seed, point.agent, point.rounds): read(point) for point in own}
    seeds, agents, rounds = (sorted(set(each)) for each in zip(*found, strict=True))
    return np.array([[[found[s, k, t] for t in rounds] for k in agents] for s in seeds], dtype=np.float64)


def smooth(curve: Float[np.ndarray, "*n m"]) -> Float[np.ndarray, "*n m"]:
    """Each point's mean with up to two before it."""
    sums = np.cumsum(np.concatenate([np.zeros((*curve.shape[:-1], 1)), curve], axis=-1), axis=-1)
    ends = np.arange(1, curve.shape[-1] + 1)
    begins = np.maximum(ends - _LAST, 0)
    return np.asarray((sums[..., ends] - sums[..., begins]) / (ends - begins))


def first_at(curve: Float[np.ndarray, " m"], level: float, steps: Sequence[int]) -> float:
    """The first of the steps at which a curve is at a level or above; inf for never."""
    reached = np.flatnonzero(curve >= level)
    return float(steps[reached[0]]) if len(reached) else math.inf


@dataclass(frozen=True, eq=False, slots=True)
class Reached:
    """When each agent is where SingleAC ends; steps, inf for never.

    Attributes:
        shared: with the shared trunk.
        alone: SingleAC itself.
        uniform: with everything shared.
    """

    shared: tuple[float, ...]
    alone: tuple[float, ...]
    uniform: tuple[float, ...]

    @property
    def sooner(self) -> int:
        """For how many agents the shared trunk is there in fewer steps."""
        return sum(with_fleet < own for with_fleet, own in zip(self.shared, self.alone, strict=True))


def reached(points: Sequence[Point], read: Reading, share: float = 1.0) -> Reached:
    """By the smoothed mean over the seeds.

    Args:
        points: of all methods.
        read: what is read off them.
        share: of SingleAC's way from its first judgement to its end.
    """
    steps = sorted({point.steps for point in points})
    curves = {method: smooth(curves_of(points, method, read).mean(axis=0)) for method in _SHARES}
    levels = curves[ALONE][:, 0] + share * (curves[ALONE][:, -1] - curves[ALONE][:, 0])
    times = {
        method: tuple(first_at(curve, level, steps) for curve, level in zip(found, levels, strict=True))
        for method, found in curves.items()
    }
    return Reached(times[SHARED_TRUNK], times[ALONE], times[UNIFORM])


def outcome(plan: Plan, points: Sequence[Point]) -> ExperimentOutcome:
    """For how many agents the shared trunk is sooner where SingleAC ends, and where all end."""
    by_gain, by_return = reached(points, _gain), reached(points, _return)
    half = reached(points, _return, 0.5)
    ends = {method: smooth(curves_of(points, method, _return))[..., -1] for method in _SHARES}
    above = {method: int((ends[SHARED_TRUNK].mean(axis=0) > ends[method].mean(axis=0)).sum()) for method in ends}
    narrower = int((np.ptp(ends[SHARED_TRUNK], axis=0) < np.ptp(ends[ALONE], axis=0)).sum())
    gained = mean((ends[SHARED_TRUNK] - ends[ALONE]).mean(axis=1))
    sooner = f"{SHARED_TRUNK} reaches the {{}} that {ALONE} ends at in fewer samples"
    higher = f"{SHARED_TRUNK} ends with a higher episode return than {{}}"
    spread = f"the range of its returns over the seeds at the end is smaller than {ALONE}'s"
    below_uniform = _count(plan, "uniform", higher.format(UNIFORM), above[UNIFORM])
    if plan.options.get("sign_at_any_size", False):
        areas = {method: curves_of(points, method, _gain).mean() for method in _SHARES}
        below_uniform = replace(below_uniform, sign=bool(areas[SHARED_TRUNK] > areas[UNIFORM]))
    return ExperimentOutcome(
        findings=(
            _count(plan, "sooner-gain", sooner.format("J"), by_gain.sooner),
            _count(plan, "sooner-return", sooner.format("episode return"), by_return.sooner),
            Finding(
                "half-sooner",
                f"it has gone half of {ALONE}'s way to that episode return in fewer samples for {half.sooner} of "
                f"{plan.agents} agents",
                Estimate(float(half.sooner)),
            ),
            _count(plan, "higher", higher.format(ALONE), above[ALONE]),
            _count(plan, "narrower", spread, narrower),
            below_uniform,
            Finding(
                "gained",
                f"at the end its episode return minus {ALONE}'s is {estimate(gained)}, mean over the agents",
                gained,
            ),
        ),
        tables=(
            _samples_table(f"to the J that {ALONE} ends at", by_gain),
            _samples_table(f"to the episode return that {ALONE} ends at", by_return),
            _samples_table(f"for half of {ALONE}'s way to that episode return", half),
            _ends_table(points, "Episode return at the end, mean over seeds", _return, "{:.0f}"),
            _ends_table(points, "J at the end, rewards per 1,000 steps, mean over seeds", _gain, "{:.2f}", 1000.0),
        ),
    )


def _count(plan: Plan, name: str, text: str, agents: int) -> Finding:
    least = min(_AGENTS_NEEDED, plan.agents)
    sentence = f"{text} for {agents} of {plan.agents} agents (at least {least})"
    return Finding(name, sentence, Estimate(float(agents)), holds=agents >= least)


def _samples_table(way: str, found: Reached) -> Table:
    rows = [
        (method, *(f"{each / 1000:.1f}" if np.isfinite(each) else "never" for each in times))
        for method, times in ((SHARED_TRUNK, found.shared), (ALONE, found.alone), (UNIFORM, found.uniform))
    ]
    columns = ("", *(f"agent {k}" for k in range(len(found.alone))))
    return Table(columns, tuple(rows), f"Thousand steps {way}")


def _ends_table(points: Sequence[Point], title: str, read: Reading, form: str, scale: float = 1.0) -> Table:
    rows = []
    for method in method_names(points):
        ends = scale * smooth(curves_of(points, method, read))[..., -1]
        rows.append((method, *(form.format(each) for each in ends.mean(axis=0)), form.format(ends.mean())))
    columns = ("", *(f"agent {k}" for k in range(len(rows[0]) - 2)), "mean")
    return Table(columns, tuple(rows), title)


def draw(figure: "Figure", plan: Plan, points: Sequence[Point]) -> None:
    """J and episode return over samples: median and quartiles over agents and seeds."""
    left, right = figure.subplots(1, 2)
    thousands = np.array(sorted({point.steps for point in points})) / 1000.0
    runs = f"median and quartiles of {plan.agents} agents × {len(plan.seeds)} seeds"
    for axes, read, scale, title in (
        (left, _gain, 1000.0, "J, rewards per 1,000 steps"),
        (right, _return, 1.0, "Episode return"),
    ):
        for method, style in styles_of(method_names(points)).items():
            found = scale * curves_of(points, method, read)
            flat = found.reshape(-1, found.shape[-1])
            low, high = np.percentile(flat, _QUARTILES, axis=0)
            Curve(np.median(flat, axis=0), low, high).draw(axes, thousands, style, method if axes is right else "_")
        axes.set_xlim(left=0.0)
        dress(axes, title, f"thousand steps of an agent\n({runs})")
