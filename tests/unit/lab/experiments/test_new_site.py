"""New sites: heads learned with the basis of a fleet."""

import dataclasses

import numpy as np

from cospan.core.learning.learner import Trajectory
from cospan.core.linalg.subspace import principal_angle_sine
from cospan.core.method import practical
from cospan.experiments.methods.catalogue import default_methods
from cospan.experiments.methods.compared_methods import JointFleet
from cospan.experiments.new_site import Newcomers, NewSiteTask

D, R, L, AGENTS = 6, 2, 5, 3


def test_newcomers_begin_with_the_fleets_basis_and_learn_heads() -> None:
    (joint, *_) = default_methods()
    task = NewSiteTask(
        seed=1, workload="synthetic", fleet=(0, 1, 2, 3), newcomers=(4, 5), rounds=20, horizons=(2, 5), joint=joint
    )
    points = task.run().points
    assert {p.rounds for p in points} == {2, 5}
    assert {p.agent for p in points} == {4, 5}
    assert {p.setting for p in points} == {"new site"}
    assert all(np.isfinite(p.value_error) for p in points)


def test_the_fleets_heads_tell_where_to_look() -> None:
    """Few data: with the second moment of heads along the first axis only, that is where the head goes."""
    rng = np.random.default_rng(0)
    fleet = JointFleet.initial(practical(L), np.eye(D)[:, :R], 1)
    state = dataclasses.replace(fleet.states[0], head=np.array([5.0, 0.0]))
    walk = Trajectory(rng.uniform(-0.4, 0.4, (L + 1, D)), rng.standard_normal(L))
    (state,) = (dataclasses.replace(state, rewards=state.rewards.updated(walk.rewards)),)
    fleet = dataclasses.replace(fleet, states=(state,))
    knowing, plain = (Newcomers.initial(fleet, 1, with_prior=flag).learning_from([walk]) for flag in (True, False))
    slopes = [abs(each.weights[0, 0, 1]) / abs(each.weights[0, 0, 0]) for each in (knowing, plain)]
    assert slopes[0] < slopes[1]
    assert knowing.numbers_sent == 0
    assert principal_angle_sine(knowing.basis, knowing.weights[0].T / np.linalg.norm(knowing.weights)) < 1e-9
