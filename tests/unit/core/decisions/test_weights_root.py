"""The error bars of value weights: as wide as estimates are apart, and narrower with what the fleet knows."""

import numpy as np
from jaxtyping import Float

from cospan.core.decisions.weights_root import fleet_prior, weights_root

STEPS = 1500
_RNG = np.random.default_rng(8)
CHAIN = _RNG.dirichlet(np.full(6, 0.5), size=6)
REWARDS = _RNG.normal(size=6)
FEATURES = np.eye(6)[:, 1:]


def trajectory(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    states = [0]
    for _ in range(STEPS):
        states.append(int(rng.choice(6, p=CHAIN[states[-1]])))
    return FEATURES[states], REWARDS[states[:-1]]


def solved(seed: int) -> tuple[Float[np.ndarray, " d"], np.ndarray, np.ndarray]:
    features, rewards = trajectory(seed)
    change = features[:-1] - features[1:]
    centred = rewards - rewards.mean()
    weights = np.linalg.solve(features[:-1].T @ change, features[:-1].T @ centred)
    return weights, features, centred - change @ weights


def test_it_is_as_wide_as_estimates_are_apart() -> None:
    found = [solved(seed) for seed in range(60)]
    spread = np.std([weights for weights, _, _ in found], axis=0, ddof=1)
    told = []
    for _, features, errors in found[:10]:
        root = weights_root(features[:-1], features[1:], errors, 1e6 * np.eye(5), steps=STEPS)
        told.append(np.sqrt(np.sum(root**2, axis=1)))
    ratio = np.mean(told, axis=0) / spread
    assert np.all((ratio > 0.7) & (ratio < 1.4)), ratio  # of 60 estimates, a deviation is known within 10 %


def test_kept_transitions_stand_for_all() -> None:
    _, features, errors = solved(1)
    prior = 1e6 * np.eye(5)
    one = weights_root(features[:-1], features[1:], errors, prior, steps=STEPS)
    two = weights_root(features[:-1], features[1:], errors, prior, steps=4 * STEPS)
    np.testing.assert_allclose(two @ two.T, one @ one.T / 4.0, rtol=1e-6)


def test_a_prior_of_the_fleet_narrows_it_along_nothing_but_what_is_not_shared() -> None:
    _, features, errors = solved(2)
    covariance = np.cov(features.T)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 2)))[0]
    wide = weights_root(features[:-1], features[1:], errors, 1e6 * np.eye(5), steps=STEPS)
    prior = fleet_prior(basis, 1e4 * np.eye(2), covariance, 1e-6)
    narrow = weights_root(features[:-1], features[1:], errors, prior, steps=STEPS)
    outside = np.linalg.svd(basis)[0][:, 2:]
    assert np.linalg.norm(outside.T @ narrow) < 0.05 * np.linalg.norm(outside.T @ wide)
    assert np.linalg.norm(basis.T @ narrow) > 0.2 * np.linalg.norm(basis.T @ wide)
