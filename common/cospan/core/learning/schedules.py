"""Step sizes over time, and averages of iterates."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


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
