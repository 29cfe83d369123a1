"""Mean and variance of each agent's rewards, kept as they come."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.leading_axes import PerAgent, column, dot


@dataclass(frozen=True, eq=False, slots=True)
class RewardMoments:
    """Of all rewards so far, of one agent or of each of n.

    They are updated without cancellation (Chan, Golub and LeVeque 1979, "Updating formulae").

    Rewards are counted from a reference. Where that is one of them, a constant that is large against their
    variation is subtracted once from each, and no sum of products has to lose it again.

    Attributes:
        count: number of rewards, the same for all agents.
        offset: their mean less the reference.
        deviations: the sum of their squared deviations from their mean.
        reference: what rewards are counted from.
    """

    count: int = 0
    offset: PerAgent = 0.0
    deviations: PerAgent = 0.0
    reference: PerAgent = 0.0

    def updated(self, relative: Float[np.ndarray, "*n L"]) -> "RewardMoments":
        """With the rewards of one more round, each less the reference."""
        added = relative.shape[-1]
        mean = relative.mean(axis=-1)
        centred = relative - column(mean)
        count, shift = self.count + added, mean - self.offset
        return RewardMoments(
            count=count,
            offset=self.offset + shift * added / count,
            deviations=self.deviations + dot(centred, centred) + shift * shift * self.count * added / count,
            reference=self.reference,
        )

    @property
    def mean(self) -> PerAgent:
        """The mean reward; 0 before the first."""
        return self.reference + self.offset

    @property
    def variance(self) -> PerAgent:
        """The mean squared deviation; 0 where nothing has varied yet."""
        return self.deviations / self.count if self.count else 0.0


NO_REWARDS = RewardMoments()
