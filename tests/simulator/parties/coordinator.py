"""A coordinator process: the machine that ships in its own loop, with simulated streams, store and clock."""

import random
from collections.abc import Callable

from runs import with_inflight_rounds

from cospan.core.specification import RunSpecification
from cospan.server import machine
from cospan.server.machine import events
from cospan.server.machine.counting import is_batchable
from cospan.server.machine.state import OVER, CoordinatorConfig, CoordinatorState
from cospan.server.runtime.machine_loop import MachineLoop
from cospan.wire.messages import GradientUpload, Stamp
from simulator import toy
from simulator.duties.counting import check_refused_gradient
from simulator.duties.opening import RETURN_SECONDS, START_SECONDS
from simulator.duties.time_limits import FIRST_GRADIENT_SECONDS
from simulator.parties.disk import SimulatedDisk, SimulatedWriteQueue
from simulator.parties.listener import Listener
from simulator.parties.processes import Process, Timeline
from simulator.plan import Settings
from simulator.witness import Witness

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
        self.listener = Listener(
            self,
            witness,
            handle=self.handle,
            take=self._take,
            sessions=lambda: self.state.members.sessions,
            check_refused=lambda token, upload, error: check_refused_gradient(self.state, token, upload, error),
        )
        self._gathered: dict[str, GradientUpload] = {}
        saved = disk.store.saved()
        config = CoordinatorConfig(
            saved.run_id,
            disk.begin(),
            START_SECONDS,
            RETURN_SECONDS,
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

    # Commands ------------------------------------------------------------------------------------------------

    def _execute(self, command: events.Command) -> events.Event | None:
        self.boundary()
        match command:
            case events.ComputeBasis():
                result = toy.computed(command, self.specification)
                if not self._settings.compute_seconds:
                    return result
                self.later(self._settings.compute_seconds, lambda: self.handle(result))
            case events.StoreRound() | events.StoreMember() | events.DropMember() | events.StoreSpecification():
                self.queue.add(command)
            case events.Send(token=token, message=message):
                self.listener.send(token, message)
            case events.Broadcast(message=message):
                self.listener.broadcast(self.state.members.sessions.values(), message)
            case events.CloseStream(stream=number, error=error):
                self.listener.close_stream(number, error)
            case events.EndRun() | events.Suspend():
                self.later(0.0, lambda: self.queue.flush(self._stop))
        return None

    def _stop(self) -> None:
        self.alive = False
        self.ended()

    def ended(self) -> None:
        """Its connections end with it."""
        self.listener.ended(in_order=self.state.phase in OVER)
        self._on_end(self)
