"""Fleets whose agents send with differential privacy: the joint method on noisy sums."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cospan.client.environment.ownership import close_site
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.core.aggregation.basis_update import Contribution, next_basis
from cospan.core.exact_solutions import ReferenceSolution
from cospan.core.learning.learner import contribution_of, learn_round
from cospan.core.learning.learner_state import LearnerState, RoundOutcome, Trajectory
from cospan.core.learning.schedules import Refresh
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.method import practical
from cospan.core.privacy.clipping import Bounds
from cospan.core.privacy.mechanism import Mechanism
from cospan.core.privacy.repair import limited, repaired
from cospan.core.privacy.word_source import SeededWords, WordSource
from cospan.core.secure_sums.fixed_point import decode
from cospan.core.secure_sums.layout import layout_of
from cospan.core.specification import RunSpecification
from cospan.core.uncertainty.evidence import evidence_gradient, influence
from cospan.experiments.methods.compared_methods import LstdFleet
from cospan.experiments.runner import WHOLE_FLEET, Point, TaskResult, chains_of, references_of
from cospan.wire.privacy_budget import Budget

WITHOUT, ALONE = "no privacy", "LSTD alone"
_NOISE_TAG = 0x6E6F6973  # "nois": keeps these draws apart from others of the same seed


def name_of(epsilon: float) -> str:
    """The name of the fleet with this ε."""
    return f"ε = {epsilon:g}"


@dataclass(frozen=True, eq=False, slots=True)
class Privacy:
    """How agents send.

    Attributes:
        bounds: of the clip.
        multiplier: z.
        source: of the noise.
    """

    bounds: Bounds
    multiplier: float
    source: WordSource


@dataclass(frozen=True, eq=False, slots=True)
class PosteriorFleet:
    """The joint method with the preset `practical`, all agents at once.

    Attributes:
        specification: of the run.
        basis: B_t, shape (d, r).
        head_covariance: W_t, shape (r, r).
        state: of the agents, with a leading axis.
        weights: their value weights, shape (n, d).
        privacy: None where the coordinator gets the sums as they are.
        step_memory: see `cospan.core.aggregation.basis_update.BasisMove`.
        round: t.
    """

    specification: RunSpecification
    basis: Float[np.ndarray, "d r"]
    head_covariance: Float[np.ndarray, "r r"]
    state: LearnerState
    weights: Float[np.ndarray, "n d"]
    privacy: Privacy | None = None
    step_memory: Float[np.ndarray, " m"] | None = None
    round: int = 0

    @classmethod
    def initial(cls, specification: RunSpecification, privacy: Privacy | None = None) -> "PosteriorFleet":
        """Before the first round."""
        agents, rank = specification.agents, specification.rank
        return cls(
            specification,
            specification.initial_basis(),
            np.eye(rank),
            LearnerState.initial(rank, agents),
            np.zeros((agents, specification.feature_dim)),
            privacy,
        )

    def learning_from(self, trajectory: Trajectory) -> "PosteriorFleet":
        """One round; the trajectory has a leading axis."""
        method, spec = self.specification.method, self.specification
        outcome = learn_round(
            self.state,
            self.basis,
            trajectory,
            method,
            self.round,
            head_covariance=self.head_covariance,
            agents=spec.agents,
            refresh=Refresh.NOW if self.round == spec.rounds - 1 else Refresh.WHEN_POOLED,
        )
        move = next_basis(
            self.basis,
            [self._total(outcome)],
            method,
            self.round,
            self.step_memory,
            head_covariance=self.head_covariance,
        )
        if self.privacy is not None:
            move = limited(move, self._mechanism(self.privacy).deviations_of_sum(spec.agents), spec.agents)
        assert move.head_covariance is not None
        return replace(
            self,
            basis=move.basis,
            head_covariance=move.head_covariance,
            step_memory=move.step_memory,
            state=outcome.state,
            weights=outcome.weights,
            round=self.round + 1,
        )

    def _total(self, outcome: RoundOutcome) -> Contribution:
        """What the coordinator gets of a round."""
        method, agents = self.specification.method, self.specification.agents
        if self.privacy is None:
            return contribution_of(outcome, method, self.round)
        mechanism = self._mechanism(self.privacy)
        sent = mechanism.sent(self.uploads(outcome), self.privacy.source)
        return repaired(decode(sent, mechanism.layout), method, mechanism.deviations_of_sum(agents))

    def _mechanism(self, privacy: Privacy) -> Mechanism:
        """Of this round; all agents are honest."""
        spec = self.specification
        return Mechanism(layout_of(spec, self.round), spec.method, privacy.bounds, privacy.multiplier, spec.agents)

    def uploads(self, outcome: RoundOutcome) -> list[Contribution]:
        """What each agent would send; an outcome of all has the sum of the gradients alone."""
        posterior = outcome.state.posterior
        assert posterior is not None
        gradients, _ = evidence_gradient(posterior, self.basis, self.head_covariance)
        gradients = gradients * np.asarray(influence(posterior.shared_weight))[:, None, None]
        sends = self.specification.method.sends_pooled_in(self.round)
        return [
            Contribution(
                DenseMatrix(gradient), pooled=outcome.pooled[k] if sends and outcome.pooled is not None else None
            )
            for k, gradient in enumerate(gradients)
        ]


@dataclass(frozen=True, slots=True)
class PrivacyTask:
    """A fleet with several ε, without noise, and alone, on the same transitions.

    Attributes:
        seed: of the first basis, of every site and of the noise.
        workload: its name.
        agents: n.
        rounds: T, all of the budget.
        steps_per_round: L.
        epsilons: ε of the fleets.
        delta: δ of all.
        bounds: of the clip, by the names of its fields.
        setting: of the experiment.
    """

    seed: int
    workload: str
    agents: int
    rounds: int
    steps_per_round: int
    epsilons: tuple[float, ...]
    delta: float
    bounds: Mapping[str, float]
    setting: str

    def run(self, on_round: Callable[[int], None] = lambda _: None) -> TaskResult:
        """Runs in this process; one point for each fleet, after the last round."""
        workload = load_workload(self.workload)
        sites = [make_site(workload, index, self.seed) for index in range(self.agents)]
        try:
            references = references_of(sites, workload.name)
            chains = chains_of(enumerate(sites), self.seed)
            dim = sites[0].features.dim
            alone, fleets = LstdFleet.initial(dim, self.agents), self.fleets(dim, workload.rank)
            for number in range(1, self.rounds + 1):
                trajectories = [chain.advance(self.steps_per_round) for chain in chains]
                alone = alone.learning_from(trajectories)
                stacked = Trajectory(
                    np.stack([each.features for each in trajectories]),
                    np.stack([each.rewards for each in trajectories]),
                )
                fleets = {name: fleet.learning_from(stacked) for name, fleet in fleets.items()}
                on_round(number)
            weights = {ALONE: alone.weights, **{name: fleet.weights[None] for name, fleet in fleets.items()}}
            points = tuple(self._points(weights, references))
        finally:
            for site in sites:
                close_site(site)
        return TaskResult(self, points)

    def fleets(self, dim: int, rank: int) -> dict[str, PosteriorFleet]:
        """The fleets before their first round, by name."""
        specification = RunSpecification(
            workload=self.workload,
            feature_dim=dim,
            rank=rank,
            agents=self.agents,
            rounds=self.rounds,
            seed=self.seed,
            method=practical(self.steps_per_round),
        )
        found = {WITHOUT: PosteriorFleet.initial(specification)}
        for place, epsilon in enumerate(self.epsilons):
            multiplier = Budget.of(epsilon, self.delta, self.rounds).multiplier
            source = SeededWords(np.random.SeedSequence((self.seed, self.agents, place, _NOISE_TAG)))
            privacy = Privacy(Bounds(**self.bounds), multiplier, source)
            found[name_of(epsilon)] = PosteriorFleet.initial(specification, privacy)
        return found

    def _points(
        self, weights: Mapping[str, Float[np.ndarray, "m n d"]], references: Sequence[ReferenceSolution]
    ) -> Iterator[Point]:
        for name, each in weights.items():
            errors = np.stack([reference.value_errors(each[:, k]) for k, reference in enumerate(references)])
            yield Point(
                setting=self.setting,
                method=name,
                seed=self.seed,
                agent=WHOLE_FLEET,
                rounds=self.rounds,
                steps=self.rounds * self.steps_per_round,
                sent=0,
                value_error=float(np.median(errors, axis=0).min()),
            )
