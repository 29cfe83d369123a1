"""The ready-made feature maps, on examples small enough to be worked out by hand."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cospan.client.features import (
    FourierFeatures,
    OneHotFeatures,
    RadialBasisFeatures,
    TabularFeatures,
    TileCodingFeatures,
)
from cospan.client.workload import FeatureMap

MATRIX = np.array([[0.6, 0.0], [-0.6, 0.5], [0.0, -0.5]])
BOXES: list[Callable[[], FeatureMap]] = [
    lambda: TileCodingFeatures([-1.0, 0.0], [1.0, 5.0], tiles=(3, 2), tilings=4),
    lambda: RadialBasisFeatures([-1.0, 0.0], [1.0, 5.0], centres=(4, 3)),
    lambda: FourierFeatures([-1.0, 0.0], [1.0, 5.0], order=(2, 1), periodic=(False, True)),
]
"""Each kind of map on the same box of two coordinates."""


def test_one_hot_leaves_out_the_reference_state() -> None:
    features = OneHotFeatures(states=4, reference=1)
    assert features.dim == 3
    expected = [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(features.batch(range(4)), expected)
    np.testing.assert_array_equal([features(state) for state in range(4)], expected)
    np.testing.assert_array_equal(features.batch(np.array([3, 3, 1])), [[0, 0, 1], [0, 0, 1], [0, 0, 0]])


CHAINS = pytest.mark.parametrize("features", [OneHotFeatures(3), TabularFeatures(MATRIX)])
NO_STATES = [-1, 3, 2.5, 3.7, -0.5, math.nan, math.inf, -math.inf, 1e300, 2**64 - 1, 2**200, np.float32(0.5)]
NO_STATES += [np.uint8(255), "1", None, 1j]


@CHAINS
@pytest.mark.parametrize("state", NO_STATES)
def test_what_is_no_state_is_refused(features: FeatureMap, state: Any) -> None:
    """Python makes 3 of 3.7, and numpy alone would take −1 for the last state."""
    for observation in (state, np.asarray(state), [state]):
        with pytest.raises(ValueError, match=r"^observation .* is not a state: allowed are the integers 0 to 2$"):
            features(observation)
    for observations in ([state, 0], [0, state], np.array([0, state]), [[state]]):
        with pytest.raises(ValueError, match=r"^observation .* is not a state: allowed are the integers 0 to 2$"):
            features.batch(observations)


@CHAINS
@pytest.mark.parametrize("truth", [True, np.True_, np.array(True), np.array([True])])
def test_a_truth_value_is_no_state(features: FeatureMap, truth: Any) -> None:
    with pytest.raises(ValueError, match="observation True is not a state"):
        features(truth)
    with pytest.raises(ValueError, match="observation True is not a state"):
        features.batch(np.array([True, False]))


@CHAINS
def test_several_observations_are_not_one(features: FeatureMap) -> None:
    for observation in ([0, 1], np.zeros((2, 2), dtype=int), []):
        with pytest.raises(ValueError, match=r"of shape .* is not a state: one integer is needed"):
            features(observation)


@CHAINS
@pytest.mark.parametrize("kind", [int, np.int8, np.uint64, np.float64, np.float32, np.array, lambda state: [state]])
def test_whole_numbers_of_every_kind_are_states(features: FeatureMap, kind: Callable[[int], Any]) -> None:
    expected = features.batch(np.arange(3))
    np.testing.assert_array_equal([features(kind(state)) for state in range(3)], expected)
    np.testing.assert_array_equal(features.batch([kind(state) for state in range(3)]), expected)
    assert features.batch([]).shape == (0, 2)


def test_tabular_looks_rows_up_and_cannot_be_changed() -> None:
    matrix = MATRIX.copy()
    features = TabularFeatures(matrix)
    matrix[0] = 9.0
    np.testing.assert_array_equal(features(0), MATRIX[0])
    np.testing.assert_array_equal(features.batch([2, 0]), MATRIX[[2, 0]])
    assert features.dim == 2
    with pytest.raises(ValueError, match="read-only"):
        features(0)[0] = 1.0


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        ([[1.0, 0.0], [0.8, 0.7]], "norm 1.06"),
        ([[np.nan, 0.0], [0.0, 0.1]], "norm nan"),
        ([[0.1, 0.4], [0.3, 0.2], [0.5, 0.0]], "constant"),  # the columns sum to one half
    ],
)
def test_tabular_refuses_what_breaks_a_promise(matrix: list[list[float]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TabularFeatures(np.array(matrix))


def test_tile_coding_by_hand() -> None:
    """One tiling, two tiles, no shift: the one feature is x ≥ ½ less its share ½, scaled to ±1."""
    features = TileCodingFeatures([0.0], [1.0], tiles=2, tilings=1)
    np.testing.assert_allclose(features.batch([[0.0], [0.49], [0.5], [1.0]])[:, 0], [-1.0, -1.0, 1.0, 1.0])


def test_two_tilings_are_shifted_against_each_other() -> None:
    """Shifts −¼ and ¼ of a tile: the edge between two tiles stands at 3/8 in one tiling and at 5/8 in the other."""
    features = TileCodingFeatures([0.0], [1.0], tiles=2, tilings=2)
    active = features.batch([[0.3], [0.37], [0.38], [0.62], [0.63]]) > 0.0
    np.testing.assert_array_equal(active, [[0, 0], [0, 0], [1, 0], [1, 0], [1, 1]])


def test_narrow_bumps_are_indicators_less_their_means() -> None:
    """Three centres at 0, ½ and 1: bumps of shares ¼, ½, ¼; the first is left out."""
    features = RadialBasisFeatures([0.0], [1.0], centres=3, width=0.01)
    scale = math.sqrt(1.0 + 0.5**2 + 0.25**2)
    values = features.batch([[0.0], [0.5], [1.0]]) * scale
    np.testing.assert_allclose(values, [[-0.5, -0.25], [0.5, -0.25], [-0.5, 0.75]], atol=1e-6)


def test_bump_halfway_between_two_centres() -> None:
    """There the two bumps are equal and, of width one half, the others e⁻⁴ of them."""
    features = RadialBasisFeatures([0.0], [3.0], centres=4, width=0.5)
    bumps = features([1.5]) / features._scale + features._mean
    np.testing.assert_allclose(bumps, np.array([1.0, 1.0, math.exp(-4.0)]) / (2.0 + 2.0 * math.exp(-4.0)))


def test_fourier_by_hand() -> None:
    """One coordinate: cos πu and cos 2πu over √2."""
    features = FourierFeatures([2.0], [4.0], order=2)
    expected = np.array([[1.0, 1.0], [math.cos(math.pi / 4), 0.0], [0.0, -1.0], [-1.0, 1.0]]) / math.sqrt(2.0)
    np.testing.assert_allclose(features.batch([[2.0], [2.5], [3.0], [4.0]]), expected, atol=1e-15)


def test_fourier_products_of_a_periodic_and_a_plain_coordinate() -> None:
    """Hour of day × charge, order one each: products of {1, cos, sin} and {1, cos}, without the constant."""
    features = FourierFeatures([0.0, 0.0], [24.0, 1.0], order=1, periodic=[True, False])
    assert features.dim == 5
    hour, charge = 2.0 * math.pi * 7.0 / 24.0, math.cos(math.pi * 0.3)
    products = np.outer([1.0, math.cos(hour), math.sin(hour)], [1.0, charge]).ravel()[1:]
    np.testing.assert_allclose(features([7.0, 0.3]), products / math.sqrt(3.0), rtol=1e-14)
    np.testing.assert_allclose(features([0.0, 0.3]), features([24.0, 0.3]), atol=1e-15)


@pytest.mark.parametrize("make", BOXES)
class TestBoxes:
    """What all maps of a box have in common."""

    def test_dim_and_dtype(self, make: Callable[[], FeatureMap]) -> None:
        features = make()
        assert features.batch([[0.0, 1.0]] * 3).shape == (3, features.dim)
        assert features([0.0, 1.0]).dtype == np.float64
        assert features.batch([]).shape == (0, features.dim)
        assert isinstance(features, FeatureMap)

    def test_what_lies_outside_counts_as_the_nearest_edge(self, make: Callable[[], FeatureMap]) -> None:
        features = make()
        np.testing.assert_array_equal(features([-7.0, math.inf]), features([-1.0, 5.0]))
        assert not np.array_equal(features([-1.0, 5.0]), features([0.9, 0.1]))

    @pytest.mark.parametrize("wrong", [[[math.nan, 1.0]], [[0.0, 1.0, 2.0]], [0.0, 1.0]])
    def test_a_wrong_observation_is_refused(self, make: Callable[[], FeatureMap], wrong: Any) -> None:
        with pytest.raises(ValueError, match="observation"):
            make().batch(wrong)

    def test_linearly_independent_over_the_box_and_of_the_constant(self, make: Callable[[], FeatureMap]) -> None:
        features = make()
        points = np.random.default_rng(0).uniform([-1.0, 0.0], [1.0, 5.0], (4000, 2))
        columns = np.column_stack([features.batch(points), np.ones(4000)])
        singular = np.linalg.svd(columns / np.linalg.norm(columns, axis=0), compute_uv=False)
        assert singular[-1] > 0.02 * singular[0]

    def test_mean_zero_over_the_box(self, make: Callable[[], FeatureMap]) -> None:
        features = make()
        middles = (np.arange(240) + 0.5) / 240
        grid = np.stack(np.meshgrid(2.0 * middles - 1.0, 5.0 * middles), axis=-1).reshape(-1, 2)
        assert np.abs(features.batch(grid).mean(axis=0)).max() < 1e-5

    def test_equal_maps_are_equal(self, make: Callable[[], FeatureMap]) -> None:
        assert make() == make()
        assert hash(make()) == hash(make())
        assert make().fingerprint == make().fingerprint


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: OneHotFeatures(1),
        lambda: OneHotFeatures(3, reference=3),
        lambda: TabularFeatures(np.zeros(3)),
        lambda: TileCodingFeatures([0.0], [1.0], tilings=3),
        lambda: TileCodingFeatures([0.0], [1.0], tiles=1),
        lambda: TileCodingFeatures([1.0], [1.0]),
        lambda: TileCodingFeatures([0.0], [1.0, 2.0]),
        lambda: RadialBasisFeatures([0.0], [math.inf]),
        lambda: RadialBasisFeatures([0.0], [1.0], width=0.0),
        lambda: RadialBasisFeatures([0.0, 0.0], [1.0, 1.0], centres=(3, 3, 3)),
        lambda: FourierFeatures([0.0], [1.0], order=0),
        lambda: FourierFeatures([0.0], [1.0], periodic=(True, False)),
    ],
)
def test_wrong_parameters_are_refused(wrong: Callable[[], FeatureMap]) -> None:
    with pytest.raises((ValueError, TypeError)):
        wrong()


DIFFERENT: list[FeatureMap] = [
    OneHotFeatures(5),
    OneHotFeatures(6),
    OneHotFeatures(5, reference=1),
    TabularFeatures(MATRIX),
    TabularFeatures(-MATRIX),
    TabularFeatures(0.5 * MATRIX),
    TileCodingFeatures([0.0], [1.0], tiles=4, tilings=2),
    TileCodingFeatures([0.0], [1.0], tiles=2, tilings=4),
    TileCodingFeatures([0.0], [2.0], tiles=4, tilings=2),
    RadialBasisFeatures([0.0], [1.0], centres=4),
    RadialBasisFeatures([0.0], [1.0], centres=5),
    RadialBasisFeatures([0.0], [1.0], centres=4, width=0.6),
    FourierFeatures([0.0], [1.0]),
    FourierFeatures([0.0], [1.0], order=4),
    FourierFeatures([0.0], [1.0], periodic=[True]),
    FourierFeatures([0.0, 0.0], [1.0, 1.0]),
]


def test_fingerprints_tell_maps_apart() -> None:
    assert len({features.fingerprint for features in DIFFERENT}) == len(DIFFERENT)


def test_fingerprints_stay_what_they_are() -> None:
    """They are stored in run folders and reference files, so they may not change from version to version."""
    assert [features.fingerprint for features in DIFFERENT[::3]] == FROZEN


FROZEN = [
    "one-hot-4081d0ead3cd91d4",
    "tabular-e172d594953917ed",
    "tiles-27a2ecd00abd4e19",
    "rbf-8b0ea52dfcec0ddd",
    "fourier-d361c3af0501c9c8",
    "fourier-8ea2ff987aa2c34a",
]
"""As computed when these maps were written (version 0.1.0)."""
