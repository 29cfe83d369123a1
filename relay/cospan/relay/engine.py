"""Executes the commands of the relay's machine, and holds both of its conversations."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from cospan.client.session.driver import SessionSettings
from cospan.client.session.transport import Transport
from cospan.core.aggregation.basis_update import sum_of_contributions
from cospan.relay import machine
from cospan.relay.events import Command, Event, Host, SumUp, UpstreamEvent
from cospan.relay.state import RelayState
from cospan.relay.upstream import Upstream
from cospan.server.machine import events as server
from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.machine_loop import MachineLoop, log_note, tell
from cospan.server.runtime.recent_rounds import RecentRounds
from cospan.server.runtime.streams import Stream, Streams
from cospan.wire.errors import CospanError, InvalidValueError
from cospan.wire.limits import MAX_GROUP
from cospan.wire.messages import GradientUpload, RecalledRounds

log = logging.getLogger(__name__)

_MOST_TOLD = 500
"""Agents with bounded heads that one upload names; a message has room for each agent's name about once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings(SessionSettings):
    """What a relay is told beside the addresses; beside what every session has.

    Attributes:
        gather_agents: it joins the run as soon as this number of agents is here, or a few seconds after the first.
        level: 1 where its coordinator is no relay, one more than that relay's where it is one, 5 at most. The
            greater, the sooner a straggler is given up, so that no relay is given up for it.

    Raises:
        InvalidValueError: the level or `min_steps_per_round` is out of its range.
    """

    gather_agents: int = MAX_GROUP
    level: int = 1

    def __post_init__(self) -> None:
        SessionSettings.__post_init__(self)
        if not 1 <= self.level <= machine.MOST_LEVELS:
            raise InvalidValueError(f"level is {self.level}; it must be 1 to {machine.MOST_LEVELS}")


class RelayEngine:
    """What executes the commands of `cospan.relay.machine`."""

    def __init__(self, transport: Transport, settings: RelaySettings) -> None:
        """Nothing is asked yet; `begin` does that."""
        self.history = RecentRounds()
        """Empty: the coordinator reports its rounds."""
        self.ended = asyncio.Event()
        self.end: server.EndRun | server.Suspend | None = None
        self.failure: CospanError | None = None
        """Why the relay has to go down; None where it was asked to."""
        self.on_note: list[Callable[[server.Note], None]] = []
        self._settings = settings
        self._upstream = Upstream(transport, settings, tell=self._on_upstream, fail=self._failed)
        self.streams = Streams()
        """Those that are open, and what was sent through all of them."""
        self._loop: MachineLoop[RelayState, Event, Command] | None = None
        self._bounded: set[str] = set()
        """Agents that have reported a bounded head since the last sum."""

    async def begin(self) -> None:
        """Asks what the run is, and makes ready for agents.

        Raises:
            CospanError: the coordinator cannot be reached, or its run takes no relays.
        """
        self._upstream.start()
        specification = await self._upstream.specification
        machine.check_relayable(specification)
        state = machine.initial_state(
            specification, gather_agents=self._settings.gather_agents, level=self._settings.level, now=self.now()
        )
        self._loop = MachineLoop[RelayState, Event, Command](machine, state, self._execute)

    @property
    def _machine(self) -> MachineLoop[RelayState, Event, Command]:
        assert self._loop is not None, "begin comes first"
        return self._loop

    @property
    def state(self) -> CoordinatorState:
        """The agents, and the round that is open for them."""
        return self._machine.state.shown

    def now(self) -> float:
        """The time on the machine's clock, in seconds."""
        return time.monotonic()

    def open_stream(self) -> Stream:
        """A new stream, not yet bound to a session."""
        return self.streams.open()

    def forget_stream(self, stream: Stream) -> None:
        """The stream has ended; nothing can be written to it."""
        self.streams.forget(stream)

    # Events --------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Lets an event happen, and everything that follows from it.

        Raises:
            RemoteError: the event is not allowed; nothing has changed.
        """
        self._machine.handle(event)

    def take(self, token: str, upload: GradientUpload) -> None:
        """Lets a gradient arrive. Raises as `handle` does."""
        if upload.bounded:
            session = self._machine.state.fleet.members.sessions.get(token)
            self._bounded.update(() if session is None else set(session.agent_ids).intersection(upload.bounded))
        self.handle(server.GradientArrived(token, upload))

    async def know_sites(self) -> None:
        """Does nothing: the coordinator gives out sites."""

    async def recall(self, agents: Collection[str], first: int, before: int) -> RecalledRounds:
        """None: the coordinator has them, and it knows the relay's sums alone."""
        return RecalledRounds((), max(first, before), max(0, before - first))

    def _on_upstream(self, event: UpstreamEvent) -> None:
        """The coordinator has answered; the answer waits until all of the question is asked."""
        self._machine.post(event)

    def _failed(self, failure: CospanError) -> None:
        self.failure = failure
        if self._loop is not None:
            self.handle(server.DrainRequested(str(failure), 0.0))

    def _execute(self, command: Command) -> None:
        relay = self._machine.state
        match command:
            case server.Send(token=token, message=message):
                self.streams.send(relay.fleet.members.sessions.get(token), message)
            case server.Broadcast(message=message):
                sessions = relay.fleet.members.sessions
                known = [each for token, each in sessions.items() if token not in relay.unwelcomed]
                self.streams.broadcast(known, message)
            case server.CloseStream(stream=number, error=error):
                self.streams.close(number, error)
            case server.Note():
                log_note(command)
                tell(self.on_note, command)
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
        """Leaves the run for good: it does not wait for the relay's agents, which are asked to come back."""
        self._upstream.leave(message)
        self.handle(server.DrainRequested(message, 0.0))

    async def close(self) -> None:
        """Ends the conversation with the coordinator, which waits for the relay as for any agent that is lost."""
        await self._upstream.close()

    async def keep_time(self) -> None:
        """Ticks the machine when a deadline is due, until the end."""
        await self._machine.keep_time(
            lambda: self.handle(server.Tick()),
            self.ended,
            process="relay",
            session_timeout_seconds=self._machine.state.specification.session_timeout_seconds,
            longest_sleep_seconds=machine.GATHER_SECONDS,  # an agent may bring a deadline that is closer
        )
