"""What an agent, or each of n, keeps beside its learner to tell how good its value function is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cospan.core.history.feature_rows import dense
from cospan.core.learning.baselines import lstd_alone
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.posterior import PosteriorState
from cospan.core.linalg.leading_axes import column
from cospan.core.quality.feature_tests import PERIODS, bins_of, bins_of_time, feature_tests
from cospan.core.quality.held_out import Answers, HeldOut, HeldOutErrors, held_out_errors, next_rounds
from cospan.core.quality.within import within_covariance

_KEPT_ANSWERS = 2


@dataclass(frozen=True, slots=True)
class Due:
    """When answers are kept.

    Attributes:
        rounds: of the run; 0 for no end.
        is_last: whether this is the last round.
        with_tests: whether TD errors are tested each time; else `tested` does it when it is asked.
    """

    rounds: int
    is_last: bool
    with_tests: bool = True


@dataclass(frozen=True, eq=False, slots=True)
class QualityRecord:
    """Earlier answers with what came after them, and the observations of the rounds that a posterior keeps.

    Attributes:
        kept: answers and the transitions held out from them, oldest first; at most two.
        second_moment: Σ φ φᵀ, shape (*n, d, d), where no posterior has it; else None.
        parts: the numbers of the observations of each kept round, shape (*n, L, k) each; empty without a posterior.
        exogenous: the exogenous parts of the same; empty where none are declared.
        tests: of each part, and of each period: see `feature_tests`, shape (*n, 2, k + 6); nan before the first.
    """

    kept: tuple[HeldOut, ...] = ()
    second_moment: Float[np.ndarray, "*n d d"] | None = None
    parts: tuple[Float[np.ndarray, "*n L k"], ...] = ()
    exogenous: tuple[Float[np.ndarray, "*n L q"], ...] = ()
    tests: Float[np.ndarray, "*n 2 c"] | None = None

    def of_agents(self, places: int | Sequence[int] | slice) -> "QualityRecord":
        """That of one of n agents, or of some of them, by their places."""
        return QualityRecord(
            tuple(each.of_agents(places) for each in self.kept),
            None if self.second_moment is None else self.second_moment[places],
            tuple(each[places] for each in self.parts),
            tuple(each[places] for each in self.exogenous),
            None if self.tests is None else self.tests[places],
        )

    def following(
        self,
        trajectory: Trajectory,
        states: tuple[LearnerState, LearnerState],
        sums: TransitionSums | None,
        joint: Float[np.ndarray, "*n d"],
        td_alone: Float[np.ndarray, "*n m d"],
        *,
        due: Due,
    ) -> "QualityRecord":
        """With one more round.

        Args:
            trajectory: of the round.
            states: of the learner before and after it.
            sums: of LSTD alone, after it; None where they are not kept, and then nothing is.
            joint: the newest weights of the joint method.
            td_alone: those of TD alone.
            due: when answers are kept.
        """
        before, after = states
        if sums is None or not trajectory.transitions:
            return self
        rewards = trajectory.uncut(trajectory.rewards - column(after.rewards.reference))
        record = replace(
            self,
            kept=tuple(
                each.updated(trajectory.features, rewards, trajectory.is_transition, changes=trajectory.changes)
                for each in self.kept
            ),
        )
        if after.posterior is None:
            visited = trajectory.visited
            squares = visited.swapaxes(-1, -2) @ visited
            record = replace(
                record, second_moment=squares + (0.0 if self.second_moment is None else self.second_moment)
            )
        else:
            record = record._with_observations(trajectory, before.posterior, after.posterior)
            is_old = before.posterior is not None and after.posterior.weights is before.posterior.weights
            if is_old and not due.is_last:
                return record  # the joint answer is of an earlier round than that of LSTD alone would be
        learnt = self.kept[-1].answers.rounds if self.kept else 0
        if not due.is_last and sums.rounds < next_rounds(learnt, due.rounds):
            return record
        if due.with_tests:
            record = record.tested(after.posterior, sums)
        if due.is_last:
            return record
        answers = Answers(joint, lstd_alone(sums), td_alone, sums.gain_estimate, int(sums.steps), sums.rounds)
        return replace(record, kept=(*record.kept[-_KEPT_ANSWERS + 1 :], HeldOut.begun_with(answers)))

    def _with_observations(
        self, trajectory: Trajectory, before: PosteriorState | None, after: PosteriorState
    ) -> "QualityRecord":
        """Those of the rounds that the posterior keeps: of every `stride`-th."""
        stride = 1 if before is None else before.stride
        number = after.rounds - 1
        if number % stride:
            return self
        thinned = slice(None, None, after.stride // stride)
        found: dict[str, Any] = {}
        for name in ("parts", "exogenous"):
            values, known = getattr(trajectory, name), getattr(self, name)
            if values is not None and (known or number == 0):
                found[name] = (*known, values[..., :-1, :])[thinned]
        return replace(self, **found)

    def metric(self, sums: TransitionSums, posterior: PosteriorState | None) -> Float[np.ndarray, "*n d d"]:
        """C of the values' mean square; within equal exogenous parts where they are known."""
        if posterior is not None and self.exogenous and len(self.exogenous) == len(posterior.features):
            states = np.stack([dense(each)[..., :-1, :] for each in posterior.features], axis=-3)
            known = _known(posterior)

            def of_one(rows: np.ndarray, parts: np.ndarray) -> np.ndarray:
                return within_covariance(rows[known], parts[known])

            return _each(of_one, states, np.stack(self.exogenous, axis=-3))
        squares = self.second_moment if posterior is None else posterior.second_moment
        assert squares is not None, "there are sums, so there are squares"
        mean = sums.traces / sums.steps
        return np.asarray(squares / sums.steps - mean[..., :, None] * mean[..., None, :])

    def errors(
        self, sums: TransitionSums | None, posterior: PosteriorState | None, joint: Float[np.ndarray, "*n d"]
    ) -> HeldOutErrors:
        """See `held_out_errors`."""
        if sums is None or not self.kept:
            return HeldOutErrors.unknown(joint.shape[:-1])
        return held_out_errors(self.kept, sums, self.metric(sums, posterior), joint)

    def tested(
        self, posterior: PosteriorState | None, sums: TransitionSums | None, every: int = 1
    ) -> "QualityRecord":
        """With the tests of the newest weights in the kept rounds; as it is without a posterior.

        Args:
            posterior: of the learner.
            sums: of LSTD alone.
            every: of n agents, each such one is tested; the others' tests are nan.
        """
        if posterior is None or sums is None or not posterior.rounds:
            return self
        if every == 1:
            return replace(self, tests=self._tests(posterior, sums))
        chosen = slice(None, None, every)
        found = self.of_agents(chosen)._tests(posterior.of_agents(chosen), sums.of_agents(chosen))
        tests = np.full((len(posterior.weights), *found.shape[1:]), np.nan)
        tests[chosen] = found
        return replace(self, tests=tests)

    def _tests(self, posterior: PosteriorState, sums: TransitionSums) -> Float[np.ndarray, "*n 2 c"]:
        """Whether the TD errors of the newest weights in the kept rounds depend on observations or time."""
        kept = [dense(each) for each in posterior.features]
        features = np.stack([each[..., :-1, :] for each in kept], axis=-3)
        following = np.stack([each[..., 1:, :] for each in kept], axis=-3)
        rewards = np.stack(posterior.rewards, axis=-2)
        gain = np.asarray(sums.gain_estimate)[..., None, None]
        weights = posterior.weights[..., None, :, None]
        deltas = rewards - gain + ((following - features) @ weights)[..., 0]
        rounds, length = rewards.shape[-2:]
        steps = (np.arange(rounds)[:, None] * posterior.stride * length + np.arange(length)).reshape(-1)
        known = _known(posterior)
        timed = bins_of_time(steps[known])
        parts = self.parts if len(self.parts) == rounds else ()
        columns = np.stack(parts, axis=-3) if parts else np.zeros((*rewards.shape, 0))

        def of_one(delta: np.ndarray, states: np.ndarray, seen: np.ndarray) -> np.ndarray:
            found = np.full((2, seen.shape[-1] + len(PERIODS)), np.nan)
            own = [bins_of(column) for column in seen[known].T]
            tested = feature_tests(delta[known, 0], states[known], [*own, *timed.values()])
            found[:, : len(own)] = tested[:, : len(own)]
            for place, period in enumerate(timed):
                found[:, len(own) + PERIODS.index(period)] = tested[:, len(own) + place]
            return found

        return _each(of_one, deltas[..., None], features, columns)


def _known(posterior: PosteriorState) -> Bool[np.ndarray, " m"]:
    """Which slots of the kept rounds are no cuts."""
    every = np.ones(posterior.rewards[0].shape[-1], dtype=np.bool_)
    return np.concatenate([every if each is None else each for each in posterior.is_transition])


NOTHING_RECORDED = QualityRecord()


def _each(of_one: Callable[..., np.ndarray], *stacks: Float[np.ndarray, "..."]) -> np.ndarray:
    """A function of each agent's rows, one after another; the stacks have the shapes (*n, rounds, L, k)."""
    # With -1 in place of this number, stacks of no columns would have no shape.
    rows_of_agent = stacks[0].shape[-3] * stacks[0].shape[-2]
    flat = [stack.reshape(*stack.shape[:-3], rows_of_agent, stack.shape[-1]) for stack in stacks]
    if flat[0].ndim == 2:
        return np.asarray(of_one(*flat))
    return np.stack([np.asarray(of_one(*rows)) for rows in zip(*flat, strict=True)])
