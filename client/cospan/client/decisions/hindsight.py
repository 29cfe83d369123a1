"""Values by planning in hindsight: what the observed steps would have brought from other afterstates.

Where a site says that its actions change a known part of an observation only (`Decisions.replayed`), every observed
step tells of all afterstates, and not only of the one that was taken. So the best plan for what was observed is
computed backward from each of several afterstates, and values are regressed on these returns: hindsight planning
(Sinclair, Vieira Frujeri, Cheng, Marshall, Barbalho, Li, Neville, Menache and Swaminathan 2023, "Hindsight learning
for MDPs with exogenous inputs"). Returns of plans that know what follows are too good, but the features do not know
it, and the regression averages over it: what is kept is how returns differ between afterstates.

No policy is evaluated, so steps under any policy serve, and none is dropped when an agent takes a new one.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.environment.rollout import checked_features

LEVELS = 7
"""Afterstates that a plan begins from, evenly spaced over what was observed; between them values are linear."""
AHEAD_BLOCKS = 1
"""Blocks after its own that a plan looks ahead; what is left then has no value."""
_MOST_ROWS = 40_000
"""Candidates that are valued at once."""
_MOST_KEPT = 2**22
"""Candidates whose consequences are kept from block to block: 96 MiB of them."""
_RANGE_MOMENTS = 48
"""Observed moments that `reachable_range` begins from, about."""


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """What afterstates would have brought at m moments, in the order of time.

    Attributes:
        afterstates: k of each moment, shape (m, k, observation).
        returns: of the best plan from each, shape (m, k); comparable within a moment only.
    """

    afterstates: Float[np.ndarray, "m k o"]
    returns: Float[np.ndarray, "m k"]

    def joined_with(self, later: "Plan") -> "Plan":
        """The moments of this plan and then those."""
        return Plan(
            np.concatenate([self.afterstates, later.afterstates]), np.concatenate([self.returns, later.returns])
        )

    def taken(self, places: Int[np.ndarray, " n"]) -> "Plan":
        """Some of its moments."""
        return Plan(self.afterstates[places], self.returns[places])

    def features(self, policy: GreedyPolicy) -> Float[np.ndarray, "m k d"]:
        """φ of the afterstates."""
        flat = self.afterstates.reshape(self.returns.size, -1)
        found = np.empty((len(flat), policy.features.dim))
        for first in range(0, len(flat), _MOST_ROWS):
            part = slice(first, first + _MOST_ROWS)
            found[part] = checked_features(policy.features, flat[part], f"the plan of site {policy.index}")
        return found.reshape(*self.returns.shape, -1)


def controlled_axis(policy: GreedyPolicy, observations: Float[np.ndarray, "t o"]) -> int | None:
    """The one number of an observation that the site's actions change; None where it is not one, or not known.

    Args:
        policy: of the site.
        observations: some that followed one another, in that order.
    """
    decisions = policy.decisions
    if decisions.replayed is None or decisions.afterstates is None or observations.ndim != 2:
        return None
    if len(observations) < 2:
        return None
    changed: set[int] = set()
    for action in (policy.actions[0], policy.actions[-1]):
        taken = np.broadcast_to(action, (len(observations) - 1, *np.shape(action)))
        after = np.asarray(decisions.afterstates(observations[:-1], taken))
        following = np.asarray(decisions.replayed(observations[1:], after))
        changed |= set(np.flatnonzero((following != observations[1:]).any(axis=0)).tolist())
        # Levels are put into an afterstate in place of its own number, so this must be what is observed next.
        if any(not np.array_equal(following[:, axis], after[:, axis]) for axis in changed):
            return None
    return changed.pop() if len(changed) == 1 else None


def reachable_range(
    policy: GreedyPolicy, observations: Float[np.ndarray, "t o"], axis: int, block: int
) -> tuple[float, float] | None:
    """The least and the largest number there that actions can lead to within a plan; None where there is one only.

    Args:
        policy: of the site.
        observations: some of the site, from which it begins.
        axis: see `controlled_axis`.
        block: of the plans.
    """
    decisions = policy.decisions
    assert decisions.afterstates is not None
    some = observations[:: max(1, len(observations) // _RANGE_MOMENTS)]
    low, high = float(observations[:, axis].min()), float(observations[:, axis].max())
    for _ in range(block * (1 + AHEAD_BLOCKS)):
        ends = np.concatenate([some, some])
        ends[:, axis] = np.repeat([low, high], len(some))
        taken = np.tile(policy.actions, (len(ends), *(1,) * (policy.actions.ndim - 1)))
        reached = np.asarray(decisions.afterstates(np.repeat(ends, len(policy.actions), axis=0), taken))[:, axis]
        before, low, high = (low, high), min(low, float(reached.min())), max(high, float(reached.max()))
        if before == (low, high):
            break
    return (low, high) if high > low else None


def plan(
    policy: GreedyPolicy,
    observations: Float[np.ndarray, "t o"],
    axis: int,
    limits: tuple[float, float],
    block: int,
) -> Plan:
    """The returns of the best plans over observed steps, by dynamic programming backward from the look-ahead's end.

    Args:
        policy: of the site; its actions and its rule's are chosen among, and its values play no part.
        observations: that followed one another.
        axis: see `controlled_axis`.
        limits: the least and the largest level there.
        block: moments of each block; the oldest that do not fill one are left out.

    Returns:
        The moments of all blocks after which `AHEAD_BLOCKS` blocks were observed; none of too few observations.
    """
    levels = np.linspace(*limits, LEVELS)
    horizon = block * (1 + AHEAD_BLOCKS)
    segments = max(0, (len(observations) - 1 - horizon) // block + 1)
    starts = len(observations) - 1 - horizon - block * np.arange(segments)[::-1]
    returns = np.zeros((segments, block, LEVELS))
    rows = LEVELS * (len(policy.actions) + 1)
    at_once = max(1, min(_MOST_ROWS // rows, _MOST_KEPT // (rows * block) - AHEAD_BLOCKS))
    for first in range(0, segments, at_once):
        part = slice(first, first + at_once)
        returns[part] = _returns(policy, observations, axis, levels, (starts[part], block))
    moments = (starts[:, None] + np.arange(block)).reshape(-1)
    afterstates = np.repeat(observations[moments][:, None], LEVELS, axis=1)
    afterstates[:, :, axis] = levels
    return Plan(afterstates, returns.reshape(-1, LEVELS))


def _returns(
    policy: GreedyPolicy,
    observations: Float[np.ndarray, "t o"],
    axis: int,
    levels: Float[np.ndarray, " k"],
    segments: tuple[Int[np.ndarray, " n"], int],
) -> Float[np.ndarray, "n b k"]:
    """Of the moments of some segments, which follow one another; `segments`: where they start, and the block."""
    starts, block = segments
    number = len(starts)
    # A block is looked ahead to by the segment before its own, so what its actions bring is computed once.
    every = np.concatenate([starts, starts[-1] + block * np.arange(1, 1 + AHEAD_BLOCKS)])

    def brought(places: slice, step: int) -> _Brought:
        return _Brought.of(policy, observations[every[places] + step], axis, levels)

    size = len(every) * block * len(levels) * (len(policy.actions) + 1)
    kept = [brought(slice(None), step) for step in range(1, block + 1)] if size <= _MOST_KEPT else None
    following = np.zeros((number, len(levels)))
    returns = np.zeros((number, block, len(levels)))
    for ahead in range(AHEAD_BLOCKS, -1, -1):
        part = slice(ahead, ahead + number)
        for step in range(block, 0, -1):
            one = brought(part, step) if kept is None else kept[step - 1].taken(part)
            following = one.best(following)
            if not ahead:
                returns[:, step - 1] = following
    return returns


@dataclass(frozen=True, eq=False, slots=True)
class _Brought:
    """What a step brings in n observations by each action from each level, whatever follows it.

    Attributes:
        rewards: of the step.
        lower: the level at or below which it ends.
        share: of the way from there to the next level.
    """

    rewards: Float[np.ndarray, "n c"]
    lower: Int[np.ndarray, "n c"]
    share: Float[np.ndarray, "n c"]

    @classmethod
    def of(
        cls,
        policy: GreedyPolicy,
        seen: Float[np.ndarray, "n o"],
        axis: int,
        levels: Float[np.ndarray, " k"],
    ) -> "_Brought":
        """With the candidates of each level in turn; beyond the levels it ends at the first or the last."""
        decisions = policy.decisions
        assert decisions.afterstates is not None
        assert decisions.step_rewards is not None
        standing = np.repeat(seen, len(levels), axis=0)
        standing[:, axis] = np.tile(levels, len(seen))
        candidates = policy.candidates(standing)
        repeated = np.repeat(standing, candidates.shape[1], axis=0)
        actions = candidates.reshape(len(repeated), *policy.actions.shape[1:])
        rewards = np.asarray(decisions.step_rewards(repeated, actions)).reshape(len(seen), -1)
        reached = np.asarray(decisions.afterstates(repeated, actions))[:, axis].reshape(len(seen), -1)
        steps = np.clip((reached - levels[0]) / (levels[1] - levels[0]), 0.0, len(levels) - 1.0)
        lower = np.minimum(steps.astype(np.intp), len(levels) - 2)
        return cls(rewards, lower, steps - lower)

    def taken(self, part: slice) -> "_Brought":
        """Some of its observations."""
        return _Brought(self.rewards[part], self.lower[part], self.share[part])

    def best(self, following: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """The best sum of the reward and of what follows, from each level.

        Args:
            following: what the afterstates with the levels bring; between levels it is interpolated.
        """
        below = np.take_along_axis(following, self.lower, axis=1)
        above = np.take_along_axis(following, self.lower + 1, axis=1)
        totals = self.rewards + (below + self.share * (above - below))
        return np.asarray(totals.reshape(*following.shape, -1).max(axis=2))


def planned_over(policy: GreedyPolicy, observations: Float[np.ndarray, "t o"], block: int) -> Plan | None:
    """The plan over all of these observations; None where the site cannot be planned for, or they are too few."""
    axis = controlled_axis(policy, observations)
    if axis is None or (limits := reachable_range(policy, observations, axis, block)) is None:
        return None
    found = plan(policy, observations, axis, limits, block)
    return found if len(found.returns) else None
