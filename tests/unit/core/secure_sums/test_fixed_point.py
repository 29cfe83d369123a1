"""Contributions as words and back: exact sums, ranges, and what is refused."""

import numpy as np
import pytest

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix
from cospan.core.secure_sums.fixed_point import added, decode, encode, sum_problem
from cospan.core.secure_sums.layout import Layout

LAYOUT = Layout(
    feature_dim=3,
    rank=2,
    has_moment=True,
    pooled_length=4,
    capacity_bits=7,
    gradient_bits=12,
    moment_bits=16,
    pooled_bits=10,
)
MOST = 2**55
"""What the words of one agent are at most."""


def contribution(*, scale: float = 1.0, weight: float = 1.0, pooled: bool = True) -> Contribution:
    return Contribution(
        DenseMatrix(scale * np.array([[1.0, -2.0], [0.5, 3.25], [-0.125, 0.0]])),
        weight,
        scale * np.array([[4.0, -1.0], [-1.0, 2.0]]),
        scale * np.array([0.5, 1.0, 2.0, 0.25]) if pooled else None,
    )


def test_words_are_integers_at_their_places() -> None:
    words = encode(contribution(), LAYOUT).words
    assert words.dtype == np.uint64
    assert (words.view(np.int64)[:6] / 2.0**43).tolist() == [1.0, -2.0, 0.5, 3.25, -0.125, 0.0]
    assert (words.view(np.int64)[6:9] / 2.0**39).tolist() == [4.0, -1.0, 2.0]
    assert words[9] == 1
    assert (words.view(np.int64)[10:] / 2.0**45).tolist() == [0.5, 1.0, 2.0, 0.25]
    assert len(words) == LAYOUT.words


def test_a_contribution_comes_back() -> None:
    found = decode(encode(contribution(), LAYOUT).words, LAYOUT)
    sent = contribution()
    assert isinstance(found.gradient, DenseMatrix)
    assert isinstance(sent.gradient, DenseMatrix)
    assert found.weight == 1.0
    assert np.array_equal(found.gradient.values, sent.gradient.values)
    assert found.head_second_moment is not None
    assert np.array_equal(found.head_second_moment, np.asarray(sent.head_second_moment))
    assert found.pooled is not None
    assert np.array_equal(found.pooled, np.asarray(sent.pooled))


def test_factors_are_sent_as_their_product() -> None:
    left, right = np.array([[1.0], [2.0], [-3.0]]), np.array([[0.5], [0.25]])
    factored = Contribution(FactoredMatrix(left, right), 1.0, np.eye(2), np.ones(4))
    dense = Contribution(DenseMatrix(left @ right.T), 1.0, np.eye(2), np.ones(4))
    assert np.array_equal(encode(factored, LAYOUT).words, encode(dense, LAYOUT).words)


def test_sums_wrap_and_do_not_depend_on_order_or_grouping() -> None:
    rng = np.random.default_rng(1)
    vectors = [rng.integers(0, 2**64, 14, dtype=np.uint64) for _ in range(5)]
    expected = [sum(int(vector[place]) for vector in vectors) % 2**64 for place in range(14)]
    assert added(vectors).tolist() == expected
    assert added([added(vectors[3:]), added(vectors[:3])]).tolist() == expected
    before = vectors[0].copy()
    added(vectors)
    assert np.array_equal(vectors[0], before)


def test_no_sum_of_nothing_or_of_unequal_vectors() -> None:
    with pytest.raises(ValueError, match="one or more"):
        added([])
    with pytest.raises(ValueError, match="one length"):
        added([np.zeros(2, np.uint64), np.zeros(3, np.uint64)])


def test_the_largest_sum_is_read_right() -> None:
    """128 agents at the ends of their ranges, above and below."""
    edge = Contribution(
        DenseMatrix(np.array([[4096.0, -4096.0]] * 3)), 1.0, np.full((2, 2), 65536.0), np.full(4, 1024.0)
    )
    encoded = encode(edge, LAYOUT)
    assert encoded.share == 1.0
    total = decode(added([encoded.words] * 128), LAYOUT)
    assert isinstance(total.gradient, DenseMatrix)
    assert total.gradient.values.tolist() == [[128 * 4096.0, -128 * 4096.0]] * 3
    assert total.pooled is not None
    assert total.pooled.tolist() == [128 * 1024.0] * 4


@pytest.mark.parametrize("factor", [1.0 + 1e-12, 3.0, 1e60, 1e300])
@pytest.mark.parametrize("field", ["gradient", "moment", "pooled"])
def test_what_exceeds_its_range_scales_the_whole_contribution(factor: float, field: str) -> None:
    gradient = np.array([[1.0, -2.0], [0.5, 3.25], [-0.125, 4096.0 * (factor if field == "gradient" else 0.5)]])
    moment = np.diag([1.0, 65536.0 * (factor if field == "moment" else 0.5)])
    pooled = np.array([1.0, 2.0, 3.0, 1024.0 * (factor if field == "pooled" else 0.5)])
    encoded = encode(Contribution(DenseMatrix(gradient), 1.0, moment, pooled), LAYOUT)
    numbers = encoded.words.view(np.int64)
    assert encoded.share == pytest.approx(1.0 / factor, rel=1e-9)
    assert encoded.share < 1.0
    assert np.abs(numbers).max() == MOST
    assert numbers[9] == 1
    found = decode(encoded.words, LAYOUT)
    assert isinstance(found.gradient, DenseMatrix)
    assert found.gradient.values == pytest.approx(gradient / factor, rel=1e-9, abs=1e-12)
    assert found.pooled == pytest.approx(pooled / factor, rel=1e-9, abs=1e-12)


def test_a_group_has_the_range_of_its_agents() -> None:
    assert encode(contribution(scale=1500.0, weight=4.0), LAYOUT).share == 1.0
    assert encode(contribution(scale=1500.0, weight=1.0), LAYOUT).share < 1.0


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["gradient", "moment", "pooled"])
def test_what_is_not_finite_is_refused(number: float, field: str) -> None:
    values = {"gradient": np.ones((3, 2)), "moment": np.eye(2), "pooled": np.ones(4)}
    values[field].flat[-1] = number
    with pytest.raises(ValueError, match="not finite"):
        encode(Contribution(DenseMatrix(values["gradient"]), 1.0, values["moment"], values["pooled"]), LAYOUT)


@pytest.mark.parametrize("weight", [0.0, 0.5, -1.0, 129.0, 1e30, np.nan, np.inf])
def test_only_whole_numbers_of_agents_within_the_capacity_count(weight: float) -> None:
    with pytest.raises(ValueError, match="whole number from 1 to 128"):
        encode(contribution(weight=weight), LAYOUT)


def test_missing_fields_and_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="pooled numbers"):
        encode(contribution(pooled=False), LAYOUT)
    with pytest.raises(ValueError, match="second moment"):
        encode(Contribution(DenseMatrix(np.ones((3, 2))), 1.0, None, np.ones(4)), LAYOUT)
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        encode(Contribution(DenseMatrix(np.ones((2, 2))), 1.0, np.eye(2), np.ones(4)), LAYOUT)


def test_a_sum_is_right_only_with_its_number_of_agents() -> None:
    total = added([encode(contribution(weight=2.0), LAYOUT).words, encode(contribution(weight=3.0), LAYOUT).words])
    assert sum_problem(total, LAYOUT, 5) == ""
    assert "the check word of the sum is 5, and 4 agents sent" in sum_problem(total, LAYOUT, 4)
    assert "has 13 words; this round's has 14" in sum_problem(total[:-1], LAYOUT, 5)
    damaged = total.copy()
    damaged[9] += np.uint64(1 << 40)
    assert "masks do not cancel" in sum_problem(damaged, LAYOUT, 5)
