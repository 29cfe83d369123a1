"""The clip of an agent's whole upload."""

from dataclasses import replace

import numpy as np
import pytest

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, to_dense
from cospan.core.method import compact, full_history, practical
from cospan.core.privacy.clipping import Bounds, bounded_norm, clipped
from cospan.core.secure_sums.layout import Layout

BOUNDS = Bounds(gradient=2.0, moment=3.0, pooled=5.0, influence=0.5)
D, R = 4, 2


def upload(
    gradient: float = 0.0, *, moment: float = 0.0, pooled: float = 0.0, influence: float = 0.0
) -> Contribution:
    """An upload whose fields have these norms."""
    numbers = np.array([0.0, pooled, 0.0, influence])
    return Contribution(
        gradient=DenseMatrix(np.full((D, R), gradient / np.sqrt(D * R))),
        head_second_moment=np.array([[0.0, moment], [moment, 0.0]]),  # the entry is sent once
        pooled=numbers,
    )


@pytest.mark.parametrize(
    "full", [upload(2.0), upload(moment=3.0), upload(pooled=5.0), upload(influence=0.5), upload(1.2, pooled=4.0)]
)
def test_fields_are_measured_by_their_bounds(full: Contribution) -> None:
    assert bounded_norm(full, BOUNDS, practical(10)) == pytest.approx(1.0)


def test_the_last_pooled_number_is_a_weight_only_where_there_is_one() -> None:
    assert bounded_norm(upload(influence=0.5), BOUNDS, full_history(10)) == pytest.approx(0.1)


def test_what_is_within_the_bound_stays() -> None:
    small = upload(1.0, pooled=1.0)
    assert clipped(small, BOUNDS, practical(10)) is small


def test_everything_is_cut_by_one_factor() -> None:
    large = upload(8.0, moment=3.0, pooled=20.0, influence=0.3)
    norm = bounded_norm(large, BOUNDS, practical(10))
    cut = clipped(large, BOUNDS, practical(10), limit=0.9)
    assert bounded_norm(cut, BOUNDS, practical(10)) == pytest.approx(0.9)
    assert to_dense(cut.gradient) == pytest.approx(to_dense(large.gradient) * 0.9 / norm)
    assert cut.head_second_moment == pytest.approx(large.head_second_moment * 0.9 / norm)
    assert cut.pooled == pytest.approx(large.pooled * 0.9 / norm)
    assert cut.weight == 1.0


def test_factors_are_cut_as_their_product() -> None:
    factored = FactoredMatrix(left=np.full((D, 1), 3.0), right=np.ones((R, 1)))
    cut = clipped(Contribution(factored), BOUNDS, compact(10))
    assert np.linalg.norm(to_dense(cut.gradient)) == pytest.approx(BOUNDS.gradient)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_what_has_no_norm_is_refused(bad: float) -> None:
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="finite"):
        clipped(upload(pooled=bad), BOUNDS, practical(10))


def test_a_sum_of_agents_is_refused() -> None:
    with pytest.raises(ValueError, match="each is clipped by itself"):
        clipped(replace(upload(), weight=2.0), BOUNDS, practical(10))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("name", ["gradient", "moment", "pooled", "influence"])
def test_no_field_is_without_noise(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=name):
        replace(BOUNDS, **{name: bad})


def test_bounds_of_words() -> None:
    bits = {"capacity_bits": 6, "gradient_bits": 12, "moment_bits": 16, "pooled_bits": 9}
    layout = Layout(feature_dim=2, rank=2, has_moment=True, pooled_length=2, **bits)
    words = BOUNDS.of_words(layout, practical(10))
    assert words.tolist() == [2.0] * 4 + [3.0] * 3 + [0.0] + [5.0, 0.5]
    assert BOUNDS.of_words(layout, full_history(10)).tolist()[-2:] == [5.0, 5.0]
    without = replace(layout, has_moment=False, pooled_length=0)
    assert BOUNDS.of_words(without, practical(10)).tolist() == [2.0] * 4 + [0.0]
