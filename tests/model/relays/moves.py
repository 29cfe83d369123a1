"""What can happen to the relay: by itself, by a fault, and with an agent of its own."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cospan.client.session.machine import Phase
from cospan.server.machine.opening import is_connected
from cospan.server.machine.state import OVER
from cospan.wire.errors import (
    AgentIdTakenError,
    DrainingError,
    SessionUnknownError,
)
from cospan.wire.messages import RunPhase
from model.agents import Agents, Kind, Move
from model.parties import Effect, Parties, Settings
from model.relays.steps import Answer, RelaySteps
from model.states import (
    END,
    Hub,
    Local,
    connected,
    cut,
    ends,
    hung_up,
    noticed,
    received,
    sent,
    taken,
    with_connection,
)
from model.terms import NAMES, RELAY, Table, stream_text

_PASSING = (AgentIdTakenError, DrainingError, SessionUnknownError)
"""Errors by which a relay may refuse an honest agent."""
_MOST_CONNECTIONS = 2
"""Of the relay with the coordinator, most of which have ended: it does not join again before those are taken."""


class _BusyError(Exception):
    """The move has to wait until the coordinator has taken an older connection."""


class Hubs:
    """The relay's parts of all states, by number, and what happens to them."""

    def __init__(self, settings: Settings, parties: Parties, agents: Agents) -> None:
        self._settings, self._parties, self._agents = settings, parties, agents
        self._steps = RelaySteps(settings, parties)
        self.relays = self._steps.table
        self.table = Table[Hub](lambda hub: hub, self._term, parties.renamings)
        self._free: dict[int, tuple[Move, ...]] = {}
        self._broken: dict[int, tuple[Move, ...]] = {}
        self._overdue: dict[int, tuple[Move, ...]] = {}
        self._joint: dict[tuple[int, int], tuple[Move, ...]] = {}
        self._noticed: dict[tuple[int, Effect], int] = {}
        self._settled: dict[tuple[int, tuple[int, ...]], None] = {}

    def _term(self, hub: Hub, _: Any, i: int) -> Any:
        parties, rename = self._parties, self._parties.rename
        connections = tuple(
            (
                rename(stream_text(each.stream), i),
                rename(each.token, i),
                self._agents.queue_codes(each.up, i),
                self._agents.queue_codes(each.down, i),
            )
            for each in hub.above.connections
        )
        return (
            self.relays.codes(hub.relay)[i],
            rename(hub.welcomed, i),
            parties.sessions.codes(hub.above.session)[i],
            hub.above.generation,
            connections,
        )

    def first(self) -> int:
        """The number of the first relay, which has no agents yet."""
        return self.table.number(self._begun(Local(RELAY)))

    def _begun(self, above: Local) -> Hub:
        """The part with a new process."""
        begun = self._steps.started()
        above = replace(above, session=begun.session, generation=above.generation + 1)
        return Hub(begun.relay, begun.welcomed, above)

    # As a process with a session, of which the coordinator takes messages -----------------------------------------

    def part(self, number: int) -> Local:
        """Its session and connections."""
        return self.table.values[number].above

    def with_part(self, number: int, above: Local) -> int:
        """The number of the relay with other connections."""
        return self.table.number(replace(self.table.values[number], above=above))

    def driven(self, number: int) -> dict[int, str]:
        """A relay acts by itself when it does (`free`), because its agents see that."""
        return {}

    def noticed(self, number: int, effect: Effect) -> int:
        """The relay after an effect of the coordinator's move."""
        after = self._noticed.get((number, effect))
        if after is None:
            forgets = effect[0] == "forget"  # what it was told its agents are told
            after = number if forgets else self.with_part(number, noticed(self.part(number), effect))
            self._noticed[number, effect] = after
        return after

    # By itself -------------------------------------------------------------------------------------------------

    def free(self, number: int) -> tuple[Move, ...]:
        """What the relay can do next by itself: take what has arrived, or join with those it has waited for."""
        moves = self._free.get(number)
        if moves is None:
            moves = self._free[number] = tuple(self._find_free(self.table.values[number]))
        return moves

    def _find_free(self, hub: Hub) -> Iterator[Move]:
        current = hub.above.current
        if current is not None and current.down:
            head, end = current.down[0], current.down[-1]
            said = self._parties.said(head)
            yield from self._receiving(hub, head, current.down[1:], f"the relay receives {said}")
            if end < 0 and len(current.down) > 1:
                yield from self._receiving(hub, end, (), "the relay loses what the coordinator has sent")
        if self.relays.values[hub.relay].asking_at is not None:
            yield from self._made(hub, ("tick", "gathered"), Kind.FREE, "the relay has waited for more agents")

    def _receiving(self, hub: Hub, head: int, rest: tuple[int, ...], label: str) -> Iterator[Move]:
        hub = replace(hub, above=received(hub.above, head, rest))
        yield from self._made(hub, ("received", head), Kind.FREE, label)

    def _made(self, hub: Hub, event: Effect, kind: Kind, label: str) -> Iterator[Move]:
        """The move that an event makes; none where it has to wait."""
        with contextlib.suppress(_BusyError):
            hub, answer = self._reacted(hub, event)
            assert answer.refusal is None
            yield Move(kind, label, hub=self.table.number(hub), others=answer.below)

    def _reacted(self, hub: Hub, event: Effect) -> tuple[Hub, Answer]:
        """The relay after an event, with a new connection if its session wants one, and what its agents notice."""
        above = hub.above
        answer = self._steps.answer(hub.relay, above.session, hub.welcomed, above.generation, event)
        above = replace(above, session=answer.session)
        for effect in answer.above:
            above = (
                sent(above, effect[1])
                if effect[0] == "transmit"
                else replace(above, connections=hung_up(above.connections))
            )
        if answer.is_over:
            above = replace(above, connections=hung_up(above.connections))
        hub = Hub(answer.relay, answer.welcomed, above)
        state = self._parties.sessions.values[above.session]
        wants = state.phase is Phase.OFFLINE and state.join is not None and above.current is None
        if answer.is_over or not wants:
            return hub, answer
        if len(above.connections) >= _MOST_CONNECTIONS:
            raise _BusyError
        hub, more = self._reacted(replace(hub, above=connected(above)), ("connected",))
        return hub, replace(more, below=(*answer.below, *more.below), refusal=answer.refusal)

    # Faults ------------------------------------------------------------------------------------------------------

    def broken(self, number: int) -> tuple[Move, ...]:
        """The faults of the relay, of its connection, and its timeouts."""
        moves = self._broken.get(number)
        if moves is None:
            moves = self._broken[number] = tuple(self._find_broken(self.table.values[number]))
        return moves

    def _find_broken(self, hub: Hub) -> Iterator[Move]:
        settings = self._settings
        if settings.relay_stops:
            yield self._restarted(hub, (), "the relay is killed, and started again")
            drained, answer = self._reacted(hub, ("drain",))
            assert answer.refusal is None
            yield self._restarted(drained, answer.below, "the relay is stopped, and started again")
        broken = cut(hub.above) if settings.cuts else None
        if broken is not None:
            after = self.table.number(replace(hub, above=broken))
            yield Move(Kind.CUT, "the connection of the relay breaks", hub=after)
        if settings.timeouts:
            yield from self._timeouts(hub, Kind.TIMEOUT)

    def _restarted(self, hub: Hub, below: tuple[tuple[int, Effect], ...], label: str) -> Move:
        after = self._begun(replace(hub.above, connections=hung_up(hub.above.connections)))
        others = (*below, *((agent, ("down", END)) for agent in range(self._settings.relayed)))
        return Move(Kind.RELAY_STOP, label, hub=self.table.number(after), others=others)

    def overdue(self, number: int) -> tuple[Move, ...]:
        """The waits of the relay that end where nothing else happens."""
        moves = self._overdue.get(number)
        if moves is None:
            moves = self._overdue[number] = tuple(self._timeouts(self.table.values[number], Kind.FREE))
        return moves

    def _timeouts(self, hub: Hub, kind: Kind) -> Iterator[Move]:
        """All timeouts; those that are no fault are of what is lost."""
        state = self.relays.values[hub.relay].fleet
        for token, each in state.members.sessions.items():
            if kind is Kind.TIMEOUT or not is_connected(each):
                label = f"the session of {each.agent_ids[0]} with the relay times out"
                yield from self._made(hub, ("tick", "silent", token), kind, label)
        if state.phase not in (RunPhase.WAITING, *OVER) and state.open_round.awaited and kind is Kind.TIMEOUT:
            yield from self._made(hub, ("tick", "round"), Kind.TIMEOUT, "the round of the relay times out")

    # An agent and the relay --------------------------------------------------------------------------------------

    def joint(self, number: int, local: int) -> tuple[Move, ...]:
        """What can happen between an agent and the relay."""
        moves = self._joint.get((number, local))
        if moves is None:
            found = self._find_joint(self.table.values[number], local)
            moves = self._joint[number, local] = tuple(found)
        return moves

    def _find_joint(self, hub: Hub, number: int) -> Iterator[Move]:
        local = self._agents.table.values[number]
        name = NAMES[local.agent]
        for index, each in enumerate(local.connections):
            if each.up:
                label = f"the relay receives {self._parties.said(each.up[0])} of {name}"
                yield from self._taken(hub, local, index, each.up[0], label)
                if ends(each.up) and len(each.up) > 1:
                    yield from self._taken(hub, local, index, each.up[-1], f"the relay loses what {name} has sent")
        for reached, path in self._agents.driven(number).items():
            if reached != number:
                driven = self._agents.table.values[reached]
                index = len(driven.connections) - 1
                head = driven.connections[index].up[0]  # type: ignore[index]
                label = f"{name} {path}the relay receives {self._parties.said(head)} of it"
                yield from self._taken(hub, driven, index, head, label)

    def _taken(self, hub: Hub, local: Local, index: int, head: int, label: str) -> Iterator[Move]:
        """The relay takes a message, or the end of a connection; not where it has to wait."""
        with contextlib.suppress(_BusyError):
            yield self._take(hub, local, index, head, label)

    def _take(self, hub: Hub, local: Local, index: int, head: int, label: str) -> Move:
        connection, after = local.connections[index], taken(local, index, head)
        below: list[tuple[int, Effect]] = []
        if head >= 0 or connection.token:
            hub, answer = self._reacted(hub, self._event(hub, local, index, head))
            below += answer.below
            if answer.refusal is not None:
                assert issubclass(answer.refusal, _PASSING), f"an unexpected refusal: {answer.refusal}"
                end = self._parties.refusal(answer.refusal("refused"))
                below.append((local.agent, ("close", connection.stream, end)))
            elif head >= 0 and not connection.token:
                after = with_connection(after, index, token=self._token(hub, connection.stream))
        mine, others = self._agents.table.number(after), list[tuple[int, Effect]]()
        while below:
            agent, effect = below.pop(0)
            if agent != local.agent:
                others.append((agent, effect))
                continue
            if effect[0] == "close":
                hub, more = self._hears_the_end(hub, mine, effect)
                below += more
            mine = self._agents.noticed(mine, effect)
        return Move(Kind.FREE, label, local=mine, hub=self.table.number(hub), others=tuple(others))

    def _hears_the_end(self, hub: Hub, number: int, effect: Effect) -> tuple[Hub, tuple[tuple[int, Effect], ...]]:
        """The relay, too, hears of a stream that it ends."""
        connections = self._agents.table.values[number].connections
        ended = [each for each in connections if each.stream == effect[1]]
        if not ended or ended[0].up is None or not ended[0].token:
            return hub, ()
        hub, answer = self._reacted(hub, ("closed", ended[0].token, ended[0].stream))
        return hub, answer.below

    def _token(self, hub: Hub, stream: int) -> str:
        """That of the session which a join has opened or resumed; its welcome may come later."""
        sessions = self.relays.values[hub.relay].fleet.members.sessions.values()
        return next(each.token for each in sessions if each.stream == stream)

    def _event(self, hub: Hub, local: Local, index: int, head: int) -> Effect:
        connection = local.connections[index]
        if head < 0:
            return ("closed", connection.token, connection.stream)
        match type(self._parties.messages.values[head]).__name__:
            case "Join":
                return ("join", head, connection.stream, self._fresh_token(hub, local))
            case "GradientUpload":
                return ("gradient", connection.token, head)
        raise AssertionError(f"no message {self._parties.messages.values[head]}")

    def _fresh_token(self, hub: Hub, local: Local) -> str:
        name = NAMES[local.agent]
        used = self.relays.tokens(hub.relay) | self._agents.tokens_of(local)
        return next(token for k in itertools.count(1) if (token := f"{name}.{k}") not in used)

    # The end -----------------------------------------------------------------------------------------------------

    def settle(self, number: int, agents: tuple[int, ...]) -> None:
        """Lets the relay, and then its agents, do all that they can after the run."""
        if (number, agents) in self._settled:
            return
        self._settled[number, agents] = None
        moves = self.free(number)
        for move in moves:
            after = list(agents)
            for agent, effect in move.others:
                after[agent] = self._agents.noticed(after[agent], effect)
            assert move.hub is not None
            self.settle(move.hub, tuple(after))
        for agent in () if moves else agents:
            self._agents.settle(agent)
