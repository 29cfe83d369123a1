"""One agent's policy through the improvement steps of a run: its candidate, its trial, and what it holds.

It needs the agent's own steps and the announced basis alone. A step is made in three parts, by
`cospan.client.learning.improving_learner`: `observed` after each round of evaluation, `begin_trial` and `play` in
the rounds of trial, `end_trial` after the last of them.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.acting_env import ActingEnv, StepLog, acting_env, disagreement
from cospan.client.decisions.logged_values import PLANNED_CAUTION, action_values, planned_values
from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.decisions.step_decision import NO_TRIAL, StepDecision
from cospan.client.decisions.trials import Turns, replayed_gains, with_cautions
from cospan.client.environment.ownership import close_site, user_code
from cospan.client.step_source import StepSource
from cospan.client.workload import AnySite, FeatureMap, Site
from cospan.core.decisions.paired_bound import LEAST_PAIRS, PairedBound, paired_bound
from cospan.core.decisions.paired_values import Values
from cospan.core.specification import RunSpecification
from cospan.wire.errors import InvalidValueError, WorkloadBehaviourError

MOST_LOGGED = 100_000
"""The newest steps that candidates are chosen by and a replay begins at."""
_TAG = 0x67617465  # "gate": keeps these draws apart from others of the same (seed, index, step)


@dataclass(frozen=True, slots=True)
class Options:
    """What is no part of a run over the network: for comparisons in this process.

    Attributes:
        gate: whether a new policy is taken only where the trial's lower bound on its gain rises; without it, every
            step takes every new policy.
        alone: whether each agent is greedy by LSTD from its own transitions alone.
        cautions: multiples κ of the error bars: the first, and of sites that can be replayed but not planned for,
            the one that does best on the steps so far.
    """

    gate: bool = True
    alone: bool = False
    cautions: tuple[float, ...] = (0.5, 1.0, 2.0)


DEFAULT_OPTIONS = Options()


@dataclass(slots=True)
class Trial:
    """A trial that has begun.

    Attributes:
        step: of improvement.
        new: the policy that is tried; None where there is none.
        problem: why there is none.
        log: its steps so far.
    """

    step: int
    new: GreedyPolicy | None
    problem: str = ""
    log: StepLog = field(default_factory=StepLog)


class Improver:
    """What an agent holds, and what it makes of a step.

    Attributes:
        index: of the site.
        site: as the learner sees it: the policy is within its environment.
        env: that environment; None where the site's policy can only be judged.
        given: the policy that it began with; None where the site's policy can only be judged.
        problem: why, in one sentence; else empty.
        trial: the one that has begun; None between trials.
        decisions: of all steps so far.
        log: the steps so far, of evaluations and trials: new policies are made of all of them.
    """

    def __init__(
        self, site: AnySite, specification: RunSpecification, *, index: int, options: Options = DEFAULT_OPTIONS
    ) -> None:
        """Holds the given policy.

        Args:
            site: of the agent.
            specification: of the run, with improvement steps.
            index: of the site.
            options: of comparisons.

        Raises:
            InvalidValueError: its policy cannot be improved, and its features are not those of the run, so that it
                cannot be judged either.
        """
        self.index, self.log, self.problem = index, StepLog(), ""
        self.trial: Trial | None = None
        self.decisions: list[StepDecision] = []
        self.env: ActingEnv | None = None
        self.site: AnySite
        self._inner = site
        self.given: GreedyPolicy | None = None
        self._specification, self._options = specification, options
        try:
            self.given = given = given_policy(site, specification, index)
        except InvalidValueError as failure:
            if site.features.fingerprint != specification.feature_fingerprint:
                raise
            # True values are of the given policies of all sites; errors of a fleet are of one kind.
            self.problem, self.site = str(failure), replace(site, reference=None)
            return
        assert isinstance(site, Site)
        self.env = acting_env(site, given, specification.explore)
        self.site = Site(env=self.env, features=given.features, policy=_go_on, label=site.label)

    @property
    def policy(self) -> GreedyPolicy | None:
        """The policy that it holds; None where its site's policy can only be judged."""
        return None if self.env is None else self.env.policy

    @property
    def held_step(self) -> int | None:
        """The step that the held policy was taken in; None for the given one."""
        return next((each.step for each in reversed(self.decisions) if each.taken), None)

    @property
    def alone(self) -> bool:
        """Whether it is greedy by its own transitions alone."""
        return self._options.alone

    def restore(
        self, held: GreedyPolicy | None, trial: Trial | None, decisions: list[StepDecision], log: StepLog
    ) -> None:
        """Continues from what an earlier process held."""
        self.trial, self.decisions, self.log = trial, decisions, log
        if self.env is not None and held is not None:
            self.env.policy = held

    def close(self) -> None:
        """Closes the environment of the site, which the acting one leaves open."""
        close_site(self._inner)

    def observed(self) -> None:
        """After a round of evaluation that a trial may follow: keeps what was seen."""
        if self.env is None:
            return
        seen = self.env.take_log()
        if len(self.decisions) < self._specification.improve:
            self.log.add(seen)
            if len(self.log.rewards) > MOST_LOGGED:
                self.log = self.log.tail(MOST_LOGGED)

    def begin_trial(
        self, step: int, values: list[Values], prior_covariance: Float[np.ndarray, "d d"] | None = None
    ) -> None:
        """Makes the new policy of a step.

        Args:
            step: from 0 on.
            values: that it may be greedy with respect to; none where nothing has been learnt.
            prior_covariance: of the weights of pairs (observation, action); None of an agent alone.
        """
        self.trial = Trial(step, None, self.problem)
        held = self.policy
        if held is None:
            return
        if not values:
            self.trial.problem = "nothing has been learnt of the held policy: the agent joined within the step"
            return
        try:
            with user_code(f"the new policy of site {self.index} failed"):
                self.trial.problem = disagreement(held, self.log)
                if not self.trial.problem:
                    self.trial.new = self._candidate(step, held, values, prior_covariance)
        except WorkloadBehaviourError as failure:
            self.trial.problem = str(failure)

    def play(self, source: StepSource, steps: int) -> None:
        """The next steps of a trial, which no learner sees.

        Raises:
            WorkloadBehaviourError: the environment or a policy failed.
        """
        trial, env = self.trial, self.env
        assert trial is not None
        if env is None:
            source.advance(steps)
            return
        held = env.policy
        try:
            for count, is_new in self._spans(trial, steps):
                env.policy = trial.new if is_new and trial.new is not None else held
                source.advance(count)
        finally:
            env.policy = held
        trial.log.add(env.take_log())

    def end_trial(self) -> StepDecision:
        """Whether the new policy is taken; it is held from now on where it is."""
        trial, self.trial = self.trial, None
        assert trial is not None
        decision = self._decided(trial)
        self.decisions.append(decision)
        if len(self.log.rewards) > MOST_LOGGED:
            self.log = self.log.tail(MOST_LOGGED)
        if decision.taken:
            assert self.env is not None
            assert trial.new is not None
            self.env.policy = trial.new
        return decision

    def _decided(self, trial: Trial) -> StepDecision:
        if trial.new is None:
            self.log.add(trial.log)
            return StepDecision(trial.step, self.index, False, trial.problem)
        if not self._options.gate:
            self.log.add(trial.log)
            reason = "taken without a trial: the gate is off"
            return StepDecision(trial.step, self.index, True, reason, NO_TRIAL, trial.new.caution)
        try:
            with user_code(f"the trial of site {self.index} failed"):
                bound = paired_bound(self._differences(trial, trial.new), self._specification.confidence)
        except WorkloadBehaviourError as failure:
            return StepDecision(trial.step, self.index, False, str(failure))
        finally:
            self.log.add(trial.log)
        taken, reason = judged(bound)
        return StepDecision(trial.step, self.index, taken, reason, bound, trial.new.caution)

    def _spans(self, trial: Trial, steps: int) -> list[tuple[int, bool]]:
        """How many of the next steps are taken under which policy."""
        if trial.new is None or trial.new.decisions.replayed is not None or not self._options.gate:
            return [(steps, False)]
        return self._turns.spans(len(trial.log.rewards), steps)

    @property
    def _turns(self) -> Turns:
        spec = self._specification
        return Turns.of(spec.trial_rounds * spec.method.steps_per_round)

    def _candidate(
        self,
        step: int,
        held: GreedyPolicy,
        values: list[Values],
        prior_covariance: Float[np.ndarray, "d d"] | None,
    ) -> GreedyPolicy:
        """The greedy policy to try: by plans or action values of all steps so far, where there can be some."""
        cautions, block = self._options.cautions, self._specification.method.steps_per_round
        if held.decisions.action_features is not None:
            return held.learnt(*action_values(held, self.log, prior_covariance), cautions[0])
        if (planned := planned_values(held, self.log, block, None)) is not None:
            return held.learnt(*planned, PLANNED_CAUTION)
        if held.decisions.replayed is None:
            return held.learnt(*values[0], cautions[0])
        found = [
            policy
            for weights, root in values
            for policy in with_cautions(held.learnt(weights, root, 0.0), cautions)
        ]
        gains = replayed_gains(found, self.log, block, self._generator(step))
        return found[int(gains.mean(axis=1).argmax())] if gains.size else found[0]

    def _differences(self, trial: Trial, new: GreedyPolicy) -> Float[np.ndarray, " m"]:
        """The gain of the new policy less that of the held one, block by block."""
        held, block = self.policy, self._specification.method.steps_per_round
        assert held is not None
        if held.decisions.replayed is None:
            return self._turns.differences(trial.log.rewards)
        before = self.log.tail(block)  # in which both come to where they stand
        generator = self._generator(trial.step, trial=1)
        gains = replayed_gains((held, new), before.followed_by(trial.log), block, generator)
        return np.asarray(gains[1] - gains[0])

    def _generator(self, step: int, trial: int = 0) -> np.random.Generator:
        """Of a policy that draws in a replay."""
        return np.random.default_rng((self._specification.seed, self.index, step, trial, _TAG))


def given_policy(site: AnySite, specification: RunSpecification, index: int) -> GreedyPolicy:
    """The policy that improvement begins with.

    Raises:
        InvalidValueError: the site's policy cannot be improved.
    """
    if not isinstance(site, Site):
        raise InvalidValueError(f"site {index} takes its steps from elsewhere; only an environment can be acted in")
    policy = GreedyPolicy.given(site, index=index, workload=specification.workload, seed=specification.seed)
    if len(policy.actions) < 2:
        raise InvalidValueError(f"site {index} has one action, so there is nothing to choose")
    return policy


def features_for(site: AnySite, specification: RunSpecification, index: int) -> FeatureMap:
    """Those that a run learns values of: with improvement steps, of afterstates or of pairs.

    Raises:
        InvalidValueError: the run has improvement steps, and the site's policy cannot be improved.
    """
    return given_policy(site, specification, index).features if specification.improve > 0 else site.features


def features_joined_with(site: AnySite, specification: RunSpecification, index: int) -> FeatureMap:
    """Those that an agent joins a run with: see `features_for`; its own, where its policy can only be judged."""
    try:
        return features_for(site, specification, index)
    except InvalidValueError:
        if site.features.fingerprint != specification.feature_fingerprint:
            raise
        return site.features


def judged(bound: PairedBound) -> tuple[bool, str]:
    """Whether a trial has proved a gain, and why or why not, in a sentence."""
    if bound.pairs < LEAST_PAIRS:
        return False, (
            f"a trial of {bound.pairs} blocks bounds no gain; at least {LEAST_PAIRS} are needed: raise trial_rounds"
        )
    if not math.isfinite(bound.lower):
        return False, f"gains {bound.mean:.3g}, but no bound is known"
    if bound.lower > 0.0:
        return True, f"gains {bound.mean:.3g}, at least {bound.lower:.3g}"
    return False, f"gains {bound.mean:.3g}, but not surely: the lower bound is {bound.lower:.3g}"


def _go_on(observation: object, generator: np.random.Generator) -> int:
    """The policy that the learner sees: the one within the environment takes its next step."""
    del observation, generator
    return 0
