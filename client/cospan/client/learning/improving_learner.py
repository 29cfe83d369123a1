"""An agent of a run with improvement steps: it learns the values of its policy, and tries new ones."""

import logging
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.candidates import candidates_of
from cospan.client.decisions.improver import DEFAULT_OPTIONS, Improver, Options
from cospan.client.decisions.logged_values import prior_of_values
from cospan.client.learning.site_learner import SiteLearner, Warned
from cospan.client.workload import AnySite
from cospan.core.aggregation.basis_update import Contribution
from cospan.core.learning.posterior import FleetPrior
from cospan.core.linalg.matrices import FactoredMatrix
from cospan.core.specification import RunSpecification
from cospan.wire.messages import GradientUpload

log = logging.getLogger(__name__)

UNIMPROVED = "unimproved"
"""The kind of warning of an agent whose step could not be made."""


class ImprovingLearner(SiteLearner):
    """A `SiteLearner` whose policy may change. What was learnt of a policy is dropped with it.

    In a round of trial it learns nothing, and its gradient is zero.
    """

    def __init__(
        self,
        site: AnySite,
        specification: RunSpecification,
        *,
        name: str,
        index: int,
        options: Options = DEFAULT_OPTIONS,
        **settings: Any,
    ) -> None:
        """Prepares a learner that holds the given policy.

        Args:
            site: of the agent.
            specification: of the run, with improvement steps.
            name: of the agent.
            index: of the site.
            options: of comparisons in this process.
            settings: see `SiteLearner`.

        Raises:
            InvalidValueError: see `Improver`.
        """
        self.improver = Improver(site, specification, index=index, options=options)
        super().__init__(self.improver.site, specification, name=name, index=index, **settings)
        self.rounds_taken_part = 0
        """Of evaluation and of trial."""
        self._said: set[str] = set()
        """Why steps could not be made, as far as users have been told."""
        self.held_rewards = 0.0
        """The sum of the rewards of the steps that the values of the held policy were learnt from."""

    def learn(
        self,
        round_number: int,
        basis: Float[np.ndarray, "d r"],
        head_covariance: Float[np.ndarray, "r r"] | None = None,
    ) -> GradientUpload:
        """A round of evaluation, as `SiteLearner.learn`; or of trial, whose gradient is zero."""
        spec, improver = self.specification, self.improver
        place = spec.schedule.place(round_number)
        if improver.trial is not None and not (place.is_trial and place.step == improver.trial.step):
            self._decide()  # it has missed the trial's last round
        if not place.is_trial:
            before = self.source.reward_sum
            upload = super().learn(round_number, basis, head_covariance)
            self.held_rewards += self.source.reward_sum - before
            improver.observed()
        else:
            if improver.trial is None:
                assert head_covariance is not None
                prior = FleetPrior(basis, head_covariance, spec.agents)
                values, own = [], None
                if self.state.steps:
                    values = candidates_of(self, prior, alone=improver.alone)
                    own = None if improver.alone else prior_of_values(self.state, prior)
                improver.begin_trial(place.step, values, own)
            improver.play(self.source, spec.method.steps_per_round)
            is_last = place.number + 1 == spec.trial_rounds
            if is_last:
                self._decide()
            improved = (self.name,) if is_last and improver.held_step is not None else ()
            upload = GradientUpload(round_number, no_contribution(spec), improved=improved)
            self.last_round = round_number
        self.rounds_taken_part += 1
        return upload

    def _decide(self) -> None:
        decision = self.improver.end_trial()
        verb = "takes its new policy" if decision.taken else "keeps its policy"
        text = f"improvement step {decision.step + 1}: {self.name} {verb}: {decision.reason}"
        if decision.taken:
            self.forget()
            self.held_rewards = 0.0
        if decision.bound.pairs or decision.taken:
            log.info("%s", text)
        elif decision.reason not in self._said:
            self._said.add(decision.reason)
            self.warnings.append(Warned(self.name, UNIMPROVED, text))

    def close(self) -> None:
        """Closes its source and the environment of its site."""
        super().close()
        self.improver.close()

    @property
    def rounds(self) -> int:
        """In how many rounds it has taken part, those of trials among them."""
        return self.rounds_taken_part

    @property
    def reward_sum(self) -> float:
        """Of the steps that the values of the held policy were learnt from."""
        return self.held_rewards

    @property
    def mean_reward(self) -> float:
        """The mean of the same rewards; nan before the first."""
        return self.held_rewards / self.state.steps if self.state.steps else float("nan")


def no_contribution(specification: RunSpecification) -> Contribution:
    """The zero gradient of one agent in a round of trial."""
    return Contribution(
        FactoredMatrix(left=np.zeros((specification.feature_dim, 1)), right=np.zeros((specification.rank, 1)))
    )
