"""Families of synthetic fleets: misaligned, noisy, heterogeneous."""

import numpy as np
import pytest

from cospan.client.environment.workload_loader import load_workload
from cospan.client.workloads.synthetic import ChainSizes, fleet_part
from cospan.experiments.methods.fleet_variants import (
    SIZES,
    beginning_at,
    heterogeneous,
    misaligned,
    partly_shared,
)


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


def test_a_second_fleet_shares_a_subspace_of_its_own() -> None:
    workload = misaligned(12, 0.5, 0.5, 1.0, second_rank=3)
    weights = [site.reference.weights for k in range(12) if (site := workload.make_site(k, 7)).reference]
    assert np.linalg.matrix_rank(np.array(weights[:6]), tol=1e-8) == 3
    assert np.linalg.matrix_rank(np.array(weights[6:]), tol=1e-8) == 3
    assert np.linalg.matrix_rank(np.array(weights), tol=1e-8) == 6


@pytest.mark.parametrize("outside", [0.0, 0.3, 1.0])
def test_a_share_of_the_variance_lies_anywhere(outside: float) -> None:
    dim = 40
    basis = fleet_part(7, ChainSizes(states=80, feature_dim=dim)).basis
    workload = partly_shared(dim, outside)
    weights = [site.reference.weights for k in range(40) if (site := workload.make_site(k, 7)).reference]
    shares = [1.0 - float(np.sum((basis.T @ each) ** 2) / np.sum(each**2)) for each in weights]
    # What lies anywhere is in the subspace by 3 of its 40 dimensions.
    assert np.median(shares) == pytest.approx(outside * (1.0 - 3.0 / dim), abs=0.05)


def test_a_small_fleet_can_begin_with_any_site() -> None:
    first = beginning_at("synthetic", 3).make_site(1, 5).reference
    other = load_workload("synthetic").make_site(4, 5).reference
    assert first is not None
    assert other is not None
    np.testing.assert_array_equal(first.weights, other.weights)
