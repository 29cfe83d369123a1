"""What an agent sends: bounded in integers, with noise of the promised size and distribution."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, to_dense
from cospan.core.method import compact, practical
from cospan.core.privacy.clipping import Bounds
from cospan.core.privacy.mechanism import Mechanism
from cospan.core.privacy.word_source import SeededWords
from cospan.core.secure_sums.fixed_point import added, decode, sum_problem
from cospan.core.secure_sums.layout import Layout

D, R = 5, 2
POOLED = D * (D + 1) // 2 + 1
LAYOUT = Layout(
    feature_dim=D,
    rank=R,
    has_moment=False,
    pooled_length=POOLED,
    capacity_bits=10,
    gradient_bits=12,
    moment_bits=16,
    pooled_bits=9,
)
BOUNDS = Bounds(gradient=5.0, moment=1.0, pooled=50.0, influence=1.0)
MECHANISM = Mechanism(LAYOUT, practical(10), BOUNDS, multiplier=2.0, sharers=100)
NUMBERS = D * R + POOLED


def upload(rng: np.random.Generator, size: float = 1.0) -> Contribution:
    pooled = size * rng.standard_normal(POOLED)
    return Contribution(DenseMatrix(size * rng.standard_normal((D, R))), pooled=pooled)


def sizes_of(mechanism: Mechanism) -> np.ndarray:
    """The deviation of one share in each number, in the units of what is sent, by the definition."""
    bounds = [mechanism.bounds.gradient] * (D * R) + [mechanism.bounds.pooled] * (POOLED - 1)
    return np.array([*bounds, mechanism.bounds.influence]) * mechanism.multiplier / math.sqrt(mechanism.sharers)


def numbers_of(words: np.ndarray) -> np.ndarray:
    found = decode(words, LAYOUT)
    assert found.pooled is not None
    return np.concatenate([to_dense(found.gradient).ravel(), found.pooled])


@given(seed=st.integers(0, 2**32), size=st.floats(0.0, 1e6), sharers=st.integers(1, 1024), z=st.floats(0.3, 30.0))
def test_no_agent_exceeds_the_sensitivity(seed: int, size: float, sharers: int, z: float) -> None:
    """In the integers that are sent, rounding included: the norm over the noise of h shares is at most 1/z."""
    mechanism = replace(MECHANISM, multiplier=z, sharers=sharers)
    words = mechanism.clipped_words(upload(np.random.default_rng(seed), size))
    norm = np.linalg.norm(numbers_of(words) / sizes_of(mechanism)) / math.sqrt(sharers)
    assert norm <= (1.0 / z) * (1.0 + 1e-12)


def test_a_clipped_agent_uses_nearly_all_of_its_bound() -> None:
    words = MECHANISM.clipped_words(upload(np.random.default_rng(1), 1e4))
    norm = np.linalg.norm(numbers_of(words) / sizes_of(MECHANISM)) / 10.0
    assert norm == pytest.approx(0.5, rel=1e-4)


def test_what_is_within_the_bound_is_sent_to_many_digits() -> None:
    own = upload(np.random.default_rng(2), 0.1)
    found = numbers_of(MECHANISM.clipped_words(own))
    expected = np.concatenate([to_dense(own.gradient).ravel(), own.pooled])
    assert np.abs(found - expected).max() < 1e-4  # a unit is 2^−19 of the noise of a share
    assert np.abs(found - expected).max() > 0.0


def test_noise_has_the_promised_deviation_in_every_field() -> None:
    """The sum of h shares has z c_j: over 256 sums."""
    small = replace(MECHANISM, sharers=4)
    sums = np.array([numbers_of(small.noise(4, SeededWords(seed))) for seed in range(256)])
    scaled = sums / (2.0 * sizes_of(small))
    assert np.std(scaled) == pytest.approx(1.0, rel=0.03)
    assert np.abs(scaled.std(axis=0) - 1.0).max() < 5.0 / math.sqrt(2 * 256)  # five deviations of each estimate
    assert kstest(scaled.ravel(), "norm").pvalue > 0.01
    correlations = np.corrcoef(scaled.T) - np.eye(NUMBERS)
    assert np.abs(correlations).max() < 5.0 / math.sqrt(256)


def test_shares_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a large group takes no more memory: five shares, two at a time."""
    monkeypatch.setattr("cospan.core.privacy.mechanism._SAMPLES_AT_ONCE", 2 * NUMBERS)
    sums = np.array([numbers_of(MECHANISM.noise(5, SeededWords(seed))) for seed in range(64)])
    assert np.std(sums / sizes_of(MECHANISM)) == pytest.approx(math.sqrt(5.0), rel=0.06)


def test_an_agent_moves_the_sum_by_one_over_z_deviations() -> None:
    """All others and the noise being equal, by 0.5 with the whole clip: what the promise allows, and no less."""
    small, rng = replace(MECHANISM, sharers=4), np.random.default_rng(7)
    others, agent = [upload(rng) for _ in range(3)], upload(rng, 1e3)
    absent = replace(agent, gradient=DenseMatrix(np.zeros((D, R))), pooled=np.zeros(POOLED))
    present, without = (numbers_of(small.sent([*others, one], SeededWords(1))) for one in (agent, absent))
    moved = float(np.linalg.norm((present - without) / (2.0 * sizes_of(small))))
    assert 0.4999 < moved <= 0.5


def test_deviations_of_a_sum_are_told() -> None:
    assert MECHANISM.deviations_of_sum(100) == Bounds(10.0, 2.0, 100.0, 2.0)
    assert MECHANISM.deviations_of_sum(400).pooled == 200.0


def test_no_noise_in_the_check_word() -> None:
    rng = np.random.default_rng(3)
    total = added(MECHANISM.sent([upload(rng)], SeededWords(seed)) for seed in range(7))
    assert sum_problem(total, LAYOUT, 7) == ""
    assert sum_problem(total, LAYOUT, 6) != ""


def test_a_group_sends_what_its_agents_would() -> None:
    """Each agent is clipped by itself, and each adds its share."""
    rng = np.random.default_rng(4)
    agents = [upload(rng, 100.0) for _ in range(3)]
    together = MECHANISM.sent(agents, SeededWords(9))
    apart = added([*(MECHANISM.clipped_words(agent) for agent in agents), MECHANISM.noise(3, SeededWords(9))])
    assert np.array_equal(together, apart)
    spread = [
        numbers_of(MECHANISM.sent(agents, SeededWords(seed))) - numbers_of(together) for seed in range(100, 140)
    ]
    assert np.std(np.array(spread) / sizes_of(MECHANISM)) == pytest.approx(math.sqrt(6.0), rel=0.1)


def test_two_rounds_have_different_noise() -> None:
    source = SeededWords(1)
    assert not np.array_equal(MECHANISM.noise(1, source), MECHANISM.noise(1, source))


def test_a_run_with_second_moments_and_rounds_without_pooled_numbers() -> None:
    layout = replace(LAYOUT, has_moment=True, pooled_length=0)
    mechanism = replace(MECHANISM, layout=layout, method=compact(10))
    own = Contribution(DenseMatrix(np.ones((D, R))), head_second_moment=0.01 * np.eye(R))
    total = decode(mechanism.sent([own], SeededWords(2)), layout)
    assert total.head_second_moment is not None
    assert not np.array_equal(total.head_second_moment, own.head_second_moment)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"multiplier": 0.0}, "multiplier"),
        ({"multiplier": math.nan}, "multiplier"),
        ({"sharers": 0}, "share"),
        ({"sharers": 2000}, "at most 1024"),
        ({"bounds": replace(BOUNDS, pooled=1100.0)}, "exceeds the range"),
        ({"bounds": replace(BOUNDS, pooled=500.0), "sharers": 1, "multiplier": 60.0}, "exceeds the range"),
        ({"bounds": replace(BOUNDS, influence=1e-10)}, "too coarse"),
    ],
)
def test_numbers_with_which_nothing_is_sent(changes: dict[str, object], word: str) -> None:
    mechanism = replace(MECHANISM, **changes)
    assert word in mechanism.problem()
    with pytest.raises(ValueError, match=word):
        mechanism.sent([upload(np.random.default_rng(5))], SeededWords(0))


def test_these_numbers_are_sound() -> None:
    assert MECHANISM.problem() == ""


def test_no_digit_is_finer_than_the_noise() -> None:
    """Noise is in whole units of 2^k: a digit below would be sent as it is."""
    rng = np.random.default_rng(6)
    words = MECHANISM.sent([upload(rng) for _ in range(3)], SeededWords(6)).view(np.int64)
    numbers = np.delete(words, D * R)  # without the check word
    scales = np.array([LAYOUT.gradient_scale] * (D * R) + [LAYOUT.pooled_scale] * POOLED)
    units = 2 ** np.floor(np.log2(sizes_of(MECHANISM) * scales / 2**19)).astype(np.int64)
    assert units.min() > 2**10
    assert not (numbers % units).any()
    assert (numbers % (2 * units)).any()
