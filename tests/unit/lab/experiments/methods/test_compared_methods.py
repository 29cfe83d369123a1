"""Fleets in one place: each method is what it says, agent by agent."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from values import read_only

from cospan.core.aggregation.basis_update import Contribution, initial_head_covariance, mean_gradient, next_basis
from cospan.core.learning.baselines import INDEPENDENT_STEPS, IndependentTD
from cospan.core.learning.learner import contribution_of, learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.learning.schedules import Refresh
from cospan.core.linalg.subspace import principal_angle_sine, random_basis
from cospan.core.method import HeadUpdate, Method, compact, full_history, paper, practical
from cospan.experiments.methods.compared_methods import (
    LSTD_RIDGES,
    IndependentFleet,
    JointFleet,
    LstdFleet,
    TwoTimescaleFleet,
)

D, R, L, AGENTS, ROUNDS = 6, 2, 4, 3, 5
BASIS = read_only(random_basis(D, R, np.random.default_rng(2)))
EVERY_STEP = dataclasses.replace(
    full_history(L), head_update=HeadUpdate.EVERY_STEP, preconditioned=False, row_scaled=False, forgetting=0.0
)


def rounds(agents: int = AGENTS) -> list[list[Trajectory]]:
    """The trajectories of each round, agent by agent: chains that go on from round to round."""
    rng = np.random.default_rng(7)
    features = rng.uniform(-1.0, 1.0, (agents, ROUNDS * L + 1, D)) / (2.0 * math.sqrt(D))
    rewards = 1.0 + rng.standard_normal((agents, ROUNDS * L))
    return [
        [
            Trajectory(
                read_only(features[agent, t * L : (t + 1) * L + 1]), read_only(rewards[agent, t * L : (t + 1) * L])
            )
            for agent in range(agents)
        ]
        for t in range(ROUNDS)
    ]


METHODS = [paper(L), full_history(L), compact(L), EVERY_STEP]


@pytest.mark.parametrize(("method", "warm_up"), [*itertools.product(METHODS, (0, 2, 3)), (practical(L), 0)])
def test_the_joint_fleet_is_its_agents_and_the_coordinator(method: Method, warm_up: int) -> None:
    method = dataclasses.replace(method, warm_up_rounds=warm_up)
    fleet = JointFleet.initial(method, BASIS, AGENTS)
    states, basis, memory = [LearnerState.initial(R)] * AGENTS, BASIS, None
    covariance = initial_head_covariance(method, R)
    for t, trajectories in enumerate(rounds()):
        fleet = fleet.learning_from(trajectories)
        outcomes = [
            learn_round(states[k], basis, trajectories[k], method, t, head_covariance=covariance, agents=AGENTS)
            for k in range(AGENTS)
        ]
        states = [outcome.state for outcome in outcomes]
        contributions = [contribution_of(outcome, method, t) for outcome in outcomes]
        move = next_basis(basis, contributions, method, t, memory, head_covariance=covariance)
        basis, memory, covariance = move.basis, move.step_memory, move.head_covariance
    np.testing.assert_array_equal(fleet.basis, basis)
    assert fleet.weights.shape == (1, AGENTS, D)
    assert fleet.averaged.count == ROUNDS - warm_up


@pytest.mark.parametrize("method", [*METHODS, dataclasses.replace(full_history(L), basis_step=0.0)])
def test_a_warm_up_moves_the_basis_once_and_leaves_no_zeros_in_the_average(method: Method) -> None:
    fleet = JointFleet.initial(dataclasses.replace(method, warm_up_rounds=3), BASIS, AGENTS)
    bases = []
    for trajectories in rounds():
        fleet = fleet.learning_from(trajectories)
        bases.append(fleet.basis)
        if len(bases) <= 3:
            assert not fleet.weights.any()
            assert fleet.numbers_sent < 2 * D * R + D + R + R * R
    np.testing.assert_array_equal(bases[1], BASIS)
    assert principal_angle_sine(BASIS, bases[2]) > 0.01
    assert fleet.averaged.count == 2
    assert fleet.weights.any()


def test_what_is_sent_is_counted() -> None:
    """Rank one: d + r up; with the second moment r² more, with row sums d; dense: d · r. And d · r down.

    With a curvature d(d + 1)/2 more up, and its weight, and with a head covariance r² more down.
    """
    (first, *_) = rounds()
    sent = {
        name: JointFleet.initial(method, BASIS, AGENTS).learning_from(first).numbers_sent
        for name, method in (
            ("paper", paper(L)),
            ("full history", full_history(L)),
            ("practical", practical(L)),
            ("compact", compact(L)),
            ("every step", EVERY_STEP),
        )
    }
    compactly = D + R + R * R + D * R
    assert sent == {
        "paper": D + R + D * R,
        "full history": compactly + D,
        "practical": D * R + D * (D + 1) // 2 + 1 + D * R + R * R,
        "compact": compactly,
        "every step": 2 * D * R,
    }
    assert IndependentFleet.initial(paper(L), D, AGENTS).numbers_sent == 0
    assert IndependentFleet.initial(paper(L), D, AGENTS, rank=0).numbers_sent == 2 * (D + 1)
    assert IndependentFleet.initial(paper(L), D, AGENTS, rank=2).numbers_sent == 2 * D
    assert LstdFleet.initial(D, AGENTS).numbers_sent == 0


def test_posterior_weights_are_those_of_a_run_that_ends_there() -> None:
    """Also between the rounds in which posteriors are refreshed."""
    method, walks = practical(L), [each for _ in range(4) for each in rounds()]
    fleet, ends = JointFleet.initial(method, BASIS, AGENTS), []
    for t, trajectories in enumerate(walks):
        before, fleet = fleet, fleet.learning_from(trajectories)
        ended = [
            learn_round(
                state,
                before.basis,
                walk,
                method,
                t,
                head_covariance=before.head_covariance,
                agents=AGENTS,
                refresh=Refresh.NOW,
            ).weights
            for state, walk in zip(before.states, trajectories, strict=True)
        ]
        np.testing.assert_array_equal(fleet.weights[0], ended)
        ends.append(np.array_equal(fleet.weights[0], fleet.averaged.mean))
    assert set(ends) == {True, False}


def test_a_known_basis_stays_and_costs_nothing() -> None:
    fleet = JointFleet.initial(dataclasses.replace(practical(L), basis_step=0.0), BASIS, AGENTS)
    for trajectories in rounds():
        fleet = fleet.learning_from(trajectories)
    assert fleet.basis is BASIS
    assert fleet.numbers_sent == 0
    assert np.linalg.norm(fleet.weights) > 0.0


def test_agents_alone_are_td_alone() -> None:
    fleet, alone = IndependentFleet.initial(EVERY_STEP, D, AGENTS), [IndependentTD.initial(D)] * AGENTS
    for trajectories in rounds():
        fleet = fleet.learning_from(trajectories)
        alone = [alone[k].learning_from(trajectories[k], EVERY_STEP) for k in range(AGENTS)]
    assert fleet.weights.shape == (len(INDEPENDENT_STEPS), AGENTS, D)
    for k in range(AGENTS):
        np.testing.assert_allclose(fleet.weights[:, k], alone[k].averaged.mean, rtol=1e-13)
    assert fleet.basis is None


def test_uniform_agents_are_all_the_same_and_of_one_agent_it_is_td_alone() -> None:
    fleet = IndependentFleet.initial(EVERY_STEP, D, AGENTS, rank=0)
    for trajectories in rounds():
        fleet = fleet.learning_from(trajectories)
    for k in range(1, AGENTS):
        np.testing.assert_array_equal(fleet.weights[:, k], fleet.weights[:, 0])
        assert fleet.agents[k].gain_estimate == fleet.agents[0].gain_estimate
    one, alone = (IndependentFleet.initial(EVERY_STEP, D, 1, rank=rank) for rank in (0, None))
    for trajectories in rounds(1):
        one, alone = one.learning_from(trajectories), alone.learning_from(trajectories)
    np.testing.assert_allclose(one.weights, alone.weights, rtol=1e-13)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_projection_at_the_server_leaves_rank_r(rank: int) -> None:
    fleet, free = (IndependentFleet.initial(EVERY_STEP, D, AGENTS, rank=which) for which in (rank, None))
    for trajectories in rounds()[:1]:
        fleet, free = fleet.learning_from(trajectories), free.learning_from(trajectories)
    for step, weights in enumerate(np.stack([agent.weights for agent in fleet.agents], axis=1)):
        whole = np.stack([agent.weights[step] for agent in free.agents])
        left, singular, right = np.linalg.svd(whole, full_matrices=False)
        np.testing.assert_allclose(weights, (left[:, :rank] * singular[:rank]) @ right[:rank], atol=1e-14)
        assert np.linalg.matrix_rank(weights) == rank
    gains = {agent.gain_estimate for agent in fleet.agents}
    assert len(gains) == AGENTS, "gains stay each agent's own"


@pytest.mark.parametrize("trace_decay", [0.0, 0.6])
def test_lstd_solves_each_agents_own_system(trace_decay: float) -> None:
    fleet = LstdFleet.initial(D, AGENTS, trace_decay=trace_decay)
    for trajectories in rounds():
        fleet = fleet.learning_from(trajectories)
    for k in range(AGENTS):
        system, right, squares, steps = np.zeros((D, D)), np.zeros(D), 0.0, 0
        rewards = np.concatenate([trajectories[k].rewards for trajectories in rounds()])
        for trajectories in rounds():
            trace, walk = np.zeros(D), trajectories[k]
            for h in range(L):
                trace = trace_decay * trace + walk.features[h]
                system += np.outer(trace, walk.features[h] - walk.features[h + 1])
                right += trace * (walk.rewards[h] - rewards.mean())
                squares, steps = squares + walk.features[h] @ walk.features[h], steps + 1
        for variant, ridge in enumerate(LSTD_RIDGES):
            expected = np.linalg.solve(system + ridge * squares / steps / D * np.eye(D), right)
            np.testing.assert_allclose(fleet.weights[variant, k], expected, rtol=1e-10)


def test_two_time_scales_move_the_basis_a_tenth_as_far_and_never_orthonormalise_it() -> None:
    fleet = TwoTimescaleFleet.initial(paper(L), BASIS, AGENTS)
    basis, states = np.array(BASIS), [LearnerState.initial(R)] * AGENTS
    for trajectories in rounds():
        fleet = fleet.learning_from(trajectories)
        outcomes = [learn_round(states[k], basis, trajectories[k], paper(L)) for k in range(AGENTS)]
        states = [outcome.state for outcome in outcomes]
        basis = basis + 0.03 * mean_gradient([Contribution(outcome.gradient) for outcome in outcomes])
    np.testing.assert_allclose(fleet.joint.basis, basis, rtol=1e-13)
    assert np.abs(basis.T @ basis - np.eye(R)).max() > 1e-6
    np.testing.assert_allclose(fleet.basis.T @ fleet.basis, np.eye(R), atol=1e-14)
    assert fleet.weights.shape == (1, AGENTS, D)
    assert fleet.numbers_sent == D + R + D * R


def test_two_time_scales_refuse_what_needs_an_orthonormal_basis() -> None:
    for refused in (practical(L), full_history(L), dataclasses.replace(paper(L), warm_up_rounds=2)):
        with pytest.raises(ValueError, match="need stepped heads"):
            TwoTimescaleFleet.initial(refused, BASIS, AGENTS)


def test_more_than_ten_agents_are_summed_in_the_order_of_their_names() -> None:
    """site-10 comes before site-2: the coordinator's order, which its bits depend on."""
    rng, method, agents = np.random.default_rng(3), paper(L), 12
    basis = random_basis(D, R, rng)
    fleet, states, expected = JointFleet.initial(method, basis, agents), [LearnerState.initial(R)] * agents, basis
    for t in range(6):
        walks = [
            Trajectory(rng.uniform(-0.3, 0.3, (L + 1, D)), 1.0 + rng.standard_normal(L)) for _ in range(agents)
        ]
        fleet = fleet.learning_from(walks)
        outcomes = {f"site-{k}": learn_round(states[k], expected, walks[k], method, t) for k in range(agents)}
        states = [outcomes[f"site-{k}"].state for k in range(agents)]
        sent = [contribution_of(outcomes[name], method, t) for name in sorted(outcomes)]
        expected = next_basis(expected, sent, method, t).basis
    np.testing.assert_array_equal(fleet.basis, expected)
