"""Executes the commands of the coordinator's machine: messages, arithmetic, storage, and reports.

All of it runs on the event loop's thread and without locks, except the arithmetic of a large round.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from cospan.core.aggregation.basis_update import arithmetic_of
from cospan.core.specification import RunSpecification
from cospan.server import machine
from cospan.server.machine import events
from cospan.server.machine.events import Command, ComputeBasis, EndRun, Event
from cospan.server.machine.membership import needed_from
from cospan.server.machine.state import CoordinatorConfig, CoordinatorState
from cospan.server.runtime.agent_engine import AgentEngine
from cospan.server.runtime.basis_arithmetic import computed_basis
from cospan.server.runtime.fast_path import GradientIntake
from cospan.server.runtime.machine_loop import MachineLoop, tell
from cospan.server.storage.reader import read_past
from cospan.server.storage.write_queue import WriteQueue
from cospan.server.storage.writer import Operation, RunStore
from cospan.wire.errors import CospanError
from cospan.wire.limits import recalled_rounds
from cospan.wire.messages import FinishCause, GradientUpload, RecalledRounds

log = logging.getLogger(__name__)

RETURN_SECONDS = 15.0
"""After a restart, longest wait for the agents of the last round: longer than the pauses between their attempts to
connect."""
_FINAL = (FinishCause.ROUNDS_REACHED, FinishCause.STOPPED, FinishCause.FAILED)
"""Causes that end a stored run for good; after any other a new coordinator resumes it."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Timeouts of an engine, and the size from which it computes in a thread.

    Attributes:
        start_seconds: longest wait for the first round's agents.
        return_seconds: longest wait, in a resumed run, for the agents of the last round.
        first_gradient_timeout_seconds: longest wait for a round's first gradient while agents are alive and their
            pace is unknown.
        gathering_seconds: longest time that a gradient waits for the others of its round.
        longest_sleep_seconds: between two checks of the machine's deadline.
        thread_from_numbers: a round's sum and QR run in a thread from this many numbers on (2 ms of arithmetic).
    """

    start_seconds: float = 600.0
    return_seconds: float = RETURN_SECONDS
    first_gradient_timeout_seconds: float = 86400.0
    gathering_seconds: float = 0.01
    longest_sleep_seconds: float = 1.0
    thread_from_numbers: int = 400_000


class Engine(AgentEngine):
    """Executes the commands of `cospan.server.machine`."""

    def __init__(
        self,
        specification: RunSpecification,
        *,
        run_id: str | None = None,
        incarnation: int = 1,
        sites: int | Callable[[], int | None] | None = None,
        store: RunStore | None = None,
        clock: Callable[[], float] = time.monotonic,
        settings: EngineSettings | None = None,
    ) -> None:
        """Begins a run, or resumes the one in `store` with its stored specification.

        Args:
            specification: of a new run.
            run_id: of a new run; random by default.
            incarnation: of the coordinator; 1 for the first.
            sites: see `cospan.server.coordinator.Coordinator`.
            store: of the run.
            clock: gives the time, in seconds.
            settings: timeouts.
        """
        self._settings = settings = settings or EngineSettings()
        self._store = store
        self._count_sites = sites if callable(sites) else None
        self._counting = asyncio.Lock()
        if store is not None:
            store.begin()
            store.needed_from = lambda: needed_from(self.state)
            run_id, incarnation = store.saved.run_id, store.incarnation
        config = CoordinatorConfig(
            run_id=run_id or secrets.token_hex(8),
            incarnation=incarnation,
            start_seconds=settings.start_seconds,
            return_seconds=settings.return_seconds,
            first_gradient_timeout_seconds=settings.first_gradient_timeout_seconds,
            site_limit=None if callable(sites) else sites,
            coordinator_started=max(0.0, time.time()),
        )
        self._write_queue: WriteQueue | None = None
        if store is None:
            state = machine.initial_state(specification, config, clock())
        else:
            state = machine.restored_state(store.saved, config, clock())
            together = max(1, state.config.max_inflight_rounds // 2)
            self._write_queue = WriteQueue(store, self.handle, together=together)
        self.loop = MachineLoop[CoordinatorState, Event, Command](machine, state, self._execute, clock=clock)
        super().__init__(state.round)
        self._intake = GradientIntake(self.loop, settings.gathering_seconds)
        self.stays_open = False
        """Whether the run can be resumed although it was stopped: its end is not stored."""
        self.on_closing: list[Callable[[ComputeBasis], None]] = []
        """Called when a round closes; the state still has its contributions."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> CoordinatorState:
        return self.loop.state

    def now(self) -> float:
        return self.loop.clock()

    # Events --------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        self.loop.handle(*self._intake.pending(), event)

    def take(self, token: str, upload: GradientUpload) -> None:
        self._intake.take(token, upload)

    def _execute(self, command: Command) -> Event | None:
        """Executes a command; the event that follows at once, if any."""
        match command:
            case ComputeBasis():
                tell(self.on_closing, command)
                return self._compute(command)
            case events.StoreRound() | events.StoreMember() | events.DropMember() | events.StoreSpecification():
                return self._keep(command)
            case events.ReportRound(report=report):
                self.history.append(report)
                tell(self.on_round, command)
            case _:
                self._execute_for_agents(command, self.state.members.sessions)
        return None

    def _keep(self, operation: Operation) -> Event | None:
        """Queues the operation for the store; without a store a round counts as stored at once."""
        if self._write_queue is not None:
            self._write_queue.add(operation)
        elif isinstance(operation, events.StoreRound):
            return events.RoundsStored((operation.record,))
        return None

    async def know_sites(self) -> None:
        """Counts the sites that can be assigned, if `sites` is a function; after a failure there is no limit."""
        async with self._counting:
            count, self._count_sites = self._count_sites, None
            if count is None:
                return
            try:
                sites = await asyncio.to_thread(count)
            except CospanError as failure:
                log.warning("cannot count the sites of the workload, so they do not limit the agents: %s", failure)
                return
            self.loop.state = self.state.evolve(config=self.state.config.evolve(site_limit=sites))

    async def recall(self, agents: Collection[str], first: int, before: int) -> RecalledRounds:
        spec = self.state.specification
        before = min(before, self.state.round)
        newest = self.state.last_rounds
        if first >= before or all(newest.get(agent, -1) < first for agent in agents):
            return RecalledRounds((), max(first, before))  # none of them contributed since
        store = self._store
        if store is None:
            return RecalledRounds((), before, before - first)
        if self.state.durability.durable_round < before:
            async for _ in self.history.follow(before - 1):  # a round is reported once it is durable
                break
        most = recalled_rounds(spec.feature_dim, spec.rank)
        return await asyncio.to_thread(read_past, store.path, agents, first, before, most=most)

    # Arithmetic ------------------------------------------------------------------------------------------------

    def _compute(self, command: ComputeBasis) -> Event | None:
        """The next basis if it takes little arithmetic; else a thread computes it and reports it later."""
        specification = self.state.specification
        numbers = arithmetic_of(specification.method, command.basis.shape, len(command.contributions))
        if numbers < self._settings.thread_from_numbers:
            return computed_basis(command, specification)
        task = asyncio.get_running_loop().create_task(self._compute_in_thread(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    async def _compute_in_thread(self, command: ComputeBasis) -> None:
        self.handle(await asyncio.to_thread(computed_basis, command, self.state.specification))

    # The end ----------------------------------------------------------------------------------------------------

    async def close_store(self) -> None:
        """Stores what is left, and the end of a run that cannot be resumed; call it after the end.

        Raises:
            RunFileError: the end cannot be stored.
        """
        if self._write_queue is None or self._store is None:
            return
        await self._write_queue.close()
        try:
            if isinstance(self.end, EndRun) and self.end.cause in _FINAL:
                if self.stays_open:
                    await asyncio.to_thread(self._store.take_back, self.state.round)
                else:
                    end, rounds = self.end, self.state.round
                    await asyncio.to_thread(self._store.write_end, end.cause, end.message, rounds)
        finally:
            self._store.close()
            self._write_queue = self._store = None

    # Time --------------------------------------------------------------------------------------------------------

    async def keep_time(self) -> None:
        await self.loop.keep_time(
            lambda: self.handle(events.Tick()),
            self.ended,
            process="coordinator",
            session_timeout_seconds=self.state.specification.session_timeout_seconds,
            longest_sleep_seconds=self._settings.longest_sleep_seconds,
        )
