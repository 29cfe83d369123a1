"""Trials of a new policy against the one that is held: block by block, on the same steps or in turn."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.acting_env import StepLog
from cospan.client.decisions.policy import GreedyPolicy

TURNS = 12
"""Blocks of each policy in a trial in turn."""
SEGMENT_BLOCKS = 10
"""Blocks that are replayed one after another; a block before them, which does not count, lets each policy come to
the states that it keeps to."""


def replayed_gains(
    policies: Sequence[GreedyPolicy],
    log: StepLog,
    block: int,
    generator: np.random.Generator,
    *,
    segment_blocks: int = SEGMENT_BLOCKS,
) -> Float[np.ndarray, "p m"]:
    """The mean reward of each policy in each block of what was observed, had it decided instead.

    Everything that its actions do not change is as it was observed, so the policies meet the same steps. Each
    segment begins at an observed state. The first block only lets the policies arrive.

    Args:
        policies: of one site that has `Decisions.replayed`.
        log: of its steps under whatever policy.
        block: steps of a block.
        generator: of the uniform policy, if it is among them.
        segment_blocks: blocks that are replayed one after another; segments are replayed at once.

    Returns:
        One row for each policy; no blocks where the log has fewer than two.
    """
    seen = np.stack(log.observations) if log.observations else np.zeros((0, 1))
    blocks = len(seen) // block - 1
    if blocks < 1:
        return np.zeros((len(policies), 0))
    counted = min(segment_blocks, blocks)
    segments = blocks // counted
    # The newest segments that the log has in whole; what is left over at its beginning is not replayed.
    ends = len(seen) - block * counted * np.arange(segments)[::-1]
    starts = ends - block * (counted + 1)
    return np.stack([_replayed(policy, seen, starts, (block, counted), generator) for policy in policies])


def _replayed(
    policy: GreedyPolicy,
    seen: np.ndarray,
    starts: np.ndarray,
    size: tuple[int, int],
    generator: np.random.Generator,
) -> Float[np.ndarray, " m"]:
    """`size`: steps of a block, and blocks of a segment that count."""
    (block, counted), decisions = size, policy.decisions
    assert decisions.replayed is not None
    assert decisions.afterstates is not None
    assert decisions.step_rewards is not None
    standing = seen[starts]
    steps = block * (counted + 1)
    rewards = np.zeros((len(starts), steps))
    for step in range(steps):
        actions = policy.batch(standing, generator)
        rewards[:, step] = decisions.step_rewards(standing, actions)
        if step + 1 < steps:
            after = decisions.afterstates(standing, actions)
            standing = np.asarray(decisions.replayed(seen[starts + step + 1], after))
    means = rewards.reshape(len(starts), counted + 1, block).mean(axis=2)[:, 1:]
    return np.asarray(means.reshape(-1))


@dataclass(frozen=True, slots=True)
class Turns:
    """A trial of blocks of the environment under the new policy and the held one, in turn.

    The first half of each block is let pass, in which the policy comes to the states that it keeps to. Which of the
    two goes first changes from pair to pair, so a drift does not count for one of them.

    Attributes:
        pairs: of blocks.
        block: steps of a block, two or more.
    """

    pairs: int
    block: int

    @classmethod
    def of(cls, steps: int) -> "Turns":
        """Those that fit into a trial of this many steps; what is left over is taken under the held policy."""
        pairs = min(TURNS, max(1, steps // 4))
        return cls(pairs, max(2, steps // (2 * pairs)))

    def spans(self, first: int, steps: int) -> list[tuple[int, bool]]:
        """The steps from `first` on, counted from the beginning of the trial: how many, and whether the new policy
        takes them."""
        found: list[tuple[int, bool]] = []
        last = first + steps
        while first < last:
            number = first // self.block
            if number >= 2 * self.pairs:
                found.append((last - first, False))
                break
            end = min(last, (number + 1) * self.block)
            pair, second = divmod(number, 2)
            found.append((end - first, (pair + second) % 2 == 1))
            first = end
        return found

    def differences(self, rewards: Sequence[float]) -> Float[np.ndarray, " m"]:
        """The mean reward under the new policy less that under the held one, of each pair that is complete."""
        pairs = min(self.pairs, len(rewards) // (2 * self.block))
        blocks = np.array(rewards[: pairs * 2 * self.block], dtype=np.float64).reshape(pairs, 2, self.block)
        means = blocks[:, :, self.block // 2 :].mean(axis=2)
        later = means[:, 1] - means[:, 0]
        return np.asarray(np.where(np.arange(pairs) % 2 == 0, later, -later))


def with_cautions(policy: GreedyPolicy, cautions: Sequence[float]) -> list[GreedyPolicy]:
    """The same values, with each of these multiples of the error bars."""
    return [replace(policy, caution=caution) for caution in cautions]
