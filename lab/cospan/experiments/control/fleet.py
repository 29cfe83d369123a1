"""Six agents and one of three methods: alone, with a shared trunk, or with everything shared.

What is shared goes through a real coordinator over gRPC, one stream for each agent;
`cospan.core.linalg.parameter_chart` says how weights become a basis.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from cospan.client.agent import default_agent_id
from cospan.client.gradient_agent import GradientAgent
from cospan.core.linalg.parameter_chart import ParameterChart
from cospan.core.method import paper
from cospan.core.specification import RunSpecification, basis_digest
from cospan.experiments.control.actor_critic import (
    HIDDEN,
    Constants,
    Learner,
    Trunk,
    Weights,
    initial_learner,
    initial_weights,
    judge,
    learn_round,
)
from cospan.experiments.control.environments import ACROBOT, CARTPOLE, Physics
from cospan.server import Coordinator
from cospan.wire.errors import InvalidValueError

TASKS = {"CartPole": CARTPOLE, "Acrobot": ACROBOT}
SCALE = 10.0
"""c of the parameter chart: about the norm of the first weights."""
_START_SECONDS = 120.0


class Shares(Enum):
    """Which weights the agents share."""

    NOTHING = "nothing"
    TRUNK = "trunk"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """One run of one method.

    Attributes:
        task: name of the environment.
        physics: (length, gravity, mirrored) of each agent.
        shares: what the agents share.
        constants: of the learning rule.
        final_step: the steps of trunk and heads fall linearly over the run to this share of the first ones.
        rounds: of L steps each.
        steps_per_round: L.
        judgements: how often each agent's policy is judged, evenly spaced, the last time at the end.
        episodes: that a judgement plays.
        seed: of the first weights and of every agent.
    """

    task: str
    physics: tuple[tuple[float, float, float], ...]
    shares: Shares
    constants: dict[str, float]
    final_step: float
    rounds: int
    steps_per_round: int
    judgements: int
    episodes: int
    seed: int

    @property
    def judged(self) -> frozenset[int]:
        """Numbers of closed rounds after which policies are judged."""
        spaced = np.linspace(self.rounds / self.judgements, self.rounds, self.judgements)
        return frozenset(int(number) for number in spaced.round())


@dataclass(frozen=True, slots=True)
class Judgement:
    """A policy after a number of rounds.

    Attributes:
        agent: index.
        rounds: that have closed.
        gain: mean reward per step.
        episode_steps: mean steps of an episode.
    """

    agent: int
    rounds: int
    gain: float
    episode_steps: float


class ControlAgent:
    """One agent; a `cospan.client.gradient_agent.GradientSource` where it shares something."""

    def __init__(self, plan: FleetPlan, index: int) -> None:
        """Makes the agent with its first weights, which are those of all agents of the seed.

        Raises:
            InvalidValueError: there is no such environment, or no such constant.
        """
        if plan.task not in TASKS:
            raise InvalidValueError(f"there is no environment {plan.task!r}; take one of {', '.join(TASKS)}")
        unknown = sorted(set(plan.constants) - set(Constants._fields))
        if unknown:
            raise InvalidValueError(
                f"there is no constant {unknown[0]!r}; take some of {', '.join(Constants._fields)}"
            )
        self.judgements: list[Judgement] = []
        self.rounds = 0
        self._plan, self._index, self._task = plan, index, TASKS[plan.task]
        self._constants = Constants(**plan.constants)
        self._physics = Physics(*(jnp.float32(value) for value in plan.physics[index]))
        weights_key, agents_key = jax.random.split(jax.random.key(plan.seed))
        own, self._judge_key = jax.random.split(jax.random.fold_in(agents_key, index))
        weights = initial_weights(weights_key, self._task)
        self._learner: Learner = initial_learner(own, self._task, self._physics, weights)
        self._origin, self._restored = _flat(self._shared(weights))
        self._chart: ParameterChart | None = None

    @property
    def weights(self) -> Weights:
        """What it has learnt."""
        return self._learner.weights

    @property
    def parameters(self) -> Float[np.ndarray, " p"]:
        """The shared weights as one vector, float64."""
        return _flat(self._shared(self._learner.weights))[0]

    # As a source of gradients -------------------------------------------------------------------------------------

    @property
    def feature_dim(self) -> int:
        """One more than the shared weights."""
        return len(self._origin) + 1

    @property
    def fingerprint(self) -> str:
        """Of the network and what of it is shared."""
        return f"{self._task.name}-{HIDDEN}x{HIDDEN}-{self._plan.shares.value}-{self._plan.seed}"

    def begin(self, specification: RunSpecification) -> None:
        """The first basis stands for the first weights."""
        self._chart = ParameterChart(self._origin, specification.initial_basis(), SCALE)

    def gradient(self, round_number: int, basis: Float[np.ndarray, "d 1"]) -> Float[np.ndarray, "d 1"]:
        """Learns a round from the shared weights of the basis; how far they moved here, as a gradient."""
        assert self._chart is not None
        before = self._chart.parameters(basis)
        self.take(before)
        self.judge_after(round_number)
        self.learn()
        return self._chart.gradient(before, self.parameters - before)

    def finish(self, basis: Float[np.ndarray, "d 1"]) -> None:
        """Takes the last shared weights, and is judged with them."""
        assert self._chart is not None
        self.take(self._chart.parameters(basis))
        self.judge_after(self._plan.rounds)

    # Learning -----------------------------------------------------------------------------------------------------

    def learn(self) -> None:
        """Takes L steps and learns from them."""
        share = 1.0 - (1.0 - self._plan.final_step) * self.rounds / self._plan.rounds
        constants = self._constants._replace(
            trunk_step=share * self._constants.trunk_step, head_step=share * self._constants.head_step
        )
        self._learner = learn_round(
            self._task, self._learner, self._physics, constants, steps=self._plan.steps_per_round
        )
        self.rounds += 1

    def judge_after(self, rounds: int) -> None:
        """Judges the policy if it is due; every method with the same random numbers."""
        if rounds not in self._plan.judged:
            return
        key = jax.random.fold_in(self._judge_key, rounds)
        gain, steps = judge(self._task, self._learner.weights, self._physics, key, episodes=self._plan.episodes)
        self.judgements.append(Judgement(self._index, rounds, float(gain), float(steps)))

    def _shared(self, weights: Weights) -> Weights | Trunk:
        return weights if self._plan.shares is Shares.EVERYTHING else weights.trunk

    def take(self, parameters: Float[np.ndarray, " p"]) -> None:
        """Replaces its shared weights."""
        shared = self._restored(parameters)
        weights = shared if isinstance(shared, Weights) else self._learner.weights._replace(trunk=shared)
        self._learner = self._learner._replace(weights=weights)


def _flat(
    tree: Weights | Trunk,
) -> tuple[Float[np.ndarray, " p"], Callable[[Float[np.ndarray, " p"]], Weights | Trunk]]:
    """The numbers of a pytree in float64, and the way back to float32."""
    flat, restore = ravel_pytree(tree)
    return np.asarray(flat, dtype=np.float64), lambda numbers: restore(jnp.asarray(numbers, dtype=jnp.float32))


@dataclass(frozen=True, slots=True)
class FleetOutcome:
    """What a run comes to.

    Attributes:
        judgements: of all agents, by agent and round.
        basis_sha256: of the last basis; empty where nothing is shared.
        sent: bytes that an agent has sent and received in a round, without what frames them.
    """

    judgements: tuple[Judgement, ...]
    basis_sha256: str
    sent: int


def run_fleet(
    plan: FleetPlan,
    on_round: Callable[[int], None] = lambda _: None,
    *,
    agents: Sequence[ControlAgent] | None = None,
) -> FleetOutcome:
    """Runs all agents of a method to the end.

    Args:
        plan: of the run.
        on_round: called with the number of closed rounds, after each.
        agents: of the plan, which have learnt nothing; made here where left out.

    Raises:
        CospanError: the run over gRPC did not end in order.
    """
    if agents is None:
        agents = [ControlAgent(plan, index) for index in range(len(plan.physics))]
    if plan.shares is Shares.NOTHING:
        for number in range(1, plan.rounds + 1):
            for agent in agents:
                agent.learn()
                agent.judge_after(number)
            on_round(number)
        return FleetOutcome(_judgements(agents), "", 0)
    digest = asyncio.run(_over_grpc(plan, agents, on_round))
    return FleetOutcome(_judgements(agents), digest, 2 * 8 * agents[0].feature_dim)


def _judgements(agents: Sequence[ControlAgent]) -> tuple[Judgement, ...]:
    return tuple(each for agent in agents for each in agent.judgements)


def specification_of(plan: FleetPlan, feature_dim: int) -> RunSpecification:
    """The run of a fleet that shares something: r = 1, the paper's rule, and ζ = 1."""
    return RunSpecification(
        workload=f"{plan.task} with shared {plan.shares.value}",
        feature_dim=feature_dim,
        rank=1,
        agents=len(plan.physics),
        rounds=plan.rounds,
        seed=plan.seed,
        method=replace(paper(plan.steps_per_round), basis_step=1.0),
    )


async def _over_grpc(plan: FleetPlan, agents: Sequence[ControlAgent], on_round: Callable[[int], None]) -> str:
    """A coordinator and one stream for each agent, on a free port of the loopback; SHA-256 of the last basis."""
    specification = specification_of(plan, agents[0].feature_dim)
    async with Coordinator(specification, start_seconds=_START_SECONDS) as coordinator:
        coordinator.engine.on_round.append(lambda closed: on_round(closed.report.closed_round + 1))
        streams = [
            GradientAgent(
                agent,
                agent_id=default_agent_id(index),
                coordinator=coordinator.address,
                workload=specification.workload,
            )
            for index, agent in enumerate(agents)
        ]
        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(stream.run_async())
        digest = basis_digest(coordinator.basis)
    for agent, stream in zip(agents, streams, strict=True):
        assert stream.basis is not None
        agent.finish(stream.basis)
    return digest
