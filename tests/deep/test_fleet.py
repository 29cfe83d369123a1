"""Actor-critics that share a trunk, or everything, over a real coordinator."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from cospan.experiments.control.fleet import ControlAgent, FleetPlan, Shares, run_fleet, specification_of
from cospan.wire.errors import InvalidValueError

PLAN = FleetPlan(
    task="CartPole",
    physics=((0.5, 9.8, 0.0), (1.0, 15.0, 1.0)),
    shares=Shares.TRUNK,
    constants={"trunk_step": 1e-3, "head_step": 3e-3},
    final_step=0.1,
    rounds=4,
    steps_per_round=50,
    judgements=2,
    episodes=2,
    seed=7,
)


def weights_of(agent: ControlAgent) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(agent.weights)]


def averaged(plan: FleetPlan) -> list[ControlAgent]:
    """The method as the papers have it: the agents' weights are averaged after each round, without a network."""
    agents = [ControlAgent(plan, index) for index in range(len(plan.physics))]
    for number in range(plan.rounds):
        for agent in agents:
            agent.judge_after(number)
            agent.learn()
        mean = np.mean([agent.parameters for agent in agents], axis=0)
        for agent in agents:
            agent.take(mean)
    for agent in agents:
        agent.judge_after(plan.rounds)
    return agents


@pytest.mark.parametrize("shares", [Shares.TRUNK, Shares.EVERYTHING])
def test_over_grpc_the_shared_weights_are_averaged(shares: Shares) -> None:
    plan = replace(PLAN, shares=shares)
    over_grpc = [ControlAgent(plan, index) for index in range(2)]
    found = run_fleet(plan, agents=over_grpc)
    in_process = averaged(plan)
    for one, other in zip(over_grpc, in_process, strict=True):
        for sent, mean in zip(weights_of(one), weights_of(other), strict=True):
            np.testing.assert_allclose(sent, mean, atol=2e-4)
    first, second = ([each.tobytes() for each in weights_of(agent)] for agent in over_grpc)
    same = [one == other for one, other in zip(first, second, strict=True)]
    trunk = [True] * 4
    assert same == trunk + ([True] * 4 if shares is Shares.EVERYTHING else [False] * 4)
    assert [(each.agent, each.rounds) for each in found.judgements] == [(0, 2), (0, 4), (1, 2), (1, 4)]


def test_a_seed_gives_the_same_bits_twice_and_another_seed_others() -> None:
    first, again, other = run_fleet(PLAN), run_fleet(PLAN), run_fleet(replace(PLAN, seed=8))
    assert first == again
    assert first.basis_sha256 != other.basis_sha256


def test_alone_nothing_is_sent() -> None:
    found = run_fleet(replace(PLAN, shares=Shares.NOTHING))
    assert (found.basis_sha256, found.sent) == ("", 0)
    assert len(found.judgements) == 4


def test_a_gradient_has_one_row_more_than_there_are_shared_weights() -> None:
    sizes = {shares: ControlAgent(replace(PLAN, shares=shares), 0).feature_dim - 1 for shares in Shares}
    trunk = 4 * 64 + 64 + 64 * 64 + 64
    assert sizes[Shares.TRUNK] == trunk
    assert sizes[Shares.EVERYTHING] == trunk + 64 * 2 + 2 + 64 + 1
    assert specification_of(PLAN, trunk + 1).problems() == []


def test_wrong_names_are_one_sentence() -> None:
    with pytest.raises(InvalidValueError, match="no environment 'Pendulum'; take one of CartPole, Acrobot"):
        ControlAgent(replace(PLAN, task="Pendulum"), 0)
    with pytest.raises(InvalidValueError, match="no constant 'step'; take some of trunk_step, head_step,"):
        ControlAgent(replace(PLAN, constants={"step": 1.0}), 0)
