"""Situations of peers: keys and sessions of others, lies at the right time, and processes that change."""

from typing import TYPE_CHECKING

import numpy as np
from runs import join

from cospan.client.session import machine as session
from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.secure_sums.membership import Member
from cospan.wire.errors import CospanError
from cospan.wire.messages import GradientUpload, Join, MaskedVector, Resumption, RoundDeclined, RunPhase
from simulator import toy
from simulator.parties.network import Connection
from simulator.plan import Fault
from simulator.situations import LOOKS_FOR_SECONDS, collects, direct_agents, leave, one_of, when

if TYPE_CHECKING:
    from simulator.parties.agent import AgentProcess
    from simulator.world import World

_SLOWER = 3.0
"""Than the others: the round is over before."""


def part_late(world: "World", fault: Fault) -> bool:
    """A process sends the sum of some of its agents, and that of all of them when the round is over."""
    agent = one_of((each for each in direct_agents(world) if len(each.agents) > 1), fault)
    if agent is None or agent.masks is not None:
        return False
    agent.learning_slowness, before = _SLOWER, agent.open_round or 0

    def opens() -> bool:
        return agent.alive and agent.open_round is not None and agent.open_round > before

    def send() -> None:
        number, basis = agent.open_round, agent.state.basis
        if number is not None and basis is not None and agent.connection is not None:
            some = agent.agents[:1]
            agent.lied = agent.connection.lied = True  # for its own sum may be refused now
            agent.upload(GradientUpload(number, toy.contribution(some, number, basis), some))

    when(world, opens, send)
    return True


def grows(world: "World", fault: Fault) -> bool:
    """A process is started again, with one agent more."""
    agent = one_of(iter(list(world.agents.values())), fault)
    if agent is None or not world.grow(agent):
        return False
    agent.die()
    return True


class _Stranger:
    """The end of a connection over which a process lies about who it is; it does not care what follows."""

    def received(self, connection: Connection, message: object) -> None:
        """Whatever it is told."""

    def broke(self, connection: Connection, error: CospanError) -> None:
        """It was refused."""


def _lies_at_join(world: "World", like: "AgentProcess", joining: Join) -> None:
    """Over a connection of its own, `joining` comes to the coordinator, at once: what it copies still holds."""
    host = world.coordinator
    if host is not None and not host.stalled:
        ends = (_Stranger(), host.listener)
        connection = Connection(world.network, host.listener.next_stream(), ends, (like, host))
        connection.lied = True
        host.do(lambda: host.listener.received(connection, joining))


def _with_token(agent: "AgentProcess", key: bytes) -> Join:
    """The join of a process that shows the session of an agent, and a key."""
    assert agent.state.stamp is not None
    shown = Resumption(agent.state.token or "", agent.state.stamp.run_id, agent.state.stamp.round)
    instance = f"{'+'.join(agent.agents)} {agent.generation}"
    return join(
        *agent.agents,
        instance=instance,
        feature_dim=toy.D,
        sum_members=(Member(key, agent.agents),),
        resumption=shown,
    )


def cohort_lost(world: "World", fault: Fault) -> bool:
    """A process leaves, without which no sum is formed; before it is back, another one is lost."""
    agents = list(direct_agents(world))
    if world.coordinator is None or len(agents) < 2 or not world.plan.settings.min_cohort:
        return False
    agent, other = agents[fault.whom % len(agents)], agents[(fault.whom + 1) % len(agents)]

    def waits() -> bool:
        coordinator = world.coordinator
        return coordinator is not None and coordinator.state.phase is RunPhase.WAITING and not other.stalled

    def lose() -> None:
        if other.connection is not None:
            other.connection.lose(told=1)

    leave(agent)
    when(world, waits, lose)
    return True


def key_changed(world: "World", fault: Fault) -> bool:
    """A process shows the session of another one, with a key of its own."""
    agent = one_of(direct_agents(world), fault)
    if agent is None or agent.masks is None or agent.state.token is None or agent.state.stamp is None:
        return False
    _lies_at_join(world, agent, _with_token(agent, bytes(31) + b"k"))
    return True


def key_stolen(world: "World", fault: Fault) -> bool:
    """A process offers the key of another one; in half of the cases in a session that has just been restored."""
    agent = one_of(direct_agents(world), fault)
    other = next((each for each in direct_agents(world) if each is not agent), None)
    if agent is None or other is None or agent.masks is None or other.masks is None:
        return False
    key = other.masks.key.public_key
    restarts = fault.amount >= 0.4 and world.coordinator is not None and agent.state.token is not None
    if restarts and world.coordinator is not None:
        agent.stand_still(LOOKS_FOR_SECONDS)  # it comes back last
        world.coordinator.die()

    def is_known() -> bool:
        return world.coordinator is not None and key in world.coordinator.state.members.keys

    def lie() -> None:
        named = join("stranger", feature_dim=toy.D, sum_members=(Member(key, ("stranger",)),))
        _lies_at_join(world, other, _with_token(agent, key) if restarts else named)

    when(world, is_known, lie)
    return True


def out_of_turn(world: "World", fault: Fault) -> bool:
    """With secure sums one declines what it has sent, sends without masks, or as no member; or as a run waits."""
    agent = one_of(direct_agents(world), fault)
    if agent is None or world.coordinator is None:
        return False
    if agent.masks is None or fault.amount < 0.4:
        return _as_it_waits(world, agent)

    way = fault.whom % 3
    if way == 2 and not world.add_agent():
        return False

    def liar() -> "AgentProcess | None":
        """One that has sent its vector, one that has not, or one that is no member of the open round."""
        if world.coordinator is None or not collects(world.coordinator):
            return None
        state = world.coordinator.state
        tokens = {each.token for each in state.members.sessions.values()}
        there = (each for each in direct_agents(world) if each.connection and each.connection.token in tokens)
        counted, awaited = set(state.open_round.counted), set(state.open_round.awaited)
        parts = (counted, awaited, state.members.hosts.keys() - counted - awaited)
        return next((each for each in there if set(each.agents) <= parts[way]), None)

    def send() -> None:
        one, coordinator = liar(), world.coordinator
        if one is None or one.connection is None or coordinator is None:
            return
        one.lied = one.connection.lied = True
        number, weight = coordinator.state.round, float(len(one.agents))
        plain = Contribution(DenseMatrix(np.full((toy.D, toy.R), 0.25)), weight)
        vector = MaskedVector(np.zeros(toy.D * toy.R + 1, np.uint64), bytes(32), weight)
        messages = (RoundDeclined(number), GradientUpload(number, plain), GradientUpload(number, vector))
        one.connection.send(0, messages[way])

    when(world, lambda: liar() is not None, send)
    return True


def _as_it_waits(world: "World", agent: "AgentProcess") -> bool:
    """A coordinator is killed; as it waits for another agent, one sends a gradient of its round, or an older."""
    other = next((each for each in world.agents.values() if each is not agent), None)
    if world.coordinator is None or other is None:
        return False
    other.stand_still(LOOKS_FOR_SECONDS)
    world.coordinator.die()

    def waits() -> bool:
        coordinator, state = world.coordinator, agent.state
        there = (
            coordinator is not None and coordinator.state.phase is RunPhase.WAITING and coordinator.state.round > 0
        )
        return there and state.phase is session.Phase.ACTIVE and not state.is_open and agent.connection is not None

    def send() -> None:
        assert world.coordinator is not None
        assert agent.connection is not None
        number = world.coordinator.state.round
        agent.lied = agent.connection.lied = True
        if agent.masks is not None:
            words = np.zeros(toy.D * toy.R + 1, np.uint64)
            vector = MaskedVector(words, bytes(32), float(len(agent.agents)))
            agent.connection.send(0, GradientUpload(number, vector))
        else:
            plain = Contribution(DenseMatrix(np.full((toy.D, toy.R), 0.25)), float(len(agent.agents)))
            agent.connection.send(0, GradientUpload(number - 1, plain))

    when(world, waits, send)
    return True
