"""One agent's round: from a trajectory and a basis to a new head, a new gain estimate and a subspace gradient."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.aggregation.row_sums import coarse
from cospan.core.aggregation.warm_start import HalfSums
from cospan.core.learning.blocked_td import blocks, discounted_sums, gain_path, successive_errors
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.reward_moments import NO_REWARDS, RewardMoments
from cospan.core.learning.schedules import decay, decays
from cospan.core.learning.td import effective_step, gain_update, head_update, l_step_error, subspace_gradient
from cospan.core.learning.units import NO_UNITS, Units, reaches_bound
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, Gradient
from cospan.core.method import HeadUpdate, Method


@dataclass(frozen=True, eq=False, slots=True)
class Trajectory:
    """L consecutive steps of one chain.

    Attributes:
        features: φ(s_0) … φ(s_L), shape (L + 1, d).
        rewards: r_0 … r_{L−1}, shape (L,).
    """

    features: Float[np.ndarray, "L1 d"]
    rewards: Float[np.ndarray, " L"]


@dataclass(frozen=True, eq=False, slots=True)
class LearnerState:
    """What an agent knows besides the basis.

    Attributes:
        head: w, shape (r,).
        gain_estimate: η, reward per step.
        steps: environment steps learnt from so far.
        statistics: of heads by least squares, with rewards less `rewards.reference`; None before the first round,
            and with the other corrections.
        rewards: of all steps so far.
        feature_squares: Σ ‖φ(s)‖² over the states of all steps so far.
        warm_up: the transitions of the warm-up, from its first round to the first one after it; else None.
    """

    head: Float[np.ndarray, " r"]
    gain_estimate: float = 0.0
    steps: int = 0
    statistics: TransitionSums | None = None
    rewards: RewardMoments = NO_REWARDS
    warm_up: HalfSums | None = None
    feature_squares: float = 0.0

    @classmethod
    def initial(cls, rank: int) -> "LearnerState":
        """w = 0, η = 0."""
        return cls(head=np.zeros(rank))


@dataclass(frozen=True, eq=False, slots=True)
class RoundOutcome:
    """What a round gives.

    Attributes:
        state: the agent's state after the round.
        gradient: G, d × r, before projection; this is what is streamed; [a b], d × 2, in a warm-up's last round.
        head_second_moment: the mean of w wᵀ over the heads in the gradient, shape (r, r).
        mean_squared_error: the mean of δ² over the round's errors, in the square of the rewards' unit.
        row_sums: Σ_j |A_ij| a step, shape (d,), with corrections from the full history; else None.
        bounded: whether the ball ‖w‖ ≤ U has cut a head in this round.

    Where the run scales rewards, all that is streamed is dimensionless: see `Units`.
    """

    state: LearnerState
    gradient: Gradient
    head_second_moment: Float[np.ndarray, "r r"]
    mean_squared_error: float
    row_sums: Float[np.ndarray, " d"] | None = None
    bounded: bool = False


def learn_round(
    state: LearnerState,
    basis: Float[np.ndarray, "d r"],
    trajectory: Trajectory,
    method: Method,
    round_number: int = 0,
) -> RoundOutcome:
    """One agent's part of round t, all quantities on the right being those before it (eqs. 6-8).

    t tells the rounds of a warm-up from those after it; without a warm-up it is of no use.
    """
    state, relative = _measured(state, trajectory, method)
    units = _units(state, method)
    if method.warms_up_in(round_number):
        return _warmed_up(state, relative, method, units, round_number)
    outcome = _corrected(_after_warm_up(state), basis, relative, units.applied_to(method))
    after = replace(
        outcome.state,
        gain_estimate=state.rewards.reference + outcome.state.gain_estimate,
        rewards=state.rewards,
        feature_squares=state.feature_squares,
    )
    return _dimensionless(replace(outcome, state=after), units)


def _measured(state: LearnerState, trajectory: Trajectory, method: Method) -> tuple[LearnerState, Trajectory]:
    """The state with the moments of this round's data and η less the reference; the rewards less the reference.

    The reference is the agent's first reward where the run scales rewards, else 0; and η begins there. (Begun at
    the first round's mean, the L-step error of that round would be rounding alone.)
    """
    moments, features, rewards = state.rewards, trajectory.features, trajectory.rewards
    begins = method.reward_scaled and not moments.count
    if begins:
        moments = RewardMoments(reference=float(rewards[0]))
    relative = rewards - moments.reference
    gain = 0.0 if begins else state.gain_estimate - moments.reference
    measured = replace(
        state,
        gain_estimate=gain,
        rewards=moments.updated(relative),
        feature_squares=state.feature_squares + float(np.vdot(features[:-1], features[:-1])),
    )
    return measured, Trajectory(features, relative)


def _units(state: LearnerState, method: Method) -> Units:
    if not method.reward_scaled:
        return NO_UNITS
    return Units.of(state.rewards.variance, state.feature_squares / state.rewards.count)


def contribution_of(outcome: RoundOutcome, method: Method, round_number: int = 0) -> Contribution:
    """What the agent sends of round t: the gradient, and what the run scales its steps with."""
    row_sums = outcome.row_sums if method.sends_row_sums_in(round_number) else None
    return Contribution(
        gradient=outcome.gradient,
        head_second_moment=outcome.head_second_moment if method.preconditioned else None,
        row_sums=None if row_sums is None else coarse(row_sums),
    )


def _warmed_up(
    state: LearnerState, trajectory: Trajectory, method: Method, units: Units, round_number: int
) -> RoundOutcome:
    """A round of the warm-up: the transitions are summed, w stays as it was, and η is the mean of all rewards.

    The gradient is zero, and in the last round [a b], in the agent's units where the run asks for it.
    """
    features, dim, rank = trajectory.features, trajectory.features.shape[1], len(state.head)
    halves = state.warm_up or HalfSums.begun_in(round_number, method.warm_up_rounds, dim)
    traces = discounted_sums(features[:-1], method.trace_decay)
    halves = halves.updated(features, traces, trajectory.rewards, round_number)
    gradient: Gradient = FactoredMatrix(left=np.zeros((dim, 1)), right=np.zeros((rank, 1)))
    if method.brings_estimates_in(round_number):
        gradient = DenseMatrix(halves.estimates / units.head)
    errors = trajectory.rewards - state.rewards.offset
    return RoundOutcome(
        state=replace(
            state,
            gain_estimate=state.rewards.mean,
            steps=state.steps + len(errors),
            warm_up=halves,
        ),
        gradient=gradient,
        head_second_moment=np.zeros((rank, rank)),
        mean_squared_error=float(errors @ errors) / len(errors),
    )


def _after_warm_up(state: LearnerState) -> LearnerState:
    """Least squares go on from the d × d sums of the warm-up; other corrections begin with their head as it is."""
    if state.warm_up is None:
        return state
    return replace(state, statistics=state.warm_up.joined, warm_up=None)


def _dimensionless(outcome: RoundOutcome, units: Units) -> RoundOutcome:
    """What is streamed as if rewards were divided by σ and features by ρ: δ by σ, φ by ρ, w by σ / ρ."""
    if units == NO_UNITS:
        return outcome
    gradient, rows = outcome.gradient, outcome.row_sums
    if isinstance(gradient, FactoredMatrix):
        right = gradient.right / units.head
        scaled: Gradient = FactoredMatrix(gradient.left / units.reward / units.feature, right)
        moment = right @ right.T  # not a scaled w wᵀ: it holds no number that `right` does not
    else:
        scaled = DenseMatrix(gradient.values / units.reward / units.reward)
        moment = outcome.head_second_moment / units.head / units.head
    return replace(
        outcome,
        gradient=scaled,
        head_second_moment=moment,
        row_sums=None if rows is None else rows / units.feature / units.feature,
    )


def _corrected(
    state: LearnerState, basis: Float[np.ndarray, "d r"], trajectory: Trajectory, method: Method
) -> RoundOutcome:
    match method.head_update:
        case HeadUpdate.END_OF_ROUND:
            return _correct_at_end(state, basis, trajectory, method)
        case HeadUpdate.EVERY_STEP:
            return _correct_at_every_step(state, basis, trajectory, method)
        case HeadUpdate.LEAST_SQUARES:
            return _solve_at_end(state, basis, trajectory, method)
        case HeadUpdate.FULL_HISTORY:
            return _solve_all(state, basis, trajectory, method)


def _correct_at_end(
    state: LearnerState, basis: Float[np.ndarray, "d r"], trajectory: Trajectory, method: Method
) -> RoundOutcome:
    """Algorithm 1: one L-step error, one correction."""
    features, rewards = trajectory.features, trajectory.rewards
    steps = rewards.shape[0]
    scale = decay(state.steps, method.decay_horizon, method.decay_power)
    coordinates = basis.T @ features[0]
    error = l_step_error(rewards, state.gain_estimate, features[0], features[-1], basis @ state.head)
    curvature = float(coordinates @ coordinates)
    step = effective_step(method.head_step * scale, curvature, implicit=method.implicit_head_step)
    after = LearnerState(
        head=head_update(state.head, error, coordinates, step / steps, method.head_radius),
        gain_estimate=gain_update(state.gain_estimate, float(np.mean(rewards)), method.gain_step * scale),
        steps=state.steps + steps,
    )
    return RoundOutcome(
        state=after,
        gradient=subspace_gradient(error, features[0], state.head, steps),
        head_second_moment=np.outer(state.head, state.head),
        mean_squared_error=error * error,
        bounded=bool(reaches_bound(after.head, method.head_radius)),
    )


def _correct_at_every_step(
    state: LearnerState, basis: Float[np.ndarray, "d r"], trajectory: Trajectory, method: Method
) -> RoundOutcome:
    """TD(λ) in the frozen basis at each of the L steps; G = Σ δ e wᵀ is the sum of the steps' gradients."""
    features, rewards, steps = trajectory.features, trajectory.rewards, trajectory.rewards.shape[0]
    scales = decays(state.steps, steps, method.decay_horizon, method.decay_power)
    gains = gain_path(state.gain_estimate, rewards.tolist(), (method.gain_step * scales).tolist())
    coordinates = features @ basis
    directions = discounted_sums(coordinates[:-1], method.trace_decay)
    curvatures = np.einsum("ij,ij->i", coordinates[:-1], directions)
    sizes = effective_step(method.head_step * scales, curvatures, implicit=method.implicit_head_step)
    errors, heads = _head_path(
        state.head,
        rewards - gains[:-1],
        coordinates[1:] - coordinates[:-1],
        sizes[:, None] * directions,
        method.head_radius,
    )
    return RoundOutcome(
        state=LearnerState(head=heads[-1].copy(), gain_estimate=gains[-1], steps=state.steps + steps),
        # Σ_h δ_h e_h w_hᵀ, the sum over the trace taken last: so no trace of length d is ever made.
        gradient=DenseMatrix(
            features[:-1].T @ discounted_sums((errors[:, None] * heads[:-1])[::-1], method.trace_decay)[::-1]
        ),
        head_second_moment=heads[:-1].T @ heads[:-1] / steps,
        mean_squared_error=float(errors @ errors) / steps,
        bounded=bool(reaches_bound(heads[1:], method.head_radius).any()),
    )


def _solve_at_end(
    state: LearnerState, basis: Float[np.ndarray, "d r"], trajectory: Trajectory, method: Method
) -> RoundOutcome:
    """The head that solves the agent's own system; G = (Σ δ e) wᵀ with the head from before the round."""
    features, rewards = trajectory.features, trajectory.rewards
    before = TransitionSums.initial(basis) if state.statistics is None else state.statistics.moved_to(basis)
    head = before.head(method.head_radius)
    coordinates = features @ basis
    traces = discounted_sums(coordinates[:-1], method.trace_decay)
    errors = rewards - before.gain_estimate + (coordinates[1:] - coordinates[:-1]) @ head
    after = before.updated(coordinates, traces, rewards, method.forgetting)
    solved = after.head(method.head_radius)
    return RoundOutcome(
        state=LearnerState(
            head=solved,
            gain_estimate=after.gain_estimate,
            steps=state.steps + len(rewards),
            statistics=after,
        ),
        gradient=FactoredMatrix(
            left=features[:-1].T @ discounted_sums(errors[::-1, None], method.trace_decay)[::-1],
            right=head[:, None],
        ),
        head_second_moment=np.outer(head, head),
        mean_squared_error=float(errors @ errors) / len(rewards),
        bounded=bool(reaches_bound(solved, method.head_radius)),
    )


def _solve_all(
    state: LearnerState, basis: Float[np.ndarray, "d r"], trajectory: Trajectory, method: Method
) -> RoundOutcome:
    """Head and gradient of all transitions so far, this round's among them, in the basis of today.

    w solves the agent's system in B, and G = (mean of δ e over all transitions) wᵀ: eq. 8 with the expectation over
    everything that was seen in place of one sample. With w solved for, B alone is learnt by steps.

    Where the run says so it counts with a power of the share that B explains: an agent whose weights lie outside
    the fleet's subspace has little to say about it, and much noise to bring. Each factor of G has the root of that
    power, and the second moment is the square of the right one: so neither tells the power.
    """
    features, rewards = trajectory.features, trajectory.rewards
    before = TransitionSums.of_features(len(basis)) if state.statistics is None else state.statistics
    traces = discounted_sums(features[:-1], method.trace_decay)
    sums = before.updated(features, traces, rewards, method.forgetting)
    head = sums.moved_to(basis).head(method.head_radius)
    weights = basis @ head
    residual = sums.residual(weights)
    root = math.sqrt(sums.explained_share(residual) ** method.explained_power) if method.explained_power else 1.0
    right = root * head
    errors = rewards - sums.gain_estimate + (features[1:] - features[:-1]) @ weights
    return RoundOutcome(
        state=LearnerState(
            head=head,
            gain_estimate=sums.gain_estimate,
            steps=state.steps + len(rewards),
            statistics=sums,
        ),
        gradient=FactoredMatrix(left=root * residual[:, None], right=right[:, None]),
        head_second_moment=np.outer(right, right),
        mean_squared_error=float(errors @ errors) / len(rewards),
        row_sums=sums.row_sums,
        bounded=bool(reaches_bound(head, method.head_radius)),
    )


@np.errstate(over="ignore", invalid="ignore")
def _head_path(
    head: Float[np.ndarray, " r"],
    centred: Float[np.ndarray, " n"],
    differences: Float[np.ndarray, "n r"],
    moves: Float[np.ndarray, "n r"],
    radius: float,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n1 r"]]:
    """δ of each of n corrections w ← Π[w + δ · move], and w before each and after the last.

    Args:
        head: w before the first.
        centred: r − η at each step.
        differences: Bᵀ(φ(s') − φ(s)) at each step.
        moves: step size times direction, of each step.
        radius: of the ball.
    """
    steps = len(centred)
    errors, heads = np.empty(steps), np.empty((steps + 1, len(head)))
    heads[0] = head
    for block in blocks(steps):
        after = slice(block.start + 1, block.stop + 1)
        start = heads[block.start]
        errors[block] = successive_errors(
            centred[block] + differences[block] @ start, differences[block] @ moves[block].T
        )
        heads[after] = start + (errors[block, None] * moves[block]).cumsum(axis=0)
        if math.sqrt(np.einsum("ij,ij->i", heads[after], heads[after]).max()) <= radius:
            continue
        # The ball is no linear map: where it is reached, or a sum is not finite, only the loop is right.
        for index in range(block.start, block.stop):
            errors[index] = centred[index] + differences[index] @ heads[index]
            heads[index + 1] = head_update(heads[index], float(errors[index]), moves[index], 1.0, radius)
    return errors, heads
