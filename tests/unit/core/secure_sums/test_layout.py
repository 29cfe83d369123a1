"""Which words a round has, and that no sum of them overflows."""

import numpy as np
import pytest

from cospan.core.method import HeadUpdate, Method, compact, full_history, paper, practical
from cospan.core.run_fields import MAX_AGENTS
from cospan.core.secure_sums.layout import Layout, capacity_bits_of, layout_of
from cospan.core.specification import RunSpecification


def specified(method: Method, *, agents: int = 100, rounds: int = 300) -> RunSpecification:
    return RunSpecification(
        workload="",
        feature_dim=20,
        rank=3,
        agents=agents,
        rounds=rounds,
        seed=1,
        method=method,
    )


def test_rounds_have_the_fields_of_the_method() -> None:
    """Of 20 × 3: 60 entries of G, 6 of the second moment, 210 of the curvature and one influence."""
    assert [layout_of(specified(practical(10)), t).words for t in (0, 7, 8, 9)] == [272, 272, 61, 272]
    assert [layout_of(specified(full_history(10)), t).words for t in (5, 6, 7)] == [87, 67, 87]
    assert layout_of(specified(compact(10)), 0).words == 67
    assert layout_of(specified(paper(10)), 0).words == 61


def test_the_part_before_the_pooled_numbers_is_the_same_in_every_round() -> None:
    spec = specified(full_history(10))
    layouts = [layout_of(spec, t) for t in range(30)]
    assert {layout.words - layout.pooled_length for layout in layouts} == {67}
    assert {layout.pooled_length for layout in layouts} == {0, 20}


@pytest.mark.parametrize(
    ("agents", "bits"), [(1, 6), (64, 6), (65, 7), (100, 7), (128, 7), (129, 8), (10_000, 14), (MAX_AGENTS, 20)]
)
def test_there_is_room_for_the_agents_of_the_run_and_for_64(agents: int, bits: int) -> None:
    assert capacity_bits_of(agents) == bits
    assert layout_of(specified(practical(10), agents=agents), 0).capacity == 2**bits >= agents


@pytest.mark.parametrize("method", [practical(10), full_history(10), compact(24), paper(10)])
@pytest.mark.parametrize("agents", [3, 100, 10_000, MAX_AGENTS])
@pytest.mark.parametrize("rounds", [0, 1, 300, 10**9])
def test_no_sum_overflows(method: Method, agents: int, rounds: int) -> None:
    """2^c agents, each at the end of its range, come to 2^62 and not to 2^63."""
    layout = layout_of(specified(method, agents=agents, rounds=rounds), 0)
    for scale, bits in _fields(layout):
        assert scale == 2.0 ** (62 - layout.capacity_bits - bits)
        assert layout.capacity * int(scale * 2.0**bits) == 2**62
        assert scale * 2.0**bits <= 2.0**53 or float(int(scale * 2.0**bits)) == scale * 2.0**bits


def test_the_mean_of_100_agents_is_exact_to_1e_12() -> None:
    """An agent's number is off by half a unit at most; so is their mean."""
    for method in (practical(10), full_history(10), compact(10), paper(10)):
        layout = layout_of(specified(method), 0)
        assert 0.5 / layout.gradient_scale < 1e-12
        assert 0.5 / layout.moment_scale < 1e-9
        assert 0.5 / layout.pooled_scale < 1e-11


def test_ranges_are_those_of_what_is_sent() -> None:
    """The largest numbers of one agent that were measured on the built-in workloads, with room above them."""
    measured = {
        practical: (105.0, 0.0, 330.0),
        full_history: (1.5, 7100.0, 0.85),
        compact: (3250.0, 5300.0, 0.0),
        paper: (12.0, 0.0, 0.0),
    }
    for preset, largest in measured.items():
        layout = layout_of(specified(preset(24)), 0)
        for (_, bits), most in zip(_fields(layout), largest, strict=True):
            assert 2.0**bits > 8.0 * most


def test_agents_without_units_of_their_own_have_wider_ranges() -> None:
    narrow, wide = (
        layout_of(specified(Method(10, HeadUpdate.LEAST_SQUARES, 1.0, 0.1, 10.0, 0.1, reward_scaled=scaled)), 0)
        for scaled in (True, False)
    )
    assert [after - before for (_, before), (_, after) in zip(_fields(narrow), _fields(wide), strict=True)] == [
        8
    ] * 3


def _fields(layout: Layout) -> list[tuple[float, int]]:
    return [
        (layout.gradient_scale, layout.gradient_bits),
        (layout.moment_scale, layout.moment_bits),
        (layout.pooled_scale, layout.pooled_bits),
    ]


def test_scales_are_exact_powers_of_two() -> None:
    layout = layout_of(specified(practical(10)), 0)
    assert all(np.frexp(scale)[0] == 0.5 for scale, _ in _fields(layout))
