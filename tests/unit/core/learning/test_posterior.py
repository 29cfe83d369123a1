"""The posterior of an agent, against a plain implementation with full matrices and loops over transitions."""

import math

import numpy as np
import pytest
from plain_posterior import AGENTS, BASIS, COVARIANCE, D, L, Plain, R, chain, kept

from cospan.core.aggregation.evidence_step import packed
from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.learning.posterior import (
    ARRAYS,
    GRADIENT_SHARE,
    HISTORY_PER_FEATURE,
    FleetPrior,
    PosteriorState,
    refreshed,
)
from cospan.core.learning.schedules import Refresh
from cospan.core.linalg.matrices import to_dense
from cospan.core.method import practical
from cospan.core.uncertainty.evidence import evidence_gradient, influence


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
            refresh=Refresh.NOW if number == len(walks) - 1 else Refresh.WHEN_POOLED,
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
