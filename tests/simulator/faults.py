"""How each kind of fault is injected into a simulated run, and how all that lasts is healed."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from cospan.client.session import machine as session
from cospan.server.machine import events
from simulator import peer_faults, peer_situations, situations
from simulator.peer_faults import agent_of
from simulator.plan import Fault, Kind

if TYPE_CHECKING:
    from simulator.world import World

_MOST_COMMANDS = 40
"""A kill comes at most this many commands later, so that it is in the middle of what an event leads to."""
_LONGEST_SECONDS = 12.0
"""Of what lasts: longer than any timeout of a session, shorter than the progress timeout."""
_LONGEST_COPY_SECONDS = 5.0
"""Longest time that a store is copied before it is restored."""
_SHORTEST_HANG_SECONDS, _MORE_HANG_SECONDS = 10.0, 30.0
"""An environment hangs for longer than any wait for a round."""


def inject(world: "World", fault: Fault) -> None:
    """Breaks something; counts it, unless there is nothing to break."""
    if not world.finished and _INJECT[fault.kind](world, fault):
        world.injected[fault.kind] += 1


def heal(world: "World") -> None:
    """Ends everything that lasts; what is broken stays so until it is found out."""
    world.network.slowness, world.network.parted, world.network.lost_answers = 1.0, False, 0
    world.disk.full, world.disk.slowness = False, 1.0
    if world.coordinator is not None:
        world.coordinator.queue.hasten()
    for process in (*world.agents.values(), world.coordinator, world.relay):
        if process is not None:
            process.commands_left = None
    world.on_replay, world.is_healed = None, True
    if world.relay is not None:
        world.relay.repeats = 0
    for agent in world.agents.values():
        agent.learning_slowness, agent.hangs_for = 1.0, 0.0
        agent.holds_back, agent.repeats = False, 0


def _lasts(world: "World", fault: Fault, begin: Callable[[], None], end: Callable[[], None]) -> bool:
    begin()
    world.timeline.after(fault.amount * _LONGEST_SECONDS, end)
    return True


# Coordinator and disk ---------------------------------------------------------------------------------------


def _coordinator_kill(world: "World", fault: Fault) -> bool:
    if world.coordinator is None or world.coordinator.commands_left is not None:
        return False
    world.coordinator.commands_left = int(fault.amount * _MOST_COMMANDS)
    return True


def _coordinator_power(world: "World", fault: Fault) -> bool:
    if world.coordinator is None:
        return False
    world.coordinator.host_lost = True
    world.coordinator.die()
    return True


def _coordinator_drain(world: "World", fault: Fault) -> bool:
    coordinator = world.coordinator
    if coordinator is None:
        return False
    coordinator.do(lambda: coordinator.handle(events.DrainRequested("for a test", 2.0 * fault.amount)))
    return True


def _coordinator_stall(world: "World", fault: Fault) -> bool:
    if world.coordinator is None:
        return False
    world.coordinator.stand_still(fault.amount * _LONGEST_SECONDS)
    return True


def _coordinator_clock(world: "World", fault: Fault) -> bool:
    if world.coordinator is None:
        return False
    world.coordinator.jump(fault.amount * _LONGEST_SECONDS)
    return True


def _store_lost(world: "World", fault: Fault) -> bool:
    world.lose_store()
    return True


def _store_copied(world: "World", fault: Fault) -> bool:
    """The store is copied now, and a little later the coordinator is killed and started again from the copy."""
    if not world.plan.settings.min_cohort:
        return False
    copy = world.copied_store()

    def restore() -> None:
        if not world.is_healed:
            world.restore(*copy)

    world.timeline.after(fault.amount * _LONGEST_COPY_SECONDS, restore)
    return True


def _disk_full(world: "World", fault: Fault) -> bool:
    disk = world.disk

    def full(is_full: bool) -> None:
        disk.full = is_full

    return _lasts(world, fault, lambda: full(True), lambda: full(False))


def _disk_slow(world: "World", fault: Fault) -> bool:
    disk = world.disk

    def slow(factor: float) -> None:
        disk.slowness = factor

    return _lasts(world, fault, lambda: slow(30.0), lambda: slow(1.0))


# Agents -----------------------------------------------------------------------------------------------------


def _agent_kill(world: "World", fault: Fault) -> bool:
    agent = agent_of(world, fault)
    if agent is None or agent.commands_left is not None:
        return False
    agent.host_lost = fault.whom % 3 == 0
    agent.commands_left = int(fault.amount * 6)
    return True


def _agent_replaced(world: "World", fault: Fault) -> bool:
    agent = agent_of(world, fault)
    if agent is None or not world.rename(agent):
        return False
    agent.host_lost = fault.whom % 3 == 0
    agent.die()
    return True


def _agent_added(world: "World", fault: Fault) -> bool:
    return world.add_agent()


def _agent_moved(world: "World", fault: Fault) -> bool:
    """The last agent of a process moves to another; both are killed, and started again.

    In half of the cases the coordinator is killed as well, and comes back to a process that hosts one agent more.
    """
    agent = agent_of(world, fault)
    others = [other for other in world.agents.values() if other is not agent]
    if agent is None or len(agent.agents) == 1 or not others:
        return False
    other = others[int(fault.amount * 0.999 * len(others))]
    world.move(agent, other)
    if fault.whom % 2 and world.coordinator is not None and world.grow(other):
        world.coordinator.die()
    for process in (agent, other):
        process.host_lost = fault.whom % 3 == 0
        process.die()
    return True


def _agent_leave(world: "World", fault: Fault) -> bool:
    agent = agent_of(world, fault)
    if agent is None:
        return False
    returning = fault.whom % 4 > 0  # others come back all the same, and have not said so
    agent.do(lambda: agent.post(session.StopRequested("for a test", returning=returning)))
    return True


def _agent_stall(world: "World", fault: Fault) -> bool:
    agent = agent_of(world, fault)
    if agent is None:
        return False
    agent.stand_still(fault.amount * _LONGEST_SECONDS)
    return True


def _agent_clock(world: "World", fault: Fault) -> bool:
    agent = agent_of(world, fault)
    if agent is None:
        return False
    agent.jump(fault.amount * _LONGEST_SECONDS)
    return True


def _agent_slow(world: "World", fault: Fault) -> bool:
    agent = agent_of(world, fault)
    if agent is None:
        return False

    def slow(factor: float) -> None:
        agent.learning_slowness = factor

    return _lasts(world, fault, lambda: slow(20.0), lambda: slow(1.0))


def _agent_hangs(world: "World", fault: Fault) -> bool:
    agent = agent_of(world, fault)
    if agent is None:
        return False
    agent.hangs_for = _SHORTEST_HANG_SECONDS + fault.amount * _MORE_HANG_SECONDS
    return True


def _all_hang(world: "World", fault: Fault) -> bool:
    """Each for as long, but for a little: one of them sends the first gradient of the round."""
    for agent in world.agents.values():
        agent.hangs_for = _SHORTEST_HANG_SECONDS + fault.amount * _MORE_HANG_SECONDS
    return bool(world.agents)


def _join_lost(world: "World", fault: Fault) -> bool:
    """Its process does not know that it has joined, and joins once more."""
    agent = agent_of(world, fault)
    if agent is None:
        return False
    world.network.lost_answers += 1
    agent.die()
    return True


def _replay_lost(world: "World", fault: Fault) -> bool:
    """The coordinator is killed; an agent of a new name joins; then those of the replay are replaced by others.

    Or no agent joins, and the others come only when the replay has lost all its agents.
    """
    if world.coordinator is None or world.coordinator.commands_left is not None or world.on_replay is not None:
        return False

    def replace_them() -> None:
        agents = list(world.agents.values())
        for agent in agents if fault.amount < 0.7 else agents[1:]:
            if world.stored_contributors & set(agent.agents) and world.rename(agent):
                agent.die()
        if not joins:
            world.network.parted = True
            world.timeline.after(_LONGEST_SECONDS, end)

    def end() -> None:
        world.network.parted = False

    joins = fault.whom % 4 > 0
    world.coordinator.die()
    if joins:
        world.add_agent()
    world.on_replay = replace_them
    return True


# Relays -----------------------------------------------------------------------------------------------------


def _relay_kill(world: "World", fault: Fault) -> bool:
    if world.relay is None or world.relay.commands_left is not None:
        return False
    world.relay.host_lost = fault.whom % 3 == 0
    world.relay.commands_left = int(fault.amount * _MOST_COMMANDS / 2)
    return True


def _relay_stall(world: "World", fault: Fault) -> bool:
    if world.relay is None:
        return False
    world.relay.stand_still(fault.amount * _LONGEST_SECONDS)
    return True


def _relay_cut(world: "World", fault: Fault) -> bool:
    """Its stream with the coordinator is reset, half-open, or a black hole."""
    if world.relay is None or world.relay.connection is None:
        return False
    if fault.amount < 0.5:
        world.relay.connection.reset()
    else:
        world.relay.connection.lose(told=(0, 1, None)[fault.whom % 3])
    return True


# The network ------------------------------------------------------------------------------------------------


def _cut(world: "World", fault: Fault) -> bool:
    agent = agent_of(world, fault)
    if agent is None or agent.connection is None:
        return False
    agent.connection.reset()
    return True


def _half_open(world: "World", fault: Fault) -> bool:
    agent = agent_of(world, fault)
    if agent is None or agent.connection is None:
        return False
    agent.connection.lose(told=fault.whom % 2)
    return True


def _black_hole(world: "World", fault: Fault) -> bool:
    agent = agent_of(world, fault)
    if agent is None or agent.connection is None:
        return False
    agent.connection.lose()
    return True


def _delay(world: "World", fault: Fault) -> bool:
    network = world.network

    def slow(factor: float) -> None:
        network.slowness = factor

    return _lasts(world, fault, lambda: slow(20.0), lambda: slow(1.0))


def _partition(world: "World", fault: Fault) -> bool:
    network = world.network

    def part(parted: bool) -> None:
        network.parted = parted

    return _lasts(world, fault, lambda: part(True), lambda: part(False))


_INJECT: dict[Kind, Callable[["World", Fault], bool]] = {
    Kind.COORDINATOR_KILL: _coordinator_kill,
    Kind.COORDINATOR_POWER: _coordinator_power,
    Kind.COORDINATOR_DRAIN: _coordinator_drain,
    Kind.COORDINATOR_STALL: _coordinator_stall,
    Kind.COORDINATOR_CLOCK: _coordinator_clock,
    Kind.STORE_LOST: _store_lost,
    Kind.STORE_COPIED: _store_copied,
    Kind.DISK_FULL: _disk_full,
    Kind.DISK_SLOW: _disk_slow,
    Kind.AGENT_KILL: _agent_kill,
    Kind.AGENT_REPLACED: _agent_replaced,
    Kind.AGENT_ADDED: _agent_added,
    Kind.AGENT_MOVED: _agent_moved,
    Kind.AGENT_LEAVE: _agent_leave,
    Kind.AGENT_STALL: _agent_stall,
    Kind.AGENT_CLOCK: _agent_clock,
    Kind.AGENT_SLOW: _agent_slow,
    Kind.AGENT_HANGS: _agent_hangs,
    Kind.ALL_HANG: _all_hang,
    Kind.JOIN_LOST: _join_lost,
    Kind.REPLAY_LOST: _replay_lost,
    Kind.RELAY_KILL: _relay_kill,
    Kind.RELAY_STALL: _relay_stall,
    Kind.RELAY_CUT: _relay_cut,
    Kind.CUT: _cut,
    Kind.HALF_OPEN: _half_open,
    Kind.BLACK_HOLE: _black_hole,
    Kind.DELAY: _delay,
    Kind.PARTITION: _partition,
    Kind.REPEAT: peer_faults.repeat,
    Kind.OVERTAKE: peer_faults.overtake,
    Kind.PART: peer_faults.part,
    Kind.LIE: peer_faults.lie,
    Kind.TAKEN_BACK: situations.taken_back,
    Kind.RETURNS_LATE: situations.returns_late,
    Kind.LATE_HANGS: situations.late_hangs,
    Kind.ONE_HANGS: situations.one_hangs,
    Kind.AGENT_GROWS: peer_situations.grows,
    Kind.RELAY_DRAIN: situations.relay_drain,
    Kind.RELAY_JOINED: situations.relay_joined,
    Kind.RELAY_REPEATS: situations.relay_repeats,
    Kind.RELAY_AWAY: situations.relay_away,
    Kind.RELAY_DESERTED: situations.relay_deserted,
    Kind.RELAY_DECLINED: situations.relay_declined,
    Kind.COPIED_BELOW: situations.copied_below,
    Kind.COHORT_LOST: peer_situations.cohort_lost,
    Kind.KEY_CHANGED: peer_situations.key_changed,
    Kind.KEY_STOLEN: peer_situations.key_stolen,
    Kind.PART_LATE: peer_situations.part_late,
    Kind.OUT_OF_TURN: peer_situations.out_of_turn,
}
