"""The number of rounds of each agent, and the newest of them, kept per block of agents."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TypeAlias

from cospan.server.machine.collections.agent_set import EMPTY_SET, AgentSet, Block

_Turns: TypeAlias = tuple[Block, int, int]
"""A block, the number of rounds in which it took part, and the newest of them."""


class ParticipationCounts(Mapping[str, int]):
    """Agent id → number of rounds, for agents that mostly take part in the same rounds as the rest of their block.

    Adding a round of the same agents as the one before has constant cost; any other costs in proportion to the
    number of blocks. The counts of single agents are computed on first use. When a block is dissolved, its agents
    keep their counts.
    """

    __slots__ = ("_by_name", "_carried", "_streak", "_turns")

    def __init__(self, counts: Mapping[str, int] | None = None, newest: Mapping[str, int] | None = None) -> None:
        """The counts of `counts`, and the newest rounds of `newest`, which has the same keys."""
        newest = newest or {}
        self._carried = {name: (count, newest[name]) for name, count in (counts or {}).items()}
        self._turns: dict[str, _Turns] = {}
        self._streak: tuple[AgentSet, int, int] = EMPTY_SET, 0, 0
        """The agents of the newest rounds, how many of these in a row, and the newest: not in `_turns` yet."""
        self._by_name: dict[str, tuple[int, int]] | None = None

    def add(self, agents: AgentSet, number: int) -> "ParticipationCounts":
        """The counts after round `number`, in which these agents took part."""
        if not agents:
            return self
        after = object.__new__(ParticipationCounts)
        after._carried, after._turns, after._by_name = self._carried, self._turns, None
        same, count, _ = self._streak
        if agents == same:
            after._streak = same, count + 1, number
        else:
            after._streak = agents, 1, number
            after._take_turns(*self._streak)
        return after

    def _take_turns(self, agents: AgentSet, count: int, newest: int) -> None:
        """Adds a finished streak to each of its blocks; called on a new object only."""
        self._turns = dict(self._turns)
        fresh = [block for block in agents.blocks if not self._knows(block)]
        if fresh:
            self._make_room(frozenset(chain.from_iterable(fresh)))
        for block in agents.blocks:
            known = self._turns.get(block[0])
            self._turns[block[0]] = (block, known[1] + count if known else count, newest)

    def _knows(self, block: Block) -> bool:
        known = self._turns.get(block[0])
        return known is not None and (known[0] is block or known[0] == block)

    def _make_room(self, names: frozenset[str]) -> None:
        """Dissolves the blocks that hold any of these names; called on a new object only."""
        dissolved = [first for first, (block, _, _) in self._turns.items() if not names.isdisjoint(block)]
        if dissolved:
            self._carried = _with_turns(self._carried, [self._turns.pop(first) for first in dissolved])

    @property
    def by_name(self) -> Mapping[str, tuple[int, int]]:
        """Agent → number of rounds, and the newest of them."""
        if self._by_name is None:
            agents, count, newest = self._streak
            running = [(block, count, newest) for block in agents.blocks]
            self._by_name = _with_turns(self._carried, chain(self._turns.values(), running))
        return self._by_name

    @property
    def newest(self) -> dict[str, int]:
        """Agent → the newest of its rounds."""
        return {name: last for name, (_, last) in self.by_name.items()}

    def __getitem__(self, name: str) -> int:
        return self.by_name[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    def __repr__(self) -> str:
        return f"ParticipationCounts({dict(self)!r})"


def _with_turns(carried: Mapping[str, tuple[int, int]], turns: Iterable[_Turns]) -> dict[str, tuple[int, int]]:
    after = dict(carried)
    for block, count, last in turns:
        for name in block:
            before = after.get(name)
            after[name] = (before[0] + count if before else count, last)
    return after
