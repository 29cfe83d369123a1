"""The spread of an agent's weights: against full matrices, with correlated errors, and how often it is right."""

import math
from dataclasses import replace

import numpy as np
import pytest
from plain_posterior import AGENTS, BASIS, COVARIANCE, D, Plain, chain, kept

from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.learning.posterior import FleetPrior, refreshed
from cospan.core.learning.reward_moments import RewardMoments
from cospan.core.uncertainty.mixture import SHARES
from cospan.core.uncertainty.value_covariance import BLOCK_STEPS, CONTAMINATION, ValueSpread, value_spread


def learnt(walks: list[Trajectory], agents: int = AGENTS) -> LearnerState:
    """What an agent knows after these rounds, refreshed with the last."""
    state, sums, units = kept(walks)
    rewards = np.concatenate([walk.rewards for walk in walks])
    squares = sum(float((walk.features[:-1] ** 2).sum()) for walk in walks)
    moments = RewardMoments(len(rewards), 0.0, float(rewards.var()) * len(rewards), float(walks[0].rewards[0]))
    posterior = refreshed(state, sums, units, FleetPrior(BASIS, COVARIANCE, agents))
    return LearnerState(np.zeros(2), statistics=sums, rewards=moments, feature_squares=squares, posterior=posterior)


def covariance(spread: ValueSpread | None) -> np.ndarray:
    assert spread is not None
    root = spread.root.astype(np.float64)
    return np.asarray(spread.unit**2 * root @ root.T)


def expected(walks: list[Trajectory], learner: LearnerState) -> np.ndarray:
    """The formula of docs/adr/0024 once more, in the weights themselves; without the ratio of correlated errors."""
    assert learner.posterior is not None
    before = Plain(walks)
    answer = learner.posterior.weights * before.rho / before.sigma
    plain = Plain(walks, answer)
    plain.others = before.others
    means, chances, spreads = plain.answers()
    alone = np.linalg.inv(plain.information + np.linalg.inv(SHARES[-1] * plain.unit * plain.spread))
    second, void = np.zeros((D, D)), CONTAMINATION / AGENTS
    for mean, chance, spread in zip(means, chances, [*spreads, alone], strict=True):
        second += (1.0 - void) * chance * (spread + np.outer(mean - answer, mean - answer))
    second += void * (alone + np.outer(means[-1] - answer, means[-1] - answer))
    return np.asarray(second * (plain.sigma / plain.rho) ** 2 / (1.0 - min(D / plain.n, 0.75)))


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_second_moment_against_full_matrices(rounds: int) -> None:
    """Of so few rounds that there are no two blocks to tell of correlated errors."""
    walks = chain(rounds)
    assert rounds * walks[0].rewards.size < 2 * BLOCK_STEPS
    learner = learnt(walks)
    found = covariance(value_spread(learner))
    np.testing.assert_allclose(found, expected(walks, learner), rtol=1e-5, atol=1e-5 * np.abs(found).max())


def test_correlated_errors_widen_it_by_the_ratio_of_block_sums() -> None:
    """Blocks of two rounds of nine steps, of 13 rounds; against sums by loops."""
    walks = chain(13)
    rng = np.random.default_rng(1)
    noise = np.zeros(118)
    for t in range(117):
        noise[t + 1] = 0.95 * noise[t] + rng.standard_normal()
    walks = [replace(walk, rewards=walk.rewards + noise[9 * t : 9 * t + 9]) for t, walk in enumerate(walks)]
    learner = learnt(walks)
    assert learner.posterior is not None
    plain = Plain(walks, learner.posterior.weights * Plain(walks).rho / Plain(walks).sigma)
    errors = plain.delta - plain.delta.mean()
    inverse = np.linalg.inv(plain.raw + 10.0 / D * np.eye(D))
    moves = [inverse @ (phi - plain.mean) * error for phi, error in zip(plain.phi, errors, strict=True)]
    single = sum(move @ plain.covariance @ move for move in moves[:108])
    blocks = [np.sum(moves[18 * t : 18 * t + 18], axis=0) for t in range(6)]
    ratio = sum(block @ plain.covariance @ block for block in blocks) / single
    assert ratio > 1.3
    found = covariance(value_spread(learner))
    np.testing.assert_allclose(found, ratio * expected(walks, learner), rtol=2e-5, atol=1e-5 * np.abs(found).max())


def test_one_agent_has_no_prior_and_its_own_datas_spread() -> None:
    walks = chain(3)
    learner = learnt(walks, agents=1)
    before = Plain(walks)
    plain = Plain(walks, before.own(10.0))
    alone = np.linalg.inv(plain.information + np.linalg.inv(SHARES[-1] * plain.unit * plain.spread))
    found = covariance(value_spread(learner)) * (1.0 - D / plain.n) / (plain.sigma / plain.rho) ** 2
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5 * np.abs(found).max())


def test_an_answer_that_is_older_than_the_moments_is_less_sure() -> None:
    learner = learnt(chain(3))
    assert learner.posterior is not None
    older = replace(learner, posterior=replace(learner.posterior, refreshed=2))
    np.testing.assert_allclose(
        covariance(value_spread(older)), 1.5 * covariance(value_spread(learner)), rtol=1e-5, atol=1e-12
    )


def test_cuts_are_left_out() -> None:
    """A slot that is a cut counts for nothing, whatever stands in it."""
    walks = chain(8)
    is_transition = np.ones(9, dtype=np.bool_)
    is_transition[4] = False
    found = []
    for rubbish in (0.0, 1e6):
        state, sums, units = kept(walks)
        kept_rewards = list(state.rewards)
        kept_rewards[3] = np.where(is_transition, kept_rewards[3], rubbish)
        cuts = (*state.is_transition[:3], is_transition, *state.is_transition[4:])
        state = replace(state, rewards=tuple(kept_rewards), is_transition=cuts)
        posterior = refreshed(state, sums, units, FleetPrior(BASIS, COVARIANCE, AGENTS))
        found.append(covariance(value_spread(replace(learnt(walks), posterior=posterior))))
    assert found[0].tobytes() == found[1].tobytes()


def test_nothing_learnt_is_no_spread() -> None:
    assert value_spread(LearnerState.initial(2)) is None


@pytest.mark.parametrize("shared", [True, False])
def test_an_interval_of_nine_in_ten_holds_about_nine_in_ten(shared: bool) -> None:
    """80 agents whose weights are drawn from the prior, and 80 that do not belong to the fleet."""
    rng = np.random.default_rng(3)
    root = np.linalg.cholesky(COVARIANCE)
    inside, asked = 0, 0
    for _ in range(80):
        weights = BASIS @ root @ rng.standard_normal(2) if shared else 2.0 * rng.standard_normal(D)
        features = rng.uniform(-1.0, 1.0, (241, D)) / math.sqrt(D)
        rewards = (features[:-1] - features[1:]) @ weights + 0.5 * rng.standard_normal(240)
        walks = [Trajectory(features[s : s + 13], rewards[s : s + 12]) for s in range(0, 240, 12)]
        learner = learnt(walks, agents=25)
        spread = value_spread(learner)
        assert spread is not None
        assert learner.posterior is not None
        pairs = features[:100] - features[100:200]
        errors = pairs @ (learner.posterior.weights - weights)
        inside += int((np.abs(errors) <= 1.6449 * spread.deviations(pairs)).sum())
        asked += len(errors)
    assert 0.85 < inside / asked < 0.98
