"""What a state of the search consists of: the agents' parts with their connections, and the coordinator's part."""

from dataclasses import dataclass, field, replace
from typing import Any

from model.terms import RELAY, STREAMS_PER_AGENT

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


@dataclass(frozen=True, slots=True)
class Hub:
    """The relay's part of a state.

    Attributes:
        relay: number of its machine's state.
        welcomed: the agents in the last welcome of its session, as `cospan.relay.upstream` keeps them.
        above: what an agent has as well: its session with the coordinator, and its connections there.
    """

    relay: int
    welcomed: frozenset[str] = frozenset()
    above: Local = field(default_factory=lambda: Local(RELAY))


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


def taken(local: Local, index: int, head: int) -> Local:
    """The part after the other end has taken what came first over a connection, or its end."""
    connection = local.connections[index]
    if head >= 0:
        assert connection.up is not None
        return with_connection(local, index, up=connection.up[1:])
    if connection.down is None:
        return without_connection(local, index)
    down = connection.down if ends(connection.down) else (*connection.down, END)
    return with_connection(local, index, up=None, down=down)


def sent(local: Local, message: int) -> Local:
    """The part after a message was sent over the current connection, if that still takes any."""
    current = local.current
    if current is None or current.up is None or ends(current.up):
        return local
    return replace(local, connections=(*local.connections[:-1], replace(current, up=(*current.up, message))))


def received(local: Local, head: int, rest: tuple[int, ...]) -> Local:
    """The part after it has taken what came first over its current connection; `rest` is what came after that."""
    *older, current = local.connections
    if head >= 0:
        kept = (*older, replace(current, down=rest))
    elif current.up is None:
        kept = tuple(older)
    else:
        kept = (*older, replace(current, down=None, up=current.up if ends(current.up) else (*current.up, END)))
    return replace(local, connections=kept)


def connected(local: Local) -> Local:
    """The part with one more connection."""
    used, first = {each.stream for each in local.connections}, local.agent * STREAMS_PER_AGENT + 1
    stream = next(number for number in range(first, first + STREAMS_PER_AGENT - 1) if number not in used)
    return replace(local, connections=(*local.connections, Connection(stream)))


def cut(local: Local) -> Local | None:
    """The part after its current connection has broken at both ends; None if there is none to break."""
    current = local.current
    if current is None or current.up is None or ends(current.up):
        return None
    broken = replace(current, up=(*current.up, END), down=(*(current.down or ()), END))
    return replace(local, connections=(*local.connections[:-1], broken))


def noticed(local: Local, effect: tuple[Any, ...]) -> Local:
    """The part after an effect of another's move."""
    if effect[0] == "forget":
        return replace(local, excused=max(local.excused, effect[1]))
    connections = []
    for each in local.connections:
        after = each
        match effect:
            case ("message", stream, token, message) if each.stream == stream and each.up is not None:
                down = each.down if each.down is None or ends(each.down) else (*each.down, message)
                after = replace(each, token=token or each.token, down=down)
            case ("close", stream, end) if each.stream == stream and each.up is not None:
                after = closed_above(each, end)
            case ("down", end):
                after = closed_above(each, end)
            case _:
                pass
        if after.up is not None or after.down is not None:
            connections.append(after)
    return replace(local, connections=tuple(connections))
