"""Faults in several steps: each next one comes when the run stands as it must, and leads where single ones seldom do."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from runs import join

from cospan.client.session import machine as session
from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.secure_sums.membership import Member
from cospan.server.machine import events
from cospan.wire.errors import CospanError
from cospan.wire.messages import GradientUpload, Join, MaskedVector, Resumption, RoundDeclined, RunPhase
from simulator import toy
from simulator.parties.network import Connection
from simulator.plan import Fault

if TYPE_CHECKING:
    from simulator.parties.agent import AgentProcess
    from simulator.parties.coordinator import CoordinatorProcess
    from simulator.world import World

_LOOKS_SECONDS, _LOOKS_FOR_SECONDS = 0.01, 6.0
"""How often it is looked whether the run stands so, and for how long."""
_LONG_SECONDS = 60.0
"""Longer than faults last."""
_SLOWNESS = 30.0
_REPEATED_SUMS = 30


def _when(world: "World", holds: Callable[[], bool], happens: Callable[[], None]) -> None:
    """Lets something happen as soon as a condition holds, unless faults are over by then."""
    until = world.timeline.now + _LOOKS_FOR_SECONDS

    def look() -> None:
        if world.is_healed or world.finished or world.timeline.now > until:
            return
        if holds():
            happens()
        else:
            world.timeline.after(_LOOKS_SECONDS, look)

    look()


def _relayed(world: "World") -> Iterator["AgentProcess"]:
    """The processes that join the relay."""
    return (world.agents[index] for index in sorted(world.agents) if world.is_relayed(index))


def _one_of(agents: Iterator["AgentProcess"], fault: Fault) -> "AgentProcess | None":
    chosen = list(agents)
    return chosen[fault.whom % len(chosen)] if chosen else None


def _direct(world: "World") -> Iterator["AgentProcess"]:
    """The processes that join the coordinator itself."""
    return (world.agents[index] for index in sorted(world.agents) if not world.is_relayed(index))


def _leave(agent: "AgentProcess") -> None:
    agent.do(lambda: agent.post(session.StopRequested("for a test", returning=True)))


def _collects(coordinator: "CoordinatorProcess | None") -> bool:
    """Whether a round lacks gradients."""
    if coordinator is None or coordinator.state.phase is not RunPhase.COLLECTING:
        return False
    return bool(coordinator.state.open_round.awaited)


# Relays -----------------------------------------------------------------------------------------------------


def relay_drain(world: "World", fault: Fault) -> bool:
    """A relay is asked to go down while it gathers agents, of which one more has come."""
    relay = world.relay
    if relay is None or not world.add_agent(relayed=True):
        return False

    def gathers() -> bool:
        return relay.alive and relay.loop is not None and relay.relay.asking_at is not None

    _when(world, gathers, lambda: relay.do(lambda: relay.handle(events.DrainRequested("for a test", 0.0))))
    return True


def relay_joined(world: "World", fault: Fault) -> bool:
    """One more agent joins the relay."""
    return world.relay is not None and world.add_agent(relayed=True)


def relay_repeats(world: "World", fault: Fault) -> bool:
    """The relay sends the sums again that it has sent.

    In half of the cases one of its agents leaves and comes back, and the coordinator is killed before it has counted
    that again: sums over it are older than what is repeated then.
    """
    relay, agent = world.relay, _one_of(_relayed(world), fault)
    if relay is None or agent is None:
        return False
    relay.repeats = _REPEATED_SUMS
    if fault.amount < 0.5:
        _leave(agent)

        def is_back() -> bool:
            hosts = world.coordinator.state.members.hosts if world.coordinator else {}
            stored = world.stored_contributors
            return bool(stored) and stored.isdisjoint(agent.agents) and set(agent.agents) <= set(hosts)

        _when(world, is_back, lambda: world.coordinator and world.coordinator.die())
    return True


def relay_away(world: "World", fault: Fault) -> bool:
    """The coordinator stands still; an agent of its relay comes back with another key, and twice before its welcome."""
    relay, agent = world.relay, _one_of(_relayed(world), fault)
    if relay is None or world.coordinator is None or agent is None or not world.plan.settings.min_cohort:
        return False
    world.coordinator.stand_still(_LOOKS_FOR_SECONDS)
    index = world.index_of(agent)
    agent.die()

    def follower() -> "AgentProcess | None":
        other = world.agents.get(index)
        return None if other is agent or other is None or other.masks is None or other.connection is None else other

    def is_offered() -> bool:
        other = follower()
        if other is None or other.masks is None or relay.loop is None or not relay.alive:
            return False
        return any(each.public_key == other.masks.key.public_key for each in relay.relay.offered.members)

    def reset() -> None:
        other = follower()
        if other is not None and other.connection is not None:
            other.connection.reset()

    _when(world, is_offered, reset)
    return True


def relay_deserted(world: "World", fault: Fault) -> bool:
    """All agents leave a relay; its coordinator loses the store before they are back."""
    relay, agents = world.relay, list(_relayed(world))
    if relay is None or not agents:
        return False

    def is_deserted() -> bool:
        return relay.alive and relay.loop is not None and not relay.relay.fleet.members.sessions

    for agent in agents:
        _leave(agent)
    _when(world, is_deserted, world.lose_store)
    return True


def relay_declined(world: "World", fault: Fault) -> bool:
    """An agent of a relay leaves whose vector is counted, and another one declines the round without need."""
    relay = world.relay
    if relay is None or not world.plan.settings.min_cohort:
        return False

    def counted(agent: "AgentProcess") -> bool:
        fleet = relay.relay.fleet
        return fleet.phase is RunPhase.COLLECTING and set(agent.agents) <= set(fleet.open_round.counted)

    def awaited() -> "AgentProcess | None":
        if not relay.alive or relay.loop is None or relay.relay.fleet.phase is not RunPhase.COLLECTING:
            return None
        missing = set(relay.relay.fleet.open_round.awaited)
        return next((each for each in _relayed(world) if set(each.agents) <= missing and each.connection), None)

    def part() -> bool:
        return awaited() is not None and any(map(counted, _relayed(world)))

    def leave() -> None:
        first = next(filter(counted, _relayed(world)))
        if fault.amount < 0.8:
            _leave(first)
        _when(world, lambda: first.agents[0] not in relay.relay.fleet.members.hosts or fault.amount >= 0.8, decline)

    def decline() -> None:
        other = awaited()
        if other is not None and other.connection is not None and other.state.stamp is not None:
            other.lied = other.connection.lied = True
            other.connection.send(0, RoundDeclined(other.state.stamp.round))

    for slow in _relayed(world):  # so that there is time between their vectors
        slow.learning_slowness = 1.0 + 3.0 * slow.rng.random()
    _when(world, part, leave)
    return True


# Coordinators -----------------------------------------------------------------------------------------------


def taken_back(world: "World", fault: Fault) -> bool:
    """A coordinator is killed that is ahead of its disk, as an agent leaves for good: other sums follow."""
    if world.coordinator is None:
        return False
    disk = world.disk
    disk.slowness = max(_SLOWNESS, 1.0 / disk.mean_seconds)
    world.timeline.after(2 * _LOOKS_FOR_SECONDS, lambda: setattr(disk, "slowness", 1.0))

    def is_ahead() -> bool:
        coordinator = world.coordinator
        if coordinator is None or not _collects(coordinator):
            return False
        state = coordinator.state
        return state.round > state.durability.durable_round and victim() is not None

    def victim() -> "AgentProcess | None":
        """Mostly one that its relay still awaits: the relay has to sum up again without it what it has sent."""
        assert world.coordinator is not None
        relay, counted = world.relay, set(world.coordinator.state.history.last_contributors)
        if relay is not None and relay.loop is not None and fault.whom % 4:
            collects = relay.relay.fleet.phase is RunPhase.COLLECTING
            awaited = set(relay.relay.fleet.open_round.awaited) if collects else set[str]()
            return _one_of((each for each in _relayed(world) if set(each.agents) <= counted & awaited), fault)
        return _one_of((each for each in world.agents.values() if set(each.agents) <= counted), fault)

    def take_back() -> None:
        agent = victim()
        if agent is None or world.coordinator is None or not world.rename(agent):
            return
        _leave(agent)
        world.coordinator.die()
        if world.relay is not None:
            world.relay.on_back = send_again

    def send_again() -> None:
        for agent in _relayed(world):
            number = agent.open_round
            for again in list(agent.sent) if number is not None else []:
                agent.upload(again)

    _when(world, is_ahead, take_back)
    return True


def copied_below(world: "World", fault: Fault) -> bool:
    """An older copy takes the place of the store while one agent of a relay is awaited, which is told another basis."""
    relay, agent = world.relay, _one_of(_relayed(world), fault)
    if relay is None or agent is None or not world.plan.settings.min_cohort:
        return False
    copy = world.copied_store()
    rounds = len(copy[0].rounds)

    def hang() -> None:
        agent.hangs_for = _LONG_SECONDS
        _when(world, is_last, lambda: world.restore(*copy))

    def is_last() -> bool:
        if not relay.alive or relay.loop is None or world.coordinator is None or not _collects(world.coordinator):
            return False
        fleet = relay.relay.fleet
        same = fleet.round == world.coordinator.state.round and fleet.phase is RunPhase.COLLECTING
        return same and set(fleet.open_round.awaited) == set(agent.agents)

    _when(world, lambda: len(world.disk.store.rounds) >= rounds + 2, hang)
    return True


def returns_late(world: "World", fault: Fault) -> bool:
    """After a restart no agent is there for longer than they are waited for, by the coordinator's clock.

    Or all but one are, and one of a new name.
    """
    if world.coordinator is None or not world.stored_contributors:
        return False
    world.coordinator.die()
    if fault.amount < 0.5:
        agent = _one_of(iter(list(world.agents.values())), fault)
        if agent is not None:
            agent.stand_still(2.0)
        return world.add_agent()
    world.network.parted = True
    world.timeline.after(2 * _LOOKS_FOR_SECONDS, lambda: setattr(world.network, "parted", False))

    def jump() -> None:
        if world.coordinator is not None:
            world.coordinator.jump(2 * _LOOKS_FOR_SECONDS)

    world.timeline.after(8.0, jump)
    return True


# Time -------------------------------------------------------------------------------------------------------


def late_hangs(world: "World", fault: Fault) -> bool:
    """All agents hang, and so does one that is started again in the meantime."""
    agent = _one_of(iter(list(world.agents.values())), fault)
    if agent is None:
        return False
    for each in world.agents.values():
        each.hangs_for = _LONG_SECONDS
    index = world.index_of(agent)

    def start_again() -> None:
        if agent.alive and not world.is_healed:
            agent.die()
            _when(world, lambda: world.agents.get(index) not in (None, agent), hang)

    def hang() -> None:
        world.agents[index].hangs_for = _LONG_SECONDS

    world.timeline.after(6.0 + 4.0 * fault.amount, start_again)
    return True


def one_hangs(world: "World", fault: Fault) -> bool:
    """All agents take a few seconds for a round, and then one of them takes very long."""
    agent = _one_of(iter(list(world.agents.values())), fault)
    if agent is None:
        return False
    for each in world.agents.values():
        each.hangs_for = 2.0 + fault.amount / 2.0
    world.timeline.after(2.2, lambda: setattr(agent, "hangs_for", 0.0 if world.is_healed else _LONG_SECONDS))
    return True


# Peers ------------------------------------------------------------------------------------------------------


def grows(world: "World", fault: Fault) -> bool:
    """A process is started again, with one agent more."""
    agent = _one_of(iter(list(world.agents.values())), fault)
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


def key_changed(world: "World", fault: Fault) -> bool:
    """A process shows the session of another one, with a key of its own."""
    agent = _one_of(_direct(world), fault)
    if agent is None or agent.masks is None or agent.state.token is None or agent.state.stamp is None:
        return False
    _lies_at_join(world, agent, _with_token(agent, bytes(31) + b"k"))
    return True


def key_stolen(world: "World", fault: Fault) -> bool:
    """A process offers the key of another one; in half of the cases in a session that has just been restored."""
    agent = _one_of(_direct(world), fault)
    other = next((each for each in _direct(world) if each is not agent), None)
    if agent is None or other is None or agent.masks is None or other.masks is None:
        return False
    key = other.masks.key.public_key
    restarts = fault.amount >= 0.4 and world.coordinator is not None and agent.state.token is not None
    if restarts and world.coordinator is not None:
        agent.stand_still(_LOOKS_FOR_SECONDS)  # it comes back last
        world.coordinator.die()

    def is_known() -> bool:
        return world.coordinator is not None and key in world.coordinator.state.members.keys

    def lie() -> None:
        named = join("stranger", feature_dim=toy.D, sum_members=(Member(key, ("stranger",)),))
        _lies_at_join(world, other, _with_token(agent, key) if restarts else named)

    _when(world, is_known, lie)
    return True


def out_of_turn(world: "World", fault: Fault) -> bool:
    """With secure sums a process declines what it has sent, or sends without masks; or it sends as a run waits."""
    agent = _one_of(_direct(world), fault)
    if agent is None or world.coordinator is None:
        return False
    if agent.masks is None or fault.amount < 0.4:
        return _as_it_waits(world, agent)

    def is_counted() -> bool:
        state = world.coordinator.state if world.coordinator else None
        return state is not None and _collects(world.coordinator) and state.open_round.counted.covers(agent.agents)

    def send() -> None:
        stamp = agent.state.stamp
        if stamp is None or agent.connection is None:
            return
        agent.lied = agent.connection.lied = True
        plain = Contribution(DenseMatrix(np.full((toy.D, toy.R), 0.25)), float(len(agent.agents)))
        declines = fault.whom % 2
        agent.connection.send(0, RoundDeclined(stamp.round) if declines else GradientUpload(stamp.round, plain))

    _when(world, is_counted, send)
    return True


def _as_it_waits(world: "World", agent: "AgentProcess") -> bool:
    """A coordinator is killed; as it waits for another agent, one sends a gradient of the open or an older round."""
    other = next((each for each in world.agents.values() if each is not agent), None)
    if world.coordinator is None or other is None:
        return False
    other.stand_still(_LOOKS_FOR_SECONDS)
    world.coordinator.die()

    def waits() -> bool:
        coordinator, state = world.coordinator, agent.state
        there = coordinator is not None and coordinator.state.phase is RunPhase.WAITING and coordinator.state.round > 0
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

    _when(world, waits, send)
    return True
