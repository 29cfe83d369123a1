"""The posterior of an agent, against a plain implementation with full matrices and loops over transitions."""

import math

import numpy as np
import pytest
from values import read_only

from cospan.core.aggregation.evidence_step import packed
from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.posterior import (
    ARRAYS,
    GRADIENT_SHARE,
    HISTORY_PER_FEATURE,
    LEVEL_FLOOR,
    METRIC_FLOOR,
    MOMENT_FLOOR,
    SHARES,
    TEMPERATURE,
    VARIANCE_FLOOR,
    VARIANCE_RIDGE,
    FleetPrior,
    PosteriorState,
    evidence_gradient,
    influence,
    refreshed,
)
from cospan.core.learning.units import Units
from cospan.core.linalg.matrices import to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import practical

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

    def __init__(self, walks: list[Trajectory]) -> None:
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
        delta = centred - (phi - after) @ self.own(10.0)
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
        unbiased, means, risks = self.own(3.0), [], []
        for share in SHARES:
            mean, spread = self.posterior(share * self.unit)
            away = mean - unbiased
            means.append(mean)
            risks.append(away @ self.covariance @ away + 2.0 * np.trace(self.covariance @ spread))
        own = self.own(10.0)
        away = own - unbiased
        means.append(own)
        risks.append(away @ self.covariance @ away + 2.0 * np.trace(self.covariance @ spread))
        width = TEMPERATURE * np.trace(self.covariance @ spread)
        chances = np.exp((min(risks) - np.array(risks)) / width)
        return np.asarray(chances @ np.array(means) / chances.sum())

    def minus_log_evidence(self, factor: np.ndarray) -> float:
        """½ log det M + ½ bᵀM⁻¹b with M = A Γ Aᵀ + S, Γ = F Fᵀ + ψ Λ, ψ being that of the gradient."""
        prior = factor @ factor.T + GRADIENT_SHARE * self.unit * self.spread
        whole = self.system @ prior @ self.system.T + self.noise
        return float(np.linalg.slogdet(whole)[1] + self.moments @ np.linalg.solve(whole, self.moments)) / 2.0


def found_by(walks: list[Trajectory]) -> PosteriorState:
    return refreshed(*kept(walks), FleetPrior(BASIS, COVARIANCE, AGENTS))


@pytest.mark.parametrize("rounds", [1, 3, 12])
def test_the_posterior_against_full_matrices(rounds: int) -> None:
    walks = chain(rounds)
    found, plain = found_by(walks), Plain(walks)
    assert found.stride == 1, "the whole history is kept"
    unit = plain.sigma / plain.rho
    np.testing.assert_allclose(found.weights / unit, plain.mixture(), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.variance[0], plain.model[0], rtol=1e-8)
    np.testing.assert_allclose(found.variance[1:] * plain.rho, plain.model[1:], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("rounds", [1, 3, 12])
def test_curvature_and_score_against_full_matrices(rounds: int) -> None:
    """K = (H⁻¹ + ψ Λ)⁻¹ = (I + ψ H Λ)⁻¹ H, and (I + ψ H Λ)⁻¹ c."""
    walks = chain(rounds)
    found, plain = found_by(walks), Plain(walks)
    damping = np.linalg.inv(np.eye(D) + GRADIENT_SHARE * plain.unit * plain.information @ plain.spread)
    scale = np.abs(found.curvature).max()
    np.testing.assert_allclose(found.curvature, damping @ plain.information, rtol=1e-7, atol=1e-9 * scale)
    np.testing.assert_allclose(found.score, damping @ plain.score, rtol=1e-7, atol=1e-9 * np.abs(found.score).max())
    np.testing.assert_allclose(found.curvature, found.curvature.T, atol=1e-12 * scale)


@pytest.mark.parametrize("rounds", [1, 3, 12])
def test_the_gradient_is_that_of_the_evidence(rounds: int) -> None:
    """Against differences of −log evidence with respect to each entry of B W^½."""
    walks = chain(rounds)
    plain = Plain(walks)
    gradient, head = evidence_gradient(found_by(walks), BASIS, COVARIANCE)
    values, vectors = np.linalg.eigh(COVARIANCE)
    root = (vectors * np.sqrt(values)) @ vectors.T
    factor, numerical = BASIS @ root, np.zeros((D, R))
    for place in np.ndindex(D, R):
        step = np.zeros((D, R))
        step[place] = 1e-5
        numerical[place] = plain.minus_log_evidence(factor + step) - plain.minus_log_evidence(factor - step)
    numerical /= 2e-5
    np.testing.assert_allclose(gradient @ root, numerical, rtol=1e-6, atol=1e-6 * np.abs(numerical).max())
    prior = BASIS @ COVARIANCE @ BASIS.T + GRADIENT_SHARE * plain.unit * plain.spread
    whole = plain.system @ prior @ plain.system.T + plain.noise
    mean = COVARIANCE @ BASIS.T @ plain.system.T @ np.linalg.solve(whole, plain.moments)
    np.testing.assert_allclose(head, mean, rtol=1e-7)


def test_the_shared_weight_lies_between_ones_own_answer_and_the_fleets() -> None:
    """Nearly 1 where the prior is true and the data few; nearly 0 where it is wrong and they are many."""
    rng = np.random.default_rng(4)

    def walk(weights: np.ndarray, steps: int, noise: float) -> list[Trajectory]:
        features = rng.uniform(-1.0, 1.0, (steps + 1, D)) / math.sqrt(D)
        rewards = (features[:-1] - features[1:]) @ weights + noise * rng.standard_normal(steps)
        return [Trajectory(features, rewards)]

    away = np.linalg.svd(BASIS)[0][:, R]
    believing, own = (
        refreshed(*kept(walks), FleetPrior(BASIS, np.eye(R), 25))
        for walks in (walk(BASIS @ np.ones(R), 60, 1.0), walk(20.0 * away, 20_000, 0.1))
    )
    assert believing.shared_weight > 0.7
    assert own.shared_weight < 0.05


def test_a_long_history_is_thinned_and_says_nearly_the_same() -> None:
    """Beyond 20 d transitions every second round is dropped; noise is then summed as it comes."""
    walks = chain(60, steps=10)
    state, _, _ = kept(walks)
    assert sum(each.shape[-1] for each in state.rewards) <= HISTORY_PER_FEATURE * D
    assert state.stride == 8
    np.testing.assert_array_equal(state.features[1], walks[8].features)
    assert len(state.features) == math.ceil(60 / 8)
    rule, learner = practical(10), LearnerState.initial(R)
    for number, walk in enumerate(walks):
        outcome = learn_round(
            learner,
            BASIS,
            walk,
            rule,
            number,
            head_covariance=COVARIANCE,
            agents=AGENTS,
            is_last=number == len(walks) - 1,
        )
        learner = outcome.state
    plain = Plain(walks)
    exact = plain.mixture() * plain.sigma / plain.rho
    away = outcome.weights - exact
    assert away @ plain.covariance @ away < 0.01 * (exact @ plain.covariance @ exact)


def played(walks: list[list[Trajectory]]) -> tuple[LearnerState, list[LearnerState]]:
    """The agents at once, and each alone; one list of rounds of each."""
    rule = practical(walks[0][0].rewards.shape[-1])
    group, singles = LearnerState.initial(R, len(walks)), [LearnerState.initial(R) for _ in walks]
    for number, rows in enumerate(zip(*walks, strict=True)):
        both = Trajectory(np.stack([row.features for row in rows]), np.stack([row.rewards for row in rows]))
        group = learn_round(group, BASIS, both, rule, number, head_covariance=COVARIANCE).state
        singles = [
            learn_round(single, BASIS, row, rule, number, head_covariance=COVARIANCE).state
            for single, row in zip(singles, rows, strict=True)
        ]
    return group, singles


def test_many_agents_at_once_are_each_alone() -> None:
    group, singles = played([chain(8, seed) for seed in range(4)])
    for place, single in enumerate(singles):
        mine, its = group.of_agents(place).posterior, single.posterior
        assert mine is not None
        assert its is not None
        for name in ARRAYS:
            one, other = getattr(mine, name), getattr(its, name)
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(other).max(), err_msg=name)
        assert mine.shared_weight == pytest.approx(its.shared_weight, rel=1e-9)


def constant(walks: list[Trajectory]) -> list[Trajectory]:
    return [Trajectory(walk.features, np.full(len(walk.rewards), 0.1)) for walk in walks]


def unseen(walks: list[Trajectory]) -> list[Trajectory]:
    return [Trajectory(walk.features * (np.arange(D) < 2), walk.rewards) for walk in walks]


def empty(walks: list[Trajectory]) -> list[Trajectory]:
    return [Trajectory(0.0 * walk.features, walk.rewards) for walk in walks]


def still(walks: list[Trajectory]) -> list[Trajectory]:
    return [Trajectory(np.broadcast_to(walk.features[:1], walk.features.shape), walk.rewards) for walk in walks]


@pytest.mark.parametrize("odd", [constant, unseen, empty, still])
@pytest.mark.parametrize("steps", [1, L])
def test_odd_data_give_finite_numbers(odd: object, steps: int) -> None:
    """Rewards that never vary, features never seen, no feature at all, one state; and a single step a round."""
    assert callable(odd)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        group, singles = played([odd(chain(6, seed, steps)) for seed in range(2)])
    for state in (group, *singles):
        assert state.posterior is not None
        for name in ARRAYS:
            assert np.isfinite(getattr(state.posterior, name)).all(), name
        shared = np.asarray(state.posterior.shared_weight)
        assert shared.min() >= 0.0
        assert shared.max() <= 1.0
        assert np.isfinite(state.head).all()


def test_rewards_that_never_vary_tell_nothing() -> None:
    """Not a curvature of 1e12 either, which would hold the basis of all."""
    _, (single,) = played([constant(chain(4))])
    assert single.posterior is not None
    assert not single.posterior.curvature.any()
    assert not single.posterior.score.any()
    assert not single.posterior.weights.any()


def test_the_rarest_rewards_may_be_missing_in_what_is_kept() -> None:
    """The curvature stays in bounds: the noise is not taken to be that of rounds without such rewards alone."""
    walks = chain(40)
    rare = [Trajectory(w.features, w.rewards + 1e6 * (number == 39)) for number, w in enumerate(walks)]
    found = found_by(rare)
    assert found.stride > 1
    assert np.isfinite(found.curvature).all()
    assert np.abs(found.curvature).max() < 1e6 * 40 * L


def test_an_agent_alone_has_its_own_least_squares() -> None:
    walks = chain(5)
    found, plain = refreshed(*kept(walks), FleetPrior(BASIS, COVARIANCE, 1)), Plain(walks)
    np.testing.assert_allclose(found.weights * plain.rho / plain.sigma, plain.own(10.0), rtol=1e-9)
    assert found.shared_weight == 0.0


def test_agents_that_share_nothing_count_a_tenth() -> None:
    assert influence(0.0) == np.float32(0.1)
    np.testing.assert_allclose(influence(np.array([0.0, 0.1, 0.18, 0.9])), [0.1, 0.6, 1.0, 1.0], rtol=1e-6)
    walks = chain(3)
    outcome = learn_round(LearnerState.initial(R), BASIS, walks[0], practical(L), head_covariance=COVARIANCE)
    posterior = outcome.state.posterior
    assert posterior is not None
    weight = influence(posterior.shared_weight)
    gradient, _ = evidence_gradient(posterior, BASIS, COVARIANCE)
    np.testing.assert_allclose(to_dense(outcome.gradient), weight * gradient)
    assert outcome.pooled is not None
    assert outcome.pooled[-1] == weight
    np.testing.assert_allclose(outcome.pooled[:-1], packed(weight * posterior.curvature))
