"""Coarser and finer features of the microgrids: their spans are nested, and one simulation gives all references."""

import numpy as np
import pytest

from cospan.client.environment.workload_loader import load_workload
from cospan.client.workload import Site
from cospan.client.workloads import BUILT_IN, microgrids, microgrids_finer
from cospan.client.workloads.microgrids_finer import (
    FINEST,
    MAPS,
    REFERENCE_FILE,
    covariance_of,
    features_with,
    microgrids_with,
)
from cospan.client.workloads.models.microgrids import HOURS, site_count
from cospan.client.workloads.references.microgrids import least_squares, simulate
from cospan.client.workloads.references.microgrids_finer import hourly_sums, hourly_upper, sums_with
from cospan.client.workloads.references.solutions import pooled_solution, solve
from cospan.core.exact_solutions import ReferenceSolution, relative_value_error

EVERY_D = pytest.mark.parametrize("d", MAPS)
EVERY_SITE = pytest.mark.parametrize("index", range(site_count()))


def reference_of(site: Site) -> ReferenceSolution:
    """The site's reference, which every site has."""
    assert site.reference is not None
    return site.reference


def observations(count: int = 2000) -> np.ndarray:
    """Made-up hours, some of them at the ends of what is possible."""
    rng = np.random.default_rng(0)
    values = rng.random((count, 5))
    values[:, microgrids.HOUR] = rng.integers(HOURS, size=count)
    values[::7, microgrids.CHARGE] = 1.0
    values[::11, microgrids.OUTLOOK] = 0.0
    return values


def test_there_is_a_map_for_each_d() -> None:
    assert list(MAPS) == [47, 95, 191, 335, 623]
    assert all(features.dim == d for d, features in MAPS.items())
    assert len({features_with(d).fingerprint for d in MAPS}) == len(MAPS)


def test_95_are_the_features_of_the_microgrids() -> None:
    assert features_with(95) is microgrids.FEATURES
    assert MAPS[95].fingerprint == microgrids.FEATURES.fingerprint
    np.testing.assert_allclose(
        MAPS[95].batch(observations()), microgrids.FEATURES.batch(observations()), atol=1e-15
    )


@EVERY_D
def test_features_are_bounded_and_batches_are_their_rows(d: int) -> None:
    rows = features_with(d).batch(observations(100))
    assert rows.shape == (100, d)
    assert rows.dtype == np.float64
    assert rows.min() >= 0.0
    assert rows.sum(axis=1).max() <= 1.0 + 1e-12
    np.testing.assert_array_equal([features_with(d)(each) for each in observations(100)], rows)


def test_observations_outside_the_knots_count_as_at_the_nearest_one() -> None:
    outside, inside = np.array([23.0, 1.5, -0.1, 0.0, 1.0]), np.array([23.0, 1.0, 0.0, 0.0, 1.0])
    np.testing.assert_array_equal(MAPS[335](outside), MAPS[335](inside))


@EVERY_D
def test_each_span_is_part_of_every_finer_one(d: int) -> None:
    for finer in (other for other in MAPS if other >= d):
        into = MAPS[d].among(MAPS[finer])
        assert into.shape == (finer, d)
        np.testing.assert_allclose(
            MAPS[finer].batch(observations()) @ into, MAPS[d].batch(observations()), atol=1e-14
        )


@pytest.mark.parametrize("index", [0, 13, 20])
def test_the_finest_features_are_independent_where_the_site_goes(index: int) -> None:
    """And stay so with the constant among them; so do all others, which lie in their span."""
    hours = list(simulate(index, chains=150, days=12, rng=np.random.default_rng(index)))
    rows = FINEST.batch(np.concatenate([seen for seen, _ in hours[48:]]))
    rows = np.column_stack([rows, np.ones(len(rows))])
    moments = np.linalg.eigvalsh(rows.T @ rows)
    assert moments[0] > 1e-8 * moments[-1]


def test_sums_by_hour_are_the_sums_of_the_map_itself() -> None:
    """The same draws, summed with the features of the microgrids and by way of the finest map."""
    chains = {"chains": 40, "days": 6, "burn_in_days": 2}
    direct = least_squares(9, **chains, rng=np.random.default_rng(4))
    hourly = hourly_sums(9, **chains, rng=np.random.default_rng(4))
    projected = sums_with(95, hourly)
    assert projected.keys() == direct.keys()
    for name, expected in direct.items():
        np.testing.assert_allclose(projected[name], expected, atol=1e-10 * np.abs(expected).max())
    covariance = covariance_of(MAPS[95], hourly_upper([hourly]).astype(np.float64))
    np.testing.assert_allclose(covariance, solve(direct)[2], atol=1e-8)


@EVERY_SITE
def test_95_agree_with_the_reference_of_the_microgrids(index: int) -> None:
    """Two simulations of their own, each within what both say of their uncertainty."""
    shipped = reference_of(microgrids.make_site(index, seed=0))
    own = reference_of(microgrids_with(95).make_site(index, 0))
    assert shipped.value_error(own.weights) < 4.0 * (shipped.weights_uncertainty + own.weights_uncertainty)
    assert abs(shipped.gain - own.gain) < 4.0 * np.hypot(shipped.gain_uncertainty, own.gain_uncertainty)
    others = [np.roll(own.weights, 24), own.weights + np.random.default_rng(index).normal(size=95)]
    for estimate in others:
        expected = relative_value_error(estimate, own.weights, shipped.covariance)
        assert own.value_error(estimate) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("index", [20])
def test_a_short_run_of_its_own_agrees_with_every_reference(index: int) -> None:
    """Independent of the shipped ones, solved with every map; its batches say how far off it may be."""
    batches = [
        hourly_sums(index, chains=300, days=10, burn_in_days=3, rng=np.random.default_rng(seed))
        for seed in (11, 12)
    ]
    for d in MAPS:
        reference = reference_of(microgrids_with(d).make_site(index, 0))
        found = pooled_solution([sums_with(d, batch) for batch in batches])
        uncertainty = found["weights_uncertainty"] + reference.weights_uncertainty
        assert reference.value_error(found["weights"]) < 4.0 * uncertainty < 0.05
        upper = np.triu_indices(d)
        apart = np.linalg.norm(found["covariance_upper"] - reference.covariance[upper])
        assert apart < 0.1 * np.linalg.norm(reference.covariance)


@EVERY_D
def test_references_are_certain_enough_to_measure_against(d: int) -> None:
    gains = []
    for index in range(site_count()):
        site = microgrids_with(d).make_site(index, 0)
        reference = reference_of(site)
        assert site.features is features_with(d)
        assert reference.weights.shape == (d,)
        assert 0.0 < reference.weights_uncertainty < 1e-3
        assert 0.0 < reference.gain_uncertainty < 0.01 * abs(reference.gain)
        np.testing.assert_array_equal(reference.covariance, reference.covariance.T)
        if index % 8 == 0:
            assert np.linalg.eigvalsh(reference.covariance).min() > -1e-8
        gains.append(reference.gain)
    assert gains == [reference_of(microgrids_with(95).make_site(index, 0)).gain for index in range(site_count())]


@EVERY_D
def test_workloads_are_found_by_their_names(d: int) -> None:
    workload = load_workload(f"cospan.client.workloads.microgrids_finer:d{d}")
    assert workload.name == f"microgrids-d{d}"
    assert workload.max_agents == site_count()
    assert workload.fleet_basis is not None
    basis = workload.fleet_basis(5, 5, 0)
    assert basis is not None
    weights = np.stack([reference_of(workload.make_site(index, 0)).weights for index in range(5)])
    np.testing.assert_allclose(weights @ basis @ basis.T, weights, atol=1e-8)
    assert not any("finer" in target for target in BUILT_IN.values())


def test_there_is_no_other_d() -> None:
    with pytest.raises(ValueError, match="d = 100; take 47, 95, 191, 335, 623"):
        microgrids_with(100)


def test_references_of_other_features_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dict(microgrids_finer._archive())
    other["fingerprint_191"] = other["fingerprint_47"]
    monkeypatch.setattr(microgrids_finer, "_archive", lambda: other)
    microgrids_finer._weights.cache_clear()
    microgrids_finer._reference.cache_clear()
    try:
        with pytest.raises(RuntimeError, match=r"d = 191 .* make them again with `python -m"):
            microgrids_with(191).make_site(0, 0)
    finally:
        microgrids_finer._weights.cache_clear()
        microgrids_finer._reference.cache_clear()


def test_the_file_is_small() -> None:
    with REFERENCE_FILE.open("rb") as stream:
        assert len(stream.read()) < 600_000
