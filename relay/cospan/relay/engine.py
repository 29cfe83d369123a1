"""Runs the relay's machine: executes its commands, keeps its clock, and holds both of its conversations."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection

from cospan.client.session.transport import Transport
from cospan.core.aggregation.basis_update import sum_of_contributions
from cospan.core.method import DEFAULT_MIN_STEPS
from cospan.relay import machine
from cospan.relay.events import Command, Event, Host, SumUp, UpstreamEvent
from cospan.relay.state import RelayState
from cospan.relay.upstream import Upstream
from cospan.server.machine import events as server
from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.engine import log_note
from cospan.server.runtime.recent_rounds import RecentRounds
from cospan.server.runtime.streams import Stream, Streams
from cospan.wire.errors import CospanError
from cospan.wire.messages import GradientUpload, RecalledRounds

log = logging.getLogger(__name__)

_SHORTEST_SLEEP_SECONDS = 0.01
_STALLED_SECONDS = 1.0

_MOST_TOLD = 500
"""Agents with bounded heads that one upload names; a message has room for each agent's name about once."""


class RelayEngine:
    """The loop around `machine.step`, on one event loop and without locks."""

    def __init__(
        self,
        transport: Transport,
        *,
        progress_timeout_seconds: float,
        gather_agents: int,
        level: int = 1,
        min_steps_per_round: int = DEFAULT_MIN_STEPS,
    ) -> None:
        """Nothing is asked yet; `begin` does that."""
        self.history = RecentRounds()
        """Empty: the rounds are the coordinator's to tell of."""
        self.ended = asyncio.Event()
        self.end: server.EndRun | server.Suspend | None = None
        self.failure: CospanError | None = None
        """Why the relay has to go down, where nobody asked it to."""
        self.on_note: list[Callable[[server.Note], None]] = []
        self._gather_agents, self._level = gather_agents, level
        self._upstream = Upstream(
            transport,
            progress_timeout_seconds=progress_timeout_seconds,
            min_steps_per_round=min_steps_per_round,
            tell=self._told,
            fail=self._failed,
        )
        self._streams = Streams()
        self._relay: RelayState
        self._inbox: deque[UpstreamEvent] = deque()
        self._busy = False
        self._bounded: set[str] = set()
        """Agents that have told of a bounded head since the last sum."""

    async def begin(self) -> None:
        """Asks what the run is, and is ready for agents.

        Raises:
            CospanError: the coordinator cannot be reached, or its run takes no relays.
        """
        self._upstream.start()
        specification = await self._upstream.specification
        machine.check_relayable(specification)
        self._relay = machine.initial_state(
            specification, gather_agents=self._gather_agents, level=self._level, now=self.now()
        )

    @property
    def state(self) -> CoordinatorState:
        """What is known of the agents, and of the round that they have been told of."""
        return self._relay.shown

    def now(self) -> float:
        """The time on the machine's clock, in seconds."""
        return time.monotonic()

    @property
    def streams(self) -> Streams:
        """Those that are open, and what was sent through all of them."""
        return self._streams

    def open_stream(self) -> Stream:
        """A new stream, not yet bound to a session."""
        return self._streams.open()

    def forget_stream(self, stream: Stream) -> None:
        """The stream has ended; nothing can be written to it."""
        self._streams.forget(stream)

    # Events --------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Lets an event happen, and everything that follows from it.

        Raises:
            RemoteError: the event is not allowed; nothing has changed.
        """
        busy, self._busy = self._busy, True
        try:
            self._dispatch(event)
        finally:
            self._busy = busy
        self._answer()

    def take(self, token: str, upload: GradientUpload) -> None:
        """Lets a gradient arrive. Raises as `handle` does."""
        if upload.bounded:
            session = self._relay.fleet.members.sessions.get(token)
            self._bounded.update(() if session is None else set(session.agent_ids).intersection(upload.bounded))
        self.handle(server.GradientArrived(token, upload))

    async def know_sites(self) -> None:
        """Nothing: sites are the coordinator's to give out."""

    async def recall(self, agents: Collection[str], first: int, before: int) -> RecalledRounds:
        """Nothing: past rounds are the coordinator's to tell of, which knows the relay's sums alone."""
        return RecalledRounds((), max(first, before), max(0, before - first))

    def _told(self, event: UpstreamEvent) -> None:
        """The coordinator has said something; an answer waits until all of the question is asked."""
        self._inbox.append(event)
        self._answer()

    def _answer(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            while self._inbox:
                self._dispatch(self._inbox.popleft())
        finally:
            self._busy = False

    def _dispatch(self, event: Event) -> None:
        self._relay, commands = machine.step(self._relay, event, self.now())
        for command in commands:
            self._execute(command)

    def _failed(self, failure: CospanError) -> None:
        self.failure = failure
        if hasattr(self, "_relay"):
            self.handle(server.DrainRequested(str(failure), 0.0))

    def _execute(self, command: Command) -> None:
        match command:
            case server.Send(token=token, message=message):
                self._streams.send(self._relay.fleet.members.sessions.get(token), message)
            case server.Broadcast(message=message):
                waiting = self._relay.unwelcomed
                known = [each for token, each in self._relay.fleet.members.sessions.items() if token not in waiting]
                self._streams.broadcast(known, message)
            case server.CloseStream(stream=number, error=error):
                self._streams.close(number, error)
            case server.Note():
                log_note(command)
                for listener in self.on_note:
                    listener(command)
            case Host(agent_ids=agent_ids, feature_fingerprint=fingerprint):
                self._upstream.host(agent_ids, fingerprint)
            case SumUp():
                self._sum_up(command)
            case server.EndRun() | server.Suspend():
                self.end = command
                self.history.close()
                self.ended.set()

    def _sum_up(self, command: SumUp) -> None:
        """Here and not in a thread: it is one addition for each number that was just received and checked."""
        total = sum_of_contributions(command.contributions)
        bounded = tuple(sorted(self._bounded)[:_MOST_TOLD])
        self._bounded.difference_update(bounded)
        self._upstream.upload(GradientUpload(command.round, total, command.agent_ids, bounded=bounded))

    # The end, and time ------------------------------------------------------------------------------------------

    def leave(self, message: str) -> None:
        """Leaves the run for good: nobody waits for the relay's agents. They are asked to come back."""
        self._upstream.leave(message)
        self.handle(server.DrainRequested(message, 0.0))

    async def close(self) -> None:
        """Ends the conversation with the coordinator, which waits for the relay as for any agent that is lost."""
        await self._upstream.close()

    async def keep_time(self) -> None:
        """Ticks the machine when a deadline is due, until the end."""
        liveness = self._relay.specification.session_timeout_seconds
        while not self.ended.is_set():
            now = self.now()
            deadline = machine.next_deadline(self._relay)
            pause = machine.GATHER_SECONDS if deadline is None else deadline - now
            # Never for long: whoever comes meanwhile may bring a deadline that is closer.
            sleep = min(max(pause, _SHORTEST_SLEEP_SECONDS), machine.GATHER_SECONDS)
            try:
                await asyncio.wait_for(self.ended.wait(), sleep)
            except TimeoutError:
                if self.now() - now - sleep > min(_STALLED_SECONDS, liveness / 4):
                    # The process itself stood still: what has arrived meanwhile is read before anyone is given up.
                    log.warning("the relay stood still for %.1f s", self.now() - now - sleep)
                    continue
                if deadline is not None and self.now() >= deadline:
                    self.handle(server.Tick())
