"""Copies of the machines' frozen states, which show whether a state was written to."""

import functools
from collections.abc import Callable, Mapping, Set
from dataclasses import fields
from typing import Any

from cospan.core.evolving import Evolving
from cospan.server.machine.state import History, OpenRound


def snapshot(state: Any) -> dict[str, Any]:
    """What a frozen state holds, in copies of its parts, mappings and sets: equal unless it was written to."""
    held = {}
    for name in _field_names(type(state)):
        value = getattr(state, name)
        copy = _copier(type(value))
        held[name] = value if copy is None else copy(value)
    if isinstance(state, History):
        held["last_rounds"] = state.rounds_counted.newest
    if isinstance(state, OpenRound):
        held["blocks"] = [list(agents.blocks) for agents in (state.awaited, state.counted)]
    return held


@functools.cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@functools.cache
def _copier(kind: type) -> Callable[[Any], Any] | None:
    """What copies values of this type; None for those that cannot be written to."""
    if issubclass(kind, Evolving):
        return snapshot
    if issubclass(kind, Mapping):
        return dict
    return frozenset if issubclass(kind, Set) else None
