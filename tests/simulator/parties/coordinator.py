"""A coordinator process: the machine that ships in its own loop, with simulated streams, store and clock."""

import random
from collections.abc import Callable

from runs import RETURN, with_inflight_rounds

from cospan.core.specification import RunSpecification
from cospan.server import machine
from cospan.server.machine import events
from cospan.server.machine.counting import is_batchable
from cospan.server.machine.state import OVER, CoordinatorConfig, CoordinatorState
from cospan.server.runtime.machine_loop import MachineLoop
from cospan.wire.errors import CospanError, RemoteError
from cospan.wire.messages import (
    AgentMessage,
    AgentPhase,
    BasisUpdate,
    Drain,
    Finish,
    GradientUpload,
    Heartbeat,
    Join,
    Leave,
    Receipt,
    Stamp,
    Welcome,
)
from simulator import toy
from simulator.duties.time_limits import FIRST_GRADIENT_SECONDS
from simulator.parties.disk import SimulatedDisk, SimulatedWriteQueue
from simulator.parties.network import Connection
from simulator.parties.processes import Process, Timeline
from simulator.plan import Settings
from simulator.witness import Witness

START_SECONDS = 60.0
_GATHERING_SECONDS, _LONGEST_SLEEP, _SHORTEST_SLEEP = 0.01, 1.0, 0.01
_STALLED_SECONDS = 1.0


class CoordinatorProcess(Process):
    """Resumes what is on its disk, and serves until its run or its life is over."""

    def __init__(
        self,
        timeline: Timeline,
        rng: random.Random,
        disk: SimulatedDisk,
        witness: Witness,
        settings: Settings,
        *,
        on_end: Callable[["CoordinatorProcess"], None],
    ) -> None:
        super().__init__(timeline, rng)
        self.disk, self._witness, self._settings, self._on_end = disk, witness, settings, on_end
        self.connections: dict[int, Connection] = {}
        self._streams = 0
        self._gathered: dict[str, GradientUpload] = {}
        saved = disk.store.saved()
        config = CoordinatorConfig(
            saved.run_id,
            disk.begin(),
            START_SECONDS,
            RETURN,
            FIRST_GRADIENT_SECONDS,
            coordinator_started=1e9 + timeline.now,
        )
        state = with_inflight_rounds(machine.restored_state(saved, config, self.clock()), settings.inflight_rounds)
        together = max(1, settings.inflight_rounds // 2)
        self.queue = SimulatedWriteQueue(disk, self, self.handle, together)
        self.loop = MachineLoop[CoordinatorState, events.Event, events.Command](
            machine, state, self._execute, clock=self.clock
        )
        self._step, self.loop._step = self.loop._step, self._checked_step
        witness.restarted(state, self.clock())
        self._wakes_at = self.clock()
        self.later(_SHORTEST_SLEEP, self._keep_time)

    @property
    def state(self) -> CoordinatorState:
        """Of the machine."""
        return self.loop.state

    @property
    def specification(self) -> RunSpecification:
        """Of the run, as it is described to agents."""
        return self.state.specification

    @property
    def stamp(self) -> Stamp:
        """The answer to whether it is there."""
        return self.state.stamp

    # Events --------------------------------------------------------------------------------------------------

    def handle(self, event: events.Event) -> None:
        """Hands the machine an event, after the gradients that wait."""
        self.loop.handle(*self._pending(), event)

    def _checked_step(self, state: CoordinatorState, event: events.Event, now: float):  # type: ignore[no-untyped-def]
        after, commands = self._step(state, event, now)
        self._witness.stepped(state, event, after, commands, now)
        return after, commands

    def _take(self, token: str, upload: GradientUpload) -> None:
        state = self.state
        gathers = self._settings.gathers and token not in self._gathered
        if not gathers or not is_batchable(state, token, upload):
            self.handle(events.GradientArrived(token, upload))
            return
        self._gathered[token] = upload
        if len(self._gathered) == state.open_round.awaited.block_count:
            self.loop.handle(*self._pending())
        elif len(self._gathered) == 1:
            self.later(_GATHERING_SECONDS, lambda: self.loop.handle(*self._pending()))

    def _pending(self) -> list[events.Event]:
        gathered, self._gathered = self._gathered, {}
        return [events.GradientsArrived(gathered)] if gathered else []

    def _keep_time(self) -> None:
        """As `MachineLoop.keep_time`: a tick where one is due, and none right after the process stood still."""
        deadline = machine.next_deadline(self.state)
        if self.state.phase in OVER:
            return
        if self.clock() - self._wakes_at < _STALLED_SECONDS:
            if deadline is not None and self.clock() >= deadline:
                self.handle(events.Tick())
                deadline = machine.next_deadline(self.state)
            self._witness.kept_time(self.state, self.clock())
        self._sleep(deadline)

    def _sleep(self, deadline: float | None) -> None:
        until = _LONGEST_SLEEP if deadline is None else deadline - self.clock()
        sleep = min(max(until, _SHORTEST_SLEEP), _LONGEST_SLEEP)
        self._wakes_at = self.clock() + sleep
        self.later(sleep, self._keep_time)

    # Streams -------------------------------------------------------------------------------------------------

    def next_stream(self) -> int:
        """The number of a new stream."""
        self._streams += 1
        return self._streams

    def received(self, connection: Connection, message: AgentMessage) -> None:
        """What `cospan.server.rpc.service` does with a message of a stream."""
        try:
            self._receive(connection, message)
        except RemoteError as refusal:
            self._witness.refused(refusal, lied=connection.lied)
            self._end_stream(connection, refusal)

    def _receive(self, connection: Connection, message: AgentMessage) -> None:
        match message:
            case Join():
                self.connections[connection.number] = connection
                self.handle(events.JoinRequested(message, connection.number, f"token-{self.rng.getrandbits(64):x}"))
            case GradientUpload():
                self._take(connection.token, message)
            case Heartbeat(saved_rounds=saved):
                self.handle(events.HeartbeatArrived(connection.token, min(saved, self.state.round + 1)))
            case Leave(cause=cause, returning=returning):
                self.handle(events.LeaveArrived(connection.token, cause, returning))
                self._end_stream(connection, None)

    def broke(self, connection: Connection, error: CospanError) -> None:
        """A stream is over."""
        self.connections.pop(connection.number, None)
        if connection.token:
            self._closed(connection)

    def _end_stream(self, connection: Connection, error: CospanError | None) -> None:
        connection.close(1, error)
        if self.connections.pop(connection.number, None) is not None and connection.token:
            self._closed(connection)

    def _closed(self, connection: Connection) -> None:
        self.handle(events.StreamClosed(connection.token, connection.number))
        for session in self.state.members.sessions.values():
            lost = session.phase is AgentPhase.LOST
            assert not (lost and session.stream in self.connections), "a session is lost, and its stream is open"

    # Commands ------------------------------------------------------------------------------------------------

    def _execute(self, command: events.Command) -> events.Event | None:
        self.boundary()
        match command:
            case events.ComputeBasis():
                result = toy.computed(command)
                if not self._settings.compute_seconds:
                    return result
                self.later(self._settings.compute_seconds, lambda: self.handle(result))
            case events.StoreRound() | events.StoreMember() | events.DropMember() | events.StoreSpecification():
                self.queue.add(command)
            case events.Send(token=token, message=message):
                self._send(token, message)
            case events.Broadcast(message=message):
                self._broadcast(message)
            case events.CloseStream(stream=number, error=error):
                if number in self.connections:
                    self.later(0.0, lambda: self._close_stream(number, error))
            case events.EndRun() | events.Suspend():
                self.later(0.0, lambda: self.queue.flush(self._stop))
        return None

    def _send(self, token: str, message: Welcome | Receipt) -> None:
        session = self.state.members.sessions.get(token)
        connection = self.connections.get(session.stream) if session else None
        if connection is not None:
            connection.token = token
            connection.send(1, message)

    def _broadcast(self, message: BasisUpdate | Finish | Drain) -> None:
        for session in self.state.members.sessions.values():
            connection = self.connections.get(session.stream)
            if connection is not None:
                connection.send(1, message)
                if not isinstance(message, BasisUpdate):
                    connection.close(1)

    def _close_stream(self, number: int, error: RemoteError | None) -> None:
        if number in self.connections:
            self._end_stream(self.connections[number], error)

    def _stop(self) -> None:
        self.alive = False
        self.ended()

    def ended(self) -> None:
        """Its connections are reset, unless its whole machine is gone."""
        for connection in list(self.connections.values()):
            if self.host_lost:
                connection.lose()
            elif self.state.phase not in OVER:
                connection.reset()
            else:
                connection.close(1)
        self._on_end(self)
