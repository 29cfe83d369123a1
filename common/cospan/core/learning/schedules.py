"""Step sizes over time, and averages of iterates."""

import enum
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

LEAST_ROUNDS = 16
"""Between two refreshes of agents that are not in the sample: a refresh takes as long as some 16 other rounds."""


class Refresh(enum.Enum):
    """Whether posteriors are refreshed in a round."""

    WHEN_POOLED = "in the rounds in which curvatures are pooled"
    NOW = "in any case: it is the last round"
    LEFT_OUT = "not at all: others are refreshed, and these pool what they had"


def refresh_of_others(rounds: int, refreshed: int, left: int | None) -> Refresh:
    """That of agents which are not in the sample of a large fleet.

    Args:
        rounds: learnt by them, with this round.
        refreshed: the same at their last refresh; 0 before the first.
        left: rounds of the run after this one; None where it has no end.
    """
    if left == 0:
        return Refresh.NOW
    is_soon = left is not None and left < LEAST_ROUNDS
    return Refresh.LEFT_OUT if is_soon or rounds - refreshed < LEAST_ROUNDS else Refresh.WHEN_POOLED


def decay(steps: float, horizon: float, power: float) -> float:
    """The factor (c / (c + t))^p of every step size after t environment steps; 1 where c = 0 (no decay)."""
    return 1.0 if horizon == 0.0 else float((horizon / (horizon + steps)) ** power)


def decays(steps: int, count: int, horizon: float, power: float) -> Float[np.ndarray, " count"]:
    """`decay` after t, t + 1, …, t + count − 1 environment steps."""
    if horizon == 0.0:
        return np.ones(count)
    return np.asarray((horizon / (horizon + steps + np.arange(count))) ** power)


@dataclass(frozen=True, eq=False, slots=True)
class AveragedIterate:
    """The average of a sequence of iterates with weights that grow like k^η, the k-th weight.

    Polynomial-decay averaging (Shamir and Zhang 2013, eq. 10): x̄_k = (1 − a) x̄_{k−1} + a x_k with
    a = (η + 1) / (k + η). With η = 3 it weighs the last part of the sequence about as a mean over its second half
    does, with 15 as over its last eighth, with ∞ it is the newest iterate. It needs O(d) memory and no horizon, and
    is valid at every moment.

    Attributes:
        mean: x̄_k.
        count: k.
        power: η.
    """

    mean: Float[np.ndarray, "*shape"]
    count: int = 0
    power: float = 3.0

    def updated(self, value: Float[np.ndarray, "*shape"]) -> "AveragedIterate":
        """The average with one more iterate."""
        count = self.count + 1
        if math.isinf(self.power):
            return AveragedIterate(mean=value, count=count, power=self.power)
        share = (self.power + 1.0) / (count + self.power)
        mean = (1.0 - share) * self.mean + share * value
        return AveragedIterate(mean=mean, count=count, power=self.power)
