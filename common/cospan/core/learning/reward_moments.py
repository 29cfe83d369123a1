"""Mean and variance of an agent's rewards, kept as they come."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, slots=True)
class RewardMoments:
    """Of all rewards so far (Chan, Golub and LeVeque 1979, "Updating formulae": no cancellation).

    Rewards are counted from a reference. Where that is one of them, a constant that is large against their
    variation is subtracted once from each, and no sum of products has to lose it again.

    Attributes:
        count: number of rewards.
        offset: their mean less the reference.
        deviations: the sum of their squared deviations from their mean.
        reference: what rewards are counted from.
    """

    count: int = 0
    offset: float = 0.0
    deviations: float = 0.0
    reference: float = 0.0

    def updated(self, relative: Float[np.ndarray, " L"]) -> "RewardMoments":
        """With the rewards of one more round, each less the reference."""
        added = len(relative)
        mean = float(relative.mean())
        centred = relative - mean
        count, shift = self.count + added, mean - self.offset
        return RewardMoments(
            count=count,
            offset=self.offset + shift * added / count,
            deviations=self.deviations + float(centred @ centred) + shift * shift * self.count * added / count,
            reference=self.reference,
        )

    @property
    def mean(self) -> float:
        """The mean reward; 0 before the first."""
        return self.reference + self.offset

    @property
    def variance(self) -> float:
        """The mean squared deviation; 0 where nothing has varied yet."""
        return self.deviations / self.count if self.count else 0.0


NO_REWARDS = RewardMoments()
