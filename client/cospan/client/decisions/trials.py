"""Trials of a new policy against the one that is held: block by block, on the same steps or in turn."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.acting_env import ActingEnv, StepLog
from cospan.client.decisions.policy import GreedyPolicy

SEGMENT_BLOCKS = 10
"""Blocks that are replayed one after another; a block before them, which does not count, lets each policy come to
the states that it keeps to."""


def replayed_gains(
    policies: Sequence[GreedyPolicy], log: StepLog, block: int, generator: np.random.Generator
) -> Float[np.ndarray, "p m"]:
    """The mean reward of each policy in each block of what was observed, had it decided instead.

    Everything that its actions do not change is as it was observed, so the policies meet the same steps. Each
    segment begins at an observed state. The first block only lets the policies arrive.

    Args:
        policies: of one site that has `Decisions.replayed`.
        log: of its steps under whatever policy.
        block: steps of a block.
        generator: of the uniform policy, if it is among them.

    Returns:
        One row for each policy; no blocks where the log has fewer than two.
    """
    seen = np.stack(log.observations) if log.observations else np.zeros((0, 1))
    blocks = len(seen) // block - 1
    if blocks < 1:
        return np.zeros((len(policies), 0))
    counted = min(SEGMENT_BLOCKS, blocks)
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


def trial_in_turn(
    env: ActingEnv, held: GreedyPolicy, new: GreedyPolicy, *, blocks: int, block: int
) -> Float[np.ndarray, " m"]:
    """The differences of neighbouring blocks of the environment under the new policy and the held one.

    The first half of each block is let pass, in which the policy comes to the states that it keeps to. Which of the
    two goes first changes from pair to pair, so a drift does not count for one of them.

    Args:
        env: of the site; it keeps the held policy.
        held: the policy of the site.
        new: that it is compared with.
        blocks: of each of the two.
        block: steps of a block, two or more.
    """
    differences = np.zeros(blocks)
    for number in range(blocks):
        gains = {}
        for is_new in (bool(number % 2), not number % 2):
            env.policy = new if is_new else held
            env.act(block // 2)
            env.take_log()
            env.act(block - block // 2)
            gains[is_new] = float(np.mean(env.take_log().rewards))
        differences[number] = gains[True] - gains[False]
    env.policy = held
    return differences


def with_cautions(policy: GreedyPolicy, cautions: Sequence[float]) -> list[GreedyPolicy]:
    """The same values, with each of these multiples of the error bars."""
    return [replace(policy, caution=caution) for caution in cautions]
