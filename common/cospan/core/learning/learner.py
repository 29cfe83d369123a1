"""An agent's round: from a trajectory and a basis to a new head, a new gain estimate and a subspace gradient.

All is written once, for one agent and for n at once: arrays have leading axes *n, which one agent's lack. Each of n
agents comes to what it would come to alone, and their gradient is the sum of theirs, up to rounding.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.aggregation.row_sums import coarse
from cospan.core.aggregation.warm_start import HalfSums
from cospan.core.learning.blocked_td import discounted_sums, gain_path, head_path
from cospan.core.learning.learner_state import LearnerState, RoundOutcome, Trajectory
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.posterior import FleetPrior
from cospan.core.learning.posterior_round import posterior_round
from cospan.core.learning.schedules import Refresh, decay, decays
from cospan.core.learning.td import effective_step, gain_update, head_update, l_step_error, subspace_gradient
from cospan.core.learning.units import NO_UNITS, Units, reaches_bound
from cospan.core.linalg.leading_axes import PerAgent, applied, column, dot, times_shared
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, Gradient
from cospan.core.method import HeadUpdate, Method

Basis: TypeAlias = Float[np.ndarray, "d r"]


@dataclass(frozen=True, eq=False, slots=True)
class _Correction:
    """A round's head updates, in the units of the data and before anything is summed over the agents.

    Attributes:
        head: w after the round, shape (*n, r).
        gain_estimate: η after the round, less the reference.
        errors: δ, shape (*n, m).
        left: u of G = u vᵀ, shape (*n, d); or None where G = Σ_h φ_h v_hᵀ over the round's first L states.
        right: v, shape (*n, r); or v_h, shape (*n, L, r).
        heads: those in the gradient where they are not `right`, shape (*n, L, r).
        statistics: after the round.
        row_sums: see `RoundOutcome`.
        bounded: see `RoundOutcome`.
    """

    head: Float[np.ndarray, "*n r"]
    gain_estimate: PerAgent
    errors: Float[np.ndarray, "*n m"]
    left: Float[np.ndarray, "*n d"] | None
    right: Float[np.ndarray, "*n_h r"]
    bounded: Bool[np.ndarray, "*n"]
    heads: Float[np.ndarray, "*n L r"] | None = None
    statistics: TransitionSums | None = None
    row_sums: Float[np.ndarray, "*n d"] | None = None


def learn_round(
    state: LearnerState,
    basis: Float[np.ndarray, "d r"],
    trajectory: Trajectory,
    method: Method,
    round_number: int = 0,
    *,
    head_covariance: Float[np.ndarray, "r r"] | None = None,
    agents: int = 2,
    refresh: Refresh = Refresh.WHEN_POOLED,
) -> RoundOutcome:
    """The agents' part of round t, all quantities on the right being those before it (eqs. 6-8).

    Args:
        state: before the round.
        basis: B_t.
        trajectory: of the round.
        method: the constants.
        round_number: t, which tells the rounds of a warm-up, and those in which numbers are pooled.
        head_covariance: W_t; None where the method has none.
        agents: n, how many the run has (`RunSpecification.agents`); of use with posterior head updates alone.
        refresh: whether posteriors are refreshed, as in the last round, where all that it brought is made use of.

    Raises:
        ValueError: there are n agents and the run has a warm-up: each sends estimates of its own, whose sum means
            nothing. Or the round has cuts, and the method takes one L-step error.
    """
    if trajectory.is_transition is not None and method.head_update is HeadUpdate.END_OF_ROUND:
        raise ValueError(
            "a round has a gap, and an L-step error has none: choose another head update than this one"
        )
    if method.warm_up_rounds and state.head.ndim > 1:
        raise ValueError("a group cannot take part in a warm-up: its estimates are each agent's own, and no sum")
    state, relative = _measured(state, trajectory, method)
    units = _units(state, method)
    if method.head_update is HeadUpdate.POSTERIOR:
        assert head_covariance is not None, "the coordinator announces W with each basis"
        due = refresh is Refresh.NOW or method.sends_pooled_in(round_number)
        prior = FleetPrior(basis, head_covariance, agents)
        refreshes = None if refresh is Refresh.LEFT_OUT else due
        return posterior_round(state, prior, relative, units, due=due, refreshes=refreshes, method=method)
    if method.warms_up_in(round_number):
        return _warmed_up(state, relative, method, units, round_number)
    made = _corrected(_after_warm_up(state), basis, relative, method, units)
    return _outcome(state, made, relative, basis, units)


def _outcome(
    state: LearnerState, made: _Correction, relative: Trajectory, basis: Basis, units: Units
) -> RoundOutcome:
    """What a round of heads by correction or by least squares comes to."""
    gradient, moment = _streamed(made, relative.features, units)
    rows = made.row_sums
    if rows is not None and units is not NO_UNITS:
        rows = rows / column(units.feature) / column(units.feature)
    return RoundOutcome(
        state=LearnerState(
            made.head,
            state.rewards.reference + made.gain_estimate,
            state.steps + relative.transitions,
            made.statistics,
            state.rewards,
            None,
            state.feature_squares,
        ),
        gradient=gradient,
        head_second_moment=moment,
        mean_squared_error=relative.mean_square(made.errors),
        weights=made.head @ basis.T,
        pooled=rows,
        bounded=made.bounded if made.bounded.ndim else bool(made.bounded),
    )


def _measured(state: LearnerState, trajectory: Trajectory, method: Method) -> tuple[LearnerState, Trajectory]:
    """The state with the moments of this round's data and η less the reference; the rewards less the reference.

    The reference is the agent's first reward where the run scales rewards, else 0; and η begins there. (Begun at
    the first round's mean, the L-step error of that round would be rounding alone.)
    """
    moments, rewards = state.rewards, trajectory.rewards
    gain = state.gain_estimate - moments.reference
    if method.reward_scaled and not moments.count:
        first = trajectory.known_rewards[..., 0] if trajectory.transitions else np.float64(0.0)
        moments = replace(moments, reference=first.copy() if first.ndim else float(first))
        gain = 0.0 * gain
    relative = trajectory.with_rewards(trajectory.uncut(rewards - column(moments.reference)))
    measured = LearnerState(
        state.head,
        gain,
        state.steps,
        state.statistics,
        moments.updated(relative.known_rewards) if trajectory.transitions else moments,
        state.warm_up,
        state.feature_squares + trajectory.squares,
        state.posterior,
        state.late,
    )
    return measured, relative


def _units(state: LearnerState, method: Method) -> Units:
    if not (method.reward_scaled and state.rewards.count):
        return NO_UNITS
    return Units.of(state.rewards.variance, state.feature_squares / state.rewards.count)


def contribution_of(outcome: RoundOutcome, method: Method, round_number: int = 0) -> Contribution:
    """What the agents send of round t: the gradient, and what the run scales its steps with."""
    agents = outcome.state.head.shape[:-1]
    pooled = outcome.pooled if method.sends_pooled_in(round_number) else None
    if pooled is not None:
        pooled = coarse(pooled) if method.pooled_is_nonnegative else pooled
        pooled = pooled.sum(axis=0) if agents else pooled
    return Contribution(
        gradient=outcome.gradient,
        weight=float(agents[0]) if agents else 1.0,
        head_second_moment=outcome.head_second_moment if method.preconditioned else None,
        pooled=pooled,
    )


def _warmed_up(
    state: LearnerState, trajectory: Trajectory, method: Method, units: Units, round_number: int
) -> RoundOutcome:
    """A round of the warm-up: the transitions are summed, w stays as it was, and η is the mean of all rewards.

    The gradient is zero, and in the last round [a b], in the agent's units where the run asks for it.
    """
    features, dim, rank = trajectory.features, trajectory.features.shape[1], len(state.head)
    halves = state.warm_up or HalfSums.begun_in(round_number, method.warm_up_rounds, dim)
    cuts = trajectory.is_transition
    traces = discounted_sums(features[:-1], method.trace_decay, cuts)
    halves = halves.updated(features, traces, trajectory.rewards, round_number, cuts)
    gradient: Gradient = FactoredMatrix(left=np.zeros((dim, 1)), right=np.zeros((rank, 1)))
    if method.brings_estimates_in(round_number):
        gradient = DenseMatrix(halves.estimates / units.head)
    errors, steps = (
        trajectory.uncut(trajectory.rewards - state.rewards.offset),
        state.steps + trajectory.transitions,
    )
    return RoundOutcome(
        state=replace(state, gain_estimate=state.rewards.mean, steps=steps, warm_up=halves),
        gradient=gradient,
        head_second_moment=np.zeros((rank, rank)),
        mean_squared_error=trajectory.mean_square(errors),
        weights=np.zeros(dim),
    )


def _after_warm_up(state: LearnerState) -> LearnerState:
    """Least squares continue from the d × d sums of the warm-up; other head updates keep the head as it is."""
    if state.warm_up is None:
        return state
    return replace(state, statistics=state.warm_up.joined, warm_up=None)


def _streamed(
    made: _Correction, features: Float[np.ndarray, "*n L1 d"], units: Units
) -> tuple[Gradient, Float[np.ndarray, "r r"]]:
    """G and the mean of w wᵀ, as if rewards were divided by σ and features by ρ, summed over the agents.

    That divides δ by σ, φ by ρ and w by σ / ρ.
    """
    left, right, heads, rank = made.left, made.right, made.heads, made.right.shape[-1]
    if units is not NO_UNITS:
        reward, scale = column(units.reward), column(units.head)
        if left is None:
            right = right / column(reward) / column(reward)
        else:
            left, right = left / reward / column(units.feature), right / scale
        heads = None if heads is None else heads / column(scale)
    # No scaled w wᵀ where G has factors: it holds no number that `right` does not.
    flat = (right if heads is None else heads).reshape(-1, rank)
    moment = flat.T @ flat
    if heads is not None:
        moment /= heads.shape[-2]
    if left is None:
        visited = features[..., :-1, :].reshape(-1, features.shape[-1])
        return DenseMatrix(visited.T @ right.reshape(-1, rank)), moment
    lefts = left.reshape(-1, left.shape[-1])
    if left.ndim == 1 or len(lefts) < rank:
        return FactoredMatrix(left=lefts.T.copy(), right=flat.T.copy()), moment
    return DenseMatrix(lefts.T @ flat), moment


def _corrected(
    state: LearnerState, basis: Basis, trajectory: Trajectory, method: Method, units: Units
) -> _Correction:
    """The head update, with β / ρ² and U σ / ρ in the units of the data."""
    radius = method.head_radius * units.head
    match method.head_update:
        case HeadUpdate.END_OF_ROUND:
            return _correct_at_end(state, basis, trajectory, method, (_head_step(method, units), radius))
        case HeadUpdate.EVERY_STEP:
            return _correct_at_every_step(state, basis, trajectory, method, (_head_step(method, units), radius))
        case HeadUpdate.LEAST_SQUARES:
            return _solve_at_end(state, basis, trajectory, method, radius)
        case _:  # a posterior has a round of its own
            return _solve_all(state, basis, trajectory, method, radius)


def _head_step(method: Method, units: Units) -> PerAgent:
    return method.head_step / units.feature / units.feature


def _correct_at_end(
    state: LearnerState, basis: Basis, trajectory: Trajectory, method: Method, constants: tuple[PerAgent, PerAgent]
) -> _Correction:
    """Algorithm 1: one L-step error, one correction. `constants` are β and U."""
    features, rewards, (head_step, radius) = trajectory.features, trajectory.rewards, constants
    first, steps = features[..., 0, :], rewards.shape[-1]
    scale = decay(state.steps, method.decay_horizon, method.decay_power)
    coordinates = first @ basis
    error = l_step_error(rewards, state.gain_estimate, first, features[..., -1, :], state.head @ basis.T)
    step = effective_step(head_step * scale, dot(coordinates, coordinates), implicit=method.implicit_head_step)
    head = head_update(state.head, error, coordinates, step / steps, radius)
    left, right = subspace_gradient(error, first, state.head, steps)
    return _Correction(
        head=head,
        gain_estimate=gain_update(state.gain_estimate, rewards.mean(axis=-1), method.gain_step * scale),
        errors=np.asarray(error)[..., None],
        left=left,
        right=right,
        bounded=reaches_bound(head, radius),
    )


def _reversed(trajectory: Trajectory) -> Bool[np.ndarray, " L"] | None:
    return None if trajectory.is_transition is None else trajectory.is_transition[::-1]


def _correct_at_every_step(
    state: LearnerState, basis: Basis, trajectory: Trajectory, method: Method, constants: tuple[PerAgent, PerAgent]
) -> _Correction:
    """TD(λ) in the frozen basis at each of the L steps; G = Σ δ e wᵀ is the sum of the steps' gradients."""
    features, rewards, (head_step, radius) = trajectory.features, trajectory.rewards, constants
    scales = decays(state.steps, rewards.shape[-1], method.decay_horizon, method.decay_power)
    gains = gain_path(state.gain_estimate, rewards, trajectory.uncut(method.gain_step * scales))
    coordinates = times_shared(features, basis)
    directions = discounted_sums(coordinates[..., :-1, :], method.trace_decay, trajectory.is_transition)
    curvatures = np.einsum("...ij,...ij->...i", coordinates[..., :-1, :], directions)
    sizes = effective_step(column(head_step) * scales, curvatures, implicit=method.implicit_head_step)
    errors, heads = head_path(
        state.head,
        rewards - gains[..., :-1],
        coordinates[..., 1:, :] - coordinates[..., :-1, :],
        column(sizes) * directions,
        radius,
    )
    errors = trajectory.uncut(errors)
    # Σ_h δ_h e_h w_hᵀ, the sum over the trace taken last: so no trace of length d is ever made.
    weighted = (errors[..., None] * heads[..., :-1, :])[..., ::-1, :]
    return _Correction(
        head=heads[..., -1, :].copy(),
        gain_estimate=gains[..., -1].copy() if gains.ndim > 1 else float(gains[-1]),
        errors=errors,
        left=None,
        right=discounted_sums(weighted, method.trace_decay, _reversed(trajectory))[..., ::-1, :],
        heads=heads[..., :-1, :],
        bounded=np.asarray(reaches_bound(heads[..., 1:, :], column(radius)).any(axis=-1)),
    )


def _solve_at_end(
    state: LearnerState, basis: Float[np.ndarray, "d r"], trajectory: Trajectory, method: Method, radius: PerAgent
) -> _Correction:
    """The head that solves the agent's own system; G = (Σ δ e) wᵀ with the head from before the round."""
    features, rewards, before = trajectory.features, trajectory.rewards, state.statistics
    before = TransitionSums.initial(basis, rewards.shape[:-1]) if before is None else before.moved_to(basis)
    head = before.head(radius)
    coordinates = times_shared(features, basis)
    cuts = trajectory.is_transition
    traces = discounted_sums(coordinates[..., :-1, :], method.trace_decay, cuts)
    changes = coordinates[..., 1:, :] - coordinates[..., :-1, :]
    errors = trajectory.uncut(rewards - column(before.gain_estimate) + applied(changes, head))
    after = before.updated(coordinates, traces, rewards, method.forgetting, cuts)
    weights = discounted_sums(errors[..., ::-1, None], method.trace_decay, _reversed(trajectory))[..., ::-1, :]
    solved = after.head(radius)
    return _Correction(
        head=solved,
        gain_estimate=after.gain_estimate,
        errors=errors,
        left=(features[..., :-1, :].swapaxes(-1, -2) @ weights)[..., 0],
        right=head,
        bounded=reaches_bound(solved, radius),
        statistics=after,
    )


def _solve_all(
    state: LearnerState, basis: Float[np.ndarray, "d r"], trajectory: Trajectory, method: Method, radius: PerAgent
) -> _Correction:
    """Head and gradient of all transitions so far, this round's among them, in the basis of today.

    w solves the agent's system in B, and G = (mean of δ e over all transitions) wᵀ: eq. 8 with the expectation over
    everything that was seen in place of one sample. With w solved for, B alone is learnt by steps.

    Where the run says so it counts with a power of the share that B explains: an agent whose weights lie outside
    the fleet's subspace has little to say about it, and much noise to bring. Each factor of G has the root of that
    power, and the second moment is the square of the right one: so neither tells the power.
    """
    features, rewards, sums = trajectory.features, trajectory.rewards, state.statistics
    sums = TransitionSums.of_features(len(basis), rewards.shape[:-1]) if sums is None else sums
    traces = discounted_sums(features[..., :-1, :], method.trace_decay, trajectory.is_transition)
    sums = sums.updated(features, traces, rewards, method.forgetting, trajectory.is_transition)
    head = sums.moved_to(basis).head(radius)
    weights = head @ basis.T
    residual, row_sums = sums.residual(weights), sums.row_sums
    left, right = residual, head
    if method.explained_power:
        root = column(np.sqrt(sums.explained_share(residual, row_sums) ** method.explained_power))
        left, right = root * residual, root * head
    return _Correction(
        head=head,
        gain_estimate=sums.gain_estimate,
        errors=trajectory.uncut(
            rewards - column(sums.gain_estimate) + applied(features[..., 1:, :] - features[..., :-1, :], weights)
        ),
        left=left,
        right=right,
        bounded=reaches_bound(head, radius),
        statistics=sums,
        row_sums=row_sums,
    )
