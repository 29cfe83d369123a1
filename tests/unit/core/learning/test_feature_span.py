"""Features that span a constant, or depend on each other, are found; the maps that come with Cospan do neither."""

import numpy as np
import pytest

from cospan.client.features import FourierFeatures, OneHotFeatures, RadialBasisFeatures, TileCodingFeatures
from cospan.client.workload import FeatureMap
from cospan.core.exact_solutions import td_system
from cospan.core.learning.feature_span import FeatureSpan, smallest_eigenvalue


def test_one_hot_features_of_every_state_have_the_constant_in_their_span() -> None:
    span = FeatureSpan.of(np.eye(7))
    assert span.has_constant
    assert (span.dependent, span.states) == (0, 7)
    left_out = FeatureSpan.of(np.eye(7)[:, 1:])
    assert not left_out.has_constant
    assert left_out.constant_residual == pytest.approx(1.0 / np.sqrt(7.0))


def test_features_that_follow_from_others_are_counted() -> None:
    features = np.random.default_rng(0).standard_normal((50, 3))
    span = FeatureSpan.of(np.column_stack([features, features[:, :1] - features[:, 1:2], np.zeros(50)]))
    assert (span.used, span.rank, span.dependent, span.has_constant) == (4, 3, 1, False)
    assert FeatureSpan.of(np.zeros((5, 2))).used == 0


@pytest.mark.parametrize(
    "features",
    [
        FourierFeatures((0.0, 0.0), (1.0, 2.0), order=2),
        RadialBasisFeatures((0.0, 0.0), (1.0, 2.0), centres=3),
        TileCodingFeatures((0.0, 0.0), (1.0, 2.0), tiles=3, tilings=2),
    ],
)
def test_the_maps_that_come_with_cospan_span_no_constant(features: FeatureMap) -> None:
    points = np.random.default_rng(1).uniform((0.0, 0.0), (1.0, 2.0), (4000, 2))
    assert not FeatureSpan.of(features.batch(list(points))).has_constant


def test_one_hot_without_its_reference_state_spans_no_constant() -> None:
    assert not FeatureSpan.of(OneHotFeatures(6).batch(list(range(6)))).has_constant


def test_the_smallest_eigenvalue_is_zero_with_a_constant_and_positive_without() -> None:
    rng = np.random.default_rng(2)
    transition = rng.dirichlet(np.ones(5), size=5)
    whole, part = (-td_system(features, transition, np.zeros(5))[0] for features in (np.eye(5), np.eye(5)[:, 1:]))
    assert smallest_eigenvalue(whole) == pytest.approx(0.0, abs=1e-12)
    assert smallest_eigenvalue(part) > 1e-3
