"""Better policies, step by step, in this process: evaluate, be greedy within error bars, take what a trial proves.

It is a run with improvement steps (`RunSpecification.improve`) that can be stopped between them, and that may do
without the gate or the fleet, for comparison. What an agent does is in `cospan.client.decisions.improver`.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from cospan.client.decisions.improver import Improver, Options, features_for
from cospan.client.decisions.step_decision import StepDecision
from cospan.client.environment.ownership import close_site
from cospan.client.environment.workload_loader import make_site
from cospan.client.learning.default_run import checked
from cospan.client.learning.improving_learner import ImprovingLearner
from cospan.client.placement import hosts_of
from cospan.client.workload import Workload
from cospan.core.specification import SITE_PREFIX, RunSpecification
from cospan.simulation.improvement_result import ImprovementResult
from cospan.simulation.local_run import LocalRun
from cospan.wire.errors import InvalidValueError


@dataclass(frozen=True, slots=True)
class ImprovementSettings:
    """How policies are improved; the constants of learning are the run's.

    Attributes:
        steps: improvement steps.
        rounds: of evaluation in each step.
        trial_rounds: of trial in each step; without the gate it has one.
        gate: whether an agent takes a new policy only where the trial's lower bound on its gain rises; without it,
            every step takes every new policy.
        alone: whether each agent learns by LSTD from its own transitions alone, for comparison.
        explore: share of the steps in which any action is taken, above 0 and at most 1; less is less costly, and
            tells less of the actions that the policy does not take.
        cautions: multiples κ of the error bars: the first, and of sites that can be replayed but not planned for,
            the one that does best on the steps so far.
        confidence: of the lower bound, one-sided.
    """

    steps: int = 4
    rounds: int = 60
    trial_rounds: int = 30
    gate: bool = True
    alone: bool = False
    explore: float = 0.1
    cautions: tuple[float, ...] = (0.5, 1.0, 2.0)
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

    def of_run(self, specification: RunSpecification) -> RunSpecification:
        """The run of these steps, and of no rounds after them."""
        found = replace(
            specification,
            improve=self.steps,
            evaluation_rounds=self.rounds,
            trial_rounds=self.trial_rounds if self.gate else 1,
            explore=self.explore,
            confidence=self.confidence,
        )
        return replace(found, rounds=found.schedule.rounds)


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
            specification: of the run; `rounds` and what is said of the features and of improvement are replaced.
            settings: how many steps, how long, and what a new policy has to pass.

        Raises:
            InvalidValueError: a setting is out of its range, the method is not that of the preset practical, or the
                first site does not say what its actions lead to.
            WorkloadError: there is no such site.
        """
        self.settings = settings or ImprovementSettings()
        self.settings.check()
        self.on_step: list[Callable[[Sequence[StepDecision]], None]] = []
        first = make_site(workload, 0, specification.seed)
        try:
            spec = self.settings.of_run(specification)
            features = features_for(first, spec, 0)
            spec = checked(
                replace(spec, feature_dim=features.dim, feature_fingerprint=features.fingerprint, min_agents=0)
            )
            options = Options(self.settings.gate, self.settings.alone, self.settings.cautions)
            self._run = LocalRun(
                spec,
                replace(workload, make_fleet=None, fleet_basis=None, rounds_of=None),
                hosts_of(spec, None),
                run_id=secrets.token_hex(8),
                baseline=False,
                first_site=first,
                options=options,
            )
        except BaseException:
            close_site(first)
            raise
        self._lost: dict[str, str] = {}
        self._decisions: list[StepDecision] = []
        self._run.on_failure.append(self._on_failure)
        self._threads = ThreadpoolController()
        try:
            self._run.join_all()
        except BaseException:
            self.close()
            raise
        self._improvers: dict[int, Improver] = {}
        for learner in self._run.learners.values():
            assert isinstance(learner, ImprovingLearner)
            self._improvers[learner.index] = learner.improver

    def close(self) -> None:
        """Closes the environments."""
        self._run.close()

    @property
    def learners(self) -> tuple[ImprovingLearner, ...]:
        """Those that take part, in the order of their sites."""
        return tuple(each for each in self._run.learners.values() if isinstance(each, ImprovingLearner))

    @property
    def result(self) -> ImprovementResult:
        """The policies held so far, and how they came to be."""
        return ImprovementResult(
            specification=self._run.state.specification,
            policies=tuple(each.policy for each in self._improvers.values()),
            labels=tuple(each.site.label for each in self._improvers.values()),
            decisions=tuple(self._decisions),
            basis=self._run.state.basis if self._run.state.round else None,
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
        number = len(self._decisions) // len(self._improvers)
        with self._threads.limit(limits=1):
            for _ in range(self._run.state.specification.schedule.step_rounds):
                if not self._run.is_over:
                    self._run.run_round()
        found = tuple(self._decision(number, improver) for improver in self._improvers.values())
        self._decisions.extend(found)
        for listener in self.on_step:
            listener(found)
        return found

    def _decision(self, number: int, improver: Improver) -> StepDecision:
        """That of one agent in a step; one that has left keeps the policy that it holds."""
        made = next((each for each in improver.decisions if each.step == number), None)
        why = self._lost.get(f"{SITE_PREFIX}{improver.index}", "the run is over")
        return made or StepDecision(number, improver.index, False, f"left the run: {why}")

    def _on_failure(self, names: Sequence[str], why: str) -> None:
        self._lost |= dict.fromkeys(names, why)
