"""Ablations of `practical` differ from it in the part that is left out, and leave the core as it is."""

import numpy as np
import pytest

from cospan.core.aggregation.evidence_step import evidence_step
from cospan.core.learning.learner_state import Trajectory
from cospan.core.linalg.subspace import random_basis, tangent_projection
from cospan.core.method import paper, practical
from cospan.experiments.methods.compared_methods import JointFleet
from cospan.experiments.methods.posterior_ablation import POSTERIOR_ABLATIONS, PosteriorAblation

D, R, L, AGENTS, ROUNDS = 6, 2, 20, 4, 6


def rounds_of_walks() -> list[list[Trajectory]]:
    """Of agents whose rewards are linear in the features, with noise that differs between states."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(ROUNDS):
        walks = []
        for agent in range(AGENTS):
            features = rng.uniform(-1.0, 1.0, (L + 1, D))
            noise = (0.2 + np.abs(features[:-1, 0])) * rng.standard_normal(L)
            walks.append(Trajectory(features, features[:-1, agent % 2] + noise))
        found.append(walks)
    return found


@pytest.mark.parametrize("left_out", POSTERIOR_ABLATIONS)
def test_an_ablation_differs_and_the_whole_method_stays_as_it_was(left_out: str) -> None:
    basis, method = random_basis(D, R, np.random.default_rng(2)), practical(L)
    alone = JointFleet.initial(method, basis, AGENTS)
    beside, ablated = alone, PosteriorAblation.initial(left_out, method, basis, AGENTS)
    for walks in rounds_of_walks():
        alone = alone.learning_from(walks)
    for walks in rounds_of_walks():
        ablated = ablated.learning_from(walks)
        beside = beside.learning_from(walks)
    assert np.isfinite(ablated.weights).all()
    assert not np.allclose(ablated.weights, alone.weights, rtol=1e-9, atol=0.0)
    assert beside.weights.tobytes() == alone.weights.tobytes()
    assert ablated.basis is not None
    np.testing.assert_allclose(ablated.basis.T @ ablated.basis, np.eye(R), atol=1e-12)


def test_steps_without_curvature_move_the_head_covariance_as_the_whole_method_does() -> None:
    rng = np.random.default_rng(3)
    basis, gradient, root = random_basis(D, R, rng), rng.standard_normal((D, R)), rng.standard_normal((D, D))
    curvature = root @ root.T + np.eye(D)
    _, _, first_order = POSTERIOR_ABLATIONS["no-curvature"]
    assert callable(first_order)
    covariances, steps = [], []
    for step_of in (evidence_step, first_order):
        following, covariance, step = step_of(
            basis, np.eye(R), gradient, curvature, 50.0, share=0.5, largest_turn=90.0
        )
        turned = following.T @ (basis + step)  # W turns with the basis
        covariances.append(np.linalg.solve(turned, np.linalg.solve(turned, covariance).T))
        steps.append(step)
    np.testing.assert_allclose(covariances[1], covariances[0], rtol=1e-9)
    projected = tangent_projection(basis, gradient)
    within = np.linalg.lstsq(projected, steps[1], rcond=None)[0]
    np.testing.assert_allclose(projected @ within, steps[1], atol=1e-12)  # no direction beside the gradient's
    assert not np.allclose(steps[0], steps[1])


def test_without_an_own_part_the_whole_answer_is_the_fleets() -> None:
    basis, method = random_basis(D, R, np.random.default_rng(2)), practical(L)
    fleet = PosteriorAblation.initial("no-own-part", method, basis, AGENTS)
    for walks in rounds_of_walks():
        fleet = fleet.learning_from(walks)
    assert [state.posterior.shared_weight for state in fleet.joint.states if state.posterior] == [1.0] * AGENTS


def test_a_method_without_posteriors_is_refused() -> None:
    with pytest.raises(ValueError, match="no-shrinkage leaves out a part of posterior head updates"):
        PosteriorAblation.initial("no-shrinkage", paper(L), np.eye(D)[:, :R], AGENTS)
