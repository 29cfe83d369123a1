"""Executes the commands of the coordinator's machine: messages, arithmetic, storage, and reports.

Everything happens on the event loop's thread and without locks, except the arithmetic of a large round.
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
from cospan.server.machine.events import (
    Broadcast,
    CloseStream,
    Command,
    ComputeBasis,
    DropMember,
    EndRun,
    Event,
    Note,
    ReportRound,
    RoundsStored,
    Send,
    StoreMember,
    StoreRound,
    StoreSpecification,
    Suspend,
    Tick,
)
from cospan.server.machine.membership import needed_from
from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.basis_arithmetic import computed_basis
from cospan.server.runtime.fast_path import GradientIntake
from cospan.server.runtime.machine_loop import MachineLoop, log_note, tell
from cospan.server.runtime.recent_rounds import RecentRounds
from cospan.server.runtime.streams import Stream, Streams
from cospan.server.storage.reader import read_past
from cospan.server.storage.write_queue import WriteQueue
from cospan.server.storage.writer import Operation, RunStore
from cospan.wire.errors import CospanError
from cospan.wire.limits import recalled_rounds
from cospan.wire.messages import FinishCause, GradientUpload, RecalledRounds

log = logging.getLogger(__name__)

RETURN_SECONDS = 15.0
"""How long the first round after a restart waits for the agents that took part before: longer than the pauses
between their attempts to connect."""
_FINAL = (FinishCause.ROUNDS_REACHED, FinishCause.STOPPED, FinishCause.FAILED)
"""A run that ended otherwise continues where it was when a coordinator is started for it again."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How long an engine waits, and what it computes in a thread.

    Attributes:
        start_seconds: the longest time to wait for the first round's agents.
        return_seconds: the longest time to wait, in a run that is resumed, for those who took part before.
        first_gradient_timeout_seconds: the longest time that a round waits for its first gradient, where agents
            are alive and their pace is not known.
        gathering_seconds: the longest time that a gradient is kept back until the others of its round are there.
        longest_sleep_seconds: between two looks at the machine's deadline.
        thread_from_numbers: a round's sum and QR go to a thread from this many numbers on (2 ms of arithmetic).
    """

    start_seconds: float = 600.0
    return_seconds: float = RETURN_SECONDS
    first_gradient_timeout_seconds: float = 86400.0
    gathering_seconds: float = 0.01
    longest_sleep_seconds: float = 1.0
    thread_from_numbers: int = 400_000


class Engine:
    """What executes the commands of `cospan.server.machine`."""

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
        """Begins a run, or continues the one in `store`, with the specification that is stored there.

        Args:
            specification: of a run that begins.
            run_id: its name; a random one where left out.
            incarnation: of the coordinator; 1 for the first.
            sites: how many can be given out; None for no limit. A function is called, in a thread, when an agent
                first asks for a site.
            store: where the run is stored.
            clock: gives the time, in seconds.
            settings: how long it waits.
        """
        self._settings = settings = settings or EngineSettings()
        self._store = store
        self._count_sites = sites if callable(sites) else None
        self._counting = asyncio.Lock()
        known = None if callable(sites) else sites
        self._journal: WriteQueue | None = None
        if store is None:
            state = machine.initial_state(
                specification,
                run_id=run_id or secrets.token_hex(8),
                incarnation=incarnation,
                start_seconds=settings.start_seconds,
                now=clock(),
                site_limit=known,
            )
        else:
            state = self._restored(store, known, clock())
            together = max(1, state.config.max_inflight_rounds // 2)
            self._journal = WriteQueue(store, self.handle, together=together)
        config = state.config.evolve(
            coordinator_started=max(0.0, time.time()),
            first_gradient_timeout_seconds=settings.first_gradient_timeout_seconds,
        )
        state = state.evolve(config=config)
        self.loop = MachineLoop[CoordinatorState, Event, Command](machine, state, self._execute, clock=clock)
        self._intake = GradientIntake(self.loop, settings.gathering_seconds)
        self.history = RecentRounds(state.round)
        self.ended = asyncio.Event()
        self.end: EndRun | Suspend | None = None
        self.stays_open = False
        """Whether the run can be resumed though it is stopped: what is stored says nothing of its end."""
        self.on_note: list[Callable[[Note], None]] = []
        self.on_round: list[Callable[[ReportRound], None]] = []
        self.on_closing: list[Callable[[ComputeBasis], None]] = []
        """Called when a round closes; the state still has the contributions to it."""
        self.streams = Streams()
        """Those that are open, and what was sent through all of them."""
        self._tasks: set[asyncio.Task[None]] = set()

    def _restored(self, store: RunStore, sites: int | None, now: float) -> CoordinatorState:
        store.begin()
        store.needed_from = lambda: needed_from(self.state)
        return machine.restored_state(
            store.saved,
            incarnation=store.incarnation,
            start_seconds=self._settings.start_seconds,
            return_seconds=self._settings.return_seconds,
            now=now,
            site_limit=sites,
        )

    @property
    def state(self) -> CoordinatorState:
        """Of the machine."""
        return self.loop.state

    def now(self) -> float:
        """The time on the machine's clock, in seconds."""
        return self.loop.clock()

    # Streams ------------------------------------------------------------------------------------------------

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
        self.loop.handle(*self._intake.pending(), event)

    def take(self, token: str, upload: GradientUpload) -> None:
        """Lets a gradient arrive, now or within `gathering_seconds`. Raises as `handle` does."""
        self._intake.take(token, upload)

    def _execute(self, command: Command) -> Event | None:
        """Executes a command; the event that follows at once, if any."""
        match command:
            case Send(token=token, message=message):
                self.streams.send(self.state.members.sessions.get(token), message)
            case Broadcast(message=message):
                self.streams.broadcast(self.state.members.sessions.values(), message)
            case ComputeBasis():
                tell(self.on_closing, command)
                return self._compute(command)
            case CloseStream(stream=number, error=error):
                self.streams.close(number, error)
            case StoreRound() | StoreMember() | DropMember() | StoreSpecification():
                return self._keep(command)
            case ReportRound(report=report):
                self.history.append(report)
                tell(self.on_round, command)
            case Note():
                log_note(command)
                tell(self.on_note, command)
            case EndRun() | Suspend():
                self.end = command
                self.history.close()
                self.ended.set()
        return None

    def _keep(self, operation: Operation) -> Event | None:
        """Stores it later; without a store a round counts as stored at once."""
        if self._journal is not None:
            self._journal.add(operation)
        elif isinstance(operation, StoreRound):
            return RoundsStored((operation.record,))
        return None

    async def know_sites(self) -> None:
        """Counts the sites that can be given out, where that was left for later; a failure leaves no limit."""
        async with self._counting:
            count, self._count_sites = self._count_sites, None
            if count is None:
                return
            try:
                sites = await asyncio.to_thread(count)
            except CospanError as failure:
                log.warning("the number of sites is not known, so it does not bound the agents: %s", failure)
                return
            self.loop.state = self.state.evolve(config=self.state.config.evolve(site_limit=sites))

    async def recall(self, agents: Collection[str], first: int, before: int) -> RecalledRounds:
        """The rounds from `first` on, below `before`, whose gradients of all `agents` counted, with their bases.

        They are read from the disk, after a wait for those that are not on it yet.
        """
        spec = self.state.specification
        before = min(before, self.state.round)
        newest = self.state.last_rounds
        if first >= before or all(newest.get(agent, -1) < first for agent in agents):
            return RecalledRounds((), max(first, before))  # none of them contributed since
        store = self._store
        if store is None:
            return RecalledRounds((), before, before - first)
        if self.state.durability.durable_round < before:
            async for _ in self.history.follow(before - 1):  # it is reported when it is on the disk
                break
        most = recalled_rounds(spec.feature_dim, spec.rank)
        return await asyncio.to_thread(read_past, store.path, agents, first, before, most=most)

    # Arithmetic ------------------------------------------------------------------------------------------------

    def _compute(self, command: ComputeBasis) -> Event | None:
        """The next basis: at once where that is quick, else in a thread, to be reported later."""
        method = self.state.specification.method
        numbers = arithmetic_of(method, command.basis.shape, len(command.contributions))
        if numbers < self._settings.thread_from_numbers:
            return computed_basis(command, method)
        task = asyncio.get_running_loop().create_task(self._compute_in_thread(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    async def _compute_in_thread(self, command: ComputeBasis) -> None:
        self.handle(await asyncio.to_thread(computed_basis, command, self.state.specification.method))

    # The end ----------------------------------------------------------------------------------------------------

    async def close_store(self) -> None:
        """Stores what is left, and how the run ended where it cannot go on; call it after the end.

        Raises:
            RunFileError: the end cannot be stored.
        """
        if self._journal is None or self._store is None:
            return
        await self._journal.close()
        try:
            if isinstance(self.end, EndRun) and self.end.cause in _FINAL:
                if self.stays_open:
                    await asyncio.to_thread(self._store.take_back, self.state.round)
                else:
                    end, rounds = self.end, self.state.round
                    await asyncio.to_thread(self._store.write_end, end.cause, end.message, rounds)
        finally:
            self._store.close()
            self._journal = self._store = None

    # Time --------------------------------------------------------------------------------------------------------

    async def keep_time(self) -> None:
        """Ticks the machine when a deadline is due, until the run ends."""
        await self.loop.keep_time(
            lambda: self.handle(Tick()),
            self.ended,
            process="coordinator",
            session_timeout_seconds=self.state.specification.session_timeout_seconds,
            longest_sleep_seconds=self._settings.longest_sleep_seconds,
        )
