"""A site that joins after the fleet has learnt: what others know is its prior."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.step_source import StepSource
from cospan.client.workload import Workload
from cospan.core.learning.learner_state import Trajectory
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.linalg.subspace import random_basis
from cospan.experiments.methods.catalogue import ComparedMethod, Stage
from cospan.experiments.methods.compared_methods import FleetMethod, JointFleet, updated_sums
from cospan.experiments.runner import Point, TaskResult, chains_of, references_of

VARIANT = " · "
"""Between the name of a method and the number of its variant."""
TRACE_DECAY = 0.7
"""λ of a newcomer that learns a head by least squares: with few data a longer trace pays."""


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


def newcomers_of(fleet: JointFleet, agents: int) -> FleetMethod:
    """New agents with what the fleet has learnt, frozen: B and W as the prior of a posterior, else B for a head."""
    if fleet.head_covariance is None:
        return Newcomers.initial(fleet, agents)
    frozen = replace(fleet.method, basis_step=0.0)
    begun = JointFleet.initial(frozen, fleet.basis, agents)
    return replace(begun, head_covariance=fleet.head_covariance, prior_of=len(fleet.states))


@dataclass(frozen=True, slots=True)
class NewSiteTask:
    """Learns on some sites, freezes what the fleet knows, and starts other sites with it.

    Attributes:
        seed: of the first basis, and of every site.
        workload: its name.
        fleet: indices of the sites that learn first.
        newcomers: indices of the new sites.
        rounds: of the fleet.
        horizons: rounds after which the newcomers' errors are measured.
        methods: joint ones, whose fleets are the newcomers' prior; the others are each newcomer alone.
        rank: r; None for the workload's.
        setting: of the experiment.
    """

    seed: int
    workload: str
    fleet: tuple[int, ...]
    newcomers: tuple[int, ...]
    rounds: int
    horizons: tuple[int, ...]
    methods: tuple[ComparedMethod, ...]
    rank: int | None = None
    setting: str = ""

    @property
    def agents(self) -> int:
        """Of the fleet."""
        return len(self.fleet)

    def run(self, on_round: Callable[[int], None] = lambda _: None) -> TaskResult:
        """Runs in this process; there are points for each newcomer, and for each variant of a method."""
        workload = load_workload(self.workload)
        chains = self._chains(workload, self.fleet)
        dim = make_site(workload, self.fleet[0], self.seed).features.dim
        basis = random_basis(dim, self.rank or workload.rank, np.random.default_rng(self.seed))
        fleets = {
            each.name: JointFleet.initial(each.methods(workload.steps_per_round)[0], basis, len(chains))
            for each in self.methods
            if each.kind == "joint"
        }
        for number in range(1, self.rounds + 1):
            trajectories = _advanced(chains, workload)
            fleets = {name: fleet.learning_from(trajectories) for name, fleet in fleets.items()}
            on_round(number)
        count = len(self.newcomers)
        stage = Stage(count, basis, workload.steps_per_round)
        begun: dict[str, list[FleetMethod]] = {
            each.name: [newcomers_of(fleets[each.name], count)] if each.name in fleets else each.fleets(stage)
            for each in self.methods
        }
        return TaskResult(self, tuple(self._first_rounds(workload, begun)))

    def _chains(self, workload: Workload, indices: Sequence[int]) -> list[StepSource]:
        return chains_of(((index, make_site(workload, index, self.seed)) for index in indices), self.seed)

    def _first_rounds(self, workload: Workload, methods: dict[str, list[FleetMethod]]) -> Iterator[Point]:
        chains = self._chains(workload, self.newcomers)
        references = references_of([make_site(workload, k, self.seed) for k in self.newcomers], workload.name)
        for number in range(1, max(self.horizons) + 1):
            trajectories = _advanced(chains, workload)
            methods = {
                name: [each.learning_from(trajectories) for each in variants] for name, variants in methods.items()
            }
            for name, variants in methods.items() if number in self.horizons else ():
                weights = np.concatenate([each.weights for each in variants])
                for place, (agent, reference) in enumerate(zip(self.newcomers, references, strict=True)):
                    for variant, error in enumerate(reference.value_errors(weights[:, place])):
                        yield Point(
                            setting=self.setting,
                            method=name if len(weights) == 1 else f"{name}{VARIANT}{variant}",
                            seed=self.seed,
                            agent=agent,
                            rounds=number,
                            steps=number * workload.steps_per_round,
                            sent=0,
                            value_error=float(error),
                        )


def _advanced(chains: Sequence[StepSource], workload: Workload) -> list[Trajectory]:
    return [chain.advance(workload.steps_per_round) for chain in chains]
