"""Heads by least squares: an agent keeps the TD system of its own transitions and solves it every round.

LSTD(λ) (Boyan 2002, "Technical update: least-squares temporal difference learning") for the differential value,
kept in the coordinates z = Bᵀφ of the shared basis (r × r), or in the features themselves (d × d). No head step
size is left, and every transition counts in full.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.learning.td import project_to_ball
from cospan.core.linalg.subspace import row_scales

PRIOR_STEPS = 10.0
"""The ridge that holds the head while data are few weighs as much as so many steps."""

EXPLAINED_FLOOR = 0.1
MOMENT_FLOOR = 0.01


@dataclass(frozen=True, eq=False, slots=True)
class TransitionSums:
    """Sums over an agent's transitions, older rounds weighing less.

    Attributes:
        basis: B, in whose coordinates the sums are, shape (d, r); None where z is φ itself, and r is d.
        system: A = Σ e (z − z')ᵀ, with e the trace of z, shape (r, r).
        rewards: Σ e · reward, shape (r,); rewards may be counted from any reference, and η is then too.
        traces: Σ e, shape (r,).
        squares: Σ ‖z‖².
        reward_sum: Σ reward.
        steps: Σ 1.
        rounds: number of rounds summed, each counted once.
    """

    basis: Float[np.ndarray, "d r"] | None
    system: Float[np.ndarray, "r r"]
    rewards: Float[np.ndarray, " r"]
    traces: Float[np.ndarray, " r"]
    squares: float = 0.0
    reward_sum: float = 0.0
    steps: float = 0.0
    rounds: int = 0

    @classmethod
    def initial(cls, basis: Float[np.ndarray, "d r"]) -> "TransitionSums":
        """Of no transitions, in the coordinates of a basis."""
        rank = basis.shape[1]
        return cls(basis, np.zeros((rank, rank)), np.zeros(rank), np.zeros(rank))

    @classmethod
    def of_features(cls, feature_dim: int) -> "TransitionSums":
        """Of no transitions, in the features themselves: d² + 2d numbers."""
        return cls(None, np.zeros((feature_dim, feature_dim)), np.zeros(feature_dim), np.zeros(feature_dim))

    def moved_to(self, basis: Float[np.ndarray, "d r"]) -> "TransitionSums":
        """The same sums in the coordinates of another basis: A → M A Mᵀ, b → M b, with M = B_{t+1}ᵀ B_t.

        What lay outside the old basis was never seen, and what is outside the new one is dropped: an approximation
        that is as good as the two subspaces are close. From the features themselves, M = B_{t+1}ᵀ, it is exact;
        then the squares of z, which only the ridge needs, are taken to be r / d of those of φ.
        """
        turn = basis.T if self.basis is None else basis.T @ self.basis
        return TransitionSums(
            basis=basis,
            system=turn @ (self.system @ turn.T),
            rewards=turn @ self.rewards,
            traces=turn @ self.traces,
            squares=self.squares * (1.0 if self.basis is not None else basis.shape[1] / basis.shape[0]),
            reward_sum=self.reward_sum,
            steps=self.steps,
            rounds=self.rounds,
        )

    def updated(
        self,
        coordinates: Float[np.ndarray, "L1 r"],
        traces: Float[np.ndarray, "L r"],
        rewards: Float[np.ndarray, " L"],
        forgetting: float,
    ) -> "TransitionSums":
        """The sums with one more round of L transitions.

        Args:
            coordinates: z_0 … z_L in this basis.
            traces: e_0 … e_{L−1}.
            rewards: r_0 … r_{L−1}.
            forgetting: c ≥ 0. What there was is multiplied by t / (t + c) after t rounds, so the data of round k
                weigh about k^c: the early ones, taken in a bad basis, fade, and a share of all stays in view.
        """
        keep = self.rounds / (self.rounds + forgetting) if self.rounds else 0.0
        return TransitionSums(
            basis=self.basis,
            system=keep * self.system + traces.T @ (coordinates[:-1] - coordinates[1:]),
            rewards=keep * self.rewards + traces.T @ rewards,
            traces=keep * self.traces + traces.sum(axis=0),
            squares=keep * self.squares + float(np.vdot(coordinates[:-1], coordinates[:-1])),
            reward_sum=keep * self.reward_sum + float(rewards.sum()),
            steps=keep * self.steps + len(rewards),
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
    def gain_estimate(self) -> float:
        """η, the mean reward under the same weights; 0 before the first round."""
        return self.reward_sum / self.steps if self.steps else 0.0

    def residual(self, weights: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        """(Σ e (reward − η) − A z) / steps: the mean TD error times the trace, were z the weights all along.

        Of sums in the features themselves it is the mean of δ e over all transitions so far, each with the weights
        of today (iLSTD; Geramifard, Bowling and Sutton 2006); 0 before the first round.
        """
        if not self.steps:
            return np.zeros(len(weights))
        return np.asarray((self.rewards - self.gain_estimate * self.traces - self.system @ weights) / self.steps)

    def explained_share(self, residual: Float[np.ndarray, " d"]) -> float:
        """1 − ‖residual‖² / ‖b‖², at least 0.1: how much of b = Σ e (reward − η) / steps weights explain.

        Norms are those of the row scales, in which rare and frequent features count alike. Weights that fall with
        an agent's distance from the subspace are what makes robust subspace recovery robust (Lerman and Maunu 2018,
        "An overview of robust subspace recovery", section III); the floor lets no agent vanish, so a basis that
        explains nothing yet is learnt by all alike.
        """
        sizes = self.row_sums
        scales = row_scales(sizes / (float(sizes.mean()) or 1.0))  # of mean one, in whatever unit the features are
        whole = self.residual(np.zeros(len(residual)))
        size = float(whole @ (scales * whole))
        left = float(residual @ (scales * residual))
        return max(EXPLAINED_FLOOR, 1.0 - left / size) if size > 0.0 else EXPLAINED_FLOOR

    @property
    def row_sums(self) -> Float[np.ndarray, " r"]:
        """Σ_j |A_ij| / steps, by which a step on the residual can be divided, row by row, and not overshoot.

        Every eigenvalue of A so divided has at most modulus one (Gershgorin): the ℓ1-Jacobi scaling (Baker,
        Falgout, Kolev and Yang 2011, "Multigrid smoothers for ultraparallel computing", section 5).
        """
        return np.asarray(np.abs(self.system).sum(axis=1) / max(self.steps, 1.0))

    def head(
        self,
        radius: float,
        *,
        prior_steps: float = PRIOR_STEPS,
        second_moment: Float[np.ndarray, "r r"] | None = None,
    ) -> Float[np.ndarray, " r"]:
        """w of (A + κ I) w = Σ e (reward − η), drawn back into the ball ‖w‖ ≤ U; 0 before the first round.

        κ = `prior_steps` · (mean ‖z‖²) / r. With the second moment W̄ of other agents' heads, I becomes
        (r W̄ / tr W̄ + 0.01 I)⁻¹: the head is held where it is unlike theirs (a Gaussian prior of covariance W̄;
        the empirical Bayes of Efron and Morris 1973), which tells where a new agent with few data should look.
        """
        rank = len(self.traces)
        if not self.steps or self.squares == 0.0:
            return np.zeros(rank)
        shape = np.eye(rank)
        if second_moment is not None:
            shape = np.linalg.inv(rank * second_moment / np.trace(second_moment) + MOMENT_FLOOR * np.eye(rank))
        ridge = prior_steps * self.squares / self.steps / rank * shape
        right = self.rewards - self.gain_estimate * self.traces
        try:
            head = np.linalg.solve(self.system + ridge, right)
        except np.linalg.LinAlgError:  # A is not symmetric: for one ridge in a continuum it may be singular
            head = np.linalg.lstsq(self.system + ridge, right, rcond=None)[0]
        return project_to_ball(head, radius) if math.isfinite(float(head @ head)) else np.zeros(rank)
