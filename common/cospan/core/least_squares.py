"""Heads by least squares: an agent keeps the r × r TD system of its own transitions and solves it every round.

LSTD(λ) (Boyan 2002, "Technical update: least-squares temporal difference learning") in the coordinates z = Bᵀφ of
the shared basis, for the differential value. No head step size is left, and every transition counts in full.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.td import project_to_ball

PRIOR_STEPS = 10.0
"""The ridge that holds the head while data are few weighs as much as so many steps."""


@dataclass(frozen=True, eq=False, slots=True)
class HeadStatistics:
    """Sums over an agent's transitions, older rounds weighing less.

    Attributes:
        basis: B, in whose coordinates the sums are, shape (d, r).
        system: A = Σ e (z − z')ᵀ, with e the trace of z, shape (r, r).
        rewards: Σ e · reward, shape (r,).
        traces: Σ e, shape (r,).
        squares: Σ ‖z‖².
        reward_sum: Σ reward.
        steps: Σ 1.
        rounds: number of rounds summed, each counted once.
    """

    basis: Float[np.ndarray, "d r"]
    system: Float[np.ndarray, "r r"]
    rewards: Float[np.ndarray, " r"]
    traces: Float[np.ndarray, " r"]
    squares: float = 0.0
    reward_sum: float = 0.0
    steps: float = 0.0
    rounds: int = 0

    @classmethod
    def initial(cls, basis: Float[np.ndarray, "d r"]) -> "HeadStatistics":
        """Of no transitions."""
        rank = basis.shape[1]
        return cls(basis, np.zeros((rank, rank)), np.zeros(rank), np.zeros(rank))

    def moved_to(self, basis: Float[np.ndarray, "d r"]) -> "HeadStatistics":
        """The same sums in the coordinates of another basis: A → M A Mᵀ, b → M b, with M = B_{t+1}ᵀ B_t.

        What lay outside the old basis was never seen, and what is outside the new one is dropped: an approximation
        that is as good as the two subspaces are close.
        """
        turn = basis.T @ self.basis
        return HeadStatistics(
            basis=basis,
            system=turn @ self.system @ turn.T,
            rewards=turn @ self.rewards,
            traces=turn @ self.traces,
            squares=self.squares,
            reward_sum=self.reward_sum,
            steps=self.steps,
            rounds=self.rounds,
        )

    def including(
        self,
        coordinates: Float[np.ndarray, "L1 r"],
        traces: Float[np.ndarray, "L r"],
        rewards: Float[np.ndarray, " L"],
        forgetting: float,
    ) -> "HeadStatistics":
        """The sums with one more round of L transitions.

        Args:
            coordinates: z_0 … z_L in this basis.
            traces: e_0 … e_{L−1}.
            rewards: r_0 … r_{L−1}.
            forgetting: c ≥ 0. What there was is multiplied by t / (t + c) after t rounds, so the data of round k
                weigh about k^c: the early ones, taken in a bad basis, fade, and a share of all stays in view.
        """
        keep = self.rounds / (self.rounds + forgetting) if self.rounds else 0.0
        return HeadStatistics(
            basis=self.basis,
            system=keep * self.system + traces.T @ (coordinates[:-1] - coordinates[1:]),
            rewards=keep * self.rewards + traces.T @ rewards,
            traces=keep * self.traces + traces.sum(axis=0),
            squares=keep * self.squares + float(np.vdot(coordinates[:-1], coordinates[:-1])),
            reward_sum=keep * self.reward_sum + float(rewards.sum()),
            steps=keep * self.steps + len(rewards),
            rounds=self.rounds + 1,
        )

    @property
    def gain_estimate(self) -> float:
        """η, the mean reward under the same weights; 0 before the first round."""
        return self.reward_sum / self.steps if self.steps else 0.0

    def head(self, radius: float) -> Float[np.ndarray, " r"]:
        """w of (A + κ I) w = Σ e (reward − η), drawn back into the ball ‖w‖ ≤ U; 0 before the first round.

        κ = `PRIOR_STEPS` · (mean ‖z‖²) / r.
        """
        rank = len(self.traces)
        if not self.steps or self.squares == 0.0:
            return np.zeros(rank)
        ridge = PRIOR_STEPS * self.squares / self.steps / rank
        right = self.rewards - self.gain_estimate * self.traces
        try:
            head = np.linalg.solve(self.system + ridge * np.eye(rank), right)
        except np.linalg.LinAlgError:  # A is not symmetric: for one ridge in a continuum it may be singular
            head = np.linalg.lstsq(self.system + ridge * np.eye(rank), right, rcond=None)[0]
        return project_to_ball(head, radius) if math.isfinite(float(head @ head)) else np.zeros(rank)
