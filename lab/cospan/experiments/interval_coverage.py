"""How often intervals of values and of the gain hold the true number: what an agent of a fleet would be told."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.client.environment.ownership import close_site
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.core.exact_solutions import ReferenceSolution
from cospan.core.history.feature_rows import dense
from cospan.core.learning.learner_state import LearnerState
from cospan.core.learning.reward_moments import RewardBatches
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import practical
from cospan.core.statistics import normal_quantile
from cospan.core.uncertainty.value_covariance import ValueSpread, value_spread
from cospan.experiments.methods.compared_methods import JointFleet
from cospan.experiments.runner import Point, TaskResult, chains_of, references_of

PAIRS, ONE, POSTERIOR, GAIN = "V(a) − V(b)", "V(a) − mean", "posterior alone", "gain"
"""What is asked; the third is the first with the covariance of the posterior, as if basis and prior were known."""
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
_QUESTIONS = 100
"""Pairs of visited states of each agent."""
_QUESTION_SEED = 77
_SEPARATOR = " at "


def name_of(kind: str, level: float) -> str:
    """The name of a method in the points: what is asked, and the coverage."""
    return f"{kind}{_SEPARATOR}{level:.0%}"


@dataclass(frozen=True, slots=True)
class CoverageTask:
    """A fleet that learns with `practical`, and intervals of all its agents after some numbers of rounds.

    Attributes:
        seed: of the first basis, and of every site.
        workload: its name.
        agents: n.
        horizons: rounds after which intervals are asked for, ascending.
        setting: of the experiment.
    """

    seed: int
    workload: str
    agents: int
    horizons: tuple[int, ...]
    setting: str

    @property
    def rounds(self) -> int:
        """Of the fleet."""
        return self.horizons[-1]

    def run(self, on_round: Callable[[int], None] = lambda _: None) -> TaskResult:
        """Runs in this process; there are points for each agent."""
        workload = load_workload(self.workload)
        sites = [make_site(workload, index, self.seed) for index in range(self.agents)]
        try:
            references, steps = references_of(sites, workload.name), workload.steps_per_round
            chains = chains_of(enumerate(sites), self.seed)
            basis = random_basis(sites[0].features.dim, workload.rank, np.random.default_rng(self.seed))
            fleet = JointFleet.initial(practical(steps), basis, self.agents)
            batches = [RewardBatches.initial()] * self.agents
            points: list[Point] = []
            for number in range(1, self.rounds + 1):
                trajectories = [chain.advance(steps) for chain in chains]
                fleet = fleet.learning_from(trajectories)
                batches = [each.updated(t.rewards) for each, t in zip(batches, trajectories, strict=True)]
                if number in self.horizons:
                    points += self._points(number, steps, fleet.states, references, batches)
                on_round(number)
        finally:
            for site in sites:
                close_site(site)
        return TaskResult(self, tuple(points))

    def _points(
        self,
        number: int,
        steps: int,
        states: Sequence[LearnerState],
        references: Sequence[ReferenceSolution],
        batches: Sequence[RewardBatches],
    ) -> Iterator[Point]:
        for agent, (state, reference, own) in enumerate(zip(states, references, batches, strict=True)):
            assert state.posterior is not None
            error = reference.value_error(state.posterior.weights)
            rng = np.random.default_rng([_QUESTION_SEED, self.seed, agent])
            for (kind, level), (coverage, width) in _answers(state, reference, own, steps, rng):
                yield Point(
                    setting=self.setting,
                    method=name_of(kind, level),
                    seed=self.seed,
                    agent=agent,
                    rounds=number,
                    steps=number * steps,
                    sent=0,
                    value_error=error,
                    coverage=coverage,
                    half_width=width,
                )


def _answers(
    state: LearnerState,
    reference: ReferenceSolution,
    batches: RewardBatches,
    steps: int,
    rng: np.random.Generator,
) -> Iterator[tuple[tuple[str, float], tuple[float, float]]]:
    """Of each kind and level the share of intervals that hold the true number, and half their width."""
    posterior, spread = state.posterior, value_spread(state)
    assert posterior is not None
    assert spread is not None
    visited = np.concatenate([dense(each)[:-1] for each in posterior.features])
    left, right = (visited[rng.integers(len(visited), size=_QUESTIONS)] for _ in range(2))
    differs = np.any(left != right, axis=1)  # of a state to itself there is nothing to ask
    pairs, wrong = (left - right)[differs], posterior.weights - reference.weights
    deviation = float(np.sqrt(reference.weights @ reference.covariance @ reference.weights))
    plain = value_spread(state, contamination=0.0, correlated=False)
    assert plain is not None
    asked: list[tuple[str, ValueSpread, Float[np.ndarray, "m d"]]] = [
        (PAIRS, spread, pairs),
        (ONE, spread, left - spread.visited),
        (POSTERIOR, plain, pairs),
    ]
    for kind, known, differences in asked:
        errors, deviations = np.abs(differences @ wrong), known.deviations(differences)
        for level in LEVELS:
            z = normal_quantile(level)
            width = z * float(np.median(deviations)) / deviation
            yield (kind, level), (float(np.mean(errors <= z * deviations)), width)
    off = abs(float(state.rewards.mean) - reference.gain)
    for level in LEVELS:
        half = float(batches.half_width(steps, level))
        yield (GAIN, level), (float(off <= half), half / float(np.sqrt(state.rewards.variance)))
