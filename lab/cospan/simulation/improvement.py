"""Better policies, step by step, in this process: evaluate, be greedy within error bars, take what a trial proves.

A step has rounds of evaluation, in which the fleet learns the values of the policies that its agents hold, and
rounds of trial. The basis and the head covariance go on from step to step; an agent's statistics are dropped where
it takes a new policy, for they are of the old one.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from cospan.client.decisions.acting_env import ActingEnv, StepLog, disagreement
from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.decisions.trials import replayed_gains, trial_in_turn, with_cautions
from cospan.client.environment.ownership import close_sites, user_code
from cospan.client.environment.workload_loader import make_site
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.placement import hosts_of
from cospan.client.workload import Site, Workload
from cospan.core.decisions.paired_bound import LEAST_PAIRS, PairedBound, paired_bound
from cospan.core.learning.learner_state import LearnerState
from cospan.core.method import HeadUpdate
from cospan.core.specification import SITE_PREFIX, RunSpecification
from cospan.simulation.improvement_result import ImprovementResult, StepDecision
from cospan.simulation.local_run import LocalRun, StartBasis
from cospan.simulation.policy_candidates import candidates_of
from cospan.wire.errors import InvalidValueError, WorkloadBehaviourError

_TURNS = 12
"""Blocks of each policy in a trial in turn."""
_TAG = 0x67617465  # "gate": keeps these draws apart from others of the same (seed, index, step)


@dataclass(frozen=True, slots=True)
class ImprovementSettings:
    """How policies are improved; the constants of learning are the run's.

    Attributes:
        steps: improvement steps.
        rounds: of evaluation in each step.
        trial_rounds: of trial in each step.
        gate: whether an agent takes a new policy only where the trial's lower bound on its gain rises; without it,
            every step takes every new policy.
        alone: whether each agent learns by LSTD from its own transitions alone, for comparison.
        explore: share of the steps in which any action is taken, above 0 and at most 1; less is less costly, and
            tells less of the actions that the policy does not take.
        cautions: multiples κ of the error bars to choose among on the steps of the evaluation; where these cannot
            be replayed, the first.
        confidence: of the lower bound, one-sided.
    """

    steps: int = 4
    rounds: int = 60
    trial_rounds: int = 30
    gate: bool = True
    alone: bool = False
    explore: float = 0.1
    cautions: tuple[float, ...] = (1.0, 0.5, 2.0)
    confidence: float = 0.95

    def check(self) -> None:
        """Raises InvalidValueError where a value is out of its range."""
        for name in ("steps", "rounds", "trial_rounds"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not 0.0 < self.explore <= 1.0:
            raise InvalidValueError(
                f"explore is {self.explore}; it must be above 0 and at most 1: a policy that never explores says "
                "nothing of the actions that it does not take, so it cannot be improved"
            )
        if not self.cautions or not all(0.0 <= caution < float("inf") for caution in self.cautions):
            raise InvalidValueError(f"cautions is {self.cautions}; give one or more numbers from 0 on")
        if not 0.5 < self.confidence < 1.0:
            raise InvalidValueError(f"confidence is {self.confidence}; it must be above 0.5 and below 1")


@dataclass(slots=True)
class _Agent:
    """One agent between rounds: its site, what it holds, what it has seen, and why it has left the run."""

    site: Site
    env: ActingEnv
    log: StepLog
    state: LearnerState | None = None
    lost: str = ""

    @property
    def held(self) -> GreedyPolicy:
        return self.env.policy


class Improvement:
    """A fleet whose policies get better; see `cospan.simulation.Fleet.improve`.

    Attributes:
        on_step: called with the decisions of each step.
    """

    def __init__(
        self, workload: Workload, specification: RunSpecification, settings: ImprovementSettings | None = None
    ) -> None:
        """Makes the sites.

        Args:
            workload: whose sites have `decisions`.
            specification: of the run; `rounds` and what is said of the features are replaced.
            settings: of the improvement.

        Raises:
            InvalidValueError: a setting is out of its range, a site has no decisions, its actions cannot be
                enumerated, or the run's preset is not practical.
        """
        self.settings = settings or ImprovementSettings()
        self.settings.check()
        if specification.method.head_update is not HeadUpdate.POSTERIOR:
            raise InvalidValueError(
                f"policies are improved with the preset practical; this run has "
                f"{specification.method.head_update.value} head updates"
            )
        self.on_step: list[Callable[[Sequence[StepDecision]], None]] = []
        self._agents: list[_Agent] = []
        self._start: StartBasis | None = None
        self._decisions: list[StepDecision] = []
        try:
            for index in range(specification.agents):
                self._agents.append(self._agent(workload, specification, index))
        except BaseException:
            self.close()
            raise
        features = self._agents[0].held.features
        self._specification = replace(
            specification,
            rounds=self.settings.rounds,
            feature_dim=features.dim,
            feature_fingerprint=features.fingerprint,
        )
        # Its exogenous parts are those of an observation; here values are of afterstates, or of pairs.
        self._acting = replace(
            workload, make_site=self._acting_site, make_fleet=None, fleet_basis=None, rounds_of=None, exogenous=None
        )
        self._threads = ThreadpoolController()

    def close(self) -> None:
        """Closes the environments."""
        close_sites([agent.site for agent in self._agents])

    @property
    def result(self) -> ImprovementResult:
        """The policies held so far, and how they came to be."""
        return ImprovementResult(
            specification=self._specification,
            policies=tuple(agent.held for agent in self._agents),
            labels=tuple(agent.site.label for agent in self._agents),
            decisions=tuple(self._decisions),
            basis=None if self._start is None else self._start.basis,
        )

    def run(self) -> ImprovementResult:
        """All steps, and closes the environments.

        Raises:
            WorkloadBehaviourError: a workload broke its contract in its first round.
        """
        try:
            for _ in range(self.settings.steps):
                self.step()
        finally:
            self.close()
        return self.result

    def step(self) -> tuple[StepDecision, ...]:
        """One step: evaluation, then the trial of every agent's new policy."""
        number = len(self._decisions) // len(self._agents)
        with self._threads.limit(limits=1):
            learners = self._evaluated()
            found = tuple(self._decided(number, index, learners.get(index)) for index in range(len(self._agents)))
        self._decisions.extend(found)
        for listener in self.on_step:
            listener(found)
        return found

    def _agent(self, workload: Workload, specification: RunSpecification, index: int) -> _Agent:
        site = make_site(workload, index, specification.seed)
        if not isinstance(site, Site):
            raise InvalidValueError(
                f"site {index} takes its steps from elsewhere; only an environment can be acted in"
            )
        try:
            policy = GreedyPolicy.given(site, index=index, workload=specification.workload, seed=specification.seed)
            if len(policy.actions) < 2:
                raise InvalidValueError(f"site {index} has one action, so there is nothing to choose")
        except BaseException:
            close_sites([site])
            raise
        return _Agent(site, ActingEnv(site, policy, self.settings.explore), StepLog())

    def _acting_site(self, index: int, seed: int) -> Site:
        """The site as the learner sees it: the policy is within its environment."""
        del seed
        agent = self._agents[index]
        return Site(env=agent.env, features=agent.held.features, policy=_go_on, label=agent.site.label)

    def _evaluated(self) -> dict[int, SiteLearner]:
        """The rounds of evaluation; what every agent has learnt that is there at their end."""
        hosts = [host for host in hosts_of(self._specification, None) if not self._agents[host.indices[0]].lost]
        if not hosts:
            return {}
        spec = replace(self._specification, agents=len(hosts), min_agents=0)
        run = LocalRun(spec, self._acting, hosts, run_id=secrets.token_hex(8), baseline=False, start=self._start)
        run.on_failure.append(self._on_failure)
        run.join_all()
        for learner in run.learners.values():
            assert isinstance(learner, SiteLearner)
            if (kept := self._agents[learner.index].state) is not None:
                learner.state = kept
        for _ in range(spec.rounds):
            if not run.is_over:
                run.run_round()
        self._start = StartBasis(run.state.basis, run.state.head_covariance)
        found = {}
        for learner in run.learners.values():
            assert isinstance(learner, SiteLearner)
            found[learner.index] = learner
        for agent in self._agents:
            agent.log = agent.log.followed_by(agent.env.take_log())
        return found

    def _on_failure(self, names: Sequence[str], why: str) -> None:
        """An agent whose site failed takes part in no further step, and keeps the policy that it holds."""
        for agent in self._agents:
            if f"{SITE_PREFIX}{agent.held.index}" in names:
                agent.lost = f"left the run: {why}"

    def _decided(self, number: int, index: int, learner: SiteLearner | None) -> StepDecision:
        """The trial of one agent's new policy, and whether it is taken."""
        agent = self._agents[index]
        if learner is None:
            return StepDecision(number, index, False, agent.lost or "left the run")
        agent.state = learner.state
        try:
            with user_code(f"the trial of site {index} failed"):
                if problem := disagreement(agent.held, agent.log):
                    return StepDecision(number, index, False, problem)
                new = self._candidate(number, agent, learner)
                bound = self._tried(number, agent, new)
        except WorkloadBehaviourError as failure:
            agent.lost = f"left the run: {failure}"
            return StepDecision(number, index, False, str(failure))
        taken, reason = self._judged(bound)
        if taken:
            agent.env.policy, agent.state = new, None
        return StepDecision(number, index, taken, reason, bound, new.caution)

    def _judged(self, bound: PairedBound) -> tuple[bool, str]:
        if not self.settings.gate:
            return True, "taken without a trial: the gate is off"
        if bound.pairs < LEAST_PAIRS:
            return False, (
                f"a trial of {bound.pairs} blocks bounds no gain; at least {LEAST_PAIRS} are needed: "
                "raise trial_rounds"
            )
        if bound.lower > 0.0:
            return True, f"gains {bound.mean:.3g}, at least {bound.lower:.3g}"
        return False, f"gains {bound.mean:.3g}, but not surely: the lower bound is {bound.lower:.3g}"

    def _candidate(self, number: int, agent: _Agent, learner: SiteLearner) -> GreedyPolicy:
        """The greedy policy to try: of several, the best by replay of the steps of the evaluation."""
        assert self._start is not None
        values = candidates_of(learner, self._start, alone=self.settings.alone)
        decisions, block = agent.held.decisions, self._specification.method.steps_per_round
        if decisions.replayed is None:
            weights, root = values[0]
            return agent.held.learnt(weights, root, self.settings.cautions[0])
        found = [
            policy
            for weights, root in values
            for policy in with_cautions(agent.held.learnt(weights, root, 0.0), self.settings.cautions)
        ]
        gains = replayed_gains(found, agent.log, block, self._generator(number, agent))
        return found[int(gains.mean(axis=1).argmax())] if gains.size else found[0]

    def _tried(self, number: int, agent: _Agent, new: GreedyPolicy) -> PairedBound:
        """What the trial says of a new policy; its steps are seen by no learner."""
        block, rounds = self._specification.method.steps_per_round, self.settings.trial_rounds
        if not self.settings.gate:
            return PairedBound(float("nan"), float("-inf"), 0)
        if agent.held.decisions.replayed is None:
            turns = min(_TURNS, max(1, rounds * block // 4))
            differences: Float[np.ndarray, " m"] = trial_in_turn(
                agent.env, agent.held, new, blocks=turns, block=max(2, rounds * block // (2 * turns))
            )
            return paired_bound(differences, self.settings.confidence)
        agent.env.act(rounds * block)
        fresh = agent.env.take_log()
        before = agent.log.tail(block)  # in which both come to where they stand
        gains = replayed_gains(
            (agent.held, new), before.followed_by(fresh), block, self._generator(number, agent, trial=1)
        )
        agent.log = agent.log.followed_by(fresh)
        return paired_bound(gains[1] - gains[0], self.settings.confidence)

    def _generator(self, number: int, agent: _Agent, trial: int = 0) -> np.random.Generator:
        """Of a uniform policy in a replay."""
        return np.random.default_rng((self._specification.seed, agent.held.index, number, trial, _TAG))


def _go_on(observation: object, generator: np.random.Generator) -> int:
    """The policy that the learner sees: the one within the environment takes its next step."""
    del observation, generator
    return 0
