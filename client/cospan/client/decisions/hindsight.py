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
        moments, levels = self.returns.shape
        flat = self.afterstates.reshape(moments * levels, -1)
        return checked_features(policy.features, flat, f"the plan of site {policy.index}").reshape(
            moments, levels, -1
        )


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
    following = np.zeros((segments, LEVELS))
    returns = np.zeros((segments, block, LEVELS))
    for step in range(horizon, 0, -1):
        following = _decided_best(policy, observations[starts + step], axis, levels, following)
        if step <= block:
            returns[:, step - 1] = following
    moments = (starts[:, None] + np.arange(block)).reshape(-1)
    afterstates = np.repeat(observations[moments][:, None], LEVELS, axis=1)
    afterstates[:, :, axis] = levels
    return Plan(afterstates, returns.reshape(-1, LEVELS))


def _decided_best(
    policy: GreedyPolicy,
    seen: Float[np.ndarray, "n o"],
    axis: int,
    levels: Float[np.ndarray, " k"],
    following: Float[np.ndarray, "n k"],
) -> Float[np.ndarray, "n k"]:
    """The best sum of the step's reward and of what follows, from each level, of n segments.

    Args:
        following: what the afterstates with these levels bring.
    """
    decisions = policy.decisions
    assert decisions.afterstates is not None
    assert decisions.step_rewards is not None
    best = np.empty(following.shape)
    number = len(policy.actions) + (decisions.rule is not None)
    at_once = max(1, _MOST_ROWS // (len(levels) * number))
    for first in range(0, len(seen), at_once):
        part = slice(first, first + at_once)
        standing = np.repeat(seen[part], len(levels), axis=0)
        standing[:, axis] = np.tile(levels, len(seen[part]))
        repeated = np.repeat(standing, number, axis=0)
        actions = policy.candidates(standing).reshape(len(repeated), *policy.actions.shape[1:])
        rewards = np.asarray(decisions.step_rewards(repeated, actions))
        reached = np.asarray(decisions.afterstates(repeated, actions))[:, axis].reshape(len(seen[part]), -1)
        ahead = _between(following[part], levels, reached)
        totals = rewards.reshape(ahead.shape) + ahead
        best[part] = totals.reshape(-1, len(levels), number).max(axis=2)
    return best


def _between(
    values: Float[np.ndarray, "n k"], levels: Float[np.ndarray, " k"], places: Float[np.ndarray, "n m"]
) -> Float[np.ndarray, "n m"]:
    """Linear interpolation in each row; beyond the levels, the values at their ends."""
    steps = np.clip((places - levels[0]) / (levels[1] - levels[0]), 0.0, len(levels) - 1.0)
    lower = np.minimum(steps.astype(np.intp), len(levels) - 2)
    share = steps - lower
    below, above = np.take_along_axis(values, lower, axis=1), np.take_along_axis(values, lower + 1, axis=1)
    return np.asarray(below + share * (above - below))


def planned_over(policy: GreedyPolicy, observations: Float[np.ndarray, "t o"], block: int) -> Plan | None:
    """The plan over all of these observations; None where the site cannot be planned for, or they are too few."""
    axis = controlled_axis(policy, observations)
    if axis is None or (limits := reachable_range(policy, observations, axis, block)) is None:
        return None
    found = plan(policy, observations, axis, limits, block)
    return found if len(found.returns) else None
