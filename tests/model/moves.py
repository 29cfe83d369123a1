"""What can happen next: to an agent alone, to an agent and the coordinator, and to the coordinator and its disk.

Each is found once for each number of an agent's part and of the coordinator's part, and remembered.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from cospan.core.run_fields import Participation
from cospan.server.machine.events import StoreRound
from cospan.server.machine.opening import is_connected
from cospan.wire.errors import (
    AgentIdTakenError,
    DrainingError,
    SessionUnknownError,
)
from cospan.wire.messages import RunPhase
from model.agents import Agents, Kind, Move
from model.parties import Effect, Parties, Settings
from model.relays.moves import Hubs
from model.states import END, Center, Connection, Local, ends, taken
from model.terms import NAMES, RELAY, Table

_PASSING = (AgentIdTakenError, DrainingError, SessionUnknownError)
"""Errors by which a coordinator may refuse an honest agent."""


@dataclass(slots=True)
class _Change:
    """A move that is being made."""

    center: Center
    others: list[tuple[int, Effect]] = field(default_factory=list)
    ends: bool = False


class Moves:
    """Finds and remembers the moves of a run of these settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        letters, relayed = NAMES[: settings.agents], range(settings.relayed)
        direct = range(settings.relayed, settings.agents)
        self.permutations = [
            (*one, *other) for one in itertools.permutations(relayed) for other in itertools.permutations(direct)
        ]
        """Agents behind the relay are alike, and so are the others."""
        self.texts = [str.maketrans(letters, "".join(letters[to] for to in each)) for each in self.permutations]
        self.parties = Parties(settings, self.texts)
        self.agents = Agents(settings, self.parties)
        self.hubs = Hubs(settings, self.parties, self.agents)
        self.locals = self.agents.table
        self.centers = Table[Center](lambda center: center, self._center_term, len(self.permutations))
        self._joint: dict[tuple[int, int, bool], tuple[Move, ...]] = {}
        self._joined = (*direct, *((RELAY,) if settings.relayed else ()))
        """Who has connections to the coordinator."""
        self._broken: dict[int, tuple[Move, ...]] = {}
        self._central: dict[int, tuple[Move, ...]] = {}
        self._overdue: dict[int, tuple[Move, ...]] = {}

    def first(self) -> tuple[int, int, tuple[int, ...]]:
        """The numbers of the first coordinator's part, of the relay's, and of the agents' parts."""
        disk = self.parties.new_disk()
        center = Center(self.parties.resumed(disk, 1), 1, disk)
        agents = (self.locals.number(self.agents.begun(Local(agent))) for agent in range(self.settings.agents))
        hub = self.hubs.first() if self.settings.relayed else 0
        return self.centers.number(center), hub, tuple(agents)

    # Terms ---------------------------------------------------------------------------------------------------

    def _center_term(self, center: Center, _: Any, i: int) -> Any:
        parties = self.parties
        return (
            parties.coordinators.codes(center.coordinator)[i],
            center.incarnation,
            parties.disks.codes(center.disk)[i],
            tuple(parties.operations.codes(each)[i] for each in center.waiting),
            center.early,
        )

    # An agent, or the relay, and the coordinator -----------------------------------------------------------------

    def joint(self, center: int, number: int, *, is_hub: bool = False) -> tuple[Move, ...]:
        """What can happen between an agent, or the relay, and the coordinator."""
        moves = self._joint.get((center, number, is_hub))
        if moves is None:
            process = self.hubs if is_hub else self.agents
            found = self._find_joint(self.centers.values[center], process, number)
            moves = self._joint[center, number, is_hub] = tuple(found)
        return moves

    def _find_joint(self, center: Center, process: Agents | Hubs, number: int) -> Iterator[Move]:
        local = process.part(number)
        name = NAMES[local.agent] if local.agent != RELAY else "the relay"
        for index, each in enumerate(local.connections):
            if each.up:
                label = f"the coordinator receives {self.parties.said(each.up[0])} of {name}"
                yield self._taken(center, process, number, index, label)
                if ends(each.up) and len(each.up) > 1:
                    label = f"the coordinator loses what {name} has sent"
                    yield self._taken(center, process, number, index, label, loses=True)
        for reached, path in process.driven(number).items():
            if reached != number:
                driven = process.part(reached)
                index = len(driven.connections) - 1
                head = driven.connections[index].up[0]  # type: ignore[index]
                label = f"{name} {path}the coordinator receives {self.parties.said(head)} of it"
                yield self._taken(center, process, reached, index, label)

    def _fresh_token(self, center: Center, local: Local) -> str:
        parties, name = self.parties, NAMES[local.agent]
        used = self.agents.tokens_of(local) | parties.coordinators.tokens(center.coordinator)
        used |= parties.disks.tokens(center.disk)
        for operation in center.waiting:
            used |= parties.operations.tokens(operation)
        return next(token for k in itertools.count(1) if (token := f"{name}.{k}") not in used)

    def _taken(
        self, center: Center, process: Agents | Hubs, number: int, index: int, label: str, *, loses: bool = False
    ) -> Move:
        """The coordinator takes a message, or the end of a connection; it may lose what came before that."""
        local = process.part(number)
        connection = local.connections[index]
        assert connection.up
        head = connection.up[-1 if loses else 0]
        change = _Change(center)
        event = self._event(center, local, connection, head)
        if event[1] != "":
            refused = self._do(change, event)
            if refused is not None:
                assert issubclass(refused, _PASSING), f"an unexpected refusal: {refused}"
                end = self.parties.refusal(refused("refused"))
                change.others.append((local.agent, ("close", connection.stream, end)))
        number, at = process.with_part(number, taken(local, index, head)), 0
        while at < len(change.others):
            agent, effect = change.others[at]
            at += 1
            if agent == local.agent:
                number = self._noticed_by_both(change, process, number, effect)
        others = tuple(each for each in change.others if each[0] != local.agent)
        after = self.centers.number(change.center)
        if local.agent == RELAY:
            return Move(Kind.FREE, label, after, None, others, change.ends, hub=number)
        return Move(Kind.FREE, label, after, number, others, change.ends)

    def _noticed_by_both(self, change: _Change, process: Agents | Hubs, number: int, effect: Effect) -> int:
        """The agent's part after an effect; the coordinator, too, hears of a stream that it ends.

        Those that it ends otherwise are of sessions that it has dropped, which it does not know any more.
        """
        if effect[0] == "close":
            ended = [each for each in process.part(number).connections if each.stream == effect[1]]
            if ended and ended[0].up is not None and ended[0].token:
                self._do(change, ("closed", ended[0].token, ended[0].stream))
        return process.noticed(number, effect)

    def _event(self, center: Center, local: Local, connection: Connection, head: int) -> Effect:
        if head < 0:
            return ("closed", connection.token, connection.stream)
        message = self.parties.messages.values[head]
        match type(message).__name__:
            case "Join":
                return ("join", head, connection.stream, self._fresh_token(center, local))
            case "GradientUpload":
                return ("gradient", connection.token, head)
            case "Leave":
                return ("leave", connection.token, head)
        raise AssertionError(f"no message {message}")

    # The coordinator and its disk ------------------------------------------------------------------------------

    def central(self, number: int) -> tuple[Move, ...]:
        """What can happen to the coordinator and its disk."""
        moves = self._central.get(number)
        if moves is None:
            moves = self._central[number] = tuple(self._find_central(self.centers.values[number]))
        return moves

    def _find_central(self, center: Center) -> Iterator[Move]:
        state = self.parties.coordinators.values[center.coordinator]
        rounds = [index for index, each in enumerate(center.waiting) if self._is_round(each)]
        if rounds:
            yield self._stored(center, rounds[:1], "a round is stored, and the coordinator told")
            if len(rounds) > 1:
                yield self._stored(center, rounds, "rounds are stored together, and the coordinator told")
        computes = state.phase is RunPhase.CLOSING and state.open_round.pending_basis is None
        if computes and not self.settings.computes_at_once:
            yield self._made(center, ("compute",), Kind.FREE, "the result is computed")
        deadline = state.specification.participation is Participation.QUORUM and state.open_round.awaited
        if deadline and state.phase is RunPhase.COLLECTING:
            yield self._made(center, ("tick", "deadline"), Kind.FREE, "the deadline of the quorum passes")

    def broken(self, number: int) -> tuple[Move, ...]:
        """The faults of the coordinator, and timeouts."""
        moves = self._broken.get(number)
        if moves is None:
            moves = self._broken[number] = tuple(self._find_broken(self.centers.values[number]))
        return moves

    def _find_broken(self, center: Center) -> Iterator[Move]:
        if self.settings.coordinator_stops:
            total = len(center.waiting)
            for kept in range(total + 1):
                label = f"the coordinator is killed and started again; {kept} of {total} writes are stored"
                yield self._restarted(_Change(self._committed(center, kept)), Kind.COORDINATOR_STOP, label)
            yield self._drained(center)
        if self.settings.timeouts:
            yield from self._timeouts(center, Kind.TIMEOUT)

    def _is_round(self, operation: int) -> bool:
        return isinstance(self.parties.operations.values[operation], StoreRound)

    def _stored(self, center: Center, rounds: list[int], label: str) -> Move:
        """The disk commits all up to the last of these rounds, and the coordinator is told.

        A commit shows only when the coordinator is told, or killed, so it happens only then.
        """
        told = tuple(center.waiting[index] for index in rounds)
        return self._made(self._committed(center, rounds[-1] + 1), ("stored", *told), Kind.FREE, label)

    def _drained(self, center: Center) -> Move:
        """The coordinator tells its agents, stores what waits, and ends; another is started."""
        change = _Change(center)
        assert self._do(change, ("drain",)) is None
        change.center = self._committed(change.center, len(change.center.waiting))
        return self._restarted(change, Kind.COORDINATOR_STOP, "the coordinator is stopped and started again")

    def _restarted(self, change: _Change, kind: Kind, label: str) -> Move:
        center = change.center
        incarnation = center.incarnation + 1
        resumed = self.parties.resumed(center.disk, incarnation)
        after = replace(center, coordinator=resumed, incarnation=incarnation, waiting=())
        others = (*change.others, *((agent, ("down", END)) for agent in self._joined))
        return Move(kind, label, self.centers.number(after), None, others)

    def overdue(self, number: int) -> tuple[Move, ...]:
        """The waits of a coordinator that end where nothing else happens: no fault, but time alone."""
        moves = self._overdue.get(number)
        if moves is None:
            center = self.centers.values[number]
            found = self._timeouts(center, Kind.FREE)
            moves = self._overdue[number] = tuple(found)
        return moves

    def _timeouts(self, center: Center, kind: Kind) -> Iterator[Move]:
        """All timeouts; those that are no fault are of what is lost."""
        state = self.parties.coordinators.values[center.coordinator]
        for token, each in state.members.sessions.items():
            if kind is Kind.TIMEOUT or not is_connected(each):
                label = f"the session of {each.agent_ids[0]} times out"
                yield self._made(center, ("tick", "silent", token), kind, label)
        if state.phase is RunPhase.WAITING and state.durability.replay_agents and state.phase_since == 0.0:
            label = "the wait for contributors is over"
            yield self._made(center, ("tick", "returned", True), kind, label)
            if not all(map(is_connected, state.members.sessions.values())):
                yield self._made(center, ("tick", "returned", False), kind, f"{label}, all sessions stay")
        if state.phase is not RunPhase.WAITING and state.open_round.awaited and kind is Kind.TIMEOUT:
            yield self._made(center, ("tick", "round"), kind, "the round times out")

    def _made(self, center: Center, event: Effect, kind: Kind, label: str) -> Move:
        change = _Change(center)
        assert self._do(change, event) is None
        return Move(kind, label, self.centers.number(change.center), None, tuple(change.others), change.ends)

    def _committed(self, center: Center, count: int) -> Center:
        """With the first operations that wait on the disk."""
        disk = self.parties.written(center.disk, center.waiting[:count])
        durable = len(self.parties.disks.values[disk].rounds)
        early = center.early if center.early > durable else 0
        return replace(center, disk=disk, waiting=center.waiting[count:], early=early)

    def _do(self, change: _Change, event: Effect) -> type[Any] | None:
        """An event of the coordinator, and what follows; the error of a refusal."""
        center = change.center
        reaction = self.parties.react(center.coordinator, event)
        if reaction.refusal is not None:
            return reaction.refusal
        change.center = replace(center, coordinator=reaction.state)
        for effect in reaction.effects:
            self._follow(change, effect)
        return None

    def _follow(self, change: _Change, effect: Effect) -> None:
        center = change.center
        stored = self.parties.disks.values[center.disk].rounds
        match effect:
            case ("store", operation):
                change.center = replace(center, waiting=(*center.waiting, operation))
            case ("durable", rounds):
                assert rounds <= len(stored), "a round is called durable that is not stored"
            case ("send", agent, stream, token, message, durable, basis):
                assert durable <= len(stored), "a round is called durable that is not stored"
                if basis is not None and len(basis) > len(stored):
                    assert not self.settings.quorum, "with a quorum, rounds are stored before they are announced"
                    change.center = replace(center, early=max(center.early, len(basis)))
                elif basis is not None and stored and basis:
                    kept = self.parties.basis_code(stored[len(basis) - 1].move.basis)
                    assert kept == basis, "another basis is announced than is stored"
                change.others.append((agent, ("message", stream, token, message)))
            case ("close", agent, stream, end):
                change.others.append((agent, ("close", stream, end)))
            case ("forget",):
                change.center = replace(center, early=0)
                if center.early:
                    forgotten = ("forget", center.early)
                    change.others += [(agent, forgotten) for agent in range(self.settings.agents)]
            case ("ahead", basis, connected):
                self._check_ahead(basis, len(stored), connected)
            case ("end",):
                assert len(stored) == self.settings.rounds, "the run ends once all rounds are stored"
                change.ends = True

    def _check_ahead(self, basis: Any, durable: int, connected: frozenset[str]) -> None:
        if len(basis) == durable:
            return
        assert durable > 0, "the first round is stored before it is announced"
        contributors = [frozenset(agent for agent, _ in pairs) for pairs in basis]
        last = contributors[durable - 1]
        assert all(each == last for each in contributors[durable:]), "other contributors than are stored run ahead"
        assert last <= connected, "a round runs ahead of the disk, and a contributor is not there"
