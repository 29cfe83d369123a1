"""A site that joins after the fleet has learnt its basis: it has r + 1 numbers left to learn."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cospan.client.environment.rollout import Chain
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.workload import Workload
from cospan.core.learning.learner import Trajectory
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.linalg.subspace import random_basis
from cospan.experiments.methods.catalogue import INDEPENDENT, JOINT, LSTD, ComparedMethod
from cospan.experiments.methods.compared_methods import (
    FleetMethod,
    IndependentFleet,
    JointFleet,
    LstdFleet,
    updated_sums,
)
from cospan.experiments.runner import Point, TaskResult, chains_of, references_of

NEW_SITE = "new site"
PLAIN = "joint, without the fleet's heads"
TD_STEPS = (0.3, 1.0, 3.0, 10.0, 30.0)
LSTD_DECAYS = (0.0, 0.5, 0.7)
LSTD_PRIORS = (3.0, 10.0, 30.0)
"""Constants that the newcomers' baselines; the best of all is compared with the joint method."""
TRACE_DECAY = 0.7
"""λ of a newcomer: with few data a longer trace pays."""


@dataclass(frozen=True, eq=False, slots=True)
class Newcomers:
    """Agents that begin with a fleet's basis, frozen, and learn r + 1 numbers each by least squares.

    Attributes:
        basis: B of the fleet, shape (d, r).
        second_moment: W̄ of the fleet's heads with rewards scaled, the prior of a head; the coordinator of a
            preconditioned run has it. None for no prior.
        agents: the transition sums of each, in the features.
    """

    basis: Float[np.ndarray, "d r"]
    second_moment: Float[np.ndarray, "r r"] | None
    agents: tuple[TransitionSums, ...]

    @classmethod
    def initial(cls, fleet: JointFleet, agents: int, *, with_prior: bool = True) -> "Newcomers":
        """Of n agents without data."""
        scaled = np.stack([state.head / max(state.rewards.variance, 1e-300) ** 0.5 for state in fleet.states])
        moment = scaled.T @ scaled / len(scaled) if with_prior else None
        return cls(fleet.basis, moment, (TransitionSums.of_features(len(fleet.basis)),) * agents)

    def learning_from(self, trajectories: Sequence[Trajectory]) -> "Newcomers":
        """One round."""
        return replace(self, agents=updated_sums(self.agents, trajectories, TRACE_DECAY))

    @property
    def weights(self) -> Float[np.ndarray, "1 n d"]:
        """B w."""
        heads = [agent.moved_to(self.basis).head(np.inf, second_moment=self.second_moment) for agent in self.agents]
        return np.asarray(np.stack(heads) @ self.basis.T)[None]

    @property
    def numbers_sent(self) -> int:
        """0: a frozen basis needs no upload."""
        return 0


@dataclass(frozen=True, slots=True)
class NewSiteTask:
    """Learns the basis on some sites, freezes it, and starts other sites with it.

    Attributes:
        seed: of the first basis, and of every site.
        workload: its name.
        fleet: indices of the sites that learn the basis.
        newcomers: indices of the new sites.
        rounds: of the fleet.
        horizons: rounds after which the newcomers' errors are measured.
        joint: the method of the fleet.
        rank: r; None for the workload's.
        setting: of the experiment.
    """

    seed: int
    workload: str
    fleet: tuple[int, ...]
    newcomers: tuple[int, ...]
    rounds: int
    horizons: tuple[int, ...]
    joint: ComparedMethod
    rank: int | None = None
    setting: str = NEW_SITE

    @property
    def agents(self) -> int:
        """Of the fleet."""
        return len(self.fleet)

    def run(self, on_round: Callable[[int], None] = lambda _: None) -> TaskResult:
        """Runs in this process; there are points for each newcomer."""
        workload = load_workload(self.workload)
        chains = self._chains(workload, self.fleet)
        dim = make_site(workload, self.fleet[0], self.seed).features.dim
        start = random_basis(dim, self.rank or workload.rank, np.random.default_rng(self.seed))
        (method,) = self.joint.methods(workload.steps_per_round)
        fleet = JointFleet.initial(method, start, len(chains))
        for number in range(1, self.rounds + 1):
            fleet = fleet.learning_from(_advanced(chains, workload))
            on_round(number)
        return TaskResult(self, tuple(self._first_rounds(workload, fleet)))

    def _chains(self, workload: Workload, indices: Sequence[int]) -> list[Chain]:
        return chains_of(((index, make_site(workload, index, self.seed)) for index in indices), self.seed)

    def _first_rounds(self, workload: Workload, fleet: JointFleet) -> Iterator[Point]:
        count, dim, constants = len(self.newcomers), len(fleet.basis), fleet.method
        fleets: dict[str, FleetMethod] = {
            JOINT: Newcomers.initial(fleet, count),
            PLAIN: Newcomers.initial(fleet, count, with_prior=False),
        }
        for step in TD_STEPS:
            fleets[f"{INDEPENDENT}, step {step:g}"] = IndependentFleet.initial(
                constants, dim, count, step_sizes=(step,)
            )
        for decay, prior in itertools.product(LSTD_DECAYS, LSTD_PRIORS):
            fleets[f"{LSTD}, λ = {decay:g}, ridge {prior:g}"] = LstdFleet.initial(
                dim, count, trace_decay=decay, prior_steps=prior
            )
        chains = self._chains(workload, self.newcomers)
        references = references_of([make_site(workload, k, self.seed) for k in self.newcomers], workload.name)
        for number in range(1, max(self.horizons) + 1):
            trajectories = _advanced(chains, workload)
            for name, before in fleets.items():
                fleets[name] = after = before.learning_from(trajectories)
                if number in self.horizons:
                    for place, (agent, reference) in enumerate(zip(self.newcomers, references, strict=True)):
                        yield Point(
                            setting=self.setting,
                            method=name,
                            seed=self.seed,
                            agent=agent,
                            rounds=number,
                            steps=number * workload.steps_per_round,
                            sent=0,
                            value_error=float(reference.value_errors(after.weights[:, place])[0]),
                        )


def _advanced(chains: Sequence[Chain], workload: Workload) -> list[Trajectory]:
    return [chain.advance(workload.steps_per_round) for chain in chains]
