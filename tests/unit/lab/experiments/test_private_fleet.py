"""The fleets of the experiment on differential privacy."""

from dataclasses import replace

import numpy as np

from cospan.core.learning.learner import contribution_of, learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.linalg.matrices import to_dense
from cospan.experiments.experiment import load
from cospan.experiments.kinds import privacy
from cospan.experiments.methods.compared_methods import JointFleet
from cospan.experiments.private_fleet import ALONE, WITHOUT, PosteriorFleet, PrivacyTask, name_of
from cospan.wire.privacy_budget import epsilon_of

AGENTS, DIM, RANK = 20, 20, 3
TASK = PrivacyTask(
    seed=5,
    workload="synthetic",
    agents=AGENTS,
    rounds=3,
    steps_per_round=60,
    epsilons=(100.0, 1.0),
    delta=1e-5,
    bounds={"gradient": 10.0, "moment": 1.0, "pooled": 50.0, "influence": 1.0},
    setting="20",
)


def trajectories(rounds: int) -> list[Trajectory]:
    rng = np.random.default_rng(1)
    return [
        Trajectory(rng.standard_normal((AGENTS, 61, DIM)), rng.standard_normal((AGENTS, 60))) for _ in range(rounds)
    ]


def test_a_point_of_each_fleet_that_follows_from_the_seed() -> None:
    points = TASK.run().points
    assert [point.method for point in points] == [ALONE, WITHOUT, name_of(100.0), name_of(1.0)]
    assert {(point.rounds, point.steps, point.setting) for point in points} == {(3, 180, "20")}
    assert points == TASK.run().points
    other = replace(TASK, seed=6).run().points
    assert all(one.value_error != another.value_error for one, another in zip(points, other, strict=True))


def test_noise_is_that_of_the_budget() -> None:
    fleet = TASK.fleets(DIM, RANK)[name_of(1.0)]
    assert fleet.privacy is not None
    assert 0.99 < epsilon_of(fleet.privacy.multiplier, TASK.rounds, TASK.delta) <= 1.0


def test_without_privacy_it_is_the_joint_method() -> None:
    """Agent by agent, as other experiments run it: the same but for rounding."""
    fleet: PosteriorFleet = TASK.fleets(DIM, RANK)[WITHOUT]
    joint = JointFleet.initial(fleet.specification.method, fleet.basis, AGENTS)
    for stacked in trajectories(3):
        fleet = fleet.learning_from(stacked)
        joint = joint.learning_from(
            [Trajectory(*each) for each in zip(stacked.features, stacked.rewards, strict=True)]
        )
    np.testing.assert_allclose(fleet.basis, joint.basis, atol=1e-9)
    np.testing.assert_allclose(fleet.weights, joint.weights[0], atol=1e-9)


def test_uploads_are_what_the_sum_is_of() -> None:
    fleet = TASK.fleets(DIM, RANK)[WITHOUT]
    method, (stacked,) = fleet.specification.method, trajectories(1)
    state = LearnerState.initial(RANK, AGENTS)
    outcome = learn_round(state, fleet.basis, stacked, method, head_covariance=fleet.head_covariance, agents=AGENTS)
    uploads, total = fleet.uploads(outcome), contribution_of(outcome, method)
    assert [upload.weight for upload in uploads] == [1.0] * AGENTS
    np.testing.assert_allclose(
        sum(to_dense(each.gradient) for each in uploads), to_dense(total.gradient), rtol=1e-9
    )
    np.testing.assert_allclose(sum(each.pooled for each in uploads), total.pooled, rtol=1e-9)
    assert all(each.pooled is None for each in replace(fleet, round=8).uploads(outcome))


def test_with_next_to_no_noise_only_the_clip_and_the_fixed_point_are_left() -> None:
    """A bound that no agent reaches leaves what digits the fixed point has."""
    loose = replace(TASK, bounds={"gradient": 500.0, "moment": 1.0, "pooled": 120.0, "influence": 10.0})
    fleet = loose.fleets(DIM, RANK)[name_of(100.0)]
    assert fleet.privacy is not None
    quiet, (stacked,) = replace(fleet, privacy=replace(fleet.privacy, multiplier=1e-6)), trajectories(1)
    plain = loose.fleets(DIM, RANK)[WITHOUT].learning_from(stacked)
    assert np.abs(quiet.learning_from(stacked).basis - plain.basis).max() < 1e-3
    assert np.abs(fleet.learning_from(stacked).basis - plain.basis).max() > 1e-2


def test_one_run_for_each_size_and_seed() -> None:
    plan = load("privacy")[0]
    made = [(task.agents, task.seed) for task in privacy.tasks(plan)]
    assert made == [(agents, seed) for agents in plan.settings for seed in plan.seeds]
    assert {task.rounds for task in privacy.tasks(plan)} == {plan.rounds}


def test_many_rounds_of_noise_do_not_let_the_head_covariance_grow() -> None:
    """Noise that drowns everything: without the bound W is 1e24 after 60 rounds, and 1e60 after 150."""
    fleet = replace(TASK, rounds=60, steps_per_round=10, epsilons=(8.0,)).fleets(DIM, RANK)[name_of(8.0)]
    sizes = []
    for number in range(60):
        rng = np.random.default_rng(number)
        features, rewards = rng.standard_normal((AGENTS, 11, DIM)), rng.standard_normal((AGENTS, 10))
        fleet = fleet.learning_from(Trajectory(features, rewards))
        sizes.append(float(np.linalg.eigvalsh(fleet.head_covariance)[-1]))
    assert max(sizes) < 100.0
