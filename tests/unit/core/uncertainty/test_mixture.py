"""The mixture of n agents at once against that of each, and the two ways to whiten their features."""

import numpy as np
import pytest

from cospan.core.linalg.leading_axes import symmetric
from cospan.core.uncertainty import mixture
from cospan.core.uncertainty.mixture import DiagonalInformation, mixed, mixed_means

N, D, R = 5, 6, 2


def moments(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A, b, S and C of N agents."""
    rng = np.random.default_rng(seed)
    roots = rng.standard_normal((2, N, D, 2 * D)) / D
    noise, covariance = roots @ roots.swapaxes(-1, -2)
    return rng.standard_normal((N, D, D)) / D + np.eye(D), rng.standard_normal((N, D)), noise, covariance


def ways(covariance: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> list[DiagonalInformation]:
    """By factors where they are allowed, and by eigenvectors alone."""
    system, rewards, noise, _ = moments(1)
    found = DiagonalInformation.of(system, rewards, noise, covariance)
    monkeypatch.setattr(mixture, "_cholesky_roots", lambda _: None)
    return [found, DiagonalInformation.of(system, rewards, noise, covariance)]


def test_both_ways_to_whiten_give_the_same_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for their signs: M Mᵀ is Λ, H is diagonal, M⁻¹ M the identity."""
    *_, covariance = moments(1)
    assert mixture._cholesky_roots(covariance) is not None
    for found, other in (ways(covariance, monkeypatch),):
        np.testing.assert_allclose(found.information, other.information, rtol=1e-10)
        for each in (found, other):
            spread = each.to_weights @ each.to_weights.swapaxes(-1, -2)
            np.testing.assert_allclose(spread @ covariance, np.broadcast_to(np.eye(D), spread.shape), atol=1e-10)
            inverse = each.from_weights @ each.to_weights
            np.testing.assert_allclose(inverse, np.broadcast_to(np.eye(D), spread.shape), atol=1e-10)
        np.testing.assert_allclose(np.abs(found.scores), np.abs(other.scores), rtol=1e-8)


@pytest.mark.parametrize("least", [0.0, 1e-9, 0.9e-3, 1.1e-3])
def test_eigenvalues_near_the_floor_are_not_left_to_factors(least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Λ is bounded by the floor in one direction of one agent; that is for eigenvectors to do."""
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((D, D)))[0]
    covariance = np.stack([np.eye(D)] * N)
    covariance[2] = symmetric((turn * np.array([least, *[1.0] * (D - 1)])) @ turn.T)
    found, other = ways(covariance, monkeypatch)
    largest = [
        np.linalg.eigvalsh(each.to_weights @ each.to_weights.swapaxes(-1, -2))[2, -1] for each in (found, other)
    ]
    np.testing.assert_allclose(largest, 1.0 / (max(least, mixture.METRIC_FLOOR) + mixture.TINY), rtol=1e-6)


def test_a_metric_that_is_the_identity_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, covariance = moments(1)
    found, other = ways(covariance, monkeypatch)
    assert found.metric is None
    identity = np.broadcast_to(np.eye(D), covariance.shape)
    for each in (found, other):
        turned = each.to_weights.swapaxes(-1, -2) @ covariance @ each.to_weights
        np.testing.assert_allclose(turned, each.whole_metric, atol=1e-12)
        np.testing.assert_allclose(each.whole_metric, identity, atol=1e-12)
        np.testing.assert_allclose(each.measured(each.scores), each.scores, atol=1e-10)


@pytest.mark.parametrize("is_floored", [False, True])
@pytest.mark.parametrize("size", [1.0, 1e9])
def test_answers_at_once_are_those_of_each(size: float, is_floored: bool) -> None:
    """Also where W is so large, and of so low a rank, that an inverse would be rounding; and with a metric."""
    system, rewards, noise, covariance = moments(2)
    if is_floored:
        covariance = covariance * np.array([1e-3, *[1.0] * (D - 1)]) * np.array([1e-3, *[1.0] * (D - 1)])[:, None]
    data, rng = DiagonalInformation.of(system, rewards, noise, covariance), np.random.default_rng(5)
    assert (data.metric is None) == (not is_floored)
    factor, unit = size * rng.standard_normal((N, D, R)), rng.uniform(0.5, 2.0, (N, 1))
    if size > 1.0:
        factor[..., 1] = 0.7 * factor[..., 0]
    own = rng.standard_normal((N, D))
    alone = own, own + 0.1 * rng.standard_normal((N, D))
    mean, fleets = mixed_means(data, factor, unit, alone)
    expected = mixed(data, factor, unit, alone)
    np.testing.assert_allclose(mean, expected.mean, atol=1e-9 * np.abs(expected.mean).max())
    np.testing.assert_allclose(fleets, expected.means[0], atol=1e-9 * np.abs(expected.means[0]).max())
    for place in range(N):
        values = {name: getattr(data, name)[place] for name in data.__slots__ if name != "metric"}
        single = DiagonalInformation(**values, metric=data.whole_metric[place])
        own_mean, own_fleets = mixed_means(single, factor[place], unit[place], (alone[0][place], alone[1][place]))
        np.testing.assert_allclose(mean[place], own_mean, atol=1e-9 * np.abs(expected.mean).max())
        np.testing.assert_allclose(fleets[place], own_fleets, atol=1e-9 * np.abs(expected.means[0]).max())
