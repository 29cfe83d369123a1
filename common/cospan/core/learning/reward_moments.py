"""Mean, variance and batch means of each agent's rewards, kept as they come."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cospan.core.linalg.leading_axes import PerAgent, column, dot
from cospan.core.statistics import student_quantile

MOST_BATCHES = 32
"""Batches that are complete before two become one."""
FEWEST_BATCHES = 8
"""Below which there is no interval."""


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


@dataclass(frozen=True, eq=False, slots=True)
class RewardBatches:
    """Sums of rewards over batches of consecutive rounds: what an interval of their mean is made of.

    Rewards of consecutive steps are correlated, sums over long batches hardly (batch means; Flegal and Jones 2010,
    "Batch means and spectral variance estimators in Markov chain Monte Carlo"). Once 32 batches are complete they
    are joined by twos, so that there are 16 to 31 in a long run.

    Attributes:
        sums: of the complete batches, shape (*n, k), k below 32.
        rounds: of each of them.
        open_sum: of the batch that is not complete.
        open_rounds: of that batch so far.
    """

    sums: Float[np.ndarray, "*n k"]
    open_sum: Float[np.ndarray, "*n"]
    rounds: int = 1
    open_rounds: int = 0

    @classmethod
    def initial(cls, agents: tuple[int, ...] = ()) -> "RewardBatches":
        """Of no rounds, for agents of this shape: () for one, (n,) for n."""
        return cls(np.zeros((*agents, 0)), np.zeros(agents))

    def updated(self, rewards: Float[np.ndarray, "*n m"], steps: int | None = None) -> "RewardBatches":
        """With the rewards of one more round.

        Args:
            rewards: of its transitions.
            steps: L, where cuts may leave fewer of them: the round counts with L times their mean then, and not at
                all where there are none.
        """
        if steps is not None and rewards.shape[-1] != steps:
            if not rewards.shape[-1]:
                return self
            rewards = rewards.mean(axis=-1, keepdims=True) * steps
        total, rounds = np.asarray(self.open_sum + rewards.sum(axis=-1)), self.open_rounds + 1
        if rounds < self.rounds:
            return replace(self, open_sum=total, open_rounds=rounds)
        sums, length = np.concatenate([self.sums, total[..., None]], axis=-1), self.rounds
        if sums.shape[-1] == MOST_BATCHES:
            sums, length = sums[..., ::2] + sums[..., 1::2], 2 * length
        return RewardBatches(sums, np.zeros(total.shape), length)

    def of_agents(self, places: int | Sequence[int] | slice) -> "RewardBatches":
        """Those of one of n agents, or of some of them, by their places."""
        return replace(self, sums=self.sums[places], open_sum=np.asarray(self.open_sum[places]))

    @property
    def freedom(self) -> int:
        """Degrees of freedom of `standard_error`."""
        return int(self.sums.shape[-1]) - 1

    def standard_error(self, steps_per_round: int) -> Float[np.ndarray, "*n"]:
        """Of the mean reward per step; nan below eight complete batches."""
        count = self.sums.shape[-1]
        if count < FEWEST_BATCHES:
            return np.full(self.open_sum.shape, np.nan)
        deviation = self.sums.std(axis=-1, ddof=1) / (self.rounds * steps_per_round)
        return np.asarray(deviation / np.sqrt(count))

    def half_width(self, steps_per_round: int, coverage: float = 0.95) -> Float[np.ndarray, "*n"]:
        """Half the width of the interval of the gain about the mean reward, by Student's t; nan as above."""
        error = self.standard_error(steps_per_round)
        return np.asarray(error if self.freedom < 1 else student_quantile(coverage, self.freedom) * error)
