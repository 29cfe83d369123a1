"""The gradient of the evidence of many agents at once."""

from dataclasses import replace

import numpy as np
import pytest

from cospan.core.learning.posterior import PosteriorState
from cospan.core.uncertainty.evidence import evidence_gradient, influence, summed_evidence

DIM, AGENTS = 7, 6


def states(rank: int) -> PosteriorState:
    """Of agents that know very much, little, and nothing."""
    rng = np.random.default_rng(rank)
    roots = rng.standard_normal((AGENTS, DIM, DIM)) * np.array([100.0, 30.0, 1.0, 1e-2, 1.0, 0.0])[:, None, None]
    return replace(
        PosteriorState.initial(DIM, (AGENTS,)),
        curvature=roots @ roots.swapaxes(-1, -2),
        score=rng.standard_normal((AGENTS, DIM)) * np.array([100.0, 30.0, 1.0, 1e-2, 1.0, 0.0])[:, None],
        shared_weight=np.array([0.9, 0.05, 0.5, 0.1, 0.0, 0.0]),
    )


def covariances(rank: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rank)
    turn = np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    uneven = (turn * np.geomspace(1.0, 1e-6, rank)) @ turn.T
    return {"one": np.eye(rank), "uneven": (uneven + uneven.T) / 2.0, "none": np.zeros((rank, rank))}


@pytest.mark.parametrize("rank", [1, 3, 5])
@pytest.mark.parametrize("name", ["one", "uneven", "none"])
def test_the_sum_is_that_of_the_agents_gradients_and_influences(rank: int, name: str) -> None:
    """Also where the covariance is zero, and has no root."""
    state, covariance = states(rank), covariances(rank)[name]
    basis = np.linalg.qr(np.random.default_rng(9).standard_normal((DIM, rank)))[0]
    gradients, heads = evidence_gradient(state, basis, covariance)
    weighed = np.asarray(influence(state.shared_weight))[:, None, None] * gradients
    gradient, head = summed_evidence(state, basis, covariance)
    np.testing.assert_allclose(gradient, weighed.sum(axis=0), rtol=0, atol=1e-10 * np.abs(weighed).max())
    np.testing.assert_allclose(head, heads, rtol=0, atol=1e-10 * max(np.abs(heads).max(), 1e-300))
