"""An agent's round with posterior head updates, of one agent or of n: see `cospan.core.learning.learner`."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.evidence_step import weighed
from cospan.core.history.late_rounds import MOST_LATE, LateRound, with_late
from cospan.core.learning.learner_state import LearnerState, RoundOutcome, Trajectory
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.posterior import FleetPrior, PosteriorState, refreshed
from cospan.core.learning.units import Units
from cospan.core.linalg.leading_axes import applied, column
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.method import Method, takes_pooled
from cospan.core.uncertainty.evidence import evidence_gradient, influence, summed_evidence


def posterior_round(
    state: LearnerState,
    prior: FleetPrior,
    trajectory: Trajectory,
    units: Units,
    *,
    due: bool,
    refreshes: bool | None,
    method: Method,
) -> RoundOutcome:
    """A round with posterior head updates: the sums are brought up to date, and where it `refreshes` the posterior.

    The gradient is at the basis of today; the moments in it are those of the last refreshing. Agents that others
    are refreshed in place of (`refreshes` is None) count for nothing before they have moments; if their features
    are from a table, the round is summed later.

    Args:
        state: with the moments of the round's data already.
        prior: of the fleet.
        trajectory: with rewards less the agents' references.
        units: of the agents.
        due: whether curvatures are pooled.
        refreshes: whether the posterior is refreshed; see above.
        method: the constants.
    """
    if refreshes is None and trajectory.rows is not None:
        return _late_round(state, prior, trajectory, units, due=due, method=method)
    state = state.summed()
    features, rewards = trajectory.features, trajectory.rewards
    agents, dim = features.shape[:-2], features.shape[-1]
    sums = TransitionSums.of_features(dim, agents) if state.statistics is None else state.statistics
    sums = sums.updated(
        features, trajectory.visited, rewards, 0.0, trajectory.is_transition, changes=trajectory.changes
    )
    posterior = PosteriorState.initial(dim, agents) if state.posterior is None else state.posterior
    posterior = posterior.observed(features, rewards, trajectory.is_transition, rows=trajectory.rows)
    # An agent that joins late, or after a failure, has rounds of its own to begin with.
    own = refreshes is not None and takes_pooled(posterior.rounds - 1, method.pooled_growth)
    if posterior.rounds and (refreshes or own):
        posterior = refreshed(posterior, sums, units, prior)
    errors = rewards - column(sums.gain_estimate) + applied(trajectory.changes, posterior.weights)
    after = replace(state, statistics=sums, posterior=posterior)
    has_moments = posterior.refreshed > 0 or refreshes is not None
    return _outcome(
        after,
        prior,
        trajectory,
        units,
        errors=errors,
        has_moments=has_moments,
        pooled=method.pooled_length(dim) * due,
    )


def _late_round(
    state: LearnerState, prior: FleetPrior, trajectory: Trajectory, units: Units, *, due: bool, method: Method
) -> RoundOutcome:
    """The same of n agents whose answers stay as they are: the round is kept as it is, to be summed with others."""
    rows, rewards = trajectory.rows, trajectory.rewards
    assert rows is not None
    agents, dim = rewards.shape[:-1], rows.table.shape[1]
    sums = TransitionSums.of_features(dim, agents) if state.statistics is None else state.statistics
    before = PosteriorState.initial(dim, agents) if state.posterior is None else state.posterior
    sums = sums.counting(rewards, np.asarray(trajectory.squares))
    rows = rows.like(before.features)
    posterior = before.keeping(rows, rewards)
    late = (*state.late, LateRound(rows, rewards))
    if len(late) == MOST_LATE or posterior.stride != before.stride:
        # As the history ceases to be whole, it gives the noise of all rounds before.
        sums, posterior = with_late(sums, posterior, late, with_noise=before.stride > 1)
        late = ()
    errors = rewards - column(sums.gain_estimate)
    if posterior.refreshed:
        values = rows.values(posterior.weights)
        errors = errors + values[:, 1:] - values[:, :-1]
    after = replace(state, statistics=sums, posterior=posterior, late=late)
    return _outcome(
        after,
        prior,
        trajectory,
        units,
        errors=errors,
        has_moments=posterior.refreshed > 0,
        pooled=method.pooled_length(dim) * due,
    )


def _outcome(
    state: LearnerState,
    prior: FleetPrior,
    trajectory: Trajectory,
    units: Units,
    *,
    errors: Float[np.ndarray, "*n L"],
    has_moments: bool,
    pooled: int,
) -> RoundOutcome:
    """What the round comes to, with sums and posterior as they are after it; `pooled` numbers are pooled."""
    sums, posterior = state.statistics, state.posterior
    assert sums is not None
    assert posterior is not None
    agents, head = trajectory.rewards.shape[:-1], state.head
    gradient, pool = np.zeros(prior.basis.shape), np.zeros(pooled)
    if has_moments:
        weight = influence(posterior.shared_weight)
        if agents:
            gradient, head = summed_evidence(posterior, prior.basis, prior.head_covariance)
        else:
            gradient, head = evidence_gradient(posterior, prior.basis, prior.head_covariance)
            gradient = gradient * column(column(weight))
        pool = weighed(posterior.curvature, weight) if pooled else pool
    return RoundOutcome(
        state=replace(
            state,
            head=head * column(units.head),
            gain_estimate=state.rewards.reference + sums.gain_estimate,
            steps=state.steps + trajectory.transitions,
            warm_up=None,
        ),
        gradient=DenseMatrix(gradient),
        head_second_moment=_moment(head),
        mean_squared_error=trajectory.mean_square(trajectory.uncut(errors)),
        weights=posterior.weights,
        pooled=np.broadcast_to(pool, (*agents, pool.shape[-1])) if pooled else None,
        bounded=np.zeros(agents, dtype=np.bool_) if agents else False,
    )


def _moment(heads: Float[np.ndarray, "*n r"]) -> Float[np.ndarray, "r r"]:
    rows = heads.reshape(-1, heads.shape[-1])
    return np.asarray(rows.T @ rows)
