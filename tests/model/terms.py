"""Values as terms that can be compared and hashed, with agents that can be renamed.

So two states that differ only in which agent is which are one.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Set
from enum import Enum
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float

from cospan.core.specification import RunSpecification
from cospan.server.machine.collections.agent_set import AgentSet
from cospan.server.machine.collections.participation_counts import ParticipationCounts
from cospan.server.machine.events import SameRound
from cospan.server.machine.sessions import Session
from cospan.server.machine.state import OpenRound

NAMES = "ABCR"
"""The agents, and the relay. No other text of a state has the agents' letters."""
RELAY = 3
"""Its place among them."""
STREAMS_PER_AGENT = 8
_TOKEN = re.compile(r"[A-CR]\.\d+")

_V = TypeVar("_V")


def stream_text(stream: int) -> str:
    """A stream with the name of its agent: stream 9 is the second one of agent B; 0 is none."""
    return f"{NAMES[stream // STREAMS_PER_AGENT]}:{stream % STREAMS_PER_AGENT}" if stream else ""


class Symbols:
    """What arrays stand for: two arrays with the same bits stand for the same."""

    def __init__(self) -> None:
        self._known: dict[bytes, Hashable] = {}

    def name(self, array: Float[np.ndarray, "..."], symbol: Hashable) -> None:
        """Says what an array stands for; raises AssertionError where it stands for something else already."""
        known = self._known.setdefault(array.tobytes(), symbol)
        assert known == symbol, f"two results with the same bits: {known} and {symbol}"

    def of(self, array: Float[np.ndarray, "..."]) -> Any:
        """What an array stands for."""
        return self._known[array.tobytes()]

    def term(self, value: Any) -> Hashable:
        """A value as a term of texts, numbers, tuples and frozen sets. Raises TypeError for any other."""
        kind = type(value)
        if value is None or kind in _PLAIN:
            return value  # type: ignore[no-any-return]
        if kind is tuple:
            return tuple(map(self.term, value))
        if kind is np.ndarray:
            return self.of(value)
        if kind is AgentSet:
            return frozenset(value.blocks)
        if dataclasses.is_dataclass(value) and kind not in _NAMED_ONLY:
            return self._fields(value)
        return self._other(value)

    def _other(self, value: Any) -> Hashable:
        if isinstance(value, ParticipationCounts):
            return frozenset(value.items()), frozenset(value.newest.items())
        if isinstance(value, Mapping):
            return frozenset((self.term(key), self.term(each)) for key, each in value.items())
        if isinstance(value, Set):
            return frozenset(map(self.term, value))
        if isinstance(value, RunSpecification):
            return RunSpecification  # all parties of a run have the same
        if isinstance(value, Enum | type):
            return value
        raise TypeError(f"{type(value)} has no term")

    def _fields(self, value: Any) -> Hashable:
        if isinstance(value, SameRound):  # equal to any other mapping of the same agents
            return frozenset(value.items())
        terms = [self.term(getattr(value, name)) for name in _field_names(type(value))]
        if isinstance(value, OpenRound):  # by the first name of each sum, which is in the sum as well
            terms.append(frozenset(map(self.term, value.contributions.values())))
        if isinstance(value, Session):
            terms.append(stream_text(value.stream))
        return (type(value), *terms)


_PLAIN = (str, int, float, bool, bytes)
_NAMED_ONLY = (RunSpecification,)


@functools.cache
def _field_names(kind: Any) -> tuple[str, ...]:
    """Of a dataclass; a session's stream is named apart, with its agent, and so are the gradients of a round."""
    apart = ((Session, "stream"), (OpenRound, "contributions"))
    return tuple(each.name for each in dataclasses.fields(kind) if (kind, each.name) not in apart)


def renamed(term: Any, names: Mapping[int, int]) -> Any:
    """A term with other agents; `names` is as `str.translate` takes it."""
    if isinstance(term, str):
        return term.translate(names)
    if isinstance(term, tuple):
        after = tuple(renamed(each, names) for each in term)
        return tuple(sorted(after)) if len(after) > 1 and all(map(_is_name, after)) else after
    if isinstance(term, frozenset):
        return frozenset(renamed(each, names) for each in term)
    return term


def _is_name(term: Any) -> bool:
    """Whether this is an agent; where several are named together, they are in order."""
    return isinstance(term, str) and len(term) == 1 and term in NAMES


def tokens(term: Any) -> Iterator[str]:
    """The tokens in a term."""
    if isinstance(term, str):
        if _TOKEN.fullmatch(term):
            yield term
    elif isinstance(term, tuple | frozenset):
        for each in term:
            yield from tokens(each)


class Table(Generic[_V]):
    """Values by number: equal ones have one number, which stands for them everywhere else.

    Attributes:
        values: by number.
        terms: of the values.
    """

    def __init__(self, term: Callable[[_V], Hashable], rename: Callable[[_V, Any, int], Hashable], renamings: int):
        """`term(value)` is equal for equal values; `rename(value, term, i)` is the term under renaming i."""
        self.values: list[_V] = []
        self.terms: list[Hashable] = []
        self._term, self._rename = term, rename
        self._numbers: dict[Hashable, int] = {}
        self._codes: dict[Hashable, int] = {}
        self._renamed: list[tuple[int, ...] | None] = []
        self._renamings = range(renamings)
        self._tokens: dict[int, frozenset[str]] = {}

    def number(self, value: _V) -> int:
        """The number of a value; a new one if none equals it."""
        term = self._term(value)
        number = self._numbers.get(term)
        if number is None:
            number = self._numbers[term] = len(self.values)
            self.values.append(value)
            self.terms.append(term)
            self._renamed.append(None)
        return number

    def codes(self, number: int) -> tuple[int, ...]:
        """The number of a value's term under each renaming; equal for equal terms only."""
        codes = self._renamed[number]
        if codes is None:
            value, term, known = self.values[number], self.terms[number], self._codes
            found = (self._rename(value, term, i) for i in self._renamings)
            codes = self._renamed[number] = tuple(known.setdefault(each, len(known)) for each in found)
        return codes

    def tokens(self, number: int) -> frozenset[str]:
        """The tokens in a value."""
        known = self._tokens.get(number)
        if known is None:
            known = self._tokens[number] = frozenset(tokens(self.terms[number]))
        return known

    def __len__(self) -> int:
        return len(self.values)
