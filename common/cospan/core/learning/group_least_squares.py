"""Heads by least squares of n agents at once: `cospan.core.learning.least_squares`, with a leading axis n.

The agents of a group take the same number of steps in the same rounds and see the same basis, so what depends on
these alone is kept once. Each function is the one of the same name for one agent, up to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cospan.core.learning.least_squares import EXPLAINED_FLOOR, PRIOR_STEPS, TransitionSums
from cospan.core.linalg.subspace import ROW_FLOOR


@dataclass(frozen=True, eq=False, slots=True)
class GroupSums:
    """Sums over the transitions of each of n agents; see `TransitionSums`.

    Attributes:
        basis: B, in whose coordinates the sums are, shape (d, r); None where z is φ itself, and r is d.
        system: A, shape (n, r, r).
        rewards: Σ e · reward, shape (n, r).
        traces: Σ e, shape (n, r).
        squares: Σ ‖z‖², shape (n,).
        reward_sums: Σ reward, shape (n,).
        steps: Σ 1, the same of all.
        rounds: number of rounds summed.
    """

    basis: Float[np.ndarray, "d r"] | None
    system: Float[np.ndarray, "n r r"]
    rewards: Float[np.ndarray, "n r"]
    traces: Float[np.ndarray, "n r"]
    squares: Float[np.ndarray, " n"]
    reward_sums: Float[np.ndarray, " n"]
    steps: float = 0.0
    rounds: int = 0

    @classmethod
    def initial(cls, agents: int, size: int, basis: Float[np.ndarray, "d r"] | None = None) -> "GroupSums":
        """Of no transitions: in the coordinates of a basis, size r, or in the features themselves, size d."""
        nothing = np.zeros((agents, size))
        return cls(
            basis,
            np.zeros((agents, size, size)),
            nothing,
            nothing,
            squares=nothing[:, 0],
            reward_sums=nothing[:, 0],
        )

    def of_agent(self, number: int) -> TransitionSums:
        """Those of one agent, by its place in the group."""
        return TransitionSums(
            basis=self.basis,
            system=self.system[number],
            rewards=self.rewards[number],
            traces=self.traces[number],
            squares=float(self.squares[number]),
            reward_sum=float(self.reward_sums[number]),
            steps=self.steps,
            rounds=self.rounds,
        )

    def of_agents(self, numbers: Sequence[int]) -> "GroupSums":
        """Those of some of the agents, by their places."""
        rows = list(numbers)
        return replace(
            self,
            system=self.system[rows],
            rewards=self.rewards[rows],
            traces=self.traces[rows],
            squares=self.squares[rows],
            reward_sums=self.reward_sums[rows],
        )

    def moved_to(self, basis: Float[np.ndarray, "d r"]) -> "GroupSums":
        """The same sums in the coordinates of another basis."""
        turn = basis if self.basis is None else self.basis.T @ basis
        return self.turned(basis, turn, self.images(turn))

    def images(self, turn: Float[np.ndarray, "q r"]) -> Float[np.ndarray, "n q r"]:
        """A times a matrix that all share, by one product."""
        agents, size, _ = self.system.shape
        return np.asarray((self.system.reshape(agents * size, size) @ turn).reshape(agents, size, turn.shape[1]))

    def turned(
        self, basis: Float[np.ndarray, "d r"], turn: Float[np.ndarray, "q r"], images: Float[np.ndarray, "n q r"]
    ) -> "GroupSums":
        """`moved_to` with A Mᵀ at hand; `turn` is Mᵀ."""
        return GroupSums(
            basis=basis,
            system=turn.T @ images,
            rewards=self.rewards @ turn,
            traces=self.traces @ turn,
            squares=self.squares * (1.0 if self.basis is not None else basis.shape[1] / basis.shape[0]),
            reward_sums=self.reward_sums,
            steps=self.steps,
            rounds=self.rounds,
        )

    def updated(
        self,
        coordinates: Float[np.ndarray, "n L1 r"],
        traces: Float[np.ndarray, "n L r"],
        rewards: Float[np.ndarray, "n L"],
        forgetting: float,
    ) -> "GroupSums":
        """The sums with one more round of L transitions of each agent."""
        keep = self.rounds / (self.rounds + forgetting) if self.rounds else 0.0
        system = traces.swapaxes(1, 2) @ (coordinates[:, :-1] - coordinates[:, 1:])
        system += self.system if keep == 1.0 else keep * self.system
        visited = coordinates[:, :-1]
        return GroupSums(
            basis=self.basis,
            system=system,
            rewards=keep * self.rewards + (rewards[:, None] @ traces)[:, 0],
            traces=keep * self.traces + traces.sum(axis=1),
            squares=keep * self.squares + np.einsum("nlr,nlr->n", visited, visited),
            reward_sums=keep * self.reward_sums + rewards.sum(axis=1),
            steps=keep * self.steps + rewards.shape[1],
            rounds=self.rounds + 1,
        )

    @property
    def gain_estimates(self) -> Float[np.ndarray, " n"]:
        """η of each."""
        return np.asarray(self.reward_sums / self.steps) if self.steps else np.zeros(len(self.reward_sums))

    @property
    def centred_rewards(self) -> Float[np.ndarray, "n r"]:
        """b = Σ e (reward − η) of each."""
        return np.asarray(self.rewards - self.gain_estimates[:, None] * self.traces)

    @property
    def row_sums(self) -> Float[np.ndarray, "n r"]:
        """Σ_j |A_ij| / steps of each."""
        return np.asarray(np.abs(self.system).sum(axis=2) / max(self.steps, 1.0))

    def explained_shares(self, weights: Float[np.ndarray, "n r"]) -> Float[np.ndarray, " n"]:
        """How much of b each agent's weights explain; see `explained_shares`. nan before the first round."""
        if not self.steps:
            return np.full(len(weights), np.nan)
        wholes = self.centred_rewards / self.steps
        residuals = wholes - (self.system @ weights[..., None])[..., 0] / self.steps
        return explained_shares(residuals, wholes, self.row_sums)

    def heads(self, radius: float | Float[np.ndarray, " n"]) -> Float[np.ndarray, "n r"]:
        """w of (A + κ I) w = b of each, drawn back into the ball of its radius; 0 where nothing is known."""
        agents, rank = self.traces.shape
        if not self.steps:
            return np.zeros((agents, rank))
        known = self.squares != 0.0
        ridge = np.where(known, PRIOR_STEPS * self.squares / self.steps / rank, 1.0)
        systems = self.system + ridge[:, None, None] * np.eye(rank)
        heads = _solved(systems, self.centred_rewards)
        known &= np.isfinite(np.einsum("nr,nr->n", heads, heads))
        return project_to_balls(np.where(known[:, None], heads, 0.0), radius)


def explained_shares(
    residuals: Float[np.ndarray, "n d"], wholes: Float[np.ndarray, "n d"], row_sums: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """`TransitionSums.explained_share` of each agent.

    Args:
        residuals: with the weights.
        wholes: b / steps, the residuals without any.
        row_sums: of A.
    """
    means = row_sums.mean(axis=1, keepdims=True)
    scales = 1.0 / np.where(means > 0.0, row_sums + ROW_FLOOR * means, 1.0)
    sizes = np.einsum("nd,nd,nd->n", wholes, scales, wholes)
    left = np.einsum("nd,nd,nd->n", residuals, scales, residuals)
    shares = 1.0 - left / np.where(sizes > 0.0, sizes, 1.0)
    return np.asarray(np.where(sizes > 0.0, np.maximum(EXPLAINED_FLOOR, shares), EXPLAINED_FLOOR))


def project_to_balls(
    vectors: Float[np.ndarray, "n r"], radius: float | Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n r"]:
    """`cospan.core.learning.td.project_to_ball` of each row; the radius of all, or of each."""
    norms = np.sqrt(np.einsum("nr,nr->n", vectors, vectors))
    inside = norms <= radius
    if inside.all():
        return vectors
    return np.asarray(vectors * np.where(inside, 1.0, radius / np.where(inside, 1.0, norms))[:, None])


def _solved(systems: Float[np.ndarray, "n r r"], rights: Float[np.ndarray, "n r"]) -> Float[np.ndarray, "n r"]:
    """The solution of each system; the one of least norm where a system is singular."""
    try:
        return np.asarray(np.linalg.solve(systems, rights[..., None])[..., 0])
    except np.linalg.LinAlgError:  # one of them is singular, and it alone is to be solved otherwise
        return np.stack([_solved_alone(system, right) for system, right in zip(systems, rights, strict=True)])


def _solved_alone(system: Float[np.ndarray, "r r"], right: Float[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
    try:
        return np.linalg.solve(system, right)
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(system, right, rcond=None)[0])
