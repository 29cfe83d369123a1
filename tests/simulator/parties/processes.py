"""Virtual time, and what may happen to every simulated process: a kill, a stop, another clock."""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

Action = Callable[[], None]


class Timeline:
    """Everything that will happen, in order of time; at the same time, in the order in which it was arranged."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._queue: list[tuple[float, int, Action]] = []
        self._order = itertools.count()

    def at(self, time: float, action: Action) -> None:
        """Arranges that something happens, now at the earliest."""
        heapq.heappush(self._queue, (max(time, self.now), next(self._order), action))

    def after(self, seconds: float, action: Action) -> None:
        """The same, from now on."""
        self.at(self.now + seconds, action)

    def happen(self) -> None:
        """Lets the next thing happen."""
        self.now, _, action = heapq.heappop(self._queue)
        self.events += 1
        action()


class Killed(BaseException):
    """The process is killed between two commands; nothing in it may catch this."""


class Process:
    """An operating system process with a clock of its own.

    Attributes:
        alive: whether it has not been killed and has not ended.
        stalled: whether it stands still; what arrives meanwhile waits.
        commands_left: commands that it executes before it is killed; None where it is not to be.
    """

    def __init__(self, timeline: Timeline, rng: random.Random) -> None:
        self.timeline, self.rng = timeline, rng
        self.alive, self.stalled = True, False
        self.commands_left: int | None = None
        self.host_lost = False
        self._offset, self._rate = rng.uniform(10.0, 1000.0), rng.uniform(0.98, 1.02)
        self._waiting: deque[Action] = deque()

    def clock(self) -> float:
        """Its monotonic clock, in seconds: begins anywhere, and drifts."""
        return self._offset + self.timeline.now * self._rate

    def jump(self, seconds: float) -> None:
        """Its clock jumps ahead."""
        self._offset += seconds

    def later(self, seconds: float, action: Action) -> None:
        """Arranges that it does something, after a time by its clock; if it is alive then."""
        self.timeline.after(seconds / self._rate, lambda: self.do(action))

    def do(self, action: Action) -> None:
        """Lets it do something now, or once it does not stand still any more."""
        if not self.alive:
            return
        if self.stalled:
            self._waiting.append(action)
            return
        try:
            action()
        except Killed:
            self.die()

    def boundary(self) -> None:
        """Called before each command of its machine.

        Raises:
            Killed: it is killed here.
        """
        if self.commands_left is not None:
            self.commands_left -= 1
            if self.commands_left < 0:
                raise Killed

    def stand_still(self, seconds: float) -> None:
        """It is stopped, and continued later."""
        if not self.stalled:
            self.stalled = True
            self.timeline.after(seconds, self._continue)

    def _continue(self) -> None:
        self.stalled = False
        while self._waiting and self.alive and not self.stalled:
            self.do(self._waiting.popleft())

    def die(self) -> None:
        """It is gone, and so is its memory; without effect if it is gone already."""
        if self.alive:
            self.alive = False
            self.ended()

    def ended(self) -> None:
        """What its operating system, and what supervises it, does then."""
        raise NotImplementedError
