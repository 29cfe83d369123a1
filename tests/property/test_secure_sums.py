"""Fixed point over all layouts and numbers: sums are exact, ranges hold, and nothing wraps unseen."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, to_dense
from cospan.core.secure_sums.fixed_point import added, decode, encode, sum_problem
from cospan.core.secure_sums.layout import Layout

layouts = st.builds(
    Layout,
    feature_dim=st.integers(1, 4),
    rank=st.integers(1, 3),
    has_moment=st.booleans(),
    pooled_length=st.integers(0, 3),
    capacity_bits=st.integers(6, 20),
    gradient_bits=st.integers(8, 52),
    moment_bits=st.integers(16, 24),
    pooled_bits=st.integers(6, 24),
)


@st.composite
def contributions(draw: st.DrawFn, layout: Layout, most: float) -> Contribution:
    """What fits the layout, with entries of any size up to a multiple of the ranges."""

    def numbers(bits: int, *shape: int) -> np.ndarray:
        limit = min(most * 2.0**bits, 1e300)
        return draw(hnp.arrays(np.float64, shape, elements=st.floats(-limit, limit)))

    moment = numbers(layout.moment_bits, layout.rank, layout.rank) if layout.has_moment else None
    return Contribution(
        DenseMatrix(numbers(layout.gradient_bits, layout.feature_dim, layout.rank)),
        float(draw(st.integers(1, 8))),
        None if moment is None else np.triu(moment) + np.triu(moment, 1).T,
        numbers(layout.pooled_bits, layout.pooled_length) if layout.pooled_length else None,
    )


def flat(contribution: Contribution) -> list[float]:
    """All numbers of a contribution."""
    parts = [to_dense(contribution.gradient), contribution.head_second_moment, contribution.pooled]
    return [float(number) for part in parts if part is not None for number in part.ravel()]


@given(st.data(), layouts)
def test_a_sum_is_that_of_the_rounded_numbers(data: st.DataObject, layout: Layout) -> None:
    """Within half a unit for each contribution, whatever the order and the grouping."""
    sent = [data.draw(contributions(layout, 1.0)) for _ in range(data.draw(st.integers(1, 4)))]
    encoded = [encode(each, layout) for each in sent]
    assert all(each.share == 1.0 for each in encoded)
    total = added(each.words for each in encoded)
    assert np.array_equal(total, added(each.words for each in encoded[::-1]))
    assert sum_problem(total, layout, sum(int(each.weight) for each in sent)) == ""
    found = decode(total, layout)
    assert found.weight == sum(each.weight for each in sent)
    most = min(layout.scale_of(bits) for bits in (layout.gradient_bits, layout.moment_bits, layout.pooled_bits))
    for column in zip(flat(found), *map(flat, sent), strict=True):
        exact = sum(map(Fraction, column[1:]), Fraction(0))
        # Half a unit for each; and the sum is read as float64, whose half unit is relative.
        assert abs(Fraction(column[0]) - exact) <= len(sent) * Fraction(0.5 / most) + abs(exact) / 2**52


@given(st.data(), layouts)
def test_no_word_exceeds_the_range_of_its_agents(data: st.DataObject, layout: Layout) -> None:
    """So sums over up to the capacity stay below 2^63; what is too large is scaled, all of it by one factor."""
    sent = data.draw(contributions(layout, 1e40))
    encoded = encode(sent, layout)
    words = [int(word) for word in encoded.words.view(np.int64)]
    assert max(map(abs, words)) <= int(sent.weight) << (62 - layout.capacity_bits)
    assert 0.0 < encoded.share <= 1.0
    counted = layout.gradient_words + layout.moment_words
    assert words[counted] == sent.weight
    scaled = Contribution(
        DenseMatrix(to_dense(sent.gradient) * encoded.share),
        sent.weight,
        None if sent.head_second_moment is None else sent.head_second_moment * encoded.share,
        None if sent.pooled is None else sent.pooled * encoded.share,
    )
    again = encode(scaled, layout)
    assert again.share >= 1.0 - 1e-15
    differences = np.abs(again.words.view(np.int64) - encoded.words.view(np.int64))
    assert differences.max() <= 8 << max(0, 62 - layout.capacity_bits - 50)


@given(layouts, st.integers(0, 63), st.integers(1, 7))
def test_a_wrong_check_word_is_seen(layout: Layout, bit: int, agents: int) -> None:
    words = np.zeros(layout.words, np.uint64)
    counted = layout.gradient_words + layout.moment_words
    words[counted] = agents
    assert sum_problem(words, layout, agents) == ""
    words[counted] ^= np.uint64(1 << bit)
    assert sum_problem(words, layout, agents)
    assert sum_problem(words, replace(layout, pooled_length=layout.pooled_length + 1), agents)


@given(st.data(), layouts, st.sampled_from([math.nan, math.inf, -math.inf]))
def test_what_is_not_finite_is_never_sent(data: st.DataObject, layout: Layout, number: float) -> None:
    sent = data.draw(contributions(layout, 1.0))
    values = to_dense(sent.gradient).copy()
    values.flat[data.draw(st.integers(0, values.size - 1))] = number
    with pytest.raises(ValueError, match="not finite"):
        encode(replace(sent, gradient=DenseMatrix(values)), layout)
