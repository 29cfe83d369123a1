"""Runs the machine: executes its commands, keeps its clock, and holds what waits to be sent.

One event loop, one engine, no locks: everything here happens on the loop's thread, but for the arithmetic of a
round that is too large to hold the loop up.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import TypeVar

import numpy as np

from cospan.core.aggregation.basis_update import arithmetic_of
from cospan.core.aggregation.fallback import FallbackMove, sound_move
from cospan.core.specification import RunSpecification
from cospan.server import machine
from cospan.server.machine.counting import is_batchable
from cospan.server.machine.events import (
    BasisComputed,
    BasisFailed,
    Broadcast,
    CloseStream,
    Command,
    ComputeBasis,
    DropMember,
    EndRun,
    Event,
    GradientArrived,
    GradientsArrived,
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
from cospan.server.runtime.recent_rounds import RecentRounds
from cospan.server.runtime.streams import Stream, Streams
from cospan.server.storage.reader import read_past
from cospan.server.storage.write_queue import WriteQueue
from cospan.server.storage.writer import Operation, RunStore
from cospan.wire.errors import CospanError
from cospan.wire.limits import recalled_rounds
from cospan.wire.messages import FinishCause, GradientUpload, RecalledRounds
from cospan.wire.text import listed

log = logging.getLogger(__name__)

_THREAD_FROM_NUMBERS = 400_000
"""From about this many numbers in a round on (2 ms of arithmetic), the sum and the QR go to a thread."""

_LONGEST_SLEEP_SECONDS = 1.0
_STALLED_SECONDS = 1.0

RETURN_SECONDS = 15.0
"""After a restart, so long a round waits for those who took part before: longer than agents ever pause between
attempts to connect."""
_FIRST_GRADIENT_TIMEOUT_SECONDS = 86400.0
"""A round waits for its first gradient for a day at most, where agents are alive and their pace is not known."""
_GATHERING_SECONDS = 0.01
"""So long, at most, the machine does not see a gradient that others are awaited beside."""
_WARNINGS = ("agent-lost", "agent-gone", "agent-outlier", "gradients-left-out", "round-slow")
_FINAL = (FinishCause.ROUNDS_REACHED, FinishCause.STOPPED, FinishCause.FAILED)
"""A run that ended otherwise goes on where it was when a coordinator is started for it again."""

_C = TypeVar("_C", bound=Command)


class Engine:
    """The coordinator's loop around `machine.step`."""

    def __init__(
        self,
        specification: RunSpecification,
        *,
        run_id: str | None = None,
        incarnation: int = 1,
        start_seconds: float = 600.0,
        return_seconds: float = RETURN_SECONDS,
        sites: int | Callable[[], int | None] | None = None,
        store: RunStore | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins a run, or goes on with the one in `store`; its specification is then that of the store.

        `sites` that is a function is called, in a thread, when an agent first asks for a site.
        """
        self._clock, self._store = clock, store
        self._count_sites = sites if callable(sites) else None
        self._counting = asyncio.Lock()
        known = None if callable(sites) else sites
        self._journal: WriteQueue | None = None
        if store is None:
            self.state = machine.initial_state(
                specification,
                run_id=run_id or secrets.token_hex(8),
                incarnation=incarnation,
                start_seconds=start_seconds,
                now=clock(),
                site_limit=known,
            )
        else:
            store.begin()
            store.needed_from = lambda: needed_from(self.state)
            self.state = self._restored(store, start_seconds, return_seconds, known)
            together = max(1, self.state.config.max_inflight_rounds // 2)
            self._journal = WriteQueue(store, self.handle, together=together)
        config = self.state.config.evolve(
            coordinator_started=max(0.0, time.time()),
            first_gradient_timeout_seconds=_FIRST_GRADIENT_TIMEOUT_SECONDS,
        )
        self.state = self.state.evolve(config=config)
        self.history = RecentRounds(self.state.round)
        self.ended = asyncio.Event()
        self.end: EndRun | Suspend | None = None
        self.stays_open = False
        """Whether the run can be resumed though it is stopped: what is stored says nothing of its end."""
        self.on_note: list[Callable[[Note], None]] = []
        self.on_round: list[Callable[[ReportRound], None]] = []
        self.on_closing: list[Callable[[ComputeBasis], None]] = []
        """Called when a round closes; the state still has what everybody gave to it."""
        self._streams = Streams()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gathered: dict[str, GradientUpload] = {}
        self._gathering: asyncio.TimerHandle | None = None

    def _restored(
        self, store: RunStore, start_seconds: float, return_seconds: float, sites: int | None
    ) -> CoordinatorState:
        return machine.restored_state(
            store.saved,
            incarnation=store.incarnation,
            start_seconds=start_seconds,
            return_seconds=return_seconds,
            now=self._clock(),
            site_limit=sites,
        )

    def now(self) -> float:
        """The time on the machine's clock, in seconds."""
        return self._clock()

    # Streams ------------------------------------------------------------------------------------------------

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
        self._dispatch([*self._taken(), event])

    def take(self, token: str, upload: GradientUpload) -> None:
        """Lets a gradient arrive: the machine sees those together that nobody can tell apart by when they came.

        That is when all that are awaited are there, and in any case before anything else happens, or after 10 ms.

        Raises:
            RemoteError: it is not one that the session may send now; nothing has changed.
        """
        if token in self._gathered or not is_batchable(self.state, token, upload):
            self.handle(GradientArrived(token, upload))
            return
        self._gathered[token] = upload
        if len(self._gathered) == self.state.open_round.awaited.block_count:
            self._dispatch(self._taken())
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(_GATHERING_SECONDS, self._end_gathering)

    def _end_gathering(self) -> None:
        self._gathering = None
        self._dispatch(self._taken())

    def _taken(self) -> list[Event]:
        """What the machine has not seen yet."""
        gathered, self._gathered = self._gathered, {}
        return [GradientsArrived(gathered)] if gathered else []

    def _dispatch(self, events: list[Event]) -> None:
        pending: deque[Event] = deque(events)
        while pending:
            self.state, commands = machine.step(self.state, pending.popleft(), self._clock())
            for command in commands:
                follow_up = self._execute(command)
                if follow_up is not None:
                    pending.append(follow_up)

    def _execute(self, command: Command) -> Event | None:
        """Carries a command out; the event that follows at once, if any."""
        match command:
            case Send(token=token, message=message):
                self._streams.send(self.state.members.sessions.get(token), message)
            case Broadcast(message=message):
                self._streams.broadcast(self.state.members.sessions.values(), message)
            case ComputeBasis():
                _tell(self.on_closing, command)
                return self._compute(command)
            case CloseStream(stream=number, error=error):
                self._streams.close(number, error)
            case StoreRound() | StoreMember() | DropMember() | StoreSpecification():
                return self._keep(command)
            case ReportRound(report=report):
                self.history.append(report)
                _tell(self.on_round, command)
            case Note():
                log_note(command)
                _tell(self.on_note, command)
            case EndRun() | Suspend():
                self.end = command
                self.history.close()
                self.ended.set()
        return None

    def _keep(self, operation: Operation) -> Event | None:
        """Stores what is to be stored; without a store a round counts as stored at once."""
        if self._journal is not None:
            self._journal.add(operation)
        elif isinstance(operation, StoreRound):
            return RoundsStored((operation.record,))
        return None

    async def know_sites(self) -> None:
        """Counters the sites that can be given out, where that was left for later; a failure leaves no limit."""
        async with self._counting:
            count, self._count_sites = self._count_sites, None
            if count is None:
                return
            try:
                sites = await asyncio.to_thread(count)
            except CospanError as failure:
                log.warning("the number of sites is not known, so it does not bound the agents: %s", failure)
                return
            self.state = self.state.evolve(config=self.state.config.evolve(site_limit=sites))

    async def recall(self, agents: Collection[str], first: int, before: int) -> RecalledRounds:
        """The rounds from `first` on, below `before`, whose gradients of all `agents` counted, with their bases.

        They are read from the disk, so those that are not on it yet are waited for.
        """
        spec = self.state.specification
        before = min(before, self.state.round)
        newest = self.state.last_rounds
        if first >= before or all(newest.get(agent, -1) < first for agent in agents):
            return RecalledRounds((), max(first, before))  # none of them was here since
        store = self._store
        if store is None:
            return RecalledRounds((), before, before - first)
        if self.state.durability.durable_round < before:
            async for _ in self.history.follow(before - 1):  # told of when it is on the disk
                break
        most = recalled_rounds(spec.feature_dim, spec.rank)
        return await asyncio.to_thread(read_past, store.path, agents, first, before, most=most)

    # Arithmetic ------------------------------------------------------------------------------------------------

    def _compute(self, command: ComputeBasis) -> Event | None:
        """The next basis: at once where that is quick, else in a thread, to be reported later."""
        method = self.state.specification.method
        if arithmetic_of(method, command.basis.shape, len(command.contributions)) < _THREAD_FROM_NUMBERS:
            return self._computed(command)
        task = asyncio.get_running_loop().create_task(self._compute_in_thread(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    async def _compute_in_thread(self, command: ComputeBasis) -> None:
        self.handle(await asyncio.to_thread(self._computed, command))

    def _computed(self, command: ComputeBasis) -> Event:
        try:
            sound = self._sound_move(command)
        except np.linalg.LinAlgError as failure:
            return BasisFailed(command.round, f"round {command.round} gave no finite basis: {failure}")
        except Exception as failure:  # a round without either event would stay open for ever
            log.exception("the arithmetic of round %d failed", command.round)
            return BasisFailed(command.round, f"round {command.round} gave no basis: {failure}")
        return BasisComputed(command.round, sound.move, sound.left_out, sound.problem)

    def _sound_move(self, command: ComputeBasis) -> FallbackMove:
        method = self.state.specification.method
        return sound_move(command.basis, command.contributions, method, command.round, command.row_squares)

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
        liveness = self.state.specification.session_timeout_seconds
        while not self.ended.is_set():
            now = self._clock()
            deadline = machine.next_deadline(self.state)
            sleep = min(max((now if deadline is None else deadline) - now, 0.01), _LONGEST_SLEEP_SECONDS)
            try:
                await asyncio.wait_for(self.ended.wait(), sleep)
            except TimeoutError:
                if self._clock() - now - sleep > min(_STALLED_SECONDS, liveness / 4):
                    # The process itself stood still: what has arrived meanwhile is read before anyone is given up.
                    log.warning("the coordinator stood still for %.1f s", self._clock() - now - sleep)
                    continue
                self.handle(Tick())


def _tell(listeners: list[Callable[[_C], None]], command: _C) -> None:
    """Tells the listeners; one that fails must not keep the machine's other commands from being carried out."""
    for listener in listeners:
        try:
            listener(command)
        except Exception:
            log.exception("a listener failed at a %s", type(command).__name__)


def log_note(note: Note) -> None:
    """Writes a note down as one line; of many agents it names the first."""
    message = " ".join(part for part in (note.kind, listed(note.agent_ids), note.text) if part)
    level = logging.WARNING if note.kind in _WARNINGS else logging.INFO
    log.log(level, "round %d: %s", note.round, message)
