"""What the head covariance, or the heads' second moments, tell of the rank."""

import numpy as np
import pytest
from jaxtyping import Float

from cospan.core.aggregation.evidence_step import rank_in_use
from cospan.dashboard.rank_spectrum import spectrum_of_covariance, spectrum_of_moments


def turned(sizes: tuple[float, ...]) -> Float[np.ndarray, "r r"]:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(len(sizes), len(sizes))))[0]
    return turn @ np.diag(sizes) @ turn.T


@pytest.mark.parametrize(
    ("sizes", "verdict", "in_use"),
    [
        ((1.0, 1.0, 1.0), "full", 3),
        ((1.0, 0.4, 0.1), "fits", 3),
        ((1.0, 0.5, 1e-5), "idle", 2),
        ((2.0,), "fits", 1),
    ],
)
def test_second_moments_say_what_the_heads_tell_of_the_rank(
    sizes: tuple[float, ...], verdict: str, in_use: int
) -> None:
    spectrum = spectrum_of_moments(turned(sizes))
    assert spectrum is not None
    assert (spectrum.verdict, spectrum.in_use, spectrum.source) == (verdict, in_use, "moments")
    assert spectrum.shares == pytest.approx(np.array(sizes) / sum(sizes))
    assert sum(spectrum.shares) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("sizes", "verdict", "in_use", "said"),
    [
        ((4.0, 1.0, 0.01), "full", 3, "all 3"),
        ((4.0, 1.0, 1e-4), "idle", 2, "2 of 3"),
        ((1.0, 1e-9, 1e-9), "idle", 1, "--rank 1"),
        ((0.3,), "full", 1, "all 1"),
        ((1.0, 1.0, 1.0), "unlearnt", 3, "Nothing is learnt yet"),
    ],
)
def test_the_head_covariance_counts_the_rank_as_the_result_does(
    sizes: tuple[float, ...], verdict: str, in_use: int, said: str
) -> None:
    covariance = turned(sizes)
    spectrum = spectrum_of_covariance(covariance)
    assert spectrum is not None
    assert (spectrum.verdict, spectrum.in_use, spectrum.source) == (verdict, in_use, "covariance")
    assert spectrum.in_use == rank_in_use(covariance)
    assert said in spectrum.sentence
    assert spectrum.shares == pytest.approx(np.array(sizes) / sum(sizes))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_what_is_zero_or_not_finite_has_no_spectrum(value: float) -> None:
    assert spectrum_of_moments(np.full((3, 3), value)) is None
    assert spectrum_of_covariance(np.full((3, 3), value)) is None
