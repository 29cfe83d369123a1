"""What an agent makes of all its moment equations and of the fleet's prior: a posterior of its value weights.

The model (docs/adr/0023): z = B w + e with w ~ N(0, W) and e ~ N(0, ψ Λ), and for the d moments of all transitions
so far b − A z ~ N(0, S). B and W come from the coordinator; A, b, S, Λ and ψ are the agent's own. With H = AᵀS⁻¹A
and c = AᵀS⁻¹b the posterior mean is (H + Γ⁻¹)⁻¹ c, Γ = B W Bᵀ + ψ Λ: an empirical Bayes estimate (Efron and Morris
1973) from efficiently weighted moments (Hansen 1982, "Large sample properties of generalized method of moments
estimators").

All is in the agent's units (`cospan.core.learning.units`) but for what is kept of transitions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from cospan.core.history.feature_rows import Rows, TableRows, dense, of_agents
from cospan.core.history.visits import Visits, noise_of_rounds, short_table, visits_of
from cospan.core.learning.least_squares import PRIOR_STEPS, TransitionSums
from cospan.core.learning.units import Units
from cospan.core.linalg.leading_axes import PerAgent, applied, column, dot, numbers_of, per_agent, symmetric
from cospan.core.uncertainty.evidence import evidence_gradient
from cospan.core.uncertainty.mixture import TINY, DiagonalInformation, mixed_means
from cospan.core.uncertainty.variance_model import (
    bordered,
    gram,
    noise_of_round,
    noise_of_rows,
    outer,
    regressed,
    with_one,
)

LEVEL_FLOOR = 1e-6
"""The least mean of δ², as a share of the rewards' variance: kept rounds may lack the rewards that are rare."""
HISTORY_PER_FEATURE = 20
"""The most transitions that are kept for each feature; beyond, every second round is dropped."""
MOMENT_FLOOR = 1e-6
"""Added to S, as a share of its mean eigenvalue: without it, features that were never seen make S singular."""
GRADIENT_SHARE = 0.01
"""ψ of the gradient, as a share of the value variance per feature."""
RISK_RIDGE = 3.0
"""Ridge of the nearly unbiased estimate against which risks are estimated, in environment steps."""

_NUMBERS_AT_ONCE = 2**17
"""Most numbers, 1 MiB, in the history of the agents whose errors are modelled together, unless these are fewer than
the next."""
_FEWEST_AT_ONCE = 8

ARRAYS = ("second_moment", "changes", "noise", "variance", "curvature", "score", "weights")
"""The attributes of a `PosteriorState` that are one array of each agent."""


@dataclass(frozen=True, eq=False, slots=True)
class FleetPrior:
    """What the fleet says of an agent's weights before its data do: z ~ N(0, B W Bᵀ + ψ Λ).

    Attributes:
        basis: B, shape (d, r).
        head_covariance: W, shape (r, r), positive semidefinite.
        agents: n, how many agents they are of, 1 or more.
    """

    basis: Float[np.ndarray, "d r"]
    head_covariance: Float[np.ndarray, "r r"]
    agents: int


@dataclass(frozen=True, eq=False, slots=True)
class PosteriorState:
    """What one agent, or each of n, keeps for its posterior beside the `TransitionSums` of its features.

    The history is whole while it has at most `HISTORY_PER_FEATURE` · d transitions; then it has the rounds whose
    numbers are multiples of `stride`. The noise is summed over all transitions.

    Attributes:
        second_moment: Σ φ φᵀ, shape (*n, d, d).
        changes: Σ (φ − φ'), shape (*n, d).
        noise: Σ u(φ) [1 φ][1 φ]ᵀ with the modelled variance u, relative to its mean, shape (*n, d + 1, d + 1); of n
            agents, while the history is whole, over the rounds until the newest refreshing.
        variance: the coefficients of u(φ) = max(VARIANCE_FLOOR, [1 φ] · variance), shape (*n, d + 1).
        features: those of the kept rounds, each of shape (*n, L + 1, d), or by their numbers in a table.
        rewards: those of the kept rounds, less the agent's reference, each of shape (*n, L).
        is_transition: of each kept round which of its slots are no cuts, shape (L,); None where all are.
        stride: see above; a power of two.
        rounds: rounds observed.
        curvature: K = (H⁻¹ + ψ Λ)⁻¹ with ψ of the gradient, shape (*n, d, d), in the agent's units.
        score: (I + ψ H Λ)⁻¹ c, shape (*n, d), in the agent's units.
        weights: the posterior mean, shape (*n, d), in the units of the data.
        shared_weight: how much of the answer is the fleet's, 0 to 1: where the posterior mean lies between the
            agent's own LSTD (0) and the answer within the subspace (1), in the metric of the values.
        prior: that of the newest refreshing, for all agents; None before the first.
        refreshed: rounds observed until then.
    """

    second_moment: Float[np.ndarray, "*n d d"]
    changes: Float[np.ndarray, "*n d"]
    noise: Float[np.ndarray, "*n d1 d1"]
    variance: Float[np.ndarray, "*n d1"]
    features: tuple[Rows, ...]
    rewards: tuple[Float[np.ndarray, "*n L"], ...]
    is_transition: tuple[Bool[np.ndarray, " L"] | None, ...]
    stride: int
    rounds: int
    curvature: Float[np.ndarray, "*n d d"]
    score: Float[np.ndarray, "*n d"]
    weights: Float[np.ndarray, "*n d"]
    shared_weight: PerAgent
    prior: FleetPrior | None = None
    refreshed: int = 0

    @classmethod
    def initial(cls, feature_dim: int, agents: tuple[int, ...] = ()) -> "PosteriorState":
        """Of no transitions, for agents of this shape: () for one, (n,) for n."""
        # One number stands for all zeros: many agents' matrices would take memory until they are refreshed.
        square = np.broadcast_to(0.0, (*agents, feature_dim, feature_dim))
        row, one = np.zeros((*agents, feature_dim)), np.zeros((*agents, feature_dim + 1))
        one[..., 0] = 1.0
        noise = np.broadcast_to(0.0, (*one.shape, feature_dim + 1))
        nothing: PerAgent = np.zeros(agents) if agents else 0.0
        return cls(square, row, noise, one, (), (), (), 1, 0, square, row, row, nothing)

    def of_agents(self, places: int | Sequence[int] | slice) -> "PosteriorState":
        """Those of one of n agents, or of some of them, by their places."""
        chosen = {name: getattr(self, name)[places] for name in ARRAYS}
        return replace(
            self,
            **chosen,
            features=tuple(of_agents(each, places) for each in self.features),
            rewards=tuple(each[places] for each in self.rewards),
            shared_weight=numbers_of(self.shared_weight, places),
        )

    def observed(
        self,
        features: Float[np.ndarray, "*n L1 d"],
        rewards: Float[np.ndarray, "*n L"],
        is_transition: Bool[np.ndarray, " L"] | None = None,
        *,
        rows: TableRows | None = None,
    ) -> "PosteriorState":
        """The state with one more round of L transitions, less its cuts; a round of cuts alone changes nothing.

        Args:
            features: φ(s_0) … φ(s_L).
            rewards: less the agent's reference; 0 at cuts.
            is_transition: false for cuts; None where there are none.
            rows: the features by their numbers in a table, to be kept in place of them.
        """
        visited, changes = features[..., :-1, :], self.changes + features[..., 0, :] - features[..., -1, :]
        if is_transition is not None:
            if not is_transition.any():
                return self
            visited = visited[is_transition]
            changes = self.changes + (visited - features[1:][is_transition]).sum(axis=0)
        # Of n agents whose history is whole, the noise is made of it when it is needed.
        is_late = rewards.ndim > 1 and self.stride == 1
        noise = self.noise if is_late else self.noise + noise_of_round(visited, self.variance)
        following = replace(
            self, second_moment=self.second_moment + gram(visited, visited), changes=changes, noise=noise
        )
        return following.keeping(features if rows is None else rows.like(self.features), rewards, is_transition)

    def keeping(
        self,
        features: Rows,
        rewards: Float[np.ndarray, "*n L"],
        is_transition: Bool[np.ndarray, " L"] | None = None,
    ) -> "PosteriorState":
        """The state with one more round in its number and its history alone; the arguments are as of `observed`."""
        kept, values, cuts, stride = self.features, self.rewards, self.is_transition, self.stride
        noise = self.noise
        if self.rounds % stride == 0:
            kept, values, cuts = (*kept, features), (*values, rewards), (*cuts, is_transition)
            if len(kept) > 2 and len(kept) * rewards.shape[-1] > HISTORY_PER_FEATURE * self.changes.shape[-1]:
                if rewards.ndim > 1 and stride == 1:
                    noise = noise + noise_of_rounds(kept[self.refreshed :], self.variance)
                kept, values, cuts, stride = kept[::2], values[::2], cuts[::2], 2 * stride
        return replace(
            self,
            noise=noise,
            features=kept,
            rewards=values,
            is_transition=cuts,
            stride=stride,
            rounds=self.rounds + 1,
        )


def refreshed(
    state: PosteriorState,
    sums: TransitionSums,
    units: Units,
    prior: FleetPrior,
) -> PosteriorState:
    """The state with noise, curvature, score and posterior of all transitions so far.

    It takes some 30 d³ operations, so it is done in rounds that grow geometrically. The posterior mean is a
    mixture: ψ is not chosen but averaged over, with exponential weights of Stein's unbiased estimate of the risk in
    the metric of the values, E(V̂ − V)² (Leung and Barron 2006, "Information theory and mixing least-squares
    regressions"). So an agent that is unlike the fleet comes to its own data's answer by itself.

    Args:
        state: with all transitions observed, one round at least.
        sums: of the same transitions, without a trace and with nothing forgotten.
        units: of the agent.
        prior: of the fleet; a fleet of one agent has none, and its answer is LSTD alone.
    """
    basis = prior.basis
    data = Moments.of(state, sums, units)
    state, noise = with_noise(state, data, units)
    found = DiagonalInformation.of(data.centred, data.rewards, noise, data.covariance)
    h, from_weights = found.information, found.from_weights
    dim = len(basis)
    own = applied(from_weights, data.ridge_solution(PRIOR_STEPS))
    unit = np.maximum(dot(own, found.measured(own)) / dim, TINY)[..., None]
    # Rewards that never varied leave no noise to weigh by: such an agent has nothing to tell, rather than all.
    told = np.any(data.rewards, axis=-1, keepdims=True)
    damped = told / (1.0 + GRADIENT_SHARE * unit * h)
    back = from_weights.swapaxes(-1, -2)
    state = replace(
        state,
        curvature=(back * (h * damped)[..., None, :]) @ from_weights,
        score=applied(back, damped * found.scores),
        prior=prior,
        refreshed=state.rounds,
    )
    if prior.agents < 2:  # no fleet, no prior: the strongest that the agent can do alone
        weights = applied(found.to_weights, own) * column(units.head)
        return replace(state, weights=weights, shared_weight=0.0 * state.shared_weight)
    factor = prior_factor(state, prior, found)
    unbiased = applied(from_weights, data.ridge_solution(RISK_RIDGE))
    mean, fleets = mixed_means(found, factor, unit, (own, unbiased))
    toward, away = fleets - own, mean - own
    along = found.measured(toward)
    length = dot(toward, along)
    share = np.clip(dot(away, along) / np.where(length > 0.0, length, 1.0), 0.0, 1.0)
    return replace(
        state,
        weights=applied(found.to_weights, mean) * column(units.head),
        shared_weight=per_agent(share),
    )


def prior_factor(
    state: PosteriorState, prior: FleetPrior, data: "DiagonalInformation"
) -> Float[np.ndarray, "*n d r"]:
    """F of F Fᵀ = M⁻¹ B W Bᵀ M⁻ᵀ, W less the agent's own part."""
    return np.asarray(data.from_weights @ (prior.basis @ _square_root(_without_own(state, prior))))


def _without_own(state: PosteriorState, prior: FleetPrior) -> Float[np.ndarray, "*n r r"]:
    """W less the agent's own part: with few agents, the prior would come of the data that it meets.

    W is the mean of E[w wᵀ] over the agents, under their posteriors; that of one is W − W Bᵀ D B W. Of two agents
    each goes without its own part, of n without the share 2/n of it: what many have in common does not depend on
    one.
    """
    gradient, _ = evidence_gradient(state, prior.basis, prior.head_covariance)
    within = symmetric(prior.basis.T @ gradient)
    taken = min(1.0, 2.0 / prior.agents) / (prior.agents - 1)
    return np.asarray(prior.head_covariance + taken * (prior.head_covariance @ within @ prior.head_covariance))


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """A, b and the feature covariance in the agent's units; `system` is A before the mean feature is taken out."""

    system: Float[np.ndarray, "*n d d"]
    centred: Float[np.ndarray, "*n d d"]
    rewards: Float[np.ndarray, "*n d"]
    mean: Float[np.ndarray, "*n d"]
    covariance: Float[np.ndarray, "*n d d"]
    gain: PerAgent
    _solved: dict[float, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, state: PosteriorState, sums: TransitionSums, units: Units) -> "Moments":
        feature, square = column(units.feature), column(column(units.feature)) ** 2
        mean = sums.traces / sums.steps / feature
        system = sums.system / square
        return cls(
            system=system,
            centred=system - outer(mean, state.changes / feature),
            rewards=sums.centred_rewards / feature / column(units.reward),
            mean=mean,
            covariance=symmetric(state.second_moment / sums.steps / square - outer(mean, mean)),
            gain=sums.gain_estimate,
        )

    def ridge_solution(self, steps: float) -> Float[np.ndarray, "*n d"]:
        """The agent's own LSTD with this ridge, in environment steps; ‖φ‖² is 1 on average in these units."""
        if steps not in self._solved:  # the first refresh of an agent asks twice for the same
            dim = self.mean.shape[-1]
            system = self.system + (steps / dim) * np.eye(dim)
            self._solved[steps] = np.linalg.solve(system, self.rewards[..., None])[..., 0]
        return self._solved[steps]


def with_noise(
    state: PosteriorState, data: Moments, units: Units
) -> tuple[PosteriorState, Float[np.ndarray, "*n d d"]]:
    """The state with the variance of δ modelled from the whole history; and S.

    δ is that of the newest weights. The variance of δ² is regressed on the features, so a transition does not weigh
    itself: S made of δ² alone is so noisy with few data that it biases the estimate.
    """
    modelled = _modelled_of_one if data.mean.ndim == 1 else _modelled_of_many
    state, whole = modelled(state, data, units)
    cross = outer(data.mean, whole[..., 0, 1:])
    centred = whole[..., 1:, 1:] - cross - cross.swapaxes(-1, -2)
    centred += whole[..., :1, :1] * outer(data.mean, data.mean)
    dim = data.mean.shape[-1]
    floor = MOMENT_FLOOR * np.trace(centred, axis1=-2, axis2=-1) / dim + TINY
    return state, symmetric(centred) + floor[..., None, None] * np.eye(dim)


_Modelled: TypeAlias = tuple[PosteriorState, Float[np.ndarray, "*n d1 d1"]]
"""The state with the variance of δ modelled from all that is kept, and Σ u [1 φ][1 φ]ᵀ in the agent's units."""


def _modelled_of_one(state: PosteriorState, data: Moments, units: Units) -> _Modelled:
    features, following, rewards = history_of(state)
    changes = (features - following) / units.feature
    features, rewards = features / units.feature, (rewards - data.gain) / units.reward
    known = np.any(state.weights, axis=-1, keepdims=True)
    weights = np.where(known, state.weights / units.head, data.ridge_solution(PRIOR_STEPS))
    errors = rewards - applied(changes, weights)
    squares = (errors - errors.mean()) ** 2
    level = np.maximum(squares.mean(), LEVEL_FLOOR)
    rows = with_one(features)
    model = regressed(gram(rows, rows), rows.T @ squares[:, None], len(rows))
    model = model / level
    ratio = np.ones(rows.shape[-1])
    ratio[1:] /= units.feature
    noise = state.noise
    if state.stride == 1:
        noise = noise_of_rows(rows, model) / ratio[:, None] / ratio
    return replace(state, noise=noise, variance=model * ratio), noise * ratio[:, None] * ratio * level


def _modelled_of_many(state: PosteriorState, data: Moments, units: Units) -> _Modelled:
    """The same of n agents, some at a time: as many as let their history stay in a core's cache."""
    weights, known = state.weights, np.any(state.weights, axis=-1, keepdims=True)
    if not known.all():
        weights = np.where(known, weights, data.ridge_solution(PRIOR_STEPS) * column(units.head))
    agents, dim = weights.shape
    steps, feature = sum(each.shape[-1] for each in state.rewards), _of_each(units.feature, agents)
    level, model = np.empty(agents), np.empty((agents, dim + 1))
    noise = np.empty((agents, dim + 1, dim + 1)) if state.stride == 1 else state.noise
    table = short_table(state.features, steps)
    numbers = steps * dim if table is None else 4 * steps + len(table) * dim
    size = max(_FEWEST_AT_ONCE, _NUMBERS_AT_ONCE // numbers)
    for start in range(0, agents, size):
        some = slice(start, start + size)
        unit = feature[some]
        history = visits_of(state.features, some, table)
        squares = _squared_errors(state, data, units, weights, history=history, some=some)
        level[some] = np.maximum(squares.mean(axis=1), LEVEL_FLOOR)
        if state.stride == 1:  # while the history is whole, its sums are known
            sums, squared = steps * data.mean[some], state.second_moment[some] / column(unit) ** 2
        else:
            sums, squared = history.sums / unit, history.products / column(unit) ** 2
        right = np.concatenate([squares.sum(axis=1)[:, None], history.weighed(squares) / unit], axis=1)
        found = regressed(bordered(steps, sums, squared), right[..., None], steps) / level[some, None]
        model[some] = found
        model[some, 1:] /= unit
        if state.stride == 1:
            noise[some] = history.noise(model[some])
    whole = noise * column(column(level))
    whole[:, 1:, :] /= column(feature)
    whole[:, :, 1:] /= column(feature)
    return replace(state, noise=noise, variance=model), whole


def _squared_errors(
    state: PosteriorState,
    data: Moments,
    units: Units,
    weights: Float[np.ndarray, "n d"],
    *,
    history: Visits,
    some: slice,
) -> Float[np.ndarray, "c m"]:
    """(δ − its mean)² of some of n agents, in their units; the weights are in those of the data."""
    values, last = history.values(weights[some])
    errors = np.concatenate([each[some] for each in state.rewards], axis=1)
    errors -= _of_each(data.gain, len(weights))[some]
    errors -= values
    errors[:, :-1] += values[:, 1:]
    ends = np.cumsum([each.shape[-1] for each in state.rewards])
    errors[:, ends[:-1] - 1] -= values[:, ends[:-1]]
    errors[:, ends - 1] += last
    errors /= _of_each(units.reward, len(weights))[some]
    errors -= errors.mean(axis=1, keepdims=True)
    return np.asarray(np.square(errors, out=errors))


def _of_each(number: PerAgent, agents: int) -> Float[np.ndarray, "n 1"]:
    """A number of each of n agents in a column; units that nothing scales are one number for all."""
    return np.broadcast_to(np.asarray(number, dtype=np.float64), (agents,))[:, None]


def history_of(
    state: PosteriorState,
) -> tuple[Float[np.ndarray, "*n m d"], Float[np.ndarray, "*n m d"], Float[np.ndarray, "*n m"]]:
    """φ(s), φ(s') and the reward of each kept transition."""
    features = [dense(each) for each in state.features]
    visited = np.concatenate([each[..., :-1, :] for each in features], axis=-2)
    following = np.concatenate([each[..., 1:, :] for each in features], axis=-2)
    rewards = np.concatenate(state.rewards, axis=-1)
    if all(each is None for each in state.is_transition):
        return visited, following, rewards
    every = np.ones(state.rewards[0].shape, dtype=np.bool_)
    known = np.concatenate([every if each is None else each for each in state.is_transition])
    return visited[known], following[known], rewards[known]


def _square_root(matrix: Float[np.ndarray, "*n r r"]) -> Float[np.ndarray, "*n r r"]:
    eigenvalues, vectors = np.linalg.eigh(symmetric(matrix))
    return np.asarray((vectors * np.sqrt(np.maximum(eigenvalues, 0.0))[..., None, :]) @ vectors.swapaxes(-1, -2))
