"""Breadth-first search of all states, and of the way to the end from each."""

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from model.agents import Kind, Move
from model.moves import Moves
from model.parties import Settings
from model.terms import RELAY

_BITS = 26


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found.

    Attributes:
        states: how many there are.
        moves: between them.
        depth: moves on the longest of the shortest paths to a state.
        seconds: of CPU time.
        violation: what does not hold; empty if all holds.
        path: what happened before that, in order.
        complete: whether all states were looked at.
        parts: how many different states the parties have.
    """

    states: int
    moves: int
    depth: int
    seconds: float
    violation: str = ""
    path: tuple[str, ...] = ()
    complete: bool = True
    parts: dict[str, int] = field(default_factory=dict)


class Search:
    """All states that a run of these settings can be in."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.moves = settings, Moves(settings)
        self._agents = settings.agents
        self._budgets: list[tuple[int, ...]] = [(0,) * len(Kind)]
        self._budget_numbers = {self._budgets[0]: 0}
        self._spent: dict[tuple[int, Kind], int] = {}
        self._states: list[tuple[int, ...]] = []
        """Each: budget, the coordinator's part, the relay's, and each agent's."""
        self._known: dict[int, int] = {}
        self._parents, self._labels = array("I"), array("I")
        self._texts: dict[str, int] = {}
        self._free_from, self._free_to = array("I"), array("I")
        self._ends = array("I")
        self._depths = array("H")
        self._finished: set[int] = set()
        """The coordinator's parts after the end of the run."""
        self._inverse = [
            tuple(each.index(place) for place in range(self._agents)) for each in self.moves.permutations
        ]

    def run(self, most: int = 50_000_000) -> Found:
        """Looks at all states, `most` at the most."""
        begun, count, violation, at = time.process_time(), 0, "", -1
        center, hub, agents = self.moves.first()
        self._add((0, center, hub, *agents), 0, "")
        while (at := at + 1) < len(self._states):
            if len(self._states) > most:
                break
            try:
                for kind, label, after, ends in self._successors(self._states[at]):
                    count += 1
                    number = self._add(after, at, label)
                    if ends:
                        self._ends.append(number)
                        self._settle(after)
                    if kind is Kind.FREE:
                        self._free_from.append(at)
                        self._free_to.append(number)
            except Exception as failure:  # whatever is raised is a violation
                violation = f"{type(failure).__name__}: {failure}"
                break
        complete = at == len(self._states)
        if complete and not violation and (stuck := self._stuck()) >= 0:
            violation, at = "no way leads from here to the end of the run", stuck
        seconds = time.process_time() - begun
        path = tuple(self._path(at)) if violation else ()
        depth = self._depths[len(self._states) - 1]
        parts = {
            "coordinators": len(self.moves.parties.coordinators),
            "sessions": len(self.moves.parties.sessions),
            "disks": len(self.moves.parties.disks),
            "agents' parts": len(self.moves.locals),
            "coordinator's parts": len(self.moves.centers),
        }
        if self.settings.relayed:
            parts |= {"relays": len(self.moves.hubs.relays), "relay's parts": len(self.moves.hubs.table)}
        return Found(len(self._states), count, depth, seconds, violation, path, complete, parts)

    def _settle(self, state: tuple[int, ...]) -> None:
        """Lets all processes do what they can after the run."""
        _, _, hub, *agents = state
        relayed = self.settings.relayed
        for agent in agents[relayed:]:
            self.moves.agents.settle(agent)
        if relayed:
            self.moves.hubs.settle(hub, tuple(agents[:relayed]))

    # States ----------------------------------------------------------------------------------------------------

    def _add(self, state: tuple[int, ...], parent: int, label: str) -> int:
        key = self._key(state)
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = len(self._states)
            self._states.append(state)
            self._parents.append(parent)
            self._labels.append(self._texts.setdefault(label, len(self._texts)))
            self._depths.append(self._depths[parent] + 1 if number else 0)
        return number

    def _key(self, state: tuple[int, ...]) -> int:
        """Equal for states that differ in the agents' names only."""
        budget, center, hub, *agents = state
        hubs = self.moves.hubs.table.codes(hub) if self.settings.relayed else None
        parts = [self.moves.locals.codes(agent) for agent in agents]
        keys = []
        for renaming, first in enumerate(self.moves.centers.codes(center)):
            key = first if hubs is None else first << _BITS | hubs[renaming]
            for place in self._inverse[renaming]:
                key = key << _BITS | parts[place][renaming]
            keys.append(key)
        return min(keys) << 8 | budget

    def _spend(self, budget: int, kind: Kind) -> int:
        """The budget after a fault; -1 if it is used up."""
        number = self._spent.get((budget, kind))
        if number is None:
            spent = list(self._budgets[budget])
            spent[kind] += 1
            most = (0, *(getattr(self.settings, name) for name in _LIMITS))
            if sum(spent) > self.settings.faults or spent[kind] > most[kind]:
                number = -1
            else:
                after = tuple(spent)
                number = self._budget_numbers.setdefault(after, len(self._budgets))
                if number == len(self._budgets):
                    self._budgets.append(after)
            self._spent[budget, kind] = number
        return number

    def _successors(self, state: tuple[int, ...]) -> Iterator[tuple[Kind, str, tuple[int, ...], bool]]:
        budget, center, hub, *agents = state
        if center in self._finished:
            return
        is_idle = True
        for move, index in self._moves(center, hub, agents, sum(self._budgets[budget]) < self.settings.faults):
            is_idle = is_idle and move.kind is not Kind.FREE
            yield from self._made(move, state, index)
        if is_idle and self.settings.relayed:
            for move in (*self.moves.overdue(center), *self.moves.hubs.overdue(hub)):
                yield from self._made(move, state, -1)

    def _moves(self, center: int, hub: int, agents: list[int], breaks: bool) -> Iterator[tuple[Move, int]]:
        """What can happen next, each with the agent to which it does; -1 for none."""
        moves, relayed = self.moves, self.settings.relayed
        found = [moves.central(center)]
        if breaks:
            found.append(moves.broken(center))
        if relayed:
            found += [moves.hubs.free(hub), moves.joint(center, hub, is_hub=True)]
            if breaks:
                found.append(moves.hubs.broken(hub))
        for each in found:
            for move in each:
                yield move, -1
        for index, agent in enumerate(agents):
            for move in moves.agents.alone(agent) if breaks else ():
                yield move, index
            for move in moves.hubs.joint(hub, agent) if index < relayed else moves.joint(center, agent):
                yield move, index

    def _made(
        self, move: Move, state: tuple[int, ...], index: int
    ) -> Iterator[tuple[Kind, str, tuple[int, ...], bool]]:
        budget, center, hub, *agents = state
        if move.kind is not Kind.FREE:
            budget = self._spend(budget, move.kind)
            if budget < 0:
                return
        after = list(agents)
        if move.local is not None:
            after[index] = move.local
        hub = hub if move.hub is None else move.hub
        for agent, effect in move.others:
            if agent == RELAY:
                hub = self.moves.hubs.noticed(hub, effect)
            else:
                after[agent] = self.moves.agents.noticed(after[agent], effect)
        number = center if move.center is None else move.center
        if move.ends:
            self._finished.add(number)
        yield move.kind, move.label, (budget, number, hub, *after), move.ends

    # Ways ------------------------------------------------------------------------------------------------------

    def _stuck(self) -> int:
        """The first state from which no way leads to the end without another fault; -1 if there is none."""
        total = len(self._states)
        sources, targets = np.frombuffer(self._free_from, np.uint32), np.frombuffer(self._free_to, np.uint32)
        order = np.argsort(targets, kind="stable")
        starts = np.searchsorted(targets[order], np.arange(total + 1))
        sources = sources[order]
        reached = np.zeros(total, bool)
        front = np.unique(np.frombuffer(self._ends, np.uint32)) if self._ends else np.zeros(0, np.uint32)
        reached[front] = True
        while len(front):
            counts = starts[front + 1] - starts[front]
            offsets = np.repeat(starts[front] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            before = np.unique(sources[offsets])
            front = before[~reached[before]]
            reached[front] = True
        return -1 if reached.all() else int(np.argmin(reached))

    def _path(self, state: int) -> list[str]:
        """What leads to a state, in order."""
        texts, path = list(self._texts), []
        while state:
            path.append(texts[self._labels[state]])
            state = self._parents[state]
        return path[::-1]


_LIMITS = ("coordinator_stops", "agent_stops", "cuts", "timeouts", "relay_stops")
