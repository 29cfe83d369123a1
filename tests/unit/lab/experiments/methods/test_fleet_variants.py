"""Families of synthetic fleets: misaligned, noisy, heterogeneous."""

import numpy as np
import pytest

from cospan.client.workloads.synthetic import fleet_part
from cospan.experiments.methods.fleet_variants import SIZES, heterogeneous, misaligned


def test_misaligned_agents_are_orthogonal_and_the_others_do_not_change() -> None:
    basis = fleet_part(7, SIZES).basis
    tidy, untidy = misaligned(10, 0.0, 0.5, 1.0), misaligned(10, 0.2, 0.5, 10.0)
    for index in range(10):
        one, other = tidy.make_site(index, 7).reference, untidy.make_site(index, 7).reference
        assert one is not None
        assert other is not None
        assert np.linalg.norm(one.weights - basis @ (basis.T @ one.weights)) < 1e-9
        if index < 8:
            np.testing.assert_array_equal(one.weights, other.weights)
        else:
            assert np.linalg.norm(basis.T @ other.weights) < 1e-9
    assert untidy.fleet_basis is not None


def test_noise_is_of_the_size_that_was_asked_for() -> None:
    def rewards(loudest: float) -> np.ndarray:
        env = misaligned(4, 0.0, 0.5, loudest).make_site(0, 3).env
        env.reset(seed=5)
        return np.array([env.step(0)[1] for _ in range(4000)])

    plain, loud = rewards(0.0), rewards(10.0)
    noise = loud - plain
    assert np.std(noise) == pytest.approx(5.0 * np.std(plain), rel=0.2)
    assert abs(np.mean(noise)) < 0.1 * np.std(noise)


def test_without_own_parts_all_agents_have_one_value_function() -> None:
    weights = [
        [site.reference.weights for index in range(3) if (site := heterogeneous(h).make_site(index, 2)).reference]
        for h in (0.0, 1.0)
    ]
    np.testing.assert_allclose(weights[0][0], weights[0][1], atol=1e-12)
    assert np.linalg.norm(weights[1][0] - weights[1][1]) > 0.1
