"""What an agent's round takes, keeps and gives: of one agent, or of n with a leading axis."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from cospan.core.aggregation.warm_start import HalfSums
from cospan.core.history.feature_rows import TableRows, dense
from cospan.core.history.late_rounds import LateRound, late_of_agents, with_late
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.posterior import PosteriorState
from cospan.core.learning.reward_moments import NO_REWARDS, RewardMoments
from cospan.core.linalg.leading_axes import PerAgent, dot, numbers_of, sum_of_squares
from cospan.core.linalg.matrices import Gradient


@dataclass(frozen=True, eq=False, slots=True)
class Trajectory:
    """L consecutive steps of one chain, or of each of n.

    Data of a log have gaps. Between the rows on the two sides of one there is no transition, and nothing is learnt
    there: such a slot of the round is a *cut*. It has weight zero in all sums, and an eligibility trace restarts
    behind it.

    Attributes:
        features: φ(s_0) … φ(s_L), shape (*n, L + 1, d).
        rewards: r_0 … r_{L−1}, shape (*n, L); that of a cut is not looked at.
        is_transition: for each slot whether it is a transition and no cut, shape (L,); None where all are. Of one
            agent only.
        parts: the numbers of the observations, shape (*n, L + 1, k); None where they are not told.
        exogenous: those that no action changes, shape (*n, L + 1, q); None where the workload does not say.
        rows: the features of n agents by their numbers in a table; None where they are from none.
    """

    features: Float[np.ndarray, "*n L1 d"]
    rewards: Float[np.ndarray, "*n L"]
    is_transition: Bool[np.ndarray, " L"] | None = None
    parts: Float[np.ndarray, "*n L1 k"] | None = None
    exogenous: Float[np.ndarray, "*n L1 q"] | None = None
    rows: TableRows | None = None
    _changes: list[np.ndarray] = field(default_factory=list, repr=False)
    _dense: list[np.ndarray] = field(default_factory=list, repr=False)

    @classmethod
    def in_table(
        cls,
        rows: TableRows,
        rewards: Float[np.ndarray, "n L"],
        *,
        parts: Float[np.ndarray, "n L1 k"] | None = None,
        exogenous: Float[np.ndarray, "n L1 q"] | None = None,
    ) -> "Trajectory":
        """Of n agents whose features are rows of a table; they are made when they are looked at."""
        made = cls.__new__(cls)
        values: dict[str, Any] = {"is_transition": None, "parts": parts, "exogenous": exogenous, "rows": rows}
        for name, value in {**values, "rewards": rewards, "_changes": [], "_dense": []}.items():
            object.__setattr__(made, name, value)
        return made

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The features of `in_table`, whose place is empty."""
            if name != "features":
                raise AttributeError(name)
            if not self._dense:
                self._dense.append(dense(self.rows))
            return self._dense[0]

    @property
    def changes(self) -> Float[np.ndarray, "*n L d"]:
        """φ(s_1) − φ(s_0) … of each slot; computed once, for a long round's do not stay in a core's cache."""
        if not self._changes:
            self._changes.append(self.features[..., 1:, :] - self.features[..., :-1, :])
        return self._changes[0]

    def with_rewards(self, rewards: Float[np.ndarray, "*n L"]) -> "Trajectory":
        """The features and cuts with other rewards, as those less a reference."""
        if self.rows is not None and self.is_transition is None:
            made = Trajectory.in_table(self.rows, rewards)
            for name in ("_changes", "_dense"):  # what the one makes, the other has
                object.__setattr__(made, name, getattr(self, name))
            return made
        return Trajectory(self.features, rewards, self.is_transition, rows=self.rows, _changes=self._changes)

    @property
    def transitions(self) -> int:
        """How many slots are transitions: L without cuts."""
        return self.rewards.shape[-1] if self.is_transition is None else int(self.is_transition.sum())

    def uncut(self, numbers: Float[np.ndarray, "*n L"]) -> Float[np.ndarray, "*n L"]:
        """Numbers of the slots, with 0 in place of those of cuts."""
        return numbers if self.is_transition is None else np.where(self.is_transition, numbers, 0.0)

    def mean_square(self, errors: Float[np.ndarray, "*n m"]) -> PerAgent:
        """The mean of δ², of which those at cuts are 0 and do not count; nan where there are none."""
        cuts = self.rewards.shape[-1] - self.transitions
        return dot(errors, errors) / (errors.shape[-1] - cuts or float("nan"))

    @property
    def visited(self) -> Float[np.ndarray, "*n L d"]:
        """φ(s_0) … φ(s_{L−1}), with zeros in place of those of cuts."""
        visited = self.features[..., :-1, :]
        return visited if self.is_transition is None else visited * self.is_transition[:, None]

    @property
    def squares(self) -> PerAgent:
        """Σ ‖φ(s)‖² over the transitions."""
        if self.rows is None or self.is_transition is not None:
            return sum_of_squares(self.visited)
        return np.asarray(self.rows.squares[:, :-1].sum(axis=-1))

    @property
    def known_rewards(self) -> Float[np.ndarray, "*n m"]:
        """The rewards of the transitions alone."""
        return self.rewards if self.is_transition is None else self.rewards[self.is_transition]


@dataclass(frozen=True, eq=False, slots=True)
class LearnerState:
    """What one agent, or each of n, knows besides the basis.

    Attributes:
        head: w, shape (*n, r).
        gain_estimate: η, reward per step.
        steps: environment steps learnt from so far, the same for all.
        statistics: of heads by least squares, with rewards less `rewards.reference`; None before the first round,
            and with the other head updates.
        rewards: of all steps so far.
        warm_up: the transitions of the warm-up, from its first round to the first one after it; else None. One
            agent's only.
        feature_squares: Σ ‖φ(s)‖² over the states of all steps so far.
        posterior: with posterior head updates, from the first round on; else None.
        late: the newest rounds, where matrices and vectors of `statistics` and `posterior` lack them, as they may
            in a group; see `summed`.
    """

    head: Float[np.ndarray, "*n r"]
    gain_estimate: PerAgent = 0.0
    steps: int = 0
    statistics: TransitionSums | None = None
    rewards: RewardMoments = NO_REWARDS
    warm_up: HalfSums | None = None
    feature_squares: PerAgent = 0.0
    posterior: PosteriorState | None = None
    late: tuple[LateRound, ...] = ()

    def summed(self) -> "LearnerState":
        """The state with all rounds in all of its sums; they differ with when this is done, by rounding."""
        if not self.late:
            return self
        assert self.statistics is not None
        assert self.posterior is not None
        sums, posterior = with_late(
            self.statistics, self.posterior, self.late, with_noise=self.posterior.stride > 1
        )
        return replace(self, statistics=sums, posterior=posterior, late=())

    @classmethod
    def initial(cls, rank: int, agents: int | None = None) -> "LearnerState":
        """w = 0, η = 0; of n agents with a leading axis, also where n is 1."""
        if agents is None:
            return cls(head=np.zeros(rank))
        nothing = np.zeros(agents)
        moments = RewardMoments(0, nothing, nothing, nothing)
        return cls(np.zeros((agents, rank)), nothing, rewards=moments, feature_squares=nothing)

    def of_agents(self, places: int | Sequence[int] | slice) -> "LearnerState":
        """What one of n agents knows, or some of them, by their places."""
        moments = self.rewards
        return LearnerState(
            head=self.head[places],
            gain_estimate=numbers_of(self.gain_estimate, places),
            steps=self.steps,
            statistics=None if self.statistics is None else self.statistics.of_agents(places),
            rewards=RewardMoments(
                moments.count,
                numbers_of(moments.offset, places),
                numbers_of(moments.deviations, places),
                numbers_of(moments.reference, places),
            ),
            feature_squares=numbers_of(self.feature_squares, places),
            posterior=None if self.posterior is None else self.posterior.of_agents(places),
            late=late_of_agents(self.late, places),
        )


@dataclass(frozen=True, eq=False, slots=True)
class RoundOutcome:
    """What a round gives.

    Attributes:
        state: the agents' state after the round.
        gradient: Σ G over the agents, d × r, before projection; this is what is streamed; [a b], d × 2, in a
            warm-up's last round.
        head_second_moment: Σ over the agents of the mean of w wᵀ over the heads in the gradient, shape (r, r).
        mean_squared_error: the mean of δ² over the round's errors, in the square of the rewards' unit.
        weights: the value weights, shape (*n, d), in the unit of the data: B w, or the mean of the posterior.
        pooled: row sums Σ_j |A_ij| a step, shape (*n, d), with head updates from the full history; with posterior
            ones the packed curvature, shape (*n, m); else None.
        bounded: whether the ball ‖w‖ ≤ U has cut a head in this round, of bool.

    Where the run scales rewards, all that is streamed is dimensionless: see `Units`.
    """

    state: LearnerState
    gradient: Gradient
    head_second_moment: Float[np.ndarray, "r r"]
    mean_squared_error: PerAgent
    weights: Float[np.ndarray, "*n d"]
    pooled: Float[np.ndarray, "*n m"] | None = None
    bounded: bool | Bool[np.ndarray, "*n"] = False
