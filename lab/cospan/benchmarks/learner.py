"""Transitions per second of one agent's inner loop on one core, against straightforward numpy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.benchmarks.tools.paired_timing import Turns, in_turns
from cospan.benchmarks.tools.report import SHAPE_COLUMNS, Cell, Column, Report, Row, interval_cells
from cospan.client.environment.rollout import source_of
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.learning.site_learner import SiteLearner
from cospan.core.aggregation.basis_update import initial_head_covariance
from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import PRESETS
from cospan.core.specification import RunSpecification

STEPS = (1, 20, 1000)
SHAPES = ((20, 3), (44, 2), (1024, 16))
NOTES = (
    "transitions/s on one core; L: steps a round: with 1 every step is taken alone, with more a batch at once.",
    "agent: environment, features and learner, without network; world: environment and features.",
    "learner: the mathematics of a round on given transitions; plain: TD(0) step by step in straightforward "
    "numpy; ratio: learner / plain.",
)
COLUMNS = (
    Column("workload", "workload"),
    Column("preset", "preset"),
    *SHAPE_COLUMNS,
    Column("steps_per_round", "L", "d"),
    Column("agent_per_second", "agent", ",.0f"),
    Column("world_per_second", "world", ",.0f"),
    Column("learner_per_second", "learner", ",.0f"),
    Column("plain_per_second", "plain", ",.0f"),
    Column("learner_to_plain", "ratio", ".2f"),
)
_READY = "none"


@dataclass(frozen=True, slots=True)
class Case:
    """A workload, or random transitions of a shape; how the agent learns; and L."""

    workload: str
    preset: str
    steps: int
    shape: tuple[int, int] = (0, 0)


def cases(steps: Sequence[int] = STEPS, shapes: Sequence[tuple[int, int]] = SHAPES) -> tuple[Case, ...]:
    """The built-in workloads under every preset, and each shape under the one that suits any d."""
    named = [Case(name, preset, each) for name in ("queues", "synthetic") for preset in PRESETS for each in steps]
    return (*named, *(Case(_READY, "compact", each, shape) for shape in shapes for each in steps))


def benchmark(chosen: Sequence[Case], seconds: float, say: Callable[[str], None]) -> Report:
    """Measures each case for about `seconds`."""
    rows = []
    for case in chosen:
        say(f"{case.workload}, {case.preset}, L = {case.steps}")
        rows.append(_ready(case, seconds) if case.workload == _READY else _of_workload(case, seconds))
    return Report("learner", NOTES, COLUMNS, tuple(rows))


def plain_td(
    basis: Float[np.ndarray, "d r"], trajectory: Trajectory, head_step: float = 0.1, gain_step: float = 0.01
) -> tuple[Float[np.ndarray, " r"], float, Float[np.ndarray, "d r"]]:
    """The reference: w, η and G after L steps of TD(0) from w = 0, η = 0, one step after the other."""
    head, gain, gradient = np.zeros(basis.shape[1]), 0.0, np.zeros(basis.shape)
    for before, after, reward in zip(
        trajectory.features[:-1], trajectory.features[1:], trajectory.rewards, strict=True
    ):
        coordinates = basis.T @ before
        error = reward - gain + (basis.T @ after - coordinates) @ head
        gradient += error * np.outer(before, head)
        head = head + head_step * error * coordinates
        gain += gain_step * (reward - gain)
    return head, gain, gradient


def _of_workload(case: Case, seconds: float) -> Row:
    workload = load_workload(case.workload)
    site = make_site(workload, 0, 0)
    method = PRESETS[case.preset](case.steps)
    spec = RunSpecification(case.workload, site.features.dim, workload.rank, 1, 0, 0, method)
    learner = SiteLearner(site, spec, name="agent", index=0, with_baseline=False)
    chain = source_of(make_site(workload, 1, 0), name="world", index=1, seed=0)
    ready = source_of(make_site(workload, 2, 0), name="ready", index=2, seed=0).advance(case.steps)
    basis = random_basis(spec.feature_dim, spec.rank, np.random.default_rng(0))
    covariance = initial_head_covariance(method, spec.rank)
    state = learn_round(LearnerState.initial(spec.rank), basis, ready, method, head_covariance=covariance).state
    turns = in_turns(
        (
            lambda: plain_td(basis, ready),
            lambda: learn_round(state, basis, ready, method, head_covariance=covariance),
            lambda: chain.advance(case.steps),
            lambda: learner.learn(learner.rounds, basis, covariance),
        ),
        rounds=3,
        seconds=seconds,
    )
    own = {"agent_per_second": case.steps / turns.median(3), "world_per_second": case.steps / turns.median(2)}
    return _row(case, (spec.feature_dim, spec.rank), turns, own)


def _ready(case: Case, seconds: float) -> Row:
    d, r = case.shape
    rng = np.random.default_rng(0)
    features = rng.standard_normal((case.steps + 1, d)) / (2.0 * np.sqrt(d))
    ready = Trajectory(features, rng.standard_normal(case.steps))
    method, basis = PRESETS[case.preset](case.steps), random_basis(d, r, rng)
    covariance = initial_head_covariance(method, r)
    state = learn_round(LearnerState.initial(r), basis, ready, method, head_covariance=covariance).state
    ways = (
        lambda: plain_td(basis, ready),
        lambda: learn_round(state, basis, ready, method, head_covariance=covariance),
    )
    none = {"agent_per_second": None, "world_per_second": None}
    return _row(case, case.shape, in_turns(ways, rounds=3, seconds=seconds), none)


def _row(case: Case, shape: tuple[int, int], turns: Turns, own: dict[str, float] | dict[str, None]) -> Row:
    named: dict[str, Cell] = {"workload": case.workload, "preset": case.preset, "feature_dim": shape[0]}
    return {
        **named,
        "rank": shape[1],
        "steps_per_round": case.steps,
        **own,
        "learner_per_second": case.steps / turns.median(1),
        "plain_per_second": case.steps / turns.median(0),
        **interval_cells("learner_to_plain", "ratio", turns.ratio(0, 1)),
        "rounds": len(turns.seconds),
    }
