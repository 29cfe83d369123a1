"""The rank of a fleet: what is measured, what counts as noise, and what is suggested."""

import dataclasses
import math

import numpy as np
import pytest
from values import read_only

from cospan.core.aggregation.warm_start import HalfSums
from cospan.core.learning.least_squares import PRIOR_STEPS
from cospan.core.rank import AgentEstimate, FeatureMoments, Spectrum, harmonic_mean, measured

D, AGENTS, RANK = 12, 30, 3


def estimates(noise: float, *, agents: int = AGENTS, dim: int = D, seed: int = 0) -> list[AgentEstimate]:
    """Agents whose weights lie in three dimensions, with covariances of their own and noise to match."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((dim, RANK)))[0]
    made = []
    for _ in range(agents):
        scales = rng.uniform(0.5, 2.0, dim)
        weights = basis @ (np.array([3.0, 2.0, 1.0]) * rng.standard_normal(RANK))
        pair = weights[:, None] + noise * rng.standard_normal((dim, 2)) / np.sqrt(scales)[:, None]
        made.append(AgentEstimate(read_only(pair), read_only(np.diag(scales)), 1e-6))
    return made


def spectrum(made: list[AgentEstimate]) -> Spectrum:
    return Spectrum.of(*measured(made))


def test_moments_are_those_of_all_states() -> None:
    features = np.random.default_rng(1).standard_normal((50, 4)) + 3.0
    moments = FeatureMoments.of_nothing(4).updated(features[:20]).updated(features[20:])
    np.testing.assert_allclose(moments.covariance, np.cov(features.T, bias=True), atol=1e-12)


def test_an_estimate_is_of_both_halves() -> None:
    rng = np.random.default_rng(1)
    features, rewards = rng.uniform(-0.5, 0.5, (21, 3)), rng.standard_normal(20)
    halves, moments = HalfSums.begun_in(0, 2, 3), FeatureMoments.of_nothing(3)
    for number, part in enumerate((slice(0, 10), slice(10, 20))):
        walk = features[part.start : part.stop + 1]
        halves = halves.updated(walk, walk[:-1], rewards[part], number)
        moments = moments.updated(walk[:-1])
    made = AgentEstimate.of(halves, moments)
    np.testing.assert_array_equal(made.pair, halves.estimates)
    assert made.floor == pytest.approx(PRIOR_STEPS / 20 * np.mean((features[:-1] ** 2).sum(axis=1)) / 3)


def test_every_agent_counts_as_if_its_values_had_variance_one() -> None:
    plain = estimates(0.1)
    larger = [dataclasses.replace(each, pair=(7.0 + k) * each.pair) for k, each in enumerate(plain)]
    np.testing.assert_allclose(spectrum(larger).values, spectrum(plain).values, rtol=1e-10, atol=1e-14)
    (exact,) = estimates(0.0, agents=1)
    assert exact.scaled[:, 0] @ exact.covariance @ exact.scaled[:, 1] == pytest.approx(1.0)
    nothing = AgentEstimate(np.zeros((D, 2)), np.eye(D), 1e-6)
    assert not nothing.scaled.any()


def test_lengths_are_value_variances_whatever_the_features_are() -> None:
    """With M φ for φ the weights are M⁻ᵀ z and the covariances M C Mᵀ: the same functions, the same spectrum."""
    rng = np.random.default_rng(3)
    turn = rng.standard_normal((D, D))
    plain = [dataclasses.replace(each, floor=0.0) for each in estimates(0.1)]
    other = [
        AgentEstimate(np.linalg.solve(turn.T, each.pair), turn @ each.covariance @ turn.T, 0.0) for each in plain
    ]
    np.testing.assert_allclose(spectrum(other).values, spectrum(plain).values, rtol=1e-6, atol=1e-9)


def test_what_one_agent_never_sees_does_not_count() -> None:
    """The other agents' variance there would make signal of its missing estimate."""
    made = estimates(0.0)
    pair, covariance = np.array(made[0].pair), np.array(made[0].covariance)
    pair[0], covariance[0, 0] = 0.0, 0.0
    blind = [AgentEstimate(pair, covariance, 1e-9), *made[1:]]
    assert harmonic_mean(blind)[0, 0] < 1e-6
    assert harmonic_mean(made)[0, 0] > 0.5
    assert spectrum(blind).shares[RANK:].max() < 1e-4


@pytest.mark.parametrize("dim", [D, 2 * AGENTS + 10])
def test_the_rank_of_a_fleet_is_found(dim: int) -> None:
    found = spectrum(estimates(0.05, dim=dim))
    assert found.rank(0.99) == RANK
    assert len(found.values) == min(dim, 2 * AGENTS)
    assert found.above_noise >= RANK
    assert 0.0 < found.noise < found.values[RANK - 1]


def test_noise_alone_has_no_rank_to_speak_of() -> None:
    """Its eigenvalues lie symmetrically around zero: those above the largest negative one are few or none."""
    rng = np.random.default_rng(4)
    above = []
    for _ in range(40):
        made = [AgentEstimate(rng.standard_normal((D, 2)), np.eye(D), 1e-9) for _ in range(AGENTS)]
        above.append(spectrum(made).above_noise)
    assert np.mean(np.array(above) == 0) > 0.3
    assert max(above) <= 3


def test_shares_and_ranks_by_hand() -> None:
    found = Spectrum(np.array([6.0, 3.0, 1.0, 0.4, 0.0, -0.5]))
    assert (found.noise, found.above_noise) == (0.5, 3)
    np.testing.assert_allclose(found.shares, [0.6, 0.3, 0.1, 0.04, 0.0, -0.05])
    assert [found.rank(share) for share in (0.5, 0.6, 0.61, 0.9, 0.95, 1.0)] == [1, 1, 2, 2, 3, 3]
    nothing = Spectrum(np.array([0.4, -0.5]))
    assert (nothing.above_noise, nothing.rank(0.99)) == (0, 0)
    assert not nothing.shares.any()
    assert Spectrum(np.zeros(3)).rank(0.5) == 0
    certain = Spectrum(np.array([2.0, 2.0, 1e-17]))
    assert (certain.noise, certain.above_noise, math.isclose(certain.shares.sum(), 1.0)) == (0.0, 2, True)
