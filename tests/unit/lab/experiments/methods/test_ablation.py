"""Ablations differ from the method in the part that is left out."""

import dataclasses

import numpy as np
import pytest

from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import Trajectory
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import paper
from cospan.experiments.methods.ablation import ABLATIONS, AblatedFleet
from cospan.experiments.methods.compared_methods import JointFleet

D, R, L, AGENTS = 6, 2, 5, 3


@pytest.mark.parametrize("left_out", ABLATIONS)
def test_an_ablation_differs_in_the_part_that_is_left_out(left_out: str) -> None:
    rng, method = np.random.default_rng(1), dataclasses.replace(paper(L), head_step=1.0, basis_step=5.0)
    basis = random_basis(D, R, rng)
    whole, ablated = (
        JointFleet.initial(method, basis, AGENTS),
        AblatedFleet.initial(left_out, method, basis, AGENTS),
    )
    for _ in range(8):
        walks = [
            Trajectory(rng.uniform(-0.4, 0.4, (L + 1, D)), 1.0 + rng.standard_normal(L)) for _ in range(AGENTS)
        ]
        before, moved = ablated.joint, ablated.learning_from(walks)
        if left_out == "rotated-heads":
            for state, after in zip(before.states, moved.joint.states, strict=True):
                stepped = learn_round(state, before.basis, walks[before.states.index(state)], method).state.head
                unmoved = before.basis @ stepped
                turned = moved.joint.basis @ after.head
                # B̄ w' = (B + ζ …) w: what lay in the old subspace is still there.
                np.testing.assert_allclose(before.basis.T @ turned, before.basis.T @ unmoved, atol=1e-9)
                break
        whole, ablated = whole.learning_from(walks), moved
    same = np.allclose(ablated.joint.basis, whole.basis, atol=1e-12)
    assert not same or left_out == "no-sign-fix"
    gram = ablated.joint.basis.T @ ablated.joint.basis
    assert np.allclose(gram, np.eye(R), atol=1e-12) == (left_out != "no-qr")
    assert ablated.basis is not None


def test_an_ablation_that_diverges_stays_where_it_is() -> None:
    broken = dataclasses.replace(JointFleet.initial(paper(L), np.full((D, R), np.inf), AGENTS))
    fleet = AblatedFleet(broken, "no-qr")
    assert fleet.learning_from([]) is fleet
    assert fleet.basis is None
