"""An immutable set of agent names in blocks, one per process: the present, awaited and counted agents."""

from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import chain
from typing import TypeAlias

from cospan.server.machine.collections.persistent_map import PersistentMap

Block: TypeAlias = tuple[str, ...]
"""Agent names that are added and removed together, mostly all of a session; identified by its first name."""


class AgentSet(Set[str]):
    """A frozen set of names, in disjoint blocks.

    Operations on whole blocks cost the same whatever the number of their names. All others are correct for any
    names, and may build the set of all names, once.
    """

    __slots__ = ("_blocks", "_length", "_names")

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        """A set of disjoint blocks, none of them empty."""
        self._blocks = PersistentMap({block[0]: block for block in blocks})
        self._length = sum(map(len, self._blocks.values()))
        self._names: frozenset[str] | None = None

    @classmethod
    def of_names(cls, names: Iterable[str]) -> "AgentSet":
        """A set with one block per name."""
        return cls((name,) for name in names)

    @classmethod
    def _from_iterable(cls, it: Iterable[str]) -> frozenset[str]:  # type: ignore[override]
        """The type of the results of set operators."""
        return frozenset(it)

    @property
    def blocks(self) -> Iterable[Block]:
        """The blocks, in the order of insertion."""
        return self._blocks.values()

    @property
    def block_count(self) -> int:
        """How many blocks there are."""
        return len(self._blocks)

    @property
    def names(self) -> frozenset[str]:
        """All names."""
        if self._names is None:
            self._names = frozenset(chain.from_iterable(self._blocks.values()))
        return self._names

    def has(self, block: Block) -> bool:
        """Whether this is one of the blocks; if not, some of its names may still be in the set."""
        known = self._blocks.get(block[0]) if block else None
        return known is block or (known is not None and known == block)

    def add(self, block: Block) -> "AgentSet":
        """The set with one more block, disjoint from it."""
        return self._with(self._blocks.set(block[0], block), self._length + len(block))

    def add_all(self, blocks: Sequence[Block]) -> "AgentSet":
        """The set with more blocks, disjoint from each other and from it."""
        added = {block[0]: block for block in blocks}
        return self._with(self._blocks.update(added), self._length + sum(map(len, blocks)))

    def remove_blocks(self, blocks: Sequence[Block]) -> "AgentSet":
        """The set without some of its own blocks (`has`)."""
        left = self._length - sum(map(len, blocks))
        return self._with(self._blocks.remove(*(block[0] for block in blocks)), left) if left else EMPTY_SET

    def remove(self, names: Block) -> "AgentSet":
        """The set without these names; the rest of a block becomes a block."""
        if self.has(names):
            return self._with(self._blocks.remove(names[0]), self._length - len(names))
        if self.isdisjoint(names):
            return self
        gone = frozenset(names)
        left = (tuple(name for name in block if name not in gone) for block in self._blocks.values())
        return AgentSet(block for block in left if block)

    def _with(self, blocks: PersistentMap[str, Block], length: int) -> "AgentSet":
        after = object.__new__(AgentSet)
        after._blocks, after._length, after._names = blocks, length, None
        return after

    def covers(self, names: Block) -> bool:
        """Whether all these names are in the set."""
        return self.has(names) or all(name in self for name in names)

    def isdisjoint(self, other: Iterable[str]) -> bool:
        """Whether none of these names is in the set."""
        return not self._length or not any(name in self for name in other)

    def intersection(self, other: Iterable[str]) -> frozenset[str]:
        """Those of these names that are in the set."""
        return frozenset(name for name in other if name in self)

    def __contains__(self, name: object) -> bool:
        if name in self._blocks:
            return True
        if len(self._blocks) == self._length:  # a name each
            return False
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._blocks.values())

    def __len__(self) -> int:
        return self._length

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AgentSet):
            if self is other or self._length != other._length:
                return self is other
            return self._blocks == other._blocks or self.names == other.names
        return self.names == other if isinstance(other, Set) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"AgentSet({list(self._blocks.values())!r})"


EMPTY_SET = AgentSet()
