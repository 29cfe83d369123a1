"""What a state of the search consists of: the agents' parts with their connections, and the coordinator's part."""

from dataclasses import dataclass, replace
from typing import Any

END = -1
"""The end of a stream that comes without a reason."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection of one agent.

    Attributes:
        stream: its number, by which the coordinator knows it.
        token: of its session; empty before the coordinator has sent anything.
        up: messages on their way to the coordinator; None once the coordinator has ended it. A negative number is
            the end, and the last one.
        down: the same to the agent.
    """

    stream: int
    token: str = ""
    up: tuple[int, ...] | None = ()
    down: tuple[int, ...] | None = ()


@dataclass(frozen=True, slots=True)
class Local:
    """An agent's part of a state.

    Attributes:
        agent: its index.
        session: number of its process' state.
        generation: number of its processes so far.
        learnt: rounds that this process has begun to learn, with the basis of each.
        told: what the newest basis that this process has received is made of.
        excused: bases of this round and earlier may be replaced by others.
        connections: oldest first; at most the last one is open at the agent's end.
    """

    agent: int
    session: int = -1
    generation: int = 0
    learnt: frozenset[Any] = frozenset()
    told: tuple[Any, ...] = ()
    excused: int = 0
    connections: tuple[Connection, ...] = ()

    @property
    def current(self) -> Connection | None:
        """The connection that is open at the agent's end."""
        last = self.connections[-1] if self.connections else None
        return last if last is not None and last.down is not None else None


@dataclass(frozen=True, slots=True)
class Center:
    """The coordinator's part of a state.

    Attributes:
        coordinator: number of its state.
        incarnation: number of coordinators so far.
        disk: number of what is stored.
        waiting: numbers of the operations that are not on the disk yet.
        early: the newest round that was announced; 0 if it is stored.
    """

    coordinator: int
    incarnation: int
    disk: int
    waiting: tuple[int, ...] = ()
    early: int = 0


def ends(queue: tuple[int, ...] | None) -> bool:
    return bool(queue) and queue[-1] < 0  # type: ignore[index]


def hung_up(connections: tuple[Connection, ...]) -> tuple[Connection, ...]:
    """The connections after the agent has ended its current one."""
    if not connections or connections[-1].down is None:
        return connections
    current = connections[-1]
    if current.up is None:
        return connections[:-1]
    up = current.up if ends(current.up) else (*current.up, -1)
    return (*connections[:-1], replace(current, up=up, down=None))


def closed_above(connection: Connection, end: int) -> Connection:
    """The connection after the coordinator has ended it."""
    if connection.up is None:
        return connection
    down = connection.down
    return replace(connection, up=None, down=down if down is None or ends(down) else (*down, end))


def with_connection(local: Local, index: int, **changes: Any) -> Local:
    connections = list(local.connections)
    connections[index] = replace(connections[index], **changes)
    return replace(local, connections=tuple(connections))


def without_connection(local: Local, index: int) -> Local:
    return replace(local, connections=local.connections[:index] + local.connections[index + 1 :])
