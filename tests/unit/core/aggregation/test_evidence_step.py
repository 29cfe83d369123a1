"""The step on the evidence."""

import numpy as np

from cospan.core.aggregation.evidence_step import rank_in_use


def test_the_rank_in_use_leaves_out_directions_that_are_switched_off() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(5, 5)))
    for eigenvalues, expected in (((9.0, 4.0, 0.5, 1e-3, 1e-5), 4), ((2.0, 2e-6, 2e-6, 2e-6, 2e-6), 1)):
        covariance = (turn * np.array(eigenvalues)) @ turn.T
        assert rank_in_use(covariance) == expected
        assert rank_in_use(1e9 * covariance) == expected, "whatever the unit"
    assert rank_in_use(np.eye(5)) == 5
