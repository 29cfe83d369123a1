"""Heads by least squares: an agent keeps the TD system of its own transitions and solves it every round.

LSTD(λ) (Boyan 2002, "Technical update: least-squares temporal difference learning") for the differential value,
kept in the coordinates z = Bᵀφ of the shared basis (r × r), or in the features themselves (d × d). No head step
size is left, and every transition counts in full.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from cospan.core.learning.td import project_to_ball
from cospan.core.linalg.leading_axes import (
    PerAgent,
    applied,
    column,
    dot,
    numbers_of,
    per_agent,
    sum_of_squares,
    times_shared,
)
from cospan.core.linalg.subspace import row_scales

PRIOR_STEPS = 10.0
"""The weight of the ridge, which holds the head while data are few, in environment steps."""

EXPLAINED_FLOOR = 0.1
MOMENT_FLOOR = 0.01


@dataclass(frozen=True, eq=False, slots=True)
class TransitionSums:
    """Sums over the transitions of one agent, or of each of n, older rounds weighing less.

    Attributes:
        basis: B, in whose coordinates the sums are, shape (d, r); None where z is φ itself, and r is d.
        system: A = Σ e (z − z')ᵀ, with e the trace of z, shape (*n, r, r).
        rewards: Σ e · reward, shape (*n, r); rewards may be counted from any reference, and η is then too.
        traces: Σ e, shape (*n, r).
        squares: Σ ‖z‖².
        reward_sum: Σ reward.
        steps: Σ 1, the same for all agents.
        rounds: number of rounds summed, each counted once.
    """

    basis: Float[np.ndarray, "d r"] | None
    system: Float[np.ndarray, "*n r r"]
    rewards: Float[np.ndarray, "*n r"]
    traces: Float[np.ndarray, "*n r"]
    squares: PerAgent = 0.0
    reward_sum: PerAgent = 0.0
    steps: float = 0.0
    rounds: int = 0

    @classmethod
    def initial(cls, basis: Float[np.ndarray, "d r"], agents: tuple[int, ...] = ()) -> "TransitionSums":
        """Of no transitions, in the coordinates of a basis, for agents of this shape: () for one, (n,) for n."""
        return replace(cls.of_features(basis.shape[1], agents), basis=basis)

    @classmethod
    def of_features(cls, feature_dim: int, agents: tuple[int, ...] = ()) -> "TransitionSums":
        """Of no transitions, in the features themselves: d² + 2d numbers for each agent."""
        nothing = np.zeros((*agents, feature_dim))
        number: PerAgent = np.zeros(agents) if agents else 0.0
        return cls(None, np.zeros((*nothing.shape, feature_dim)), nothing, nothing.copy(), number, number)

    def of_agents(self, places: int | Sequence[int] | slice) -> "TransitionSums":
        """Those of one of n agents, or of some of them, by their places."""
        return replace(
            self,
            system=self.system[places],
            rewards=self.rewards[places],
            traces=self.traces[places],
            squares=numbers_of(self.squares, places),
            reward_sum=numbers_of(self.reward_sum, places),
        )

    def moved_to(self, basis: Float[np.ndarray, "d r"]) -> "TransitionSums":
        """The same sums in the coordinates of another basis: A → M A Mᵀ, b → M b, with M = B_{t+1}ᵀ B_t.

        What lay outside the old basis was never seen, and what is outside the new one is dropped: an approximation
        that is as good as the two subspaces are close. From the features themselves, M = B_{t+1}ᵀ, it is exact;
        then the squares of z, which only the ridge needs, are taken to be r / d of those of φ.
        """
        turn = basis.T if self.basis is None else basis.T @ self.basis
        return TransitionSums(
            basis=basis,
            system=turn @ times_shared(self.system, turn.T),
            rewards=self.rewards @ turn.T,
            traces=self.traces @ turn.T,
            squares=self.squares * (1.0 if self.basis is not None else basis.shape[1] / basis.shape[0]),
            reward_sum=self.reward_sum,
            steps=self.steps,
            rounds=self.rounds,
        )

    def updated(
        self,
        coordinates: Float[np.ndarray, "*n L1 r"],
        traces: Float[np.ndarray, "*n L r"],
        rewards: Float[np.ndarray, "*n L"],
        forgetting: float,
        is_transition: Bool[np.ndarray, " L"] | None = None,
        *,
        changes: Float[np.ndarray, "*n L r"] | None = None,
    ) -> "TransitionSums":
        """The sums with one more round of L transitions, less its cuts; a round of cuts alone changes nothing.

        Args:
            coordinates: z_0 … z_L in this basis.
            traces: e_0 … e_{L−1}, 0 at cuts.
            rewards: r_0 … r_{L−1}, 0 at cuts.
            forgetting: ω ≥ 0. What there was is multiplied by t / (t + ω) after t rounds, so the data of round k
                weigh about k^ω: the early ones, taken in a bad basis, fade, and a share of all stays in view.
            is_transition: false for cuts; None where there are none.
            changes: z_1 − z_0 … z_L − z_{L−1}, where they are at hand.
        """
        steps = rewards.shape[-1] if is_transition is None else int(is_transition.sum())
        if not steps:
            return self
        keep = self.rounds / (self.rounds + forgetting) if self.rounds else 0.0
        visited, columns = coordinates[..., :-1, :], traces.swapaxes(-1, -2)
        changes = coordinates[..., 1:, :] - visited if changes is None else changes
        system = np.subtract(self.system if keep == 1.0 else keep * self.system, columns @ changes)
        if is_transition is not None:
            visited = visited * is_transition[:, None]
        return TransitionSums(
            basis=self.basis,
            system=system,
            rewards=keep * self.rewards + applied(columns, rewards),
            traces=keep * self.traces + traces.sum(axis=-2),
            squares=keep * self.squares + sum_of_squares(visited),
            reward_sum=keep * self.reward_sum + rewards.sum(axis=-1),
            steps=keep * self.steps + steps,
            rounds=self.rounds + 1,
        )

    def counting(self, rewards: Float[np.ndarray, "n L"], squares: Float[np.ndarray, " n"]) -> "TransitionSums":
        """The sums whose numbers have one more round, and whose vectors and matrices lack it, of n agents.

        Args:
            rewards: r_0 … r_{L−1}.
            squares: Σ ‖z‖² of the round.
        """
        return replace(
            self,
            squares=self.squares + squares,
            reward_sum=self.reward_sum + rewards.sum(axis=-1),
            steps=self.steps + rewards.shape[-1],
            rounds=self.rounds + 1,
        )

    def joined_with(self, other: "TransitionSums") -> "TransitionSums":
        """The sums over two sets of transitions, both in the coordinates of this basis."""
        return TransitionSums(
            basis=self.basis,
            system=self.system + other.system,
            rewards=self.rewards + other.rewards,
            traces=self.traces + other.traces,
            squares=self.squares + other.squares,
            reward_sum=self.reward_sum + other.reward_sum,
            steps=self.steps + other.steps,
            rounds=self.rounds + other.rounds,
        )

    @property
    def gain_estimate(self) -> PerAgent:
        """η, the mean reward under the same weights; 0 before the first round."""
        return self.reward_sum / self.steps if self.steps else self.reward_sum

    @property
    def centred_rewards(self) -> Float[np.ndarray, "*n r"]:
        """b = Σ e (reward − η), shape (*n, r)."""
        return np.asarray(self.rewards - column(self.gain_estimate) * self.traces)

    def residual(self, weights: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
        """(Σ e (reward − η) − A z) / steps: the mean TD error times the trace, were z the weights all along.

        Of sums in the features themselves it is the mean of δ e over all transitions so far, each with the weights
        of today (iLSTD; Geramifard, Bowling and Sutton 2006); 0 before the first round.
        """
        if not self.steps:
            return np.zeros(weights.shape)
        return np.asarray((self.centred_rewards - applied(self.system, weights)) / self.steps)

    def explained_share(
        self, residual: Float[np.ndarray, "*n d"], row_sums: Float[np.ndarray, "*n d"] | None = None
    ) -> PerAgent:
        """1 − ‖residual‖² / ‖b‖², at least 0.1: how much of b = Σ e (reward − η) / steps weights explain.

        Norms are those of the row scales, in which rare and frequent features count alike. Weights that fall with
        an agent's distance from the subspace are what makes robust subspace recovery robust (Lerman and Maunu 2018,
        "An overview of robust subspace recovery", section III); the floor lets no agent vanish, so a basis that
        explains nothing yet is learnt by all alike.

        Args:
            residual: that of the weights.
            row_sums: those of these sums, where they are at hand.
        """
        sizes = self.row_sums if row_sums is None else row_sums
        mean = sizes.mean(axis=-1, keepdims=True)
        # Of mean one, whatever the unit of the features.
        scales = row_scales(sizes / np.where(mean == 0.0, 1.0, mean))
        whole = self.centred_rewards / max(self.steps, 1.0)
        size, left = dot(whole, scales * whole), dot(residual, scales * residual)
        share = np.maximum(EXPLAINED_FLOOR, 1.0 - left / np.where(size > 0.0, size, np.inf))
        return per_agent(np.where(size > 0.0, share, EXPLAINED_FLOOR))

    @property
    def row_sums(self) -> Float[np.ndarray, "*n r"]:
        """Σ_j |A_ij| / steps, by which a step on the residual can be divided, row by row, and not overshoot.

        Every eigenvalue of A so divided has at most modulus one (Gershgorin): the ℓ1-Jacobi scaling (Baker,
        Falgout, Kolev and Yang 2011, "Multigrid smoothers for ultraparallel computing", section 5).
        """
        return np.asarray(np.abs(self.system).sum(axis=-1) / max(self.steps, 1.0))

    def head(
        self,
        radius: PerAgent,
        *,
        prior_steps: float = PRIOR_STEPS,
        second_moment: Float[np.ndarray, "r r"] | None = None,
    ) -> Float[np.ndarray, "*n r"]:
        """w of (A + κ I) w = Σ e (reward − η), drawn back into the ball ‖w‖ ≤ U; 0 before the first round.

        κ = `prior_steps` · (mean ‖z‖²) / r. With the second moment W̄ of other agents' heads, I becomes
        (r W̄ / tr W̄ + 0.01 I)⁻¹: the head is held where it is unlike theirs (a Gaussian prior of covariance W̄;
        the empirical Bayes of Efron and Morris 1973), which tells where a new agent with few data should look.
        """
        rank = self.traces.shape[-1]
        if not self.steps:
            return np.zeros(self.traces.shape)
        shape = np.eye(rank)
        if second_moment is not None:
            shape = np.linalg.inv(rank * second_moment / np.trace(second_moment) + MOMENT_FLOOR * np.eye(rank))
        # Where all z were 0, A and b are 0, and any ridge gives w = 0.
        ridge = prior_steps * self.squares / self.steps / rank + (self.squares == 0.0)
        head = _solved(self.system + column(column(ridge)) * shape, self.centred_rewards)
        finite = np.isfinite(dot(head, head))
        if not finite.all():
            head = np.where(np.asarray(finite)[..., None], head, 0.0)
        return project_to_ball(head, radius)


def _solved(systems: Float[np.ndarray, "*n r r"], rights: Float[np.ndarray, "*n r"]) -> Float[np.ndarray, "*n r"]:
    """The solution of each system; the one of least norm where a system is singular.

    A is not symmetric: for one ridge in a continuum it may be singular.
    """
    try:
        return np.asarray(np.linalg.solve(systems, rights[..., None])[..., 0])
    except np.linalg.LinAlgError:
        if rights.ndim == 1:
            return np.asarray(np.linalg.lstsq(systems, rights, rcond=None)[0])
        return np.stack([_solved(system, right) for system, right in zip(systems, rights, strict=True)])
