"""Executes the commands of the relay's machine; connects its agents downstream with its session upstream."""

import time
from collections.abc import Collection
from dataclasses import dataclass

from cospan.client.session.settings import SessionSettings
from cospan.client.session.transport import Transport, tls_of
from cospan.core.aggregation.basis_update import Contribution, sum_of_contributions
from cospan.relay import machine
from cospan.relay.events import Command, DeclineUp, Event, HostAgents, SumUp, UpstreamEvent
from cospan.relay.members import partial_sum
from cospan.relay.state import RelayState
from cospan.relay.upstream import Upstream
from cospan.relay.vectors import check_certificate
from cospan.server.machine import events as server
from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.agent_engine import AgentEngine
from cospan.server.runtime.machine_loop import MachineLoop
from cospan.wire.errors import CospanError, InvalidValueError
from cospan.wire.limits import MAX_GROUP
from cospan.wire.messages import GradientUpload, RecalledRounds

_MOST_NAMED = 500
"""Most agents with bounded heads, and with improved policies, that one upload names; a message has room for each
agent's name about once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings(SessionSettings):
    """Settings of a relay, in addition to those of every session.

    Attributes:
        gather_agents: the relay joins once it hosts this many agents, or a few seconds after the first has joined.
        level: number of relays between its agents and the coordinator, itself included; 1 to 5. A higher level
            drops a straggler sooner, so that the relay above does not drop this relay.
        close_seconds: as of every session, but shorter: nothing is lost with a stream that does not close, and the
            end of a relay takes no longer than this and `farewell_seconds`.

    Raises:
        InvalidValueError: the level or `min_steps_per_round` is out of its range.
    """

    gather_agents: int = MAX_GROUP
    level: int = 1
    close_seconds: float = 1.0

    def __post_init__(self) -> None:
        SessionSettings.__post_init__(self)
        if not 1 <= self.level <= machine.MOST_LEVELS:
            raise InvalidValueError(f"level is {self.level}; it must be 1 to {machine.MOST_LEVELS}")


class RelayEngine(AgentEngine):
    """Executes the commands of `cospan.relay.machine`; its `history` is empty: the coordinator reports rounds."""

    def __init__(self, transport: Transport, settings: RelaySettings) -> None:
        """Connects to nothing yet; `begin` does."""
        super().__init__()
        self.failure: CospanError | None = None
        """Why the relay has failed; None if it has not."""
        self._transport, self._settings = transport, settings
        self._upstream = Upstream(transport, settings, tell=self._on_upstream, fail=self._failed)
        self._loop: MachineLoop[RelayState, Event, Command] | None = None
        self._bounded: set[str] = set()
        """Agents that have reported a bounded head since the last sum."""
        self._improved: set[str] = set()
        """Agents that have reported an improved policy since the last sum."""

    async def begin(self) -> None:
        """Requests the specification of the run, and prepares for agents.

        Raises:
            CospanError: the coordinator cannot be reached, or its run does not support relays.
        """
        self._upstream.start()
        specification = await self._upstream.specification
        machine.check_relayable(specification)
        if specification.secure_sums:
            check_certificate(tls_of(self._transport))
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
        return self._machine.state.shown

    def now(self) -> float:
        return time.monotonic()

    # Events --------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        self._machine.handle(event)

    def take(self, token: str, upload: GradientUpload) -> None:
        if upload.bounded or upload.improved:
            session = self._machine.state.fleet.members.sessions.get(token)
            own = set() if session is None else set(session.agent_ids)
            self._bounded |= own.intersection(upload.bounded)
            self._improved |= own.intersection(upload.improved)
        self.handle(server.GradientArrived(token, upload))

    async def know_sites(self) -> None:
        """Does nothing: the coordinator assigns sites."""

    async def recall(self, agents: Collection[str], first: int, before: int) -> RecalledRounds:
        """No rounds: the coordinator stores them, and knows only the relay's sums."""
        return RecalledRounds((), max(first, before), max(0, before - first))

    def _on_upstream(self, event: UpstreamEvent) -> None:
        """Posts the event, so that the commands that caused it are executed first."""
        self._machine.post(event)

    def _failed(self, failure: CospanError) -> None:
        self.failure = failure
        if self._loop is not None:
            self.handle(server.DrainRequested(str(failure), 0.0))

    def _execute(self, command: Command) -> None:
        relay = self._machine.state
        sessions = relay.fleet.members.sessions
        match command:
            case server.Broadcast(message=message):
                known = [each for token, each in sessions.items() if token not in relay.unwelcomed]
                self.streams.broadcast(known, message)
            case HostAgents(agent_ids=agent_ids, feature_fingerprint=fingerprint, offer=offer):
                self._upstream.host(agent_ids, fingerprint, offer)
            case SumUp():
                self._sum_up(command)
            case DeclineUp(round=number):
                self._upstream.decline(number)
            case _:
                self._execute_for_agents(command, sessions)

    def _sum_up(self, command: SumUp) -> None:
        """Needs no thread: it is one addition for each number that was just received and checked."""
        masked = partial_sum(command.contributions)
        if masked is not None:
            self._upstream.upload(GradientUpload(command.round, masked, command.agent_ids))
            return
        total = sum_of_contributions([each for each in command.contributions if isinstance(each, Contribution)])
        bounded, improved = (tuple(sorted(each)[:_MOST_NAMED]) for each in (self._bounded, self._improved))
        self._bounded.difference_update(bounded)
        self._improved.difference_update(improved)
        upload = GradientUpload(command.round, total, command.agent_ids, bounded=bounded, improved=improved)
        self._upstream.upload(upload)

    # The end, and time ------------------------------------------------------------------------------------------

    def leave(self, message: str) -> None:
        """Leaves the run for good; the relay's agents are asked to reconnect."""
        self._upstream.leave(message)
        self.handle(server.DrainRequested(message, 0.0))

    async def close(self) -> None:
        """Ends the session with the coordinator, which waits for the relay as for any lost agent."""
        await self._upstream.close()

    async def keep_time(self) -> None:
        await self._machine.keep_time(
            lambda: self.handle(server.Tick()),
            self.ended,
            process="relay",
            session_timeout_seconds=self._machine.state.specification.session_timeout_seconds,
            longest_sleep_seconds=machine.GATHER_SECONDS,  # a join may set an earlier deadline
        )
