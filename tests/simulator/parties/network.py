"""Connections between agents and coordinators: in order within one, in any order between two.

A connection can be reset, be half-open (one end is told that it is over, the other is not), or be a black hole. An
end that is not told finds out by keepalive pings.
"""

import random
from collections.abc import Callable
from typing import Any, Protocol

from cospan.wire.errors import CoordinatorUnavailableError, CospanError
from simulator.parties.processes import Process, Timeline

KEEPALIVE_SECONDS = 8.0
"""From the loss of a connection until an end finds out that is not told. gRPC takes 30 s."""


class End(Protocol):
    """What a process does with a connection."""

    def received(self, connection: "Connection", message: Any) -> None:
        """A message came in."""

    def broke(self, connection: "Connection", error: CospanError) -> None:
        """The connection is over; called once."""


class Network:
    """How long messages take, and whether connections can be opened."""

    def __init__(self, timeline: Timeline, rng: random.Random, mean_seconds: float) -> None:
        self.timeline, self.mean_seconds = timeline, mean_seconds
        self.slowness = 1.0
        self.parted = False
        self.lost_answers = 0
        """How many more agents do not receive the answer to a first join: their connections are reset before."""
        self._rng = rng

    def delay(self) -> float:
        """Of one message: often short, sometimes long."""
        return self._rng.expovariate(1.0 / self.mean_seconds) * self.slowness


class Connection:
    """A connection and the stream on it. End 0 is the agent's, end 1 the coordinator's."""

    def __init__(self, network: Network, number: int, ends: tuple[End, End], processes: tuple[Process, Process]):
        self.number, self.token = number, ""
        self.lied = False
        self._network, self._ends, self._processes = network, ends, processes
        self._open = [True, True]
        self._delivers = [True, True]
        """By the end that sends."""
        self._last = [0.0, 0.0]
        """When the newest message that each end sent arrives."""

    def is_open(self, end: int) -> bool:
        """Whether an end takes the connection for open."""
        return self._open[end]

    @property
    def works(self) -> bool:
        """Whether messages arrive in both directions."""
        return all(self._open) and all(self._delivers)

    def send(self, end: int, message: Any) -> None:
        """An end sends a message."""
        if self._open[end]:
            self._carry(end, lambda: self._deliver(1 - end, message))

    def close(self, end: int, error: CospanError | None = None) -> None:
        """An end closes the connection; the other one is told, after what was sent before."""
        if self._open[end]:
            self._open[end] = False
            error = error or CoordinatorUnavailableError("the other end has ended the stream")
            self._carry(end, lambda: self.break_off(1 - end, error))

    def break_off(self, end: int, error: CospanError | None = None) -> None:
        """An end is told that the connection is over."""
        if self._open[end]:
            self._open[end] = False
            error = error or CoordinatorUnavailableError("the connection was reset")
            self._processes[end].do(lambda: self._ends[end].broke(self, error))

    def lose(self, *, told: int | None = None) -> None:
        """Nothing arrives any more; one end may be told at once, the others find out by keepalive."""
        self._delivers = [False, False]
        for end in (0, 1):
            if told == end:
                self.break_off(end)
            else:
                self._network.timeline.after(KEEPALIVE_SECONDS, lambda end=end: self.break_off(end))

    def reset(self) -> None:
        """Both ends are told; what is on its way is lost."""
        self._delivers = [False, False]
        for end in (0, 1):
            self.break_off(end)

    def _carry(self, end: int, arrive: Callable[[], None]) -> None:
        timeline = self._network.timeline
        self._last[end] = max(self._last[end], timeline.now + self._network.delay())
        timeline.at(self._last[end], lambda: arrive() if self._delivers[end] else None)

    def _deliver(self, end: int, message: Any) -> None:
        def take() -> None:
            if self._open[end]:
                self._ends[end].received(self, message)

        receiver = self._processes[end]
        if not receiver.alive and not receiver.host_lost:
            self.break_off(1 - end)  # its operating system resets it
        elif self._open[end]:
            receiver.do(take)
