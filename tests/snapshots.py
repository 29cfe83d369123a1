"""Copies of the machines' frozen states, which show whether a state was written to."""

import functools
from collections.abc import Callable, Mapping, Set
from dataclasses import fields
from typing import Any

from cospan.core.evolving import Evolving
from cospan.server.machine.collections.agent_set import AgentSet
from cospan.server.machine.collections.participation_counts import ParticipationCounts


def snapshot(state: Any) -> dict[str, Any]:
    """What a frozen state holds, in copies of its parts, mappings and sets: equal unless it was written to."""
    held = {}
    for name in _field_names(type(state)):
        value = getattr(state, name)
        copy = _copier(type(value))
        held[name] = value if copy is None else copy(value)
    return held


def differs(state: Any, before: Any) -> bool:
    """Whether a state holds anything else than an earlier one of its type; parts that both share are not read."""
    for name in _field_names(type(state)):
        value, earlier = getattr(state, name), getattr(before, name)
        if value is earlier:
            continue
        copy = _copier(type(value))
        if type(value) is not type(earlier) or (value != earlier if copy is None else copy(value) != copy(earlier)):
            return True
    return False


@functools.cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@functools.cache
def _copier(kind: type) -> Callable[[Any], Any] | None:
    """What copies values of this type; None for those that cannot be written to."""
    if issubclass(kind, Evolving):
        return snapshot
    if issubclass(kind, ParticipationCounts):
        return lambda counts: dict(counts.by_name)
    if issubclass(kind, AgentSet):
        return lambda agents: list(agents.blocks)
    if issubclass(kind, Mapping):
        return lambda entries: dict(entries.items())  # items() of a map of two layers are those of one dict
    return frozenset if issubclass(kind, Set) else None
