"""Weights from returns of the same moment: chance that moments share is no noise, and a day counts once."""

import numpy as np
import pytest

from cospan.core.decisions.paired_values import paired_values, prior_of_fleet

DIM, LEVELS, MOMENTS = 4, 3, 400
TRUE = np.array([1.0, -2.0, 0.5, 3.0])


def drawn(noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(MOMENTS, LEVELS, DIM))
    returns = features @ TRUE + 100.0 * rng.normal(size=(MOMENTS, 1))
    return features, returns + noise * rng.normal(size=returns.shape)


def test_what_all_afterstates_of_a_moment_share_is_no_noise() -> None:
    weights, root = paired_values(*drawn(0.0), 1)
    np.testing.assert_allclose(weights, TRUE, rtol=0.02)
    assert np.linalg.norm(root) < 0.2


def test_the_covariance_is_that_of_the_estimates() -> None:
    estimates, roots = zip(*(paired_values(*drawn(1.0, seed), 1) for seed in range(60)), strict=True)
    spread = np.cov(np.array(estimates).T)
    told = np.mean([root @ root.T for root in roots], axis=0)
    assert np.trace(told) == pytest.approx(np.trace(spread), rel=0.35)


def test_moments_of_one_block_that_err_alike_count_as_one() -> None:
    features, returns = drawn(1.0)
    repeated = np.repeat(features, 5, axis=0), np.repeat(returns, 5, axis=0)
    once, by_block, by_moment = (
        paired_values(features, returns, 1),
        paired_values(*repeated, 5),
        paired_values(*repeated, 1),
    )
    np.testing.assert_allclose(by_block[0], once[0], rtol=1e-6)
    np.testing.assert_allclose(by_block[1] @ by_block[1].T, once[1] @ once[1].T, rtol=1e-6)
    assert np.trace(by_moment[1] @ by_moment[1].T) < 0.3 * np.trace(once[1] @ once[1].T)


def test_a_prior_holds_what_data_do_not_tell() -> None:
    features, returns = (each[:2] for each in drawn(5.0))
    along = np.outer(TRUE, TRUE) / DIM
    near, _ = paired_values(features, returns, 1, along + 1e-4 * np.eye(DIM))
    alone, _ = paired_values(features, returns, 1)
    assert np.linalg.norm(near - TRUE) < 0.5 * np.linalg.norm(alone - TRUE)
    assert np.linalg.norm(near / np.linalg.norm(near) - TRUE / np.linalg.norm(TRUE)) < 0.1


def test_returns_that_tell_nothing_give_nothing() -> None:
    weights, root = paired_values(np.zeros((3, LEVELS, DIM)), np.ones((3, LEVELS)), 1)
    np.testing.assert_array_equal(weights, 0.0)
    assert np.isfinite(root).all()


@pytest.mark.parametrize(("moments", "block"), [(0, 1), (3, 0)])
def test_no_moments_or_blocks_are_refused(moments: int, block: int) -> None:
    with pytest.raises(ValueError, match="one of each"):
        paired_values(np.zeros((moments, LEVELS, DIM)), np.zeros((moments, LEVELS)), block)


def test_a_fleets_prior_is_in_the_unit_of_the_agent() -> None:
    basis, heads = np.eye(DIM)[:, :2], np.diag([4.0, 1.0])
    prior = prior_of_fleet(basis, heads, 3.0)
    assert prior is not None
    own = 0.03 * 5.0 / DIM
    np.testing.assert_allclose(np.diag(prior), 9.0 * np.array([4.0 + own, 1.0 + own, own, own]))
    assert prior_of_fleet(basis, np.zeros((2, 2)), 3.0) is None
