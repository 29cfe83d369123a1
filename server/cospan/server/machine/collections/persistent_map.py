"""An immutable mapping that is cheap to copy with a change: for what nearly every event changes."""

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Any, TypeVar, overload

_K = TypeVar("_K")
_V = TypeVar("_V")
_D = TypeVar("_D")
_GONE: Any = object()
"""Marks a key of the lower layer as removed."""
_FEW = 32
"""Mappings of at most this size are copied as a whole."""


class PersistentMap(Mapping[_K, _V]):
    """A mapping of n entries; a copy with one entry changed costs O(√n), amortized.

    It has two layers: a dict that many mappings share, and the newest changes to it, which every change copies.
    Once there are more than √n of them, both layers are merged. The order is that of a dict changed the same way.
    """

    __slots__ = ("_length", "_lower", "_upper")

    def __init__(self, entries: Mapping[_K, _V] | None = None) -> None:
        self._lower: dict[_K, _V] = dict(entries or {})
        self._upper: dict[_K, _V] = {}
        self._length = len(self._lower)

    def set(self, key: _K, value: _V) -> "PersistentMap[_K, _V]":
        """The mapping with one entry added or replaced."""
        if len(self._lower) <= _FEW:  # there is no upper layer then
            whole = self._lower.copy()
            whole[key] = value
            return _of(whole)
        if key not in self._upper:
            return self._changed({key: value}, self._length + (key not in self._lower))
        if self._upper[key] is _GONE:  # it comes back, and so to the end
            return PersistentMap({**self._whole(), key: value})
        return self._changed({key: value}, self._length)

    def update(self, entries: Mapping[_K, _V]) -> "PersistentMap[_K, _V]":
        """The mapping with several entries added or replaced."""
        if len(self._lower) <= _FEW or not self._upper.keys().isdisjoint(entries):
            return PersistentMap({**self._whole(), **entries})
        return self._changed(entries, self._length + sum(1 for key in entries if key not in self._lower))

    def remove(self, *keys: _K) -> "PersistentMap[_K, _V]":
        """The mapping without the entries of these distinct keys that it has."""
        if len(self._lower) <= _FEW:
            whole = self._lower.copy()
            for key in keys:
                whole.pop(key, None)
            return _of(whole)
        known = [key for key in keys if key in self]
        return self._changed(dict.fromkeys(known, _GONE), self._length - len(known)) if known else self

    def _changed(self, entries: Mapping[_K, _V], length: int) -> "PersistentMap[_K, _V]":
        after: PersistentMap[_K, _V] = object.__new__(PersistentMap)
        after._lower, after._upper, after._length = self._lower, {**self._upper, **entries}, length
        if len(after._lower) <= _FEW or len(after._upper) ** 2 > len(after._lower):
            after._lower, after._upper = after._whole(), {}
        return after

    def _whole(self) -> dict[_K, _V]:
        """Both layers in one; not to be written to."""
        if not self._upper:
            return self._lower
        whole = {**self._lower, **self._upper}
        if len(whole) != self._length:
            for key, value in self._upper.items():
                if value is _GONE:
                    del whole[key]
        return whole

    def __getitem__(self, key: _K) -> _V:
        value = self._upper[key] if key in self._upper else self._lower[key]
        if value is _GONE:
            raise KeyError(key)
        return value

    @overload
    def get(self, key: _K, /) -> _V | None: ...
    @overload
    def get(self, key: _K, /, default: _V | _D) -> _V | _D: ...
    def get(self, key: _K, /, default: _V | _D | None = None) -> _V | _D | None:
        """The value of a key, or the default."""
        value = self._upper[key] if key in self._upper else self._lower.get(key, _GONE)
        return default if value is _GONE else value

    def __contains__(self, key: object) -> bool:
        return self._upper[key] is not _GONE if key in self._upper else key in self._lower  # type: ignore[index]

    def __iter__(self) -> Iterator[_K]:
        return iter(self._whole() if self._upper else self._lower)

    def __len__(self) -> int:
        return self._length

    def values(self) -> ValuesView[_V]:
        """As of a dict."""
        return (self._whole() if self._upper else self._lower).values()

    def items(self) -> ItemsView[_K, _V]:
        """As of a dict."""
        return (self._whole() if self._upper else self._lower).items()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PersistentMap):
            return self._whole() == other._whole()
        return self._whole() == dict(other) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PersistentMap({self._whole()!r})"


def _of(entries: dict[_K, _V]) -> PersistentMap[_K, _V]:
    """A mapping that takes over `entries`."""
    after: PersistentMap[_K, _V] = object.__new__(PersistentMap)
    after._lower, after._upper, after._length = entries, {}, len(entries)
    return after
