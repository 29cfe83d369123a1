"""What every ready-made feature map promises, for any parameters and observations."""

from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cospan.client.features import (
    FourierFeatures,
    OneHotFeatures,
    RadialBasisFeatures,
    TabularFeatures,
    TileCodingFeatures,
)
from cospan.client.workload import FeatureMap

UNIT = st.floats(0.0, 1.0)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """Low and high of one to three coordinates, of very different sizes."""
    low = draw(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=3))
    sizes = draw(st.lists(st.floats(0.1, 1e4), min_size=len(low), max_size=len(low)))
    return low, [a + size for a, size in zip(low, sizes, strict=True)]


@st.composite
def box_maps(draw: st.DrawFn) -> tuple[FeatureMap, np.ndarray, np.ndarray]:
    """A map of a box, and the bounds of the box."""
    low, high = draw(boxes())
    size = len(low)
    counts = draw(st.lists(st.integers(2, 4), min_size=size, max_size=size))
    kind = draw(st.sampled_from(["tiles", "rbf", "fourier"]))
    features: FeatureMap
    if kind == "tiles":
        features = TileCodingFeatures(low, high, counts, draw(st.sampled_from([1, 2, 4, 8])))
    elif kind == "rbf":
        features = RadialBasisFeatures(low, high, counts, draw(st.floats(0.05, 1.0)))
    else:
        periodic = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        features = FourierFeatures(low, high, [count - 1 for count in counts], periodic)
    return features, np.array(low), np.array(high)


@st.composite
def finite_maps(draw: st.DrawFn) -> tuple[FeatureMap, int]:
    """A map of a finite chain, and the number of its states."""
    states = draw(st.integers(2, 12))
    if draw(st.booleans()):
        return OneHotFeatures(states, draw(st.integers(0, states - 1))), states
    size = draw(st.integers(1, states - 1))
    matrix = draw(hnp.arrays(np.float64, (states, size), elements=st.floats(-1.0, 1.0, width=16)))
    matrix = matrix - matrix.mean(axis=0)
    norm = np.sqrt((matrix * matrix).sum(axis=1)).max()
    assume(norm > 1e-3)
    return TabularFeatures(matrix / norm), states


def points_of(low: np.ndarray, high: np.ndarray, shares: Any) -> np.ndarray:
    """Points of the box from points of the unit cube."""
    return np.array(low + (high - low) * shares)


@given(box_maps(), st.data())
def test_box_maps_are_bounded_and_their_batches_are_rows(case: Any, data: st.DataObject) -> None:
    features, low, high = case
    shares = data.draw(hnp.arrays(np.float64, (5, len(low)), elements=st.floats(-0.5, 1.5)))
    points = points_of(low, high, shares)
    rows = features.batch(list(points))
    assert rows.shape == (5, features.dim)
    assert np.sqrt((rows * rows).sum(axis=1)).max() <= 1.0 + 1e-12
    np.testing.assert_allclose([features(point) for point in points], rows, rtol=0.0, atol=1e-14)


@given(box_maps(), st.integers(0, 2**32 - 1))
def test_no_constant_is_in_the_span_over_the_box(case: Any, seed: int) -> None:
    """The best approximation of the constant one leaves most of it, over a sample of the whole box.

    The features have mean zero over the box; a sample of twenty points a feature leaves a chance fit of about d/n.
    """
    features, low, high = case
    assume(features.dim <= 150)
    count = 20 * features.dim + 200
    shares = np.random.default_rng(seed).uniform(size=(count, len(low)))
    rows = features.batch(points_of(low, high, shares))
    fit = rows @ np.linalg.lstsq(rows, np.ones(count), rcond=None)[0]
    assert np.mean((1.0 - fit) ** 2) > 0.7


@given(box_maps())
def test_the_corners_are_bounded_too(case: Any) -> None:
    """Norms are largest at corners: every cosine is one there."""
    features, low, high = case
    rows = features.batch(np.stack([low, high]))
    assert np.sqrt((rows * rows).sum(axis=1)).max() <= 1.0 + 1e-12


@given(finite_maps(), st.data())
def test_finite_maps_are_bounded_and_free_of_constants(case: Any, data: st.DataObject) -> None:
    features, states = case
    rows = features.batch(range(states))
    assert np.sqrt((rows * rows).sum(axis=1)).max() <= 1.0 + 1e-9
    fit = rows @ np.linalg.lstsq(rows, np.ones(states), rcond=None)[0]
    assert np.abs(1.0 - fit).max() > 1e-6
    chosen = data.draw(st.lists(st.integers(0, states - 1), max_size=6))
    np.testing.assert_array_equal(features.batch(chosen), rows[chosen])
    for state in chosen:
        np.testing.assert_array_equal(features(state), rows[state])
