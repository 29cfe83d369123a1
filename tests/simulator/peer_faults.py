"""What a peer sends that it should not: again, late, in part, or a lie."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix
from cospan.wire.messages import GradientUpload, MaskedVector
from simulator import toy
from simulator.plan import Fault

if TYPE_CHECKING:
    from simulator.parties.agent import AgentProcess
    from simulator.world import World

_REPEATS = 3
"""Openings of rounds at which an agent sends everything again."""


def agent_of(world: "World", fault: Fault) -> "AgentProcess | None":
    """The agent process that a fault chooses; None without any."""
    agents = [world.agents[index] for index in sorted(world.agents)]
    return agents[fault.whom % len(agents)] if agents else None


def repeat(world: "World", fault: Fault) -> bool:
    """It sends one gradient again, or all of them at every round that opens."""
    agent = agent_of(world, fault)
    if agent is None or agent.connection is None or not agent.sent:
        return False
    if fault.amount >= 0.5:
        agent.repeats = _REPEATS  # all that it has sent, as if it did not know what is durable
        return True
    again = agent.sent[fault.whom % len(agent.sent)]
    if agent.open_round is None or again.round > agent.open_round:
        return False
    agent.connection.send(0, again)
    return True


def overtake(world: "World", fault: Fault) -> bool:
    """Its next gradient arrives after the one that follows."""
    agent = agent_of(world, fault)
    if agent is None:
        return False
    agent.holds_back = True
    return True


def part(world: "World", fault: Fault) -> bool:
    """What a relay would send that hosts these agents and has not heard of the others; the whole sum follows."""
    agent = agent_of(world, fault)
    if agent is None or agent.connection is None or len(agent.agents) == 1 or agent.masks is not None:
        return False
    number, basis = agent.open_round, agent.state.basis
    if number is None or basis is None:
        return False
    agent.holds_back = fault.amount >= 0.5
    some = agent.agents[: 1 + fault.whom % (len(agent.agents) - 1)]
    agent.lied = agent.connection.lied = True  # for its own sum may be refused now
    agent.upload(GradientUpload(number, toy.contribution(some, number, basis), some))
    return True


def lie(world: "World", fault: Fault) -> bool:
    """A gradient of another round, of another agent, that counts for many, or before a round is open."""
    agent = agent_of(world, fault)
    if agent is None or agent.connection is None or not agent.connection.token or agent.state.stamp is None:
        return False
    number = agent.state.stamp.round
    if agent.masks is not None:
        return _lie_masked(world, fault, agent, number)
    honest = GradientUpload(
        number, Contribution(DenseMatrix(np.full((toy.D, toy.R), 0.25)), float(len(agent.agents)))
    )
    others = sorted(world.all_agents - set(agent.agents))
    lies = (
        replace(honest, round=number + 20 + fault.whom),  # of a round that is not open when it arrives, either
        replace(honest, agent_ids=(others[fault.whom % len(others)],)),  # of an agent of another process
        replace(honest, contribution=replace(honest.contribution, weight=100.0)),  # counts for many
    )
    agent.lied = agent.connection.lied = True
    basis = agent.state.basis
    if fault.whom % 4 == 3 and not agent.state.is_open and basis is not None:
        agent.upload(GradientUpload(number, toy.contribution(agent.agents, number, basis)))  # of no open round
    else:
        agent.connection.send(0, lies[fault.whom % 3])
    return True


def _lie_masked(world: "World", fault: Fault, agent: "AgentProcess", number: int) -> bool:
    """A vector of any words, in the right epoch, in another one, of another round or of too many agents."""
    words = np.frombuffer(world.fork(f"lie {fault.at}").randbytes(8 * (toy.D * toy.R + 1)), np.uint64)
    vector = MaskedVector(words, agent.state.epoch_id or bytes(32), float(len(agent.agents)))
    lies = (
        GradientUpload(number, vector),
        GradientUpload(number, replace(vector, epoch_id=bytes(32))),
        GradientUpload(number + 20 + fault.whom, vector),
        GradientUpload(number, replace(vector, weight=100.0)),
    )
    world.witness.secure_sums.lied(vector)
    lie = lies[fault.whom % 4]
    agent.lied = True
    if agent.connection is not None:
        agent.connection.lied = True
        agent.connection.send(0, lie)
    world.witness.uploads(agent.agents, lie)  # it counts as a member's vector until it is added
    return True
