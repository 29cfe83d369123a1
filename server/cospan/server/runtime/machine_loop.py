"""The loop around a pure machine: it holds the state, executes commands in order, and keeps the clock.

A coordinator (`cospan.server.runtime.engine`), a relay (`cospan.relay.engine`) and a run in one process
(`cospan.simulation.local_run`) differ only in how they execute commands. Each has one loop, on one thread and
without locks.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar, runtime_checkable

from cospan.server.machine.events import Note

log = logging.getLogger(__name__)

_SHORTEST_SLEEP_SECONDS = 0.01
_STALLED_SECONDS = 1.0
_STALLED_SHARE = 0.25
"""A process that wakes up late by this fraction of the session timeout was stalled, and has read no messages."""
_WARNINGS = (
    *("agent-lost", "agent-gone", "agent-outlier", "gradients-left-out", "round-slow"),
    *("round-void", "cohort-small"),
)
_NAMED_AGENTS = 5

_S = TypeVar("_S")
_E = TypeVar("_E")
_C = TypeVar("_C")
_E_contra = TypeVar("_E_contra", contravariant=True)
_C_co = TypeVar("_C_co", covariant=True)


@runtime_checkable
class Machine(Protocol[_S, _E_contra, _C_co]):
    """A pure machine; a module with these two functions is one."""

    def step(self, state: _S, event: _E_contra, now: float, /) -> tuple[_S, tuple[_C_co, ...]]:
        """The state after an event at time `now` (seconds), and the commands to execute."""
        ...

    def next_deadline(self, state: _S, /) -> float | None:
        """The earliest time at which a tick may change something; None if there is none."""
        ...


class MachineLoop(Generic[_S, _E, _C]):
    """Drives one machine.

    Attributes:
        state: of the machine, after the last event.
        clock: gives the time on the machine's clock, in seconds.
    """

    def __init__(
        self,
        machine: Machine[_S, _E, _C],
        state: _S,
        execute: Callable[[_C], _E | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`execute` carries out one command, and returns the event that follows at once, if any."""
        self.state, self.clock = state, clock
        self._machine, self._step, self._execute = machine, machine.step, execute
        self._posted: deque[_E] = deque()
        self._is_stepping = False

    def handle(self, *events: _E) -> None:
        """Hands the machine events in order, and executes the commands that follow.

        May be called while a command is executed: the events are then handled at once, before the remaining
        commands of that step. `post` defers them.

        Raises:
            RemoteError: an event is not allowed; it has changed nothing.
        """
        is_outermost, self._is_stepping = not self._is_stepping, True
        try:
            self._run(events)
            while is_outermost and self._posted:
                self._run((self._posted.popleft(),))
        finally:
            if is_outermost:
                self._is_stepping = False

    def post(self, event: _E) -> None:
        """Handles an event now or, from within a command, after all current events."""
        self._posted.append(event)
        if not self._is_stepping:
            self.handle()

    def _run(self, events: Iterable[_E]) -> None:
        pending = deque(events)
        while pending:
            self.state, commands = self._step(self.state, pending.popleft(), self.clock())
            for command in commands:
                follow_up = self._execute(command)
                if follow_up is not None:
                    pending.append(follow_up)

    async def keep_time(
        self,
        tick: Callable[[], None],
        ended: asyncio.Event,
        *,
        process: str,
        session_timeout_seconds: float,
        longest_sleep_seconds: float,
    ) -> None:
        """Calls `tick` when a deadline of the machine is due, until `ended` is set.

        After a stall of the process itself, the tick waits until the messages that arrived meanwhile are read, so
        that no agent is dropped for a silence that it did not cause.

        Args:
            tick: hands the machine its tick event.
            ended: set when the machine needs no clock any more.
            process: noun for the log.
            session_timeout_seconds: silence after which the machine drops a session.
            longest_sleep_seconds: between two checks of the deadline, which events move.
        """
        stalled_seconds = min(_STALLED_SECONDS, _STALLED_SHARE * session_timeout_seconds)
        deadline = self._machine.next_deadline(self.state)
        while not ended.is_set():
            asleep = self.clock()
            until = longest_sleep_seconds if deadline is None else deadline - asleep
            sleep = min(max(until, _SHORTEST_SLEEP_SECONDS), longest_sleep_seconds)
            try:
                await asyncio.wait_for(ended.wait(), sleep)
            except TimeoutError:
                late = self.clock() - asleep - sleep
                if late > stalled_seconds:
                    log.warning("the %s was stalled for %.1f s", process, late)
                    continue
                deadline = self._machine.next_deadline(self.state)
                if deadline is not None and self.clock() >= deadline:
                    tick()
                    deadline = self._machine.next_deadline(self.state)


def tell(listeners: Iterable[Callable[[_C], None]], command: _C) -> None:
    """Calls the listeners; logs the failure of one, so that other commands are still executed."""
    for listener in listeners:
        try:
            listener(command)
        except Exception:
            log.exception("a listener failed at a %s", type(command).__name__)


def log_note(note: Note, level: int | None = None) -> None:
    """Logs a note as one line that names at most five agents; its kind sets the level by default."""
    named, more = note.agent_ids[:_NAMED_AGENTS], len(note.agent_ids) - _NAMED_AGENTS
    shown = ", ".join(named) + (f" and {more} more" if more > 0 else "")
    message = " ".join(part for part in (note.kind, shown, note.text) if part)
    if level is None:
        level = logging.WARNING if note.kind in _WARNINGS else logging.INFO
    log.log(level, "round %d: %s", note.round, message)
