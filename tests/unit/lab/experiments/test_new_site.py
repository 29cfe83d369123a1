"""New sites: what a fleet knows is their prior."""

import dataclasses

import numpy as np

from cospan.core.learning.learner_state import Trajectory
from cospan.core.linalg.subspace import principal_angle_sine, random_basis
from cospan.core.method import full_history, practical
from cospan.experiments.methods.catalogue import ComparedMethod
from cospan.experiments.methods.compared_methods import LSTD_RIDGES, JointFleet
from cospan.experiments.new_site import VARIANT, Newcomers, NewSiteTask, newcomers_of

D, R, L, AGENTS = 6, 2, 5, 3


METHODS = (
    ComparedMethod("joint", "joint"),
    ComparedMethod("full-history", "joint", "full-history"),
    ComparedMethod("LSTD alone", "lstd"),
)


def test_newcomers_begin_with_what_the_fleet_knows() -> None:
    task = NewSiteTask(
        seed=1,
        workload="synthetic",
        fleet=(0, 1, 2, 3),
        newcomers=(4, 5),
        rounds=20,
        horizons=(2, 5),
        methods=METHODS,
    )
    points = task.run().points
    assert {p.rounds for p in points} == {2, 5}
    assert {p.agent for p in points} == {4, 5}
    variants = [f"LSTD alone{VARIANT}{number}" for number, _ in enumerate(LSTD_RIDGES)]
    assert {p.method for p in points} == {"joint", "full-history", *variants}
    assert all(np.isfinite(p.value_error) for p in points)


def test_a_newcomers_prior_is_that_of_the_fleet_and_stays() -> None:
    rng = np.random.default_rng(0)
    walks = [Trajectory(rng.uniform(-0.4, 0.4, (L + 1, D)), rng.standard_normal(L)) for _ in range(AGENTS)]
    fleet = JointFleet.initial(practical(L), random_basis(D, R, rng), AGENTS).learning_from(walks)
    begun = newcomers_of(fleet, 2)
    after = begun.learning_from(walks[:2])
    assert isinstance(begun, JointFleet)
    assert isinstance(after, JointFleet)
    for each in (begun, after):
        np.testing.assert_array_equal(each.basis, fleet.basis)
        np.testing.assert_array_equal(each.head_covariance, fleet.head_covariance)
    assert len(after.states) == 2
    assert not np.array_equal(after.head_covariance, np.eye(R))


def test_the_fleets_heads_tell_where_to_look() -> None:
    """Few data: with the second moment of heads along the first axis only, that is where the head goes."""
    rng = np.random.default_rng(0)
    fleet = JointFleet.initial(full_history(L), np.eye(D)[:, :R], 1)
    state = dataclasses.replace(fleet.states[0], head=np.array([5.0, 0.0]))
    walk = Trajectory(rng.uniform(-0.4, 0.4, (L + 1, D)), rng.standard_normal(L))
    (state,) = (dataclasses.replace(state, rewards=state.rewards.updated(walk.rewards)),)
    fleet = dataclasses.replace(fleet, states=(state,))
    knowing, plain = (Newcomers.initial(fleet, 1, with_prior=flag).learning_from([walk]) for flag in (True, False))
    slopes = [abs(each.weights[0, 0, 1]) / abs(each.weights[0, 0, 0]) for each in (knowing, plain)]
    assert slopes[0] < slopes[1]
    assert knowing.numbers_sent == 0
    assert principal_angle_sine(knowing.basis, knowing.weights[0].T / np.linalg.norm(knowing.weights)) < 1e-9
