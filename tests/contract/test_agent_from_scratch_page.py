"""The formulas of `practical` in docs/reference/agent-from-scratch.md, as a program in the page's own symbols.

It is written from the page, not from the code: a change of what is computed fails here until the page says it too,
but for floors and caps that these runs do not reach.
"""

import math

import numpy as np
import pytest

from cospan.core.aggregation.basis_update import next_basis
from cospan.core.learning.learner import contribution_of, learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.learning.schedules import Refresh
from cospan.core.linalg.matrices import to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import practical

D, R, L, ROUNDS = 5, 2, 7, 40
METHOD = practical(L)
REFRESHED = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 15, 18, 21, 25, 29, 34)
PSI = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
BOUND = 1e-11
"""Of the relative difference; other orders of the same sums make some 3e-13."""


def sym(x: np.ndarray) -> np.ndarray:
    return np.asarray((x + x.T) / 2.0)


def root(x: np.ndarray, power: float = 0.5) -> np.ndarray:
    values, vectors = np.linalg.eigh(sym(x))
    return np.asarray((vectors * np.maximum(values, 0.0) ** power) @ vectors.T)


class PageAgent:
    """The section "Preset `practical`" of the page."""

    def __init__(self, n: int) -> None:
        self.n, self.stride, self.j, self.squares = n, 1, 0, 0.0
        self.A, self.F, self.Theta = np.zeros((D, D)), np.zeros((D, D)), np.zeros((D + 1, D + 1))
        self.b, self.E, self.x, self.z = np.zeros(D), np.zeros(D), np.zeros(D), np.zeros(D)
        self.nu = np.eye(D + 1)[0]
        self.history: list[tuple[np.ndarray, np.ndarray]] = []
        self.rewards: list[float] = []
        self.K, self.s, self.shared = np.zeros((D, D)), np.zeros(D), 0.0

    def round(
        self, phi: np.ndarray, rewards: np.ndarray, b: np.ndarray, w: np.ndarray, *, due: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """What is sent as `dense` and as `pooled`."""
        if not self.j:
            self.first = rewards[0]
        rewards = rewards - self.first
        self.rewards += list(rewards)
        self.squares += float((phi[:-1] ** 2).sum())
        self.sigma, self.rho = float(np.std(self.rewards)), math.sqrt(self.squares / len(self.rewards))
        for here, there, reward in zip(phi[:-1], phi[1:], rewards, strict=True):
            self.A += np.outer(here, here - there)
            self.b += reward * here
            self.E += here
            self.F += np.outer(here, here)
            p = np.r_[1.0, here]
            self.Theta += max(0.05, self.nu @ p) * np.outer(p, p)
        self.x += phi[0] - phi[-1]
        if self.j % self.stride == 0:
            self.history.append((phi, rewards))
            if len(self.history) > 2 and len(self.history) * L > 20 * D:
                self.history, self.stride = self.history[::2], 2 * self.stride
        self.j += 1
        if due:
            self.refresh(b, w)
        influence = float(np.float32(min(1.0, 0.1 + 5.0 * self.shared)))
        triangle = np.float32(influence * self.K[np.triu_indices(D)]).astype(float)
        return influence * self.gradient(b, w), np.r_[triangle, influence] if due else None

    def gradient(self, b: np.ndarray, w: np.ndarray) -> np.ndarray:
        n = np.linalg.inv(np.eye(R) + w @ b.T @ self.K @ b)
        g = self.s - self.K @ b @ (n @ w @ b.T @ self.s)
        return np.asarray(self.K @ b @ n - np.outer(g, g @ b))

    def covariance(self, eta: float, mu: np.ndarray, z10: np.ndarray) -> np.ndarray:
        """Steps 1 and 2: S."""
        rho = self.rho
        phi = np.concatenate([each[:-1] for each, _ in self.history]) / rho
        change = phi - np.concatenate([each[1:] for each, _ in self.history]) / rho
        rewards = np.concatenate([each for _, each in self.history])
        z0 = self.z * rho / self.sigma if self.j > 1 else z10
        delta = (rewards - eta) / self.sigma - change @ z0
        q = (delta - delta.mean()) ** 2
        level = max(q.mean(), 1e-6)
        p = np.c_[np.ones(len(q)), phi]
        kappa = 30.0 * np.trace(p.T @ p) / (len(q) * (D + 1))
        nu = np.linalg.solve(p.T @ p + kappa * np.diag(np.r_[0.0, np.ones(D)]), p.T @ q) / level
        self.nu = np.r_[nu[0], nu[1:] / rho]
        scale = np.diag(np.r_[1.0, np.full(D, 1.0 / rho)])
        if self.stride == 1:
            theta = (p.T * np.maximum(0.05, p @ nu)) @ p
            self.Theta = np.linalg.inv(scale) @ theta @ np.linalg.inv(scale)
        else:
            theta = scale @ self.Theta @ scale
        row = theta[0, 1:]
        s = theta[1:, 1:] - np.outer(mu, row) - np.outer(row, mu) + theta[0, 0] * np.outer(mu, mu)
        return np.asarray(level * s + (1e-6 * np.trace(level * s) / D + 1e-12) * np.eye(D))

    def refresh(self, b: np.ndarray, w: np.ndarray) -> None:
        steps, rho = len(self.rewards), self.rho
        eta, mu = sum(self.rewards) / steps, self.E / (steps * rho)
        system = self.A / rho**2
        centred = system - np.outer(mu, self.x / rho)
        m = (self.b - eta * self.E) / (rho * self.sigma)
        c_matrix = self.F / (steps * rho**2) - np.outer(mu, mu)
        z10, z3 = (np.linalg.solve(system + k / D * np.eye(D), m) for k in (10.0, 3.0))
        s = self.covariance(eta, mu, z10)
        kappa, v = np.linalg.eigh(c_matrix)
        kappa = np.maximum(kappa, 1e-3 * kappa.max() + 1e-12)
        t = v / np.sqrt(kappa)
        h, o = np.linalg.eigh(sym(t.T @ centred.T @ np.linalg.solve(s, centred) @ t))
        h, back, m_matrix = np.maximum(h, 0.0), o.T @ np.diag(np.sqrt(kappa)) @ v.T, t @ o
        omega, c = m_matrix.T @ c_matrix @ m_matrix, m_matrix.T @ centred.T @ np.linalg.solve(s, m)
        y10, y3 = back @ z10, back @ z3
        unit = max(y10 @ omega @ y10 / D, 1e-12)
        a = 1.0 / (1.0 + 0.01 * unit * h)
        self.K, self.s = back.T @ np.diag(h * a) @ back, back.T @ (a * c)
        if self.n == 1:
            self.z, self.shared = self.sigma / rho * z10, 0.0
            return
        own = w @ sym(b.T @ self.gradient(b, w)) @ w
        x0 = back @ b @ root(w + min(1.0, 2.0 / self.n) / (self.n - 1) * own)
        answers, risks = [], []
        for psi in unit * np.array(PSI):
            a = 1.0 / (1.0 + psi * h)
            i, u = np.linalg.eigh(x0.T @ np.diag(h * a) @ x0)
            x = np.diag(a) @ x0 @ u @ np.diag((1.0 + np.maximum(i, 0.0)) ** -0.5)
            answers.append(psi * a * c + x @ (x.T @ c))
            tau = psi * (a * np.diag(omega)).sum() + np.trace(x.T @ omega @ x)
            risks.append((answers[-1] - y3) @ omega @ (answers[-1] - y3) + 2.0 * tau)
        answers.append(y10)
        risks.append((y10 - y3) @ omega @ (y10 - y3) + 2.0 * tau)
        chances = np.exp(-(np.array(risks) - min(risks)) / (0.2 * max(tau, 0.0) + 1e-12))
        y = chances @ np.array(answers) / chances.sum()
        f = answers[0] - y10
        self.z = self.sigma / rho * m_matrix @ y
        self.shared = float(np.clip((y - y10) @ omega @ f / (f @ omega @ f), 0.0, 1.0))


def page_step(
    b: np.ndarray, w: np.ndarray, sent: list[np.ndarray], pooled: list[np.ndarray], theta: float
) -> tuple[np.ndarray, np.ndarray]:
    """The next B and W, of the section "What the coordinator computes"."""
    numbers = np.mean(pooled, axis=0)
    omega, zeta = numbers[-1], METHOD.basis_step
    k = np.zeros((D, D))
    k[np.triu_indices(D)] = numbers[:-1] / omega
    k = k + k.T - np.diag(np.diag(k))
    k += 1e-6 * np.trace(k) * np.eye(D)
    g, gamma = np.mean(sent, axis=0) / omega, 0.3 * D / (len(sent) * omega)
    q = b.T @ k @ b
    t = np.linalg.inv(q) + w
    lam, v = np.linalg.eigh(root(q) @ (t - t @ sym(b.T @ g) @ t) @ root(q))
    e = (lam + 1 - gamma + np.sqrt(np.maximum((lam + 1 - gamma) ** 2 - 4 * lam, 0.0))) / 2 - 1
    known = lam > (1 + math.sqrt(gamma)) ** 2
    e = np.where(known, e, 1.0)
    kept = np.where(known, e * np.maximum(0.0, 1 - gamma / e**2) / (1 + gamma / e), 0.0)
    target = root(q, -0.5) @ (v * kept) @ v.T @ root(q, -0.5)
    step = -zeta * (np.eye(D) - b @ b.T) @ np.linalg.inv(k) @ g @ t
    step = step @ np.linalg.inv(w + 0.05 * np.trace(w) / R * np.eye(R))
    left, lengths, right = np.linalg.svd(step, full_matrices=False)
    step = (left * np.minimum(lengths, math.tan(math.radians(theta)))) @ right
    largest = np.linalg.eigvalsh(w)[-1]
    values, vectors = np.linalg.eigh(w + zeta * (target - w))
    moved = (vectors * np.clip(values, max(1e-6 * largest, 1e-9), 4 * largest)) @ vectors.T
    following, upper = np.linalg.qr(b + step)
    following = following * np.sign(np.diag(upper))
    turned = following.T @ (b + step)
    return following, turned @ moved @ turned.T


def close(found: np.ndarray, expected: np.ndarray, bound: float = BOUND) -> bool:
    size = max(float(np.abs(expected).max()), 1e-300)
    return bool(np.abs(found - expected).max() <= bound * size)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_program_written_from_the_page_computes_what_the_code_does(n: int) -> None:
    rng = np.random.default_rng(n)
    basis, covariance = random_basis(D, R, rng), np.eye(R)
    shared, own = rng.standard_normal((D, R)), rng.standard_normal((n, D))
    pages, states = [PageAgent(n) for _ in range(n)], [LearnerState.initial(R) for _ in range(n)]
    last, memory, newest = np.zeros((n, D)), None, [np.zeros(0)] * n
    heads = rng.standard_normal((n, R))
    strides, influences = set(), set()
    for t in range(ROUNDS):
        is_last, sent, contributions = t == ROUNDS - 1, [], []
        due = t in REFRESHED or is_last
        for k in range(n):
            phi = np.concatenate([last[k : k + 1], 0.3 * rng.uniform(-1.0, 1.0, (L, D)) + 0.05])
            for step in range(1, L + 1):
                phi[step] += 0.5 * phi[step - 1]
            last[k] = phi[-1]
            aim = own[k] if k == 0 else shared @ heads[k]
            rewards = 5.0 + (phi[:-1] - 0.5 * phi[1:]) @ aim + 0.3 * rng.standard_normal(L)
            outcome = learn_round(
                states[k],
                basis,
                Trajectory(phi, rewards),
                METHOD,
                t,
                head_covariance=covariance,
                agents=n,
                refresh=Refresh.NOW if is_last else Refresh.WHEN_POOLED,
            )
            states[k] = outcome.state
            posterior = outcome.state.posterior
            assert posterior is not None
            gradient, pooled = pages[k].round(phi, rewards, basis, covariance, due=due)
            contribution = contribution_of(outcome, METHOD, t)
            assert close(to_dense(contribution.gradient), gradient)
            assert close(outcome.weights, pages[k].z)
            assert abs(posterior.shared_weight - pages[k].shared) <= BOUND
            strides.add(pages[k].stride)
            influences.add(float(np.float32(min(1.0, 0.1 + 5.0 * pages[k].shared))))
            assert (contribution.pooled is not None) == (t in REFRESHED)
            if contribution.pooled is not None and pooled is not None:
                assert close(contribution.pooled, pooled, 2.0**-23)
                newest[k] = contribution.pooled
            sent.append(to_dense(contribution.gradient))
            contributions.append(contribution)
        move = next_basis(basis, contributions, METHOD, t, memory, head_covariance=covariance)
        assert move.head_covariance is not None
        theta = METHOD.largest_turn_between(t, t + 1)
        following, expected = page_step(basis, covariance, sent, newest, theta)
        assert close(move.basis, following)
        assert close(move.head_covariance, expected)
        basis, covariance, memory = move.basis, move.head_covariance, move.step_memory
    assert max(strides) > 1
    assert n == 1 or len(influences) > 2
