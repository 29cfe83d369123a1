"""The common part of a coordinator's and a relay's engine: streams of agents, recent rounds, notes and the end."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping

from cospan.server.machine import events
from cospan.server.machine.sessions import Session
from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.machine_loop import log_note, tell
from cospan.server.runtime.recent_rounds import RecentRounds
from cospan.server.runtime.streams import Streams
from cospan.wire.messages import GradientUpload, RecalledRounds


class AgentEngine(ABC):
    """Executes the commands that concern agents and observers."""

    def __init__(self, first_round: int = 0) -> None:
        """`first_round` is the open round."""
        self.history = RecentRounds(first_round)
        self.streams = Streams()
        self.ended = asyncio.Event()
        """Set at the end of the run, or of this process' part in it."""
        self.end: events.EndRun | events.Suspend | None = None
        self.on_note: list[Callable[[events.Note], None]] = []
        self.on_round: list[Callable[[events.ReportRound], None]] = []
        """Called for each closed and stored round; not in a relay."""

    @property
    @abstractmethod
    def state(self) -> CoordinatorState:
        """The agents and the open round; a frozen value."""

    @abstractmethod
    def now(self) -> float:
        """The time on the machine's clock, in seconds."""

    @abstractmethod
    def handle(self, event: events.Event) -> None:
        """Hands the machine an event, and executes the commands that follow.

        Raises:
            RemoteError: the event is not allowed; nothing has changed.
        """

    @abstractmethod
    def take(self, token: str, upload: GradientUpload) -> None:
        """Hands the machine a gradient, now or soon; raises as `handle` does."""

    @abstractmethod
    async def know_sites(self) -> None:
        """Makes sure that the number of sites that can be assigned is known."""

    @abstractmethod
    async def recall(self, agents: Collection[str], first: int, before: int) -> RecalledRounds:
        """The rounds in [`first`, `before`) that counted the gradients of all `agents`, with their bases.

        A coordinator reads them from its store, once all of them are durable.
        """

    @abstractmethod
    async def keep_time(self) -> None:
        """Ticks the machine when a deadline is due, until the end."""

    def _execute_for_agents(self, command: events.AgentCommand, sessions: Mapping[str, Session]) -> None:
        match command:
            case events.Send(token=token, message=message):
                self.streams.send(sessions.get(token), message)
            case events.Broadcast(message=message):
                self.streams.broadcast(sessions.values(), message)
            case events.CloseStream(stream=number, error=error):
                self.streams.close(number, error)
            case events.Note():
                log_note(command)
                tell(self.on_note, command)
            case events.EndRun() | events.Suspend():
                self.end = command
                self.history.close()
                self.ended.set()
