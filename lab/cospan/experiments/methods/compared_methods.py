"""Simulated fleets: the joint method and its baselines on the same transitions.

Each method maps the trajectories of a round to the fleet after it. A method with a step size is run with several
(the axis m); the best is reported.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import (
    Contribution,
    initial_head_covariance,
    mean_gradient,
    next_basis,
)
from cospan.core.learning.baselines import INDEPENDENT_STEPS, IndependentTD
from cospan.core.learning.blocked_td import discounted_sums
from cospan.core.learning.learner import contribution_of, learn_round
from cospan.core.learning.learner_state import LearnerState, RoundOutcome, Trajectory
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.posterior import FleetPrior, refreshed
from cospan.core.learning.schedules import AveragedIterate, decay
from cospan.core.learning.units import Units
from cospan.core.linalg.matrices import FactoredMatrix
from cospan.core.method import HeadUpdate, Method, takes_pooled

LSTD_RIDGES = (3.0, 10.0, 30.0)
"""Ridges of LSTD alone, in environment steps; the best is reported."""


class FleetMethod(Protocol):
    """A way for n agents to learn their value weights."""

    def learning_from(self, trajectories: Sequence[Trajectory]) -> "FleetMethod":
        """The fleet after one more round; one trajectory for each agent, in their order."""

    @property
    def weights(self) -> Float[np.ndarray, "m n d"]:
        """Value weights of each agent for each of m step sizes; averaged iterates if the method iterates."""

    @property
    def basis(self) -> Float[np.ndarray, "d r"] | None:
        """The shared basis, or None."""

    @property
    def numbers_sent(self) -> int:
        """Float64 numbers that one agent sends and receives in one round."""


@dataclass(frozen=True, eq=False, slots=True)
class JointFleet:
    """PMAAR-TD with any `Method`; with `basis_step` 0 the heads of a known basis.

    Attributes:
        method: the constants.
        basis: B_t, shape (d, r).
        states: of the agents.
        averaged: iterates of B w, shape (n, d), from the end of the warm-up on.
        round: t.
        step_memory: see `cospan.core.aggregation.basis_update.BasisMove`.
        head_covariance: W_t, shape (r, r); None where the method has none.
        announced: B and W of the last round, of which agents make their posteriors; None before the first round,
            and where the method has no W.
        numbers_sent: in the round before.
        prior_of: how many agents B and W are of; None for those of this fleet.
    """

    method: Method
    basis: Float[np.ndarray, "d r"]
    states: tuple[LearnerState, ...]
    averaged: AveragedIterate
    round: int = 0
    step_memory: Float[np.ndarray, " m"] | None = None
    numbers_sent: int = 0
    head_covariance: Float[np.ndarray, "r r"] | None = None
    announced: tuple[Float[np.ndarray, "d r"], Float[np.ndarray, "r r"]] | None = None
    prior_of: int | None = None

    @classmethod
    def initial(cls, method: Method, basis: Float[np.ndarray, "d r"], agents: int) -> "JointFleet":
        """Of n agents whose heads are zero."""
        states = (LearnerState.initial(basis.shape[1]),) * agents
        weights = np.zeros((agents, basis.shape[0]))
        return cls(
            method,
            basis,
            states,
            AveragedIterate(mean=weights, power=method.averaging_power),
            head_covariance=initial_head_covariance(method, basis.shape[1]),
        )

    def learning_from(
        self,
        trajectories: Sequence[Trajectory],
        sent: Callable[[int, Contribution], Contribution] = lambda _, contribution: contribution,
    ) -> "JointFleet":
        """One round: every agent's part, then the coordinator's.

        Args:
            trajectories: of the agents.
            sent: maps (agent, its contribution) to what it sends, for studies of dishonest agents.
        """
        outcomes = self.outcomes(trajectories)
        # The coordinator sums in the order of the agents' names: site-10 comes before site-2.
        named = sorted(range(len(outcomes)), key=str)
        contributions = [sent(index, contribution_of(outcomes[index], self.method, self.round)) for index in named]
        after = self.after(outcomes)
        if self.method.basis_step == 0.0 and not self.method.warms_up_in(self.round):
            return after
        covariance = self.head_covariance
        move = next_basis(
            self.basis, contributions, self.method, self.round, self.step_memory, head_covariance=covariance
        )
        numbers = _numbers_of(contributions[0]) + self.basis.size + (0 if covariance is None else covariance.size)
        return replace(
            after,
            basis=move.basis,
            step_memory=move.step_memory,
            head_covariance=move.head_covariance,
            numbers_sent=numbers,
        )

    def outcomes(self, trajectories: Sequence[Trajectory]) -> list[RoundOutcome]:
        """Every agent's part of a round."""
        return [
            learn_round(
                state,
                self.basis,
                trajectory,
                self.method,
                self.round,
                head_covariance=self.head_covariance,
                agents=self.prior_of or len(self.states),
            )
            for state, trajectory in zip(self.states, trajectories, strict=True)
        ]

    def after(self, outcomes: Sequence[RoundOutcome]) -> "JointFleet":
        """The fleet with the agents after a round, and the basis before it."""
        weights = np.stack([outcome.weights for outcome in outcomes])
        warming_up = self.method.warms_up_in(self.round)
        return replace(
            self,
            states=tuple(outcome.state for outcome in outcomes),
            averaged=self.averaged if warming_up else self.averaged.updated(weights),
            round=self.round + 1,
            announced=None if self.head_covariance is None else (self.basis, self.head_covariance),
        )

    @property
    def step(self) -> float:
        """ζ times its decay in this round."""
        method = self.method
        scale = decay(self.round * method.steps_per_round, method.decay_horizon, method.decay_power)
        return method.basis_step * scale

    @property
    def weights(self) -> Float[np.ndarray, "1 n d"]:
        """Those of a run that ends here: averaged iterates of B w, or posterior means given all transitions."""
        if self.announced is None:
            return self.averaged.mean[None]
        return np.stack([self._posterior_mean(state, *self.announced) for state in self.states])[None]

    def _posterior_mean(
        self, state: LearnerState, basis: Float[np.ndarray, "d r"], covariance: Float[np.ndarray, "r r"]
    ) -> Float[np.ndarray, " d"]:
        """That of the last refreshing if it was in the last round; else as the last round of a run has it."""
        posterior, sums = state.posterior, state.statistics
        assert posterior is not None
        assert sums is not None
        own = takes_pooled(posterior.rounds - 1, self.method.pooled_growth)
        if own or self.method.sends_pooled_in(self.round - 1):
            return posterior.weights
        units = Units.of(state.rewards.variance, state.feature_squares / state.rewards.count)
        return refreshed(
            posterior, sums, units, FleetPrior(basis, covariance, self.prior_of or len(self.states))
        ).weights


@dataclass(frozen=True, eq=False, slots=True)
class WrappedFleet:
    """A joint fleet of which one part differs.

    Attributes:
        joint: the agents and the basis.
    """

    joint: JointFleet

    @property
    def weights(self) -> Float[np.ndarray, "1 n d"]:
        """Averaged iterates of B w."""
        return self.joint.weights

    @property
    def basis(self) -> Float[np.ndarray, "d r"] | None:
        """B."""
        return self.joint.basis

    @property
    def numbers_sent(self) -> int:
        """As for the joint method."""
        return self.joint.numbers_sent


def _numbers_of(contribution: Contribution) -> int:
    gradient, further = contribution.gradient, (contribution.head_second_moment, contribution.pooled)
    numbers = (
        gradient.left.size + gradient.right.size if isinstance(gradient, FactoredMatrix) else gradient.values.size
    )
    return numbers + sum(part.size for part in further if part is not None)


@dataclass(frozen=True, eq=False, slots=True)
class TwoTimescaleFleet(WrappedFleet):
    """A coordinator ten times slower than the agents, without tangent projection and without orthonormalisation.

    The paper's stand-in for PFedTD-Rep (arXiv:2411.15014): B ← B + (ζ / 10) · mean gradient. The basis of `joint`
    need not be orthonormal.
    """

    SLOWER = 10.0

    @classmethod
    def initial(cls, method: Method, basis: Float[np.ndarray, "d r"], agents: int) -> "TwoTimescaleFleet":
        """Of n agents whose heads are zero.

        Raises:
            ValueError: the method has options that assume an orthonormal basis.
        """
        stepping = method.head_update in (HeadUpdate.END_OF_ROUND, HeadUpdate.EVERY_STEP)
        if not stepping or method.preconditioned or method.row_scaled or method.warm_up_rounds:
            raise ValueError("two time scales need stepped heads, no scaling and no warm-up")
        return cls(JointFleet.initial(method, basis, agents))

    def learning_from(self, trajectories: Sequence[Trajectory]) -> "TwoTimescaleFleet":
        """One round."""
        joint, outcomes = self.joint, self.joint.outcomes(trajectories)
        contributions = [Contribution(outcome.gradient) for outcome in outcomes]
        basis = joint.basis + (joint.step / self.SLOWER) * mean_gradient(contributions)
        numbers = _numbers_of(contributions[0]) + joint.basis.size
        return TwoTimescaleFleet(replace(joint.after(outcomes), basis=basis, numbers_sent=numbers))

    @property
    def basis(self) -> Float[np.ndarray, "d r"]:
        """An orthonormal basis of the span of B, for its angle to B*."""
        return np.linalg.qr(self.joint.basis)[0]


@dataclass(frozen=True, eq=False, slots=True)
class IndependentFleet:
    """Each agent alone with TD(0); with `rank`, mixed after each round.

    Attributes:
        method: the constants of steps and their decay.
        agents: one learner for each.
        averaged: of the weights that agents hold after mixing, shape (m, n, d).
        rank: None for no mixing; 0 for FedTD-Uniform, the mean over the agents of everything, gains too; r for TD
            with a rank-r projection at the server (arXiv:2503.02030): the stacked weights are replaced by their
            best rank-r approximation.
    """

    method: Method
    agents: tuple[IndependentTD, ...]
    averaged: AveragedIterate
    rank: int | None = None

    @classmethod
    def initial(
        cls,
        method: Method,
        feature_dim: int,
        agents: int,
        *,
        rank: int | None = None,
        step_sizes: tuple[float, ...] = INDEPENDENT_STEPS,
    ) -> "IndependentFleet":
        """Of n agents without data."""
        learner = IndependentTD.initial(feature_dim, step_sizes)
        shape = (learner.weights.shape[0], agents, feature_dim)
        return cls(method, (learner,) * agents, AveragedIterate(mean=np.zeros(shape)), rank)

    def learning_from(self, trajectories: Sequence[Trajectory]) -> "IndependentFleet":
        """One round."""
        agents = [
            agent.learning_from(trajectory, self.method)
            for agent, trajectory in zip(self.agents, trajectories, strict=True)
        ]
        weights = np.stack([agent.weights for agent in agents], axis=1)
        if self.rank is not None:
            weights = _mixed(weights, self.rank)
            gain = float(np.mean([agent.gain_estimate for agent in agents]))
            agents = [
                replace(agent, weights=weights[:, k], gain_estimate=agent.gain_estimate if self.rank else gain)
                for k, agent in enumerate(agents)
            ]
        return replace(self, agents=tuple(agents), averaged=self.averaged.updated(weights))

    @property
    def weights(self) -> Float[np.ndarray, "m n d"]:
        """Averaged iterates."""
        return self.averaged.mean

    @property
    def basis(self) -> None:
        """None."""
        return None

    @property
    def numbers_sent(self) -> int:
        """The weights up and down, and the gain if it is averaged."""
        if self.rank is None:
            return 0
        return 2 * (int(self.averaged.mean.shape[2]) + (0 if self.rank else 1))


def _mixed(weights: Float[np.ndarray, "m n d"], rank: int) -> Float[np.ndarray, "m n d"]:
    if rank == 0:
        return np.repeat(weights.mean(axis=1, keepdims=True), weights.shape[1], axis=1)
    left, singular, right = np.linalg.svd(weights, full_matrices=False)
    return np.asarray((left[:, :, :rank] * singular[:, None, :rank]) @ right[:, :rank])


def updated_sums(
    agents: Sequence[TransitionSums], trajectories: Sequence[Trajectory], trace_decay: float
) -> tuple[TransitionSums, ...]:
    """The transition sums of all agents after one more round, with traces of this λ."""
    return tuple(
        agent.updated(
            trajectory.features,
            discounted_sums(trajectory.features[:-1], trace_decay),
            trajectory.rewards,
            forgetting=0.0,
        )
        for agent, trajectory in zip(agents, trajectories, strict=True)
    )


@dataclass(frozen=True, eq=False, slots=True)
class LstdFleet:
    """Each agent alone with least-squares TD(λ) in all d dimensions: d² memory, no step size.

    The strongest that a site can do by itself: what sharing has to beat.

    Attributes:
        trace_decay: λ; traces start at zero in each round, as those of the joint method.
        agents: transition sums of each.
        ridges: in environment steps, each a variant.
    """

    trace_decay: float
    agents: tuple[TransitionSums, ...]
    ridges: tuple[float, ...] = LSTD_RIDGES

    @classmethod
    def initial(
        cls, feature_dim: int, agents: int, *, trace_decay: float = 0.0, ridges: tuple[float, ...] = LSTD_RIDGES
    ) -> "LstdFleet":
        """Of n agents without data."""
        return cls(trace_decay, (TransitionSums.of_features(feature_dim),) * agents, ridges)

    def learning_from(self, trajectories: Sequence[Trajectory]) -> "LstdFleet":
        """One round."""
        return replace(self, agents=updated_sums(self.agents, trajectories, self.trace_decay))

    @property
    def weights(self) -> Float[np.ndarray, "m n d"]:
        """The solutions with each ridge."""
        return np.stack([[agent.head(np.inf, prior_steps=ridge) for agent in self.agents] for ridge in self.ridges])

    @property
    def basis(self) -> None:
        """None."""
        return None

    @property
    def numbers_sent(self) -> int:
        """0: agents are independent."""
        return 0
