"""How sure a value function is: what its intervals are made of, computed when one is asked for."""

import math
from typing import Any, NamedTuple

import numpy as np

from cospan.client.files.agent_result import AgentResult
from cospan.client.files.learner_values import loaded_posterior
from cospan.client.files.result_file import Learnt
from cospan.core.learning.learner_state import LearnerState
from cospan.core.method import HeadUpdate
from cospan.core.statistics import student_quantile
from cospan.core.uncertainty.value_covariance import ValueSpread, value_spread
from cospan.wire.errors import IntervalUnknownError, InvalidValueError

_FROM = "only preset practical keeps what intervals of values are made of; learn with it (head_update posterior)"


class Interval(NamedTuple):
    """An interval that holds the true number with the probability that was asked for.

    Attributes:
        lower: its lower end.
        upper: its upper end.
    """

    lower: float
    upper: float


class GainUncertainty(NamedTuple):
    """What the interval of the gain is made of.

    Attributes:
        standard_error: of the mean reward, from batch means; nan where they are too few.
        freedom: its degrees of freedom.
    """

    standard_error: float
    freedom: int

    @classmethod
    def of_learner(cls, learner: Learnt) -> "GainUncertainty":
        """From the rewards of all steps so far."""
        batches = learner.reward_batches
        error = batches.standard_error(learner.specification.method.steps_per_round)
        return cls(float(error), batches.freedom)

    @classmethod
    def of_file(cls, result: AgentResult) -> "GainUncertainty":
        """Of a file of `ValueFunction.save`, or of an agent's own.

        Raises:
            RunFileError: a value is missing, or is something else.
        """
        error = result.number("mean_reward_standard_error")
        if "mean_reward_freedom" in result.values:
            return cls(error, result.whole("mean_reward_freedom", least=-1))
        return cls(error, len(result.numbers("reward_batches", 1)) - 2)

    def half_width(self, coverage: float) -> float:
        """Half the width of the interval; nan where the rounds are too few."""
        known = math.isfinite(self.standard_error) and self.freedom > 0
        return student_quantile(coverage, self.freedom) * self.standard_error if known else math.nan

    def interval(self, centre: float, coverage: float, whose: str) -> Interval:
        """About the mean reward.

        Raises:
            IntervalUnknownError: the rounds are too few.
            InvalidValueError: the coverage is none.
        """
        check_coverage(coverage)
        half = self.half_width(coverage)
        if math.isnan(half):
            raise IntervalUnknownError(
                f"{whose} has fewer than 8 rounds of rewards, too few for an interval of its gain; run some more"
            )
        return Interval(centre - half, centre + half)


class ValueUncertainty:
    """The spread of the weights of one value function; computed once, when it is first asked for."""

    def __init__(
        self,
        source: LearnerState | None,
        spread: ValueSpread | None = None,
        problem: str = _FROM,
    ) -> None:
        """Of what an agent has learnt, or of a spread that is known.

        Args:
            source: what the agent has learnt; None where it does not tell.
            spread: where it is known already.
            problem: why there is none, where that is so, as a part of a sentence.
        """
        self._source, self._spread, self._problem = source, spread, problem

    @classmethod
    def of_learner(cls, learner: Learnt) -> "ValueUncertainty":
        """Of what it has learnt so far; it may go on."""
        if learner.specification.method.head_update is not HeadUpdate.POSTERIOR:
            return cls(None)
        return cls(learner.state, problem="it has learnt from no round yet; run one")

    @classmethod
    def of_file(cls, result: AgentResult, feature_dim: int) -> "ValueUncertainty":
        """Of a file of `ValueFunction.save`, or of an agent's own.

        Raises:
            RunFileError: a value is missing, or is something else.
        """
        if "value_spread" in result.values:
            root = result.rounded("value_spread", feature_dim, feature_dim)
            unit, visited = result.number("value_spread_unit"), result.vector("visited_features", feature_dim)
            return cls(None, ValueSpread(root, unit, visited))
        return cls(loaded_posterior(result, feature_dim))

    def spread(self, whose: str) -> ValueSpread:
        """The spread.

        Raises:
            IntervalUnknownError: what was learnt does not tell it.
        """
        if self._spread is None:
            try:
                self._spread = None if self._source is None else value_spread(self._source)
            except np.linalg.LinAlgError as failure:
                raise IntervalUnknownError(
                    f"{whose} has no intervals of values: its moments cannot be solved ({failure}); learn it again"
                ) from failure
            if self._spread is None:
                raise IntervalUnknownError(f"{whose} has no intervals of values: {self._problem}")
            self._source = None  # a history of transitions, which is large
        return self._spread

    def values(self, whose: str) -> dict[str, Any]:
        """The arrays of a file; none where there is no spread."""
        try:
            spread = self.spread(whose)
        except IntervalUnknownError:
            return {}
        return {
            "value_spread": spread.root,
            "value_spread_unit": spread.unit,
            "visited_features": spread.visited,
        }


def check_coverage(coverage: float) -> None:
    """Raises InvalidValueError where it is no probability strictly between 0 and 1."""
    if not 0.0 < coverage < 1.0:
        raise InvalidValueError(
            f"coverage is {coverage!r}; it must be above 0 and below 1, as 0.9 for an interval that holds the true "
            "number nine times in ten"
        )
