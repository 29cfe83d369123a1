"""What one agent learns, round by round: head, gain, averaged value weights, and what it is compared with."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.client.environment.plain_values import SavedState
from cospan.client.environment.rollout import source_of
from cospan.client.learning.first_rounds import FirstRounds
from cospan.client.learning.learning_curve import LearningCurve
from cospan.client.step_source import AT_END
from cospan.client.workload import AnySite
from cospan.core.learning.baselines import (
    LSTD_RIDGES,
    IndependentTD,
    holds_lstd_sums,
    lstd_alone,
    lstd_is_due,
    separate_lstd_sums,
    with_transitions,
)
from cospan.core.learning.learner import contribution_of, learn_round
from cospan.core.learning.learner_state import LearnerState, RoundOutcome, Trajectory
from cospan.core.learning.least_squares import PRIOR_STEPS, TransitionSums
from cospan.core.learning.reward_moments import RewardBatches
from cospan.core.learning.schedules import AveragedIterate, Refresh
from cospan.core.learning.units import told_after
from cospan.core.method import HeadUpdate
from cospan.core.quality.error_correlation import LAGS, error_correlation
from cospan.core.quality.held_out import HeldOutErrors
from cospan.core.quality.record import NOTHING_RECORDED, Due
from cospan.core.specification import RunSpecification
from cospan.wire.messages import GradientUpload

MISSED_AT_ONCE = 8
"""Of how many missed rounds an agent takes the steps in one: so no round lasts more than nine times as long."""
FAILED = "failed"
"""The kind of warning of a group whose member has failed."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning of an agent.

    Attributes:
        agent: its name.
        kind: equal for equal warnings of several agents: action, constant, failed.
        text: one sentence.
    """

    agent: str
    kind: str
    text: str


class SiteLearner:
    """One agent's learner around the source of its steps.

    With an environment, everything random in it comes from (run seed, index, first round).
    """

    def __init__(
        self,
        site: AnySite,
        specification: RunSpecification,
        *,
        name: str,
        index: int,
        with_baseline: bool = True,
        first_round: int = 0,
        share_td_error: bool = False,
    ) -> None:
        """Prepares a learner that has learnt nothing.

        Args:
            site: of the agent.
            specification: of the run.
            name: of the agent.
            index: of the site.
            with_baseline: whether TD alone learns beside it, and LSTD alone where its own sums are not those.
            first_round: the round in which it joins; one that joins late, or again, draws fresh data.
            share_td_error: whether its uploads tell its root mean square TD error.
        """
        self.site, self.specification, self.name, self.index = site, specification, name, index
        self.source = source_of(site, name=name, index=index, seed=specification.seed, first_round=first_round)
        self._with_baseline = with_baseline
        self.forget()
        self.learning_curve = LearningCurve[float]()
        self._share_td_error = share_td_error
        self._basis: Float[np.ndarray, "d r"] | None = None
        self.earlier_held_share = math.nan
        """Of the file that it continues from, until its next round."""
        self.last_round: int | None = None
        """The last round learnt, by whatever process; None before the first."""
        self.warnings: list[Warned] = []
        """Warnings for the user; the code that shows them empties the list."""
        self._first_rounds = FirstRounds(name, specification.feature_dim)

    def forget(self) -> None:
        """Drops what it has learnt. Its source and its learning curve stay as they are."""
        spec, d = self.specification, self.specification.feature_dim
        self.state = LearnerState.initial(spec.rank)
        self.weights = AveragedIterate(mean=np.zeros(d), power=spec.method.averaging_power)
        """The learnt value weights: averages of B w, from the end of the warm-up on, or the posterior mean."""
        self.gain = AveragedIterate(mean=np.zeros(1), power=spec.method.averaging_power)
        """Averaged iterates of η."""
        self.independent = IndependentTD.initial(d) if self._with_baseline else None
        self.separate_sums = separate_lstd_sums(spec.method, d) if self._with_baseline else None
        """Of LSTD alone, where the learner's own statistics are others."""
        self.reward_batches = RewardBatches.initial()
        self.quality = NOTHING_RECORDED
        """What tells its errors where the truth is unknown, and what the features lack."""
        self.bounded_rounds = 0
        """Rounds in which the ball of radius U has cut its head."""

    def learn(
        self,
        round_number: int,
        basis: Float[np.ndarray, "d r"],
        head_covariance: Float[np.ndarray, "r r"] | None = None,
    ) -> GradientUpload:
        """Takes L steps, corrects the head at B_t, and returns the gradient of round t.

        Args:
            round_number: t.
            basis: B_t.
            head_covariance: W_t; None where the method has none.

        Raises:
            WorkloadBehaviourError: the environment, the policy or the features broke their contract.
        """
        self.catch_up(round_number, basis, head_covariance)
        return self.learn_from(self.play(), round_number, basis, head_covariance)

    def play(self) -> Trajectory:
        """The next L steps of its source, for `learn_from`; raises as `learn`."""
        return self.source.advance(self.specification.method.steps_per_round)

    def learn_from(
        self,
        trajectory: Trajectory,
        round_number: int,
        basis: Float[np.ndarray, "d r"],
        head_covariance: Float[np.ndarray, "r r"] | None = None,
    ) -> GradientUpload:
        """What `learn` makes of L steps that have been taken."""
        spec = self.specification
        is_last = round_number + 1 == spec.rounds or spec.schedule.ends_evaluation(round_number)
        self._look(trajectory, is_last=is_last)
        outcome = self._learnt(trajectory, round_number, basis, head_covariance, is_last=is_last)
        error = float(outcome.mean_squared_error)
        self._record(round_number, error)
        return GradientUpload(
            round=round_number,
            contribution=contribution_of(outcome, spec.method, spec.schedule.learning_round(round_number)),
            td_error=math.sqrt(error) if self._share_td_error and not math.isnan(error) else None,
            bounded=(self.name,) if outcome.bounded and told_after(self.bounded_rounds) else (),
        )

    def catch_up(
        self,
        round_number: int,
        basis: Float[np.ndarray, "d r"],
        head_covariance: Float[np.ndarray, "r r"] | None = None,
    ) -> None:
        """Learns steps of rounds that it has missed, where its source still has them, as a log does.

        So an agent that joins late comes to the end of its log with the others. It sends one gradient all the same:
        with moments of all steps so far, that of the newest round tells what the others would.
        """
        if self.specification.method.head_update is not HeadUpdate.POSTERIOR:
            return  # single steps of the basis, whose gradients are of one round each
        missed = min(round_number - self.rounds, MISSED_AT_ONCE)
        while missed > 0 and getattr(self.source, "has_backlog", False):
            self._learnt(self.play(), round_number, basis, head_covariance, is_last=False)
            missed -= 1

    def _learnt(
        self,
        trajectory: Trajectory,
        round_number: int,
        basis: Float[np.ndarray, "d r"],
        head_covariance: Float[np.ndarray, "r r"] | None,
        *,
        is_last: bool,
    ) -> RoundOutcome:
        """Brings everything that it keeps up to date with L steps."""
        spec = self.specification
        number, before = spec.schedule.learning_round(round_number), self.state
        outcome = learn_round(
            self.state,
            basis,
            trajectory,
            spec.method,
            number,
            head_covariance=head_covariance,
            agents=spec.agents,
            refresh=Refresh.NOW if is_last else Refresh.WHEN_POOLED,
        )
        self.state, self._basis = outcome.state, basis
        if not spec.method.warms_up_in(number):
            self.weights = self.weights.updated(outcome.weights)
        self.gain = self.gain.updated(np.array([outcome.state.gain_estimate]))
        if self.independent is not None:
            self.independent = self.independent.learning_from(trajectory, spec.method)
        if self.separate_sums is not None:
            self.separate_sums = with_transitions(self.separate_sums, trajectory, self.state.rewards.reference)
        self.reward_batches = self.reward_batches.updated(trajectory.known_rewards, spec.method.steps_per_round)
        self.quality = self.quality.following(
            trajectory,
            (before, self.state),
            self.lstd_sums,
            self.weights.mean,
            np.zeros((0, spec.feature_dim)) if self.independent is None else self.independent.averaged.mean,
            due=Due(spec.rounds, is_last),
        )
        self.last_round = round_number
        self.bounded_rounds += int(outcome.bounded)
        return outcome

    def _look(self, trajectory: Trajectory, *, is_last: bool) -> None:
        """Warns of what the data show; that they end with the run need not be said."""
        if constant := self._first_rounds.look(trajectory.features):
            self.warnings.append(Warned(self.name, "constant", constant))
        found = self.source.take_warnings()
        self.warnings += [Warned(self.name, *each) for each in found if each.kind != AT_END or not is_last]

    def interrupt(self) -> None:
        """Ends a wait for steps; from any thread."""
        self.source.interrupt()

    def close(self) -> None:
        """Closes its source; it cannot learn any more, and keeps what it has learnt."""
        self.source.close()

    def _record(self, round_number: int, mean_squared_td_error: float) -> None:
        errors, alone = self._errors(), math.nan
        if lstd_is_due(round_number) or round_number + 1 == self.specification.rounds:
            alone = float(self.lstd_alone_errors((PRIOR_STEPS,))[0])
        self.learning_curve.add(
            round_number,
            value_error=float(errors[0]),
            lstd_alone_error=alone,
            td_alone_error=errors[1:],
            gain_estimate=float(self.gain.mean[0]),
            mean_squared_td_error=mean_squared_td_error,
        )

    def _errors(self) -> Float[np.ndarray, " m1"]:
        """The relative value error of the averaged weights, and of each of TD alone; nan where unknown."""
        own = self.weights.mean[None]
        rows = own if self.independent is None else np.concatenate([own, self.independent.averaged.mean])
        reference = self.site.reference
        return np.full(len(rows), np.nan) if reference is None else reference.value_errors(rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the agents that it learns for: its own."""
        return (self.name,)

    @property
    def label(self) -> str:
        """The label of its site."""
        return self.site.label

    @property
    def feature_dim(self) -> int:
        """Of the feature map."""
        return self.site.features.dim

    @property
    def feature_fingerprint(self) -> str:
        """Of the feature map."""
        return self.site.features.fingerprint

    @property
    def reward_sum(self) -> float:
        """Of all steps so far."""
        return self.source.reward_sum

    def saved_chain(self) -> SavedState | None:
        """The saved state of its source; None where it cannot be saved."""
        return self.source.saved()

    @property
    def rounds(self) -> int:
        """In how many rounds it has learnt, those of a warm-up among them."""
        return self.gain.count

    @property
    def mean_reward(self) -> float:
        """The mean of all rewards so far; nan before the first."""
        return self.reward_sum / self.source.steps if self.source.steps else float("nan")

    def explained_share(self) -> float:
        """How much of its rewards' pattern the learnt weights explain, 0.1 to 1; nan with heads of other kinds."""
        sums = self.state.statistics
        if not self.specification.method.keeps_history or sums is None:
            return math.nan
        return float(sums.explained_share(sums.residual(self.weights.mean)))

    def shared_weight(self) -> float:
        """How much of its answer is the fleet's, 0 to 1 (`PosteriorState`); nan with other head updates."""
        posterior = self.state.posterior
        return math.nan if posterior is None else float(posterior.shared_weight)

    def td_error_correlation(self) -> tuple[Float[np.ndarray, " lags"], Float[np.ndarray, " lags"]]:
        """That of its TD errors and the standard error (`error_correlation`); nan with other head updates."""
        posterior = self.state.posterior
        return (np.full(len(LAGS), np.nan),) * 2 if posterior is None else error_correlation(posterior)

    def held_out(self) -> HeldOutErrors:
        """Errors on data that earlier answers were not learnt from; nan where no sums of LSTD alone are kept."""
        return self.quality.errors(self.lstd_sums, self.state.posterior, self.weights.mean)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Of the numbers of its observations, in the order of the record's tests."""
        names: tuple[str, ...] = getattr(self.source, "part_names", ())
        return names

    def value_error(self) -> float:
        """The relative value error of the averaged weights; nan where the truth is unknown."""
        return float(self._errors()[0])

    def held_share(self) -> float:
        """Share of the true value's variance that the basis of its last round holds; nan where that is unknown."""
        reference, basis = self.site.reference, self._basis
        return self.earlier_held_share if reference is None or basis is None else reference.held_share(basis)

    @property
    def lstd_sums(self) -> TransitionSums | None:
        """What LSTD alone is solved from; None where it is not kept, or there is nothing yet."""
        sums = self.state.statistics if holds_lstd_sums(self.specification.method) else self.separate_sums
        return sums if sums is not None and sums.rounds else None

    def lstd_alone_weights(self) -> Float[np.ndarray, " d"]:
        """The value weights of LSTD alone, from the same transitions; nan where they are unknown. A d × d solve."""
        sums = self.lstd_sums
        return np.full(self.specification.feature_dim, np.nan) if sums is None else lstd_alone(sums)

    def lstd_alone_errors(self, ridges: tuple[float, ...] = LSTD_RIDGES) -> Float[np.ndarray, " k"]:
        """Their relative value errors with several ridges; nan where unknown."""
        sums, reference = self.lstd_sums, self.site.reference
        if sums is None or reference is None:
            return np.full(len(ridges), np.nan)
        return reference.value_errors(np.stack([lstd_alone(sums, ridge) for ridge in ridges]))

    def td_alone_errors(self) -> Float[np.ndarray, " m"]:
        """The same of TD alone, for each of its step sizes; empty without the baseline."""
        return self._errors()[1:]

    def gain_error(self) -> float:
        """|η̄ − J|, reward per step; nan where the truth is unknown."""
        reference = self.site.reference
        return float("nan") if reference is None else abs(float(self.gain.mean[0]) - reference.gain)
