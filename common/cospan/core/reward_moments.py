"""Mean and variance of an agent's rewards, kept as they come."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, slots=True)
class RewardMoments:
    """Of all rewards so far (Chan, Golub and LeVeque 1979, "Updating formulae": no cancellation).

    Attributes:
        count: how many there were.
        mean: their mean.
        deviations: the sum of their squared deviations from it.
    """

    count: int = 0
    mean: float = 0.0
    deviations: float = 0.0

    def including(self, rewards: Float[np.ndarray, " L"]) -> "RewardMoments":
        """With those of one more round."""
        added = len(rewards)
        mean = float(rewards.mean())
        centred = rewards - mean
        count, shift = self.count + added, mean - self.mean
        return RewardMoments(
            count=count,
            mean=self.mean + shift * added / count,
            deviations=self.deviations + float(centred @ centred) + shift * shift * self.count * added / count,
        )

    @property
    def variance(self) -> float:
        """The mean squared deviation; 0 where nothing has varied yet."""
        return self.deviations / self.count if self.count else 0.0


NO_REWARDS = RewardMoments()
