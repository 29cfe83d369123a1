"""Faults in several steps: each comes when the run stands as it must, and leads where single ones seldom do."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cospan.client.session import machine as session
from cospan.server.machine import events
from cospan.wire.messages import RoundDeclined, RunPhase
from simulator.plan import Fault

if TYPE_CHECKING:
    from simulator.parties.agent import AgentProcess
    from simulator.parties.coordinator import CoordinatorProcess
    from simulator.world import World

_LOOKS_SECONDS, LOOKS_FOR_SECONDS = 0.01, 6.0
"""How often it is looked whether the run stands so, and for how long."""
_LONG_SECONDS = 60.0
"""Longer than faults last."""
_SLOW_WRITE_SECONDS = 1.5
"""Mean time of a write while rounds run ahead of the disk."""
_REPEATED_SUMS = 30


def when(world: "World", holds: Callable[[], bool], happens: Callable[[], None]) -> None:
    """Lets something happen as soon as a condition holds, unless faults are over by then."""
    until = world.timeline.now + LOOKS_FOR_SECONDS

    def look() -> None:
        if world.is_healed or world.finished or world.timeline.now > until:
            return
        if holds():
            happens()
        else:
            world.timeline.after(_LOOKS_SECONDS, look)

    look()


def relayed_agents(world: "World") -> Iterator["AgentProcess"]:
    """The processes that join the relay."""
    return (world.agents[index] for index in sorted(world.agents) if world.is_relayed(index))


def one_of(agents: Iterator["AgentProcess"], fault: Fault) -> "AgentProcess | None":
    chosen = list(agents)
    return chosen[fault.whom % len(chosen)] if chosen else None


def direct_agents(world: "World") -> Iterator["AgentProcess"]:
    """The processes that join the coordinator itself."""
    return (world.agents[index] for index in sorted(world.agents) if not world.is_relayed(index))


def leave(agent: "AgentProcess") -> None:
    agent.do(lambda: agent.post(session.StopRequested("for a test", returning=True)))


def collects(coordinator: "CoordinatorProcess | None") -> bool:
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

    when(world, gathers, lambda: relay.do(lambda: relay.handle(events.DrainRequested("for a test", 0.0))))
    return True


def relay_joined(world: "World", fault: Fault) -> bool:
    """One more agent joins the relay."""
    return world.relay is not None and world.add_agent(relayed=True)


def relay_repeats(world: "World", fault: Fault) -> bool:
    """The relay sends its sums again; its agents are others meanwhile."""
    relay, agent = world.relay, one_of(relayed_agents(world), fault)
    if relay is None or agent is None:
        return False
    relay.repeats = _REPEATED_SUMS
    if fault.amount < 0.5 or not world.plan.settings.min_cohort:
        leave(agent)

        def is_back() -> bool:
            """The coordinator has not counted it again: in a replay, a sum over it is older than the round."""
            hosts = world.coordinator.state.members.hosts if world.coordinator else {}
            stored = world.stored_contributors
            return bool(stored) and stored.isdisjoint(agent.agents) and set(agent.agents) <= set(hosts)

        when(world, is_back, lambda: world.coordinator and world.coordinator.die())
    else:
        _grows_after_its_sum(world, fault)
    return True


def _grows_after_its_sum(world: "World", fault: Fault) -> None:
    """An agent joins a relay whose sum is counted; in half of the cases another leaves, and the round is void."""
    other, disk = one_of(direct_agents(world), fault), world.disk
    if other is not None:
        other.hangs_for = LOOKS_FOR_SECONDS

    def is_counted() -> bool:
        if world.coordinator is None or world.relay is None or world.relay.loop is None:
            return False
        names = world.relay.relay.names
        return (
            bool(names)
            and collects(world.coordinator)
            and set(names) <= set(world.coordinator.state.open_round.counted)
        )

    def add() -> None:
        if world.add_agent(relayed=True):
            (name,) = world.agents[max(world.agents)].agents
            when(world, lambda: _hosts(world, name), void)

    def void() -> None:
        if other is not None and fault.amount < 0.75:
            disk.slowness = max(1.0, _SLOW_WRITE_SECONDS / disk.mean_seconds)
            world.timeline.after(LOOKS_FOR_SECONDS, lambda: setattr(disk, "slowness", 1.0))
            leave(other)

    when(world, is_counted, add)


def _hosts(world: "World", name: str) -> bool:
    """Whether the relay has joined with an agent."""
    return world.relay is not None and world.relay.loop is not None and name in world.relay.relay.names


def relay_away(world: "World", fault: Fault) -> bool:
    """The coordinator stands still; an agent of its relay comes back with another key, twice before its welcome."""
    relay, agent = world.relay, one_of(relayed_agents(world), fault)
    if relay is None or world.coordinator is None or agent is None or not world.plan.settings.min_cohort:
        return False
    world.coordinator.stand_still(LOOKS_FOR_SECONDS)
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

    when(world, is_offered, reset)
    return True


def relay_deserted(world: "World", fault: Fault) -> bool:
    """All agents leave a relay; its coordinator loses the store before they are back."""
    relay, agents = world.relay, list(relayed_agents(world))
    if relay is None or not agents:
        return False

    def is_deserted() -> bool:
        return relay.alive and relay.loop is not None and not relay.relay.fleet.members.sessions

    for agent in agents:
        leave(agent)
    when(world, is_deserted, world.lose_store)
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
        return next(
            (each for each in relayed_agents(world) if set(each.agents) <= missing and each.connection), None
        )

    def part() -> bool:
        return awaited() is not None and any(map(counted, relayed_agents(world)))

    def part_with() -> None:
        first = next(filter(counted, relayed_agents(world)))
        if fault.amount < 0.8:
            leave(first)
        when(world, lambda: first.agents[0] not in relay.relay.fleet.members.hosts or fault.amount >= 0.8, decline)

    def decline() -> None:
        other = awaited()
        if other is not None and other.connection is not None and other.state.stamp is not None:
            other.lied = other.connection.lied = True
            other.connection.send(0, RoundDeclined(other.state.stamp.round))

    for slow in relayed_agents(world):  # so that there is time between their vectors
        slow.learning_slowness = 1.0 + 3.0 * slow.rng.random()
    when(world, part, part_with)
    return True


# Coordinators -----------------------------------------------------------------------------------------------


def taken_back(world: "World", fault: Fault) -> bool:
    """A coordinator is killed that is ahead of its disk, as an agent leaves for good: other sums follow."""
    if world.coordinator is None:
        return False
    disk = world.disk

    def slow() -> None:
        disk.slowness = max(1.0, _SLOW_WRITE_SECONDS / disk.mean_seconds)
        world.timeline.after(LOOKS_FOR_SECONDS, lambda: setattr(disk, "slowness", 1.0))
        when(world, is_ahead, take_back)

    def is_ahead() -> bool:
        coordinator = world.coordinator
        if coordinator is None or not collects(coordinator):
            return False
        state = coordinator.state
        return state.round > state.durability.durable_round and victim() is not None

    def victim() -> "AgentProcess | None":
        return _contributor(world, fault)

    def take_back() -> None:
        agent = victim()
        if agent is None or world.coordinator is None or not world.rename(agent):
            return
        leave(agent)
        world.coordinator.die()
        if world.relay is not None:
            world.relay.on_back = send_again

    def send_again() -> None:
        for agent in relayed_agents(world):
            number = agent.open_round
            for again in list(agent.sent) if number is not None else []:
                agent.upload(again)

    when(world, lambda: world.stored_contributors == world.all_agents, slow)
    return True


def _contributor(world: "World", fault: Fault) -> "AgentProcess | None":
    """Mostly one that its relay still awaits: the relay has to sum up again without it what it has sent."""
    assert world.coordinator is not None
    relay, counted = world.relay, set(world.coordinator.state.history.last_contributors)
    if relay is not None and relay.loop is not None and fault.whom % 4:
        collects_now = relay.relay.fleet.phase is RunPhase.COLLECTING
        awaited = set(relay.relay.fleet.open_round.awaited) if collects_now else set[str]()
        return one_of((each for each in relayed_agents(world) if set(each.agents) <= counted & awaited), fault)
    return one_of((each for each in world.agents.values() if set(each.agents) <= counted), fault)


def copied_below(world: "World", fault: Fault) -> bool:
    """An older copy replaces the store while an agent of a relay is awaited, which is told another basis."""
    relay, agent = world.relay, one_of(relayed_agents(world), fault)
    if relay is None or agent is None or not world.plan.settings.min_cohort:
        return False
    copy = world.copied_store()
    rounds = len(copy[0].rounds)

    def hang() -> None:
        agent.hangs_for = _LONG_SECONDS
        when(world, is_last, lambda: world.restore(*copy))

    def is_last() -> bool:
        if not relay.alive or relay.loop is None or world.coordinator is None or not collects(world.coordinator):
            return False
        fleet = relay.relay.fleet
        same = fleet.round == world.coordinator.state.round and fleet.phase is RunPhase.COLLECTING
        return same and set(fleet.open_round.awaited) == set(agent.agents)

    when(world, lambda: len(world.disk.store.rounds) >= rounds + 2, hang)
    return True


def returns_late(world: "World", fault: Fault) -> bool:
    """After a restart no agent is there for longer than they are waited for, by the coordinator's clock.

    Or all but one are, and one of a new name.
    """
    if world.coordinator is None or not world.stored_contributors:
        return False
    world.coordinator.die()
    if fault.amount < 0.5:
        agent = one_of(iter(list(world.agents.values())), fault)
        if agent is not None:
            agent.stand_still(2.0)
        return world.add_agent()
    world.network.parted = True
    world.timeline.after(2 * LOOKS_FOR_SECONDS, lambda: setattr(world.network, "parted", False))

    def jump() -> None:
        if world.coordinator is not None:
            world.coordinator.jump(2 * LOOKS_FOR_SECONDS)

    world.timeline.after(8.0, jump)
    return True


# Time -------------------------------------------------------------------------------------------------------


def late_hangs(world: "World", fault: Fault) -> bool:
    """All agents hang, and so does one that is started again in the meantime; mostly after a first round."""
    agent = one_of(relayed_agents(world), fault) or one_of(direct_agents(world), fault)
    if agent is None:
        return False
    index = world.index_of(agent)

    def hang() -> None:
        for each in world.agents.values():
            each.hangs_for = _LONG_SECONDS
        world.timeline.after(LOOKS_FOR_SECONDS + 4.0 * fault.amount, start_again)

    def start_again() -> None:
        if agent.alive and not world.is_healed:
            agent.die()
            when(world, lambda: world.agents.get(index) not in (None, agent), hang_again)

    def hang_again() -> None:
        world.agents[index].hangs_for = _LONG_SECONDS

    when(world, lambda: bool(world.stored_contributors) or fault.whom % 4 == 0, hang)
    return True


def one_hangs(world: "World", fault: Fault) -> bool:
    """All agents take a few seconds for a round, and then one of them takes very long."""
    agent = one_of(iter(list(world.agents.values())), fault)
    if agent is None:
        return False
    for each in world.agents.values():
        each.hangs_for = 2.0 + fault.amount / 2.0
    world.timeline.after(2.2, lambda: setattr(agent, "hangs_for", 0.0 if world.is_healed else _LONG_SECONDS))
    return True
