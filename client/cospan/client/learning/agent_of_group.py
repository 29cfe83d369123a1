"""One agent of a group by itself: what its file, its value function and its warnings are made of."""

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cospan.client.learning.group_blocks import Block
from cospan.client.learning.learning_curve import LearningCurve
from cospan.core.learning.baselines import LSTD_RIDGES, IndependentTD
from cospan.core.learning.learner_state import LearnerState
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.reward_moments import RewardBatches
from cospan.core.learning.schedules import AveragedIterate
from cospan.core.quality.held_out import HeldOutErrors
from cospan.core.quality.record import QualityRecord

if TYPE_CHECKING:
    from cospan.client.learning.group_learner import GroupLearner


class BlockResults:
    """What is computed for all agents of a block at once, when it is asked for first.

    It stays as it was then, so it is made for one walk over the agents between two rounds.
    """

    def __init__(self, block: Block, tested_every: int) -> None:
        """Of what the block has learnt so far; see `Block.quality`."""
        self._block, self._tested_every = block, tested_every

    @cached_property
    def explained_shares(self) -> Float[np.ndarray, " n"]:
        return self._block.explained_shares()

    @cached_property
    def held_shares(self) -> Float[np.ndarray, " n"]:
        return self._block.held_shares()

    @cached_property
    def td_error_correlations(self) -> tuple[Float[np.ndarray, "n lags"], Float[np.ndarray, "n lags"]]:
        return self._block.td_error_correlations()

    @cached_property
    def held_out(self) -> HeldOutErrors:
        return self._block.held_out()

    @cached_property
    def quality(self) -> QualityRecord:
        return self._block.quality(self._tested_every)

    @cached_property
    def value_errors(self) -> Float[np.ndarray, " n"]:
        return self._block.value_errors()

    @cached_property
    def td_alone_errors(self) -> Float[np.ndarray, "n m"]:
        return self._block.td_alone_errors()

    @cached_property
    def lstd_alone_weights(self) -> Float[np.ndarray, "n d"]:
        return self._block.lstd_alone_weights()

    @cached_property
    def lstd_alone_errors(self) -> Float[np.ndarray, "n k"]:
        return self._block.lstd_alone_errors()


class AgentOfGroup:
    """One agent of a group: what its file is made of. Its attributes are those of `SiteLearner`."""

    def __init__(self, group: "GroupLearner", block: Block, results: BlockResults, number: int, place: int) -> None:
        """The agent in this place of its block, and of the whole group."""
        self.specification, self.name, self.index = group.specification, group.names[place], group.indices[place]
        self.label, self.last_round = block.chains.labels[number], group.last_round
        self.features, self.feature_fingerprint = group.features, group.feature_fingerprint
        self._group, self._block, self._results = group, block, results
        self._number, self._place = number, place

    def lstd_alone_weights(self) -> Float[np.ndarray, " d"]:
        return np.asarray(self._results.lstd_alone_weights[self._number])

    def lstd_alone_errors(self, ridges: tuple[float, ...] = LSTD_RIDGES) -> Float[np.ndarray, " k"]:
        if ridges != LSTD_RIDGES:
            return np.asarray(self._block.lstd_alone_errors(ridges)[self._number])
        return np.asarray(self._results.lstd_alone_errors[self._number])

    @property
    def separate_sums(self) -> TransitionSums | None:
        sums = self._block.state.separate_sums
        return None if sums is None else sums.of_agents(self._number)

    def td_alone_errors(self) -> Float[np.ndarray, " m"]:
        return np.asarray(self._results.td_alone_errors[self._number])

    @property
    def state(self) -> LearnerState:
        return self._block.state.learner.of_agents(self._number).summed()

    @property
    def bounded_rounds(self) -> int:
        return int(self._block.state.bounded_rounds[self._number])

    @property
    def reward_batches(self) -> RewardBatches:
        return self._block.state.reward_batches.of_agents(self._number)

    @property
    def weights(self) -> AveragedIterate:
        whole = self._block.state.weights
        return replace(whole, mean=whole.mean[self._number])

    @property
    def gain(self) -> AveragedIterate:
        whole = self._block.state.gain
        return replace(whole, mean=whole.mean[self._number, None])

    @property
    def independent(self) -> IndependentTD | None:
        learners = self._block.state.independent
        return learners[self._number] if learners else None

    @property
    def learning_curve(self) -> LearningCurve[float]:
        return self._group.learning_curve.of_agent(self._place)

    @property
    def reward_sum(self) -> float:
        return float(self._block.chains.reward_sums[self._number])

    @property
    def mean_reward(self) -> float:
        return self.reward_sum / self._block.chains.steps if self._block.chains.steps else float("nan")

    def saved_chain(self) -> None:
        """None: the chains of a group are saved together, in the group's file."""

    def explained_share(self) -> float:
        return float(self._results.explained_shares[self._number])

    def held_share(self) -> float:
        return float(self._results.held_shares[self._number])

    def shared_weight(self) -> float:
        return float(self._block.shared_weights()[self._number])

    def td_error_correlation(self) -> tuple[Float[np.ndarray, " lags"], Float[np.ndarray, " lags"]]:
        found, spread = self._results.td_error_correlations
        return found[self._number], spread[self._number]

    def held_out(self) -> HeldOutErrors:
        return self._results.held_out.of_agent(self._number)

    @property
    def quality(self) -> QualityRecord:
        return self._results.quality.of_agents(self._number)

    @property
    def part_names(self) -> tuple[str, ...]:
        return self._block.chains.part_names

    def value_error(self) -> float:
        return float(self._results.value_errors[self._number])

    def gain_error(self) -> float:
        gains = self._block.state.gain.mean
        return abs(float(gains[self._number]) - float(self._block.references.gains[self._number]))
