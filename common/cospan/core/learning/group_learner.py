"""The round of n agents at once: `learner` with a leading axis n, and the sum of what they send.

One agent's functions stay the reference: each agent of a group comes to what it would come to alone, and the
group's contribution to the sum of its agents', up to rounding. What is gained is that numpy is called once for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.aggregation.row_sums import coarse
from cospan.core.learning.group_blocked_td import forward_traces, gain_paths, head_paths, in_basis, reversed_traces
from cospan.core.learning.group_least_squares import GroupSums, explained_shares, project_to_balls
from cospan.core.learning.learner import LearnerState
from cospan.core.learning.reward_moments import RewardMoments
from cospan.core.learning.schedules import decay, decays
from cospan.core.learning.td import effective_step
from cospan.core.learning.units import reaches_bound
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, Gradient
from cospan.core.method import HeadUpdate, Method


@dataclass(frozen=True, eq=False, slots=True)
class GroupTrajectory:
    """L consecutive steps of each of n chains.

    Attributes:
        features: φ(s_0) … φ(s_L) of each, shape (n, L + 1, d).
        rewards: r_0 … r_{L−1} of each, shape (n, L).
    """

    features: Float[np.ndarray, "n L1 d"]
    rewards: Float[np.ndarray, "n L"]


@dataclass(frozen=True, eq=False, slots=True)
class GroupState:
    """What n agents know besides the basis; see `LearnerState`.

    Attributes:
        heads: w of each, shape (n, r).
        gain_estimates: η of each, shape (n,).
        reward_references: what the rewards of each are counted from in sums, shape (n,).
        reward_offsets: mean of all rewards of each, less its reference, shape (n,).
        reward_deviations: sum of their squared deviations from their mean, shape (n,).
        feature_squares: Σ ‖φ(s)‖² of each over the states of all steps so far, shape (n,).
        steps: environment steps learnt from so far, the same of all.
        statistics: of heads by least squares; None before the first round, and with the other corrections.
    """

    heads: Float[np.ndarray, "n r"]
    gain_estimates: Float[np.ndarray, " n"]
    reward_references: Float[np.ndarray, " n"]
    reward_offsets: Float[np.ndarray, " n"]
    reward_deviations: Float[np.ndarray, " n"]
    feature_squares: Float[np.ndarray, " n"]
    steps: int = 0
    statistics: GroupSums | None = None

    @classmethod
    def initial(cls, agents: int, rank: int) -> "GroupState":
        """w = 0, η = 0."""
        nothing = np.zeros(agents)
        return cls(np.zeros((agents, rank)), nothing, nothing, nothing, nothing, nothing)

    def of_agent(self, number: int) -> LearnerState:
        """What one agent knows, by its place in the group."""
        moments = RewardMoments(
            self.steps,
            float(self.reward_offsets[number]),
            float(self.reward_deviations[number]),
            float(self.reward_references[number]),
        )
        return LearnerState(
            head=self.heads[number],
            gain_estimate=float(self.gain_estimates[number]),
            steps=self.steps,
            statistics=None if self.statistics is None else self.statistics.of_agent(number),
            rewards=moments if self.steps else RewardMoments(),
            feature_squares=float(self.feature_squares[number]),
        )

    def of_agents(self, numbers: Sequence[int]) -> "GroupState":
        """What some of the agents know, by their places."""
        rows = list(numbers)
        return GroupState(
            self.heads[rows],
            self.gain_estimates[rows],
            self.reward_references[rows],
            self.reward_offsets[rows],
            self.reward_deviations[rows],
            self.feature_squares[rows],
            self.steps,
            None if self.statistics is None else self.statistics.of_agents(rows),
        )

    def measured(self, trajectory: GroupTrajectory, method: Method) -> tuple["GroupState", GroupTrajectory]:
        """With the moments of one more round, of which `steps` does not know yet, and η less the references.

        The trajectory returned has the rewards less the references; see `cospan.core.learning.learner`.
        """
        added, before, gains = trajectory.rewards.shape[1], self.steps, self.gain_estimates
        begins, references = method.reward_scaled and not before, self.reward_references
        if begins:
            references = trajectory.rewards[:, 0].copy()
        relative = trajectory.rewards - references[:, None]
        means = relative.mean(axis=1)
        centred = relative - means[:, None]
        shifts, count = means - self.reward_offsets, before + added
        visited = trajectory.features[:, :-1]
        state = replace(
            self,
            gain_estimates=np.zeros(len(means)) if begins else gains - references,
            reward_references=references,
            reward_offsets=self.reward_offsets + shifts * added / count,
            reward_deviations=self.reward_deviations
            + np.einsum("nl,nl->n", centred, centred)
            + shifts * shifts * before * added / count,
            feature_squares=self.feature_squares + np.einsum("nld,nld->n", visited, visited),
        )
        return state, GroupTrajectory(trajectory.features, relative)


@dataclass(frozen=True, eq=False, slots=True)
class GroupUnits:
    """`cospan.core.learning.units.Units` of each of n agents.

    Attributes:
        reward: σ of each, shape (n,).
        feature: ρ of each, shape (n,).
    """

    reward: Float[np.ndarray, " n"]
    feature: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, state: GroupState, method: Method, count: int) -> "GroupUnits":
        """From the moments of so many steps; 1 where the run does not scale, or there is nothing to measure."""
        nothing = np.ones(len(state.heads))
        if not method.reward_scaled:
            return cls(nothing, nothing)
        squares = state.reward_deviations / count, state.feature_squares / count
        reward, feature = (np.sqrt(np.where(square > 0.0, square, 1.0)) for square in squares)
        return cls(reward, feature)

    @property
    def head(self) -> Float[np.ndarray, " n"]:
        """σ / ρ."""
        return np.asarray(self.reward / self.feature)


@dataclass(frozen=True, eq=False, slots=True)
class GroupOutcome:
    """What a round gives.

    Attributes:
        state: the agents' state after the round.
        contribution: the sum of what each of them would send, with n as its weight.
        mean_squared_errors: the mean of δ² over the round's errors of each, shape (n,).
        bounded: whether the ball ‖w‖ ≤ U has cut a head of each in this round, shape (n,), of bool.
    """

    state: GroupState
    contribution: Contribution
    mean_squared_errors: Float[np.ndarray, " n"]
    bounded: Bool[np.ndarray, " n"]


@dataclass(frozen=True, eq=False, slots=True)
class _Corrected:
    """A round's corrections, before anything is summed over the agents.

    Attributes:
        state: after the round, but for the rewards' moments.
        right: one vector of length r for each agent, its head in the gradient, shape (n, r); or, where `left` is
            None, one for each feature vector of the trajectory, shape (n, L + 1, r).
        left: one of length d for each agent, G^k = left_k right_kᵀ, shape (n, d); else G^k = Σ_h φ_h right_khᵀ.
        moments: the heads whose second moments are sent, shape (n, m, r), and the mean is over m.
        shares: what each agent counts with, shape (n,).
        mean_squared_errors: shape (n,).
        bounded: whether a head was cut, shape (n,).
        row_sums: shape (n, d), with corrections from the full history; else None.
    """

    state: GroupState
    right: Float[np.ndarray, "n *k r"]
    left: Float[np.ndarray, "n d"] | None
    moments: Float[np.ndarray, "n m r"]
    shares: Float[np.ndarray, " n"]
    mean_squared_errors: Float[np.ndarray, " n"]
    bounded: Bool[np.ndarray, " n"]
    row_sums: Float[np.ndarray, "n d"] | None = None


def learn_round_together(
    state: GroupState,
    basis: Float[np.ndarray, "d r"],
    trajectory: GroupTrajectory,
    method: Method,
    round_number: int = 0,
) -> GroupOutcome:
    """The part of n agents in round t, all quantities on the right being those before it (eqs. 6-8).

    Raises:
        ValueError: the run has a warm-up, in which each agent sends estimates of its own, which are no sum.
    """
    if method.warm_up_rounds:
        raise ValueError("a group cannot take part in a warm-up: its estimates are each agent's own, and no sum")
    steps = state.steps + trajectory.rewards.shape[1]
    state, relative = state.measured(trajectory, method)
    units = GroupUnits.of(state, method, steps)
    found = _corrected(state, basis, relative, method, units)
    after = replace(found.state, steps=steps, gain_estimates=state.reward_references + found.state.gain_estimates)
    found = _dimensionless(found, units)
    moment = None
    if method.preconditioned:
        agents, heads, rank = found.moments.shape
        flat = found.moments.reshape(agents * heads, rank)
        moment = flat.T @ flat / heads
    contribution = Contribution(
        gradient=_summed_gradient(found, trajectory),
        weight=float(len(relative.rewards)),
        head_second_moment=moment,
        row_sums=coarse(found.row_sums).sum(axis=0)
        if found.row_sums is not None and method.sends_row_sums_in(round_number)
        else None,
    )
    return GroupOutcome(after, contribution, found.mean_squared_errors, found.bounded)


def _dimensionless(found: _Corrected, units: GroupUnits) -> _Corrected:
    """What is streamed in the units of each agent, with the root of its share in each factor."""
    roots, rows = np.sqrt(found.shares), found.row_sums
    inner = roots / units.head
    if found.left is None:
        right = found.right * (found.shares / units.reward**2)[:, None, None]
        left = None
    else:
        right = found.right * inner[:, None]
        left = found.left * (roots / units.reward / units.feature)[:, None]
    return replace(
        found,
        left=left,
        right=right,
        moments=found.moments * inner[:, None, None],
        row_sums=None if rows is None else rows / (units.feature**2)[:, None],
    )


def _summed_gradient(found: _Corrected, trajectory: GroupTrajectory) -> Gradient:
    """Σ_k G^k."""
    agents, rank = len(found.shares), found.right.shape[-1]
    if found.left is None:
        flat = trajectory.features.reshape(-1, trajectory.features.shape[2])
        return DenseMatrix(flat.T @ found.right.reshape(-1, rank))
    if agents < rank:
        return FactoredMatrix(left=found.left.T.copy(), right=found.right.T.copy())
    return DenseMatrix(found.left.T @ found.right)


def _corrected(
    state: GroupState,
    basis: Float[np.ndarray, "d r"],
    trajectory: GroupTrajectory,
    method: Method,
    units: GroupUnits,
) -> _Corrected:
    radii = method.head_radius * units.head
    match method.head_update:
        case HeadUpdate.END_OF_ROUND:
            return _correct_at_end(state, basis, trajectory, method, units)
        case HeadUpdate.EVERY_STEP:
            return _correct_at_every_step(state, basis, trajectory, method, units)
        case HeadUpdate.LEAST_SQUARES:
            return _solve_at_end(state, basis, trajectory, method, radii)
        case HeadUpdate.FULL_HISTORY:
            return _solve_all(state, basis, trajectory, method, radii)


def _correct_at_end(
    state: GroupState,
    basis: Float[np.ndarray, "d r"],
    trajectory: GroupTrajectory,
    method: Method,
    units: GroupUnits,
) -> _Corrected:
    """Algorithm 1 of each agent."""
    features, rewards = trajectory.features, trajectory.rewards
    steps = rewards.shape[1]
    scale = decay(state.steps, method.decay_horizon, method.decay_power)
    first = features[:, 0]
    coordinates, last = first @ basis, features[:, -1] @ basis
    centred = (rewards - state.gain_estimates[:, None]).sum(axis=1)
    errors = centred + np.einsum("nr,nr->n", last - coordinates, state.heads)
    curvatures = np.einsum("nr,nr->n", coordinates, coordinates)
    head_steps = method.head_step / units.feature / units.feature * scale
    sizes = np.asarray(effective_step(head_steps, curvatures, implicit=method.implicit_head_step))
    radii = method.head_radius * units.head
    heads = project_to_balls(state.heads + (sizes / steps * errors)[:, None] * coordinates, radii)
    moved = method.gain_step * scale * (rewards.mean(axis=1) - state.gain_estimates)
    return _Corrected(
        state=replace(
            state,
            heads=heads,
            gain_estimates=state.gain_estimates + moved,
        ),
        right=state.heads,
        left=(errors / steps)[:, None] * first,
        moments=state.heads[:, None],
        shares=np.ones(len(errors)),
        mean_squared_errors=errors * errors,
        bounded=reaches_bound(heads, radii),
    )


def _correct_at_every_step(
    state: GroupState,
    basis: Float[np.ndarray, "d r"],
    trajectory: GroupTrajectory,
    method: Method,
    units: GroupUnits,
) -> _Corrected:
    """TD(λ) in the frozen basis, all agents' h-th step at once."""
    features, rewards = trajectory.features, trajectory.rewards
    agents, steps = rewards.shape
    scales = decays(state.steps, steps, method.decay_horizon, method.decay_power)
    gains = gain_paths(state.gain_estimates, rewards, method.gain_step * scales)
    coordinates = in_basis(features, basis)
    directions = forward_traces(coordinates[:, :-1], method.trace_decay)
    curvatures = np.einsum("nlr,nlr->nl", coordinates[:, :-1], directions)
    head_steps = (method.head_step / units.feature / units.feature)[:, None] * scales
    sizes = effective_step(head_steps, curvatures, implicit=method.implicit_head_step)
    radii = method.head_radius * units.head
    errors, heads = head_paths(
        state.heads,
        rewards - gains[:, :-1],
        coordinates[:, 1:] - coordinates[:, :-1],
        sizes[..., None] * directions,
        radii,
    )
    right = np.zeros((agents, steps + 1, basis.shape[1]))  # with a zero for φ(s_L), which is in no trace
    right[:, :-1] = reversed_traces(errors[..., None] * heads[:, :-1], method.trace_decay)
    return _Corrected(
        state=replace(state, heads=heads[:, -1].copy(), gain_estimates=gains[:, -1].copy()),
        right=right,
        left=None,
        moments=heads[:, :-1],
        shares=np.ones(agents),
        mean_squared_errors=np.einsum("nl,nl->n", errors, errors) / steps,
        bounded=np.asarray(reaches_bound(heads[:, 1:], radii[:, None]).any(axis=1)),
    )


def _solve_at_end(
    state: GroupState,
    basis: Float[np.ndarray, "d r"],
    trajectory: GroupTrajectory,
    method: Method,
    radii: Float[np.ndarray, " n"],
) -> _Corrected:
    """The head that solves each agent's own system, kept in the coordinates of the basis."""
    features, rewards = trajectory.features, trajectory.rewards
    agents, steps = rewards.shape
    before = state.statistics
    before = GroupSums.initial(agents, basis.shape[1], basis) if before is None else before.moved_to(basis)
    heads = before.heads(radii)
    coordinates = in_basis(features, basis)
    differences = coordinates[:, 1:] - coordinates[:, :-1]
    errors = rewards - before.gain_estimates[:, None] + (differences @ heads[..., None])[..., 0]
    traces = forward_traces(coordinates[:, :-1], method.trace_decay)
    after = before.updated(coordinates, traces, rewards, method.forgetting)
    weights = reversed_traces(errors[..., None], method.trace_decay)
    solved = after.heads(radii)
    return _Corrected(
        state=replace(
            state,
            heads=solved,
            gain_estimates=after.gain_estimates,
            statistics=after,
        ),
        right=heads,
        left=(weights.swapaxes(1, 2) @ features[:, :-1])[:, 0],
        moments=heads[:, None],
        shares=np.ones(agents),
        mean_squared_errors=np.einsum("nl,nl->n", errors, errors) / steps,
        bounded=reaches_bound(solved, radii),
    )


def _solve_all(
    state: GroupState,
    basis: Float[np.ndarray, "d r"],
    trajectory: GroupTrajectory,
    method: Method,
    radii: Float[np.ndarray, " n"],
) -> _Corrected:
    """Heads and gradients of all transitions so far, in the basis of today."""
    features, rewards = trajectory.features, trajectory.rewards
    agents, steps = rewards.shape
    before = GroupSums.initial(agents, len(basis)) if state.statistics is None else state.statistics
    sums = before.updated(
        features, forward_traces(features[:, :-1], method.trace_decay), rewards, method.forgetting
    )
    images = sums.images(basis)
    heads = sums.turned(basis, basis, images).heads(radii)
    whole = sums.centred_rewards / sums.steps
    residuals = whole - (images @ heads[..., None])[..., 0] / sums.steps
    row_sums = sums.row_sums
    shares = np.ones(agents)
    if method.explained_power:
        shares = explained_shares(residuals, whole, row_sums) ** method.explained_power
    values = (features @ (heads @ basis.T)[..., None])[..., 0]
    errors = rewards - sums.gain_estimates[:, None] + values[:, 1:] - values[:, :-1]
    return _Corrected(
        state=replace(state, heads=heads, gain_estimates=sums.gain_estimates, statistics=sums),
        right=heads,
        left=residuals,
        moments=heads[:, None],
        shares=shares,
        mean_squared_errors=np.einsum("nl,nl->n", errors, errors) / steps,
        bounded=reaches_bound(heads, radii),
        row_sums=row_sums,
    )
