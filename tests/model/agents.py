"""What can happen to an agent: by itself, by a fault, and by what the coordinator does."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, TypeAlias

from cospan.client.session.machine import Phase
from model.parties import Effect, Parties, Settings
from model.states import Local, connected, cut, ends, hung_up, noticed, received, sent
from model.terms import NAMES, Table, stream_text


class Kind(IntEnum):
    """What a move costs: nothing, or a fault."""

    FREE = 0
    COORDINATOR_STOP = 1
    AGENT_STOP = 2
    CUT = 3
    TIMEOUT = 4
    RELAY_STOP = 5


Others: TypeAlias = tuple[tuple[int, Effect], ...]
"""What agents, or the relay, notice of a move: their places, each with an effect."""


@dataclass(frozen=True, slots=True)
class Move:
    """One thing that can happen; what does not change is None."""

    kind: Kind
    label: str
    center: int | None = None
    local: int | None = None
    others: Others = ()
    ends: bool = False
    hub: int | None = None


class Agents:
    """The agents' parts of all states, by number, and what happens to them."""

    def __init__(self, settings: Settings, parties: Parties) -> None:
        self._settings, self._parties = settings, parties
        self.table = Table[Local](lambda local: local, self._local_term, parties.renamings)
        self._alone: dict[int, tuple[Move, ...]] = {}
        self._noticed: dict[tuple[int, Effect], int] = {}
        self._sent: dict[int, dict[int, str]] = {}
        self._settled: set[int] = set()

    def _local_term(self, local: Local, _: Any, i: int) -> Any:
        parties, rename = self._parties, self._parties.rename
        connections = tuple(
            (
                rename(stream_text(each.stream), i),
                rename(each.token, i),
                self.queue_codes(each.up, i),
                self.queue_codes(each.down, i),
            )
            for each in local.connections
        )
        session = parties.sessions.codes(local.session)[i]
        learnt, told = rename(local.learnt, i), rename(local.told, i)
        return rename(NAMES[local.agent], i), session, local.generation, learnt, told, local.excused, connections

    def queue_codes(self, queue: tuple[int, ...] | None, i: int) -> Any:
        """Codes of the messages in a queue, under a renaming."""
        if queue is None:
            return None
        return tuple(each if each < 0 else self._parties.messages.codes(each)[i] for each in queue)

    def alone(self, number: int) -> tuple[Move, ...]:
        """The faults of an agent and of its connection."""
        moves = self._alone.get(number)
        if moves is None:
            moves = self._alone[number] = tuple(self._find_alone(self.table.values[number]))
        return moves

    def _find_alone(self, local: Local) -> Iterator[Move]:
        name = NAMES[local.agent]
        if self._settings.agent_stops:
            after = self.begun(replace(local, connections=hung_up(local.connections)))
            yield Move(Kind.AGENT_STOP, f"{name} is killed, and started again", local=self.table.number(after))
        broken = cut(local) if self._settings.cuts else None
        if broken is not None:
            yield Move(Kind.CUT, f"the connection of {name} breaks", local=self.table.number(broken))

    def begun(self, local: Local) -> Local:
        """The agent's part with a new process."""
        generation = local.generation + 1
        begun = self._parties.started(local.agent, generation)
        local = replace(local, session=begun.state, generation=generation, learnt=frozenset(), told=())
        return self._connected(local)

    def _connected(self, local: Local) -> Local:
        """The agent's part with a new connection, if its process wants one."""
        phase = self._parties.sessions.values[local.session].phase
        if phase is not Phase.OFFLINE or local.current is not None:
            return local
        return self._reacted(connected(local), ("connected",))

    def _steps(self, local: Local) -> Iterator[tuple[str, Local]]:
        """What an agent can do next by itself: take what has arrived, or learn."""
        current, state = local.current, self._parties.sessions.values[local.session]
        if current is not None and current.down:
            head, end = current.down[0], current.down[-1]
            yield f"receives {self._parties.said(head)}", self._received(local, head, current.down[1:])
            if end < 0 and len(current.down) > 1:
                yield "loses what was on its way", self._received(local, end, ())
        if state.learning is not None and state.phase not in (Phase.DONE, Phase.FAILED):
            yield f"has learnt round {state.learning}", self._reacted(local, ("ready",))

    def driven(self, number: int) -> dict[int, str]:
        """The agent's part once it has next sent something, each with what led there.

        What an agent does by itself shows only then, so it happens only then: this leaves out orders of events that
        differ in nothing that any other party sees.
        """
        driven = self._sent.get(number)
        if driven is None:
            driven = self._sent[number] = {}
            known, front = {number}, [(number, "")]
            while front:
                at, path = front.pop()
                local = self.table.values[at]
                if local.current is not None and local.current.up and not ends(local.current.up):
                    driven.setdefault(at, path)
                    continue
                for label, after in self._steps(local):
                    reached = self.table.number(after)
                    if reached not in known:
                        known.add(reached)
                        front.append((reached, f"{path}{label}, "))
        return driven

    def settle(self, number: int) -> None:
        """Lets an agent do all that it can after the run; raises AssertionError where it must not."""
        if number not in self._settled:
            self._settled.add(number)
            for _, after in self._steps(self.table.values[number]):
                self.settle(self.table.number(after))

    def _received(self, local: Local, head: int, rest: tuple[int, ...]) -> Local:
        local = received(self._told(local, head) if head >= 0 else local, head, rest)
        return self._reacted(local, ("received", head))

    def _told(self, local: Local, message: int) -> Local:
        """The agent's part after a message: what its process is told of a round does not change."""
        basis = self._parties.basis_in(self._parties.messages.values[message])
        if basis is None:
            return local
        known = local.told
        shared = next((at for at, (one, other) in enumerate(zip(known, basis, strict=False)) if one != other), None)
        # A basis names the rounds that it is made of, so those that one run leads to begin in the same way.
        assert shared is None or shared < local.excused, "a process is told of another basis than it has received"
        return local if shared is None and len(basis) <= len(known) else replace(local, told=basis)

    def _reacted(self, local: Local, event: Effect) -> Local:
        reaction = self._parties.session_reacts(local.session, event)
        local = replace(local, session=reaction.state)
        for effect in reaction.effects:
            match effect:
                case ("transmit", message):
                    local = sent(local, message)
                case ("hang up",):
                    local = replace(local, connections=hung_up(local.connections))
                case ("learn", of, basis):
                    assert (of, basis) not in local.learnt, "a process learns a round at one basis twice"
                    local = replace(local, learnt=local.learnt | {(of, basis)})
        return self._connected(local)

    # An agent notices what the coordinator does ------------------------------------------------------------------

    def noticed(self, number: int, effect: Effect) -> int:
        """The agent's part after an effect of another's move."""
        after = self._noticed.get((number, effect))
        if after is None:
            local = noticed(self.table.values[number], effect)
            after = self._noticed[number, effect] = self.table.number(local)
        return after

    # As `Hubs` -------------------------------------------------------------------------------------------------

    def part(self, number: int) -> Local:
        """Its session and connections."""
        return self.table.values[number]

    def with_part(self, number: int, local: Local) -> int:
        """The number of an agent's part with other connections."""
        return self.table.number(local)

    def tokens_of(self, local: Local) -> set[str]:
        """The tokens that an agent's part refers to, or the relay's session."""
        parties, used = self._parties, {each.token for each in local.connections}
        tables: list[tuple[Table[Any], tuple[int, ...]]] = [(parties.sessions, (local.session,))]
        for each in local.connections:
            queued = (number for queue in (each.up, each.down) for number in queue or () if number >= 0)
            tables.append((parties.messages, tuple(queued)))
        for table, numbers in tables:
            used.update(*(table.tokens(number) for number in numbers))
        return used
