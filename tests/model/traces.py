"""Simulated runs of the searched size: each state of a coordinator or relay is one that the search has found."""

import random
from typing import Any

from simulator import plan as plans
from simulator import witness
from simulator.parties.relay import RelayProcess
from simulator.plan import Fault, Kind, Plan
from simulator.world import World

from cospan.relay.state import RelayState
from cospan.server.machine.opening import is_connected
from cospan.server.machine.state import CoordinatorState
from model.clocks import without_times
from model.search import Search
from model.terms import NAMES, Symbols, renamed

_KINDS = (Kind.COORDINATOR_KILL, Kind.AGENT_KILL, Kind.CUT)
"""One fault of the search each: others last until a timeout, which is a second one."""
_OF_RELAYS = (Kind.RELAY_KILL, Kind.RELAY_CUT)
_LAST_FAULT_SECONDS = 1.5


class _Seen(witness.Witness):
    """Keeps the outlines of all states."""

    def __init__(self, symbols: Symbols) -> None:
        super().__init__()
        self.symbols, self.outlines = symbols, list[Any]()

    def stepped(self, before, event, state, commands, now) -> None:  # type: ignore[no-untyped-def]
        """A step: what came of it."""
        super().stepped(before, event, state, commands, now)
        self.outlines.append(_outline(state, self.symbols))

    def relayed(self, state: RelayState) -> None:
        """A step of a relay."""
        self.outlines.append(_relay_outline(state, self.symbols))


class _Relay(RelayProcess):
    """A relay whose states are kept."""

    def _checked_step(self, state, event, now):  # type: ignore[no-untyped-def]
        after, commands = super()._checked_step(state, event, now)
        self._around.witness.relayed(after)  # type: ignore[attr-defined]
        return after, commands


class _World(World):
    """A world whose agents have the names that the search gives them."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._hosted = [(NAMES[index],) for index in range(len(plan.settings.processes))]

    def _start_relay(self) -> None:
        if not self.finished:
            self._generations += 1
            around = self._surroundings(lambda: self.coordinator, self._relay_ended)
            self.relay = _Relay(around, self.fork(f"relay {self._generations}"), self._generations)

    def play(self) -> None:
        """Until the run is over; its one fault is part of the plan."""
        while not self.finished:
            self._next()


def strangers(search: Search, seeds: range) -> tuple[int, list[str]]:
    """How many states simulated runs had, and those that the search has not found, each with its seed.

    The search has to be over, of one fault or more.
    """
    moves, symbols = search.moves, search.moves.parties.symbols
    known = {_outline(state, symbols) for state in moves.parties.coordinators.values}
    known |= {_relay_outline(state, symbols) for state in moves.hubs.relays.values}
    known = {renamed(each, names) for each in known for names in moves.texts}
    count, found = 0, list[str]()
    for seed in seeds:
        outlines, unknown = _outlines(seed, search)
        count += len(outlines)
        found += [f"seed {seed}: {each}" for each in [*unknown, *(each for each in outlines if each not in known)]]
    return count, found


def _outlines(seed: int, search: Search) -> tuple[list[Any], list[str]]:
    rng, settings = random.Random(f"trace {seed}"), search.settings
    kinds = (*_KINDS, *(_OF_RELAYS if settings.relayed else ()))
    whom = rng.randrange(settings.agents)
    fault = Fault(rng.uniform(0.0, _LAST_FAULT_SECONDS), rng.choice(kinds), whom, rng.random())
    run = plans.Settings(
        processes=(1,) * settings.agents,
        relayed=settings.relayed,
        rounds=settings.rounds,
        inflight_rounds=settings.inflight_rounds,
        gathers=False,
        compute_seconds=0.0 if settings.computes_at_once else rng.choice([0.0, 0.05]),
        disk_seconds=rng.choice([0.001, 0.05, 0.5]),
        network_seconds=rng.choice([0.001, 0.02, 0.1]),
    )
    world = _World(Plan(seed, run, (fault,)))
    seen = _Seen(search.moves.parties.symbols)
    seen.begin(world.disk.store)
    seen.restarted(world.coordinator.state, 0.0)  # type: ignore[union-attr]
    world.witness = world.coordinator._witness = seen  # type: ignore[union-attr]
    world.disk.on_commit = seen.committed
    try:
        world.play()
    except KeyError as unknown:
        return seen.outlines, [f"it has a basis or a gradient that no state of the search has: {unknown}"]
    return seen.outlines, []


def _outline(state: CoordinatorState, symbols: Symbols) -> Any:
    """A state without what tells one process of an agent from the next: tokens, streams and instance ids."""
    plain = without_times(state)
    sessions = plain.members.sessions.values()
    connected = frozenset((each.agent_ids, is_connected(each)) for each in sessions)
    return symbols.term(
        (
            (plain.phase, plain.round, plain.basis, plain.config.incarnation, type(plain.end).__name__),
            (connected, frozenset(plain.members.departures)),
            (plain.open_round, plain.history, plain.durability),
        )
    )


def _relay_outline(state: RelayState, symbols: Symbols) -> Any:
    """That of its fleet, and for whom it has joined."""
    fleet = state.fleet.evolve(end=None)
    joined = (state.names, state.confirmed, state.durable_round, state.asking_at is None)
    return _outline(fleet, symbols), symbols.term((*joined, len(state.unwelcomed)))
