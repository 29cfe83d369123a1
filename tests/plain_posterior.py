"""The posterior of an agent in plain arithmetic: full matrices, and loops over transitions."""

import math

import numpy as np
from values import read_only

from cospan.core.learning.learner_state import Trajectory
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.posterior import (
    GRADIENT_SHARE,
    LEVEL_FLOOR,
    MOMENT_FLOOR,
    PosteriorState,
)
from cospan.core.learning.units import Units
from cospan.core.linalg.subspace import random_basis
from cospan.core.uncertainty.mixture import METRIC_FLOOR, SHARES, TEMPERATURE
from cospan.core.uncertainty.variance_model import VARIANCE_FLOOR, VARIANCE_RIDGE

D, R, L, AGENTS = 6, 2, 9, 5
BASIS = read_only(random_basis(D, R, np.random.default_rng(2)))
COVARIANCE = read_only(np.array([[1.5, 0.4], [0.4, 0.7]]))


def chain(rounds: int, seed: int = 0, steps: int = L) -> list[Trajectory]:
    """Consecutive rounds whose rewards follow the features, with noise that grows with the first one."""
    rng = np.random.default_rng(seed)
    total = rounds * steps
    features = np.zeros((total + 1, D))
    for t in range(total):
        features[t + 1] = 0.6 * features[t] + rng.uniform(-1.0, 1.0, D)
    features /= math.sqrt(D)
    noise = (0.3 + np.abs(features[:-1, 0])) * rng.standard_normal(total)
    rewards = 3.0 + features[:-1] @ rng.standard_normal(D) + noise
    return [
        Trajectory(
            read_only(features[t * steps : (t + 1) * steps + 1]), read_only(rewards[t * steps : (t + 1) * steps])
        )
        for t in range(rounds)
    ]


def kept(walks: list[Trajectory]) -> tuple[PosteriorState, TransitionSums, Units]:
    """What an agent has of these rounds, before anything is refreshed; the reference is the first reward."""
    state, sums, reference = PosteriorState.initial(D), TransitionSums.of_features(D), walks[0].rewards[0]
    for walk in walks:
        rewards = walk.rewards - reference
        sums = sums.updated(walk.features, walk.features[:-1], rewards, 0.0)
        state = state.observed(walk.features, rewards)
    rewards = np.concatenate([walk.rewards for walk in walks])
    squares = np.concatenate([(walk.features[:-1] ** 2).sum(axis=1) for walk in walks])
    return state, sums, Units.of(float(rewards.var()), float(squares.mean()))


class Plain:
    """All of it once more: sums by loops, inverses of full matrices, and nothing diagonal."""

    def __init__(self, walks: list[Trajectory], newest: np.ndarray | None = None) -> None:
        """`newest`: the weights whose TD errors tell the noise, in the agent's units; those of LSTD if omitted."""
        rewards = np.concatenate([walk.rewards for walk in walks])
        visited = np.concatenate([walk.features[:-1] for walk in walks])
        followed = np.concatenate([walk.features[1:] for walk in walks])
        self.sigma, self.rho = rewards.std(), np.sqrt((visited**2).sum(axis=1).mean())
        phi, after, self.n = visited / self.rho, followed / self.rho, len(rewards)
        centred = (rewards - rewards.mean()) / self.sigma
        mean = phi.mean(axis=0)
        self.raw = np.zeros((D, D))
        self.system, self.moments = np.zeros((D, D)), np.zeros(D)
        self.covariance = np.zeros((D, D))
        for here, there, reward in zip(phi, after, centred, strict=True):
            self.raw += np.outer(here, here - there)
            self.system += np.outer(here - mean, here - there)
            self.moments += here * reward
            self.covariance += np.outer(here - mean, here - mean) / self.n
        self.phi, self.mean = phi, mean
        self.delta = delta = centred - (phi - after) @ (self.own(10.0) if newest is None else newest)
        squares = (delta - delta.mean()) ** 2
        level = max(squares.mean(), LEVEL_FLOOR)
        rows = np.column_stack([np.ones(self.n), phi])
        ridge = VARIANCE_RIDGE * np.trace(rows.T @ rows) / (D + 1) / self.n
        penalty = np.diag([0.0] + [ridge] * D)
        self.model = np.linalg.inv(rows.T @ rows + penalty) @ rows.T @ squares / level
        noise = np.zeros((D, D))
        for row, here in zip(rows, phi, strict=True):
            noise += level * max(VARIANCE_FLOOR, float(row @ self.model)) * np.outer(here - mean, here - mean)
        self.noise = noise + (MOMENT_FLOOR * np.trace(noise) / D + 1e-12) * np.eye(D)
        weighted = self.system.T @ np.linalg.inv(self.noise)
        self.information, self.score = weighted @ self.system, weighted @ self.moments
        values, vectors = np.linalg.eigh(self.covariance)
        self.spread = vectors @ np.diag(1.0 / np.maximum(values, METRIC_FLOOR * values[-1])) @ vectors.T
        own = self.own(10.0)
        self.unit = own @ self.covariance @ own / D
        self.others = self.without_own()

    def own(self, ridge: float) -> np.ndarray:
        return np.linalg.inv(self.raw + ridge / D * np.eye(D)) @ self.moments

    def without_own(self) -> np.ndarray:
        """W less 2/n of the agent's own part, W − W Bᵀ (T − g gᵀ) B W, with no negative eigenvalue."""
        prior = BASIS @ COVARIANCE @ BASIS.T + GRADIENT_SHARE * self.unit * self.spread
        whole = np.linalg.inv(self.system @ prior @ self.system.T + self.noise)
        g = self.system.T @ whole @ self.moments
        within = BASIS.T @ (self.system.T @ whole @ self.system - np.outer(g, g)) @ BASIS
        left = COVARIANCE + 2.0 / AGENTS / (AGENTS - 1) * COVARIANCE @ within @ COVARIANCE
        values, vectors = np.linalg.eigh(left)
        return np.asarray(vectors @ np.diag(np.maximum(values, 0.0)) @ vectors.T)

    def posterior(self, psi: float) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance under Γ = B W Bᵀ + ψ Λ."""
        prior = BASIS @ self.others @ BASIS.T + psi * self.spread
        spread = np.linalg.inv(self.information + np.linalg.inv(prior))
        return spread @ self.score, spread

    def mixture(self) -> np.ndarray:
        means, chances, _ = self.answers()
        return np.asarray(chances @ means)

    def answers(self) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """The mean of each ψ and LSTD's, what each weighs, and the covariance of each ψ."""
        unbiased, means, risks, spreads = self.own(3.0), [], [], []
        for share in SHARES:
            mean, spread = self.posterior(share * self.unit)
            away = mean - unbiased
            means.append(mean)
            spreads.append(spread)
            risks.append(away @ self.covariance @ away + 2.0 * np.trace(self.covariance @ spread))
        own = self.own(10.0)
        away = own - unbiased
        means.append(own)
        risks.append(away @ self.covariance @ away + 2.0 * np.trace(self.covariance @ spread))
        width = TEMPERATURE * np.trace(self.covariance @ spread)
        chances = np.exp((min(risks) - np.array(risks)) / width)
        return np.array(means), chances / chances.sum(), spreads

    def minus_log_evidence(self, factor: np.ndarray) -> float:
        """½ log det M + ½ bᵀM⁻¹b with M = A Γ Aᵀ + S, Γ = F Fᵀ + ψ Λ, ψ being that of the gradient."""
        prior = factor @ factor.T + GRADIENT_SHARE * self.unit * self.spread
        whole = self.system @ prior @ self.system.T + self.noise
        return float(np.linalg.slogdet(whole)[1] + self.moments @ np.linalg.solve(whole, self.moments)) / 2.0
