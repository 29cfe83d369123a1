"""What the heads tell of the rank."""

import numpy as np
import pytest

from cospan.dashboard.rank_spectrum import spectrum_of


@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [((1.0, 1.0, 1.0), "full"), ((1.0, 0.4, 0.1), "fits"), ((1.0, 0.5, 1e-5), "idle"), ((2.0,), "fits")],
)
def test_the_spectrum_says_what_the_heads_tell_of_the_rank(sizes: tuple[float, ...], verdict: str) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(len(sizes), len(sizes))))[0]
    spectrum = spectrum_of(turn @ np.diag(sizes) @ turn.T, agents=4)
    assert spectrum is not None
    assert spectrum.verdict == verdict
    assert spectrum.shares == pytest.approx(np.array(sizes) / sum(sizes))
    assert sum(spectrum.shares) == pytest.approx(1.0)


def test_heads_that_are_zero_have_no_spectrum() -> None:
    assert spectrum_of(np.zeros((3, 3)), agents=4) is None
