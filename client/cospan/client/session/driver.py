"""A process that takes part in a run: its conversation with the coordinator, and the loop around its learner.

What it hosts, one agent or a group, is up to `cospan.client.agent` and `cospan.client.group`.
"""

import asyncio
import contextlib
import importlib.metadata
import logging
import random
import secrets
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, assert_never, cast

from cospan.client.files.persistence import Learner, LearnerContext, StateKeeper, StatePolicy
from cospan.client.files.state_file import FileKind, StateFile
from cospan.client.learning.learner_thread import LearnerThread
from cospan.client.learning.site_learner import Warned
from cospan.client.session import machine as session
from cospan.client.session.message_checks import MEMORY_GIB, memory_problem
from cospan.client.session.run_checks import check_basis, checked_floor
from cospan.client.session.tasks import end_tasks, within
from cospan.client.session.transport import AgentStream, Transport, is_near, stamp_or_error
from cospan.client.workload import FeatureMap, Workload
from cospan.core.method import DEFAULT_MIN_STEPS
from cospan.core.specification import RunSpecification
from cospan.wire import fork_guard
from cospan.wire.errors import CospanError, InvalidValueError, WorkloadBehaviourError
from cospan.wire.messages import AgentMessage, Join, Welcome
from cospan.wire.notes import bound_note
from cospan.wire.text import MAX_TEXT

log = logging.getLogger(__name__)

PROGRESS_TIMEOUT_SECONDS = 60.0
_ROUND_END_SECONDS = 2.0
"""So long an agent that stops in the middle of a round waits for its end, so that what it saves is whole."""
_FAREWELL_SECONDS = 1.0
"""So long an agent that ends waits for its last messages to leave."""
_CLOSE_SECONDS = 5.0
"""A stream that is not closed by then is left behind."""


L = TypeVar("L", bound=Learner)


@dataclass(frozen=True, slots=True)
class AgentEnd:
    """How an agent's part in the run ended.

    Attributes:
        message: for people.
        rounds: how many it learnt.
        left: whether it left on request before the run was over.
    """

    message: str
    rounds: int
    left: bool = False


class SessionDriver(ABC, Generic[L]):
    """The conversation of one process, whatever it hosts."""

    def __init__(
        self,
        workload: Workload,
        transport: Transport,
        kind: FileKind[L],
        keeping: StatePolicy,
        *,
        progress_timeout_seconds: float,
        min_steps_per_round: int = DEFAULT_MIN_STEPS,
        agents: int = 1,
        memory_gib: float = MEMORY_GIB,
    ) -> None:
        """Nothing is connected yet.

        Args:
            workload: of the sites.
            transport: how to reach the coordinator.
            kind: what stands in the files.
            keeping: which files.
            progress_timeout_seconds: seconds without an answer of the coordinator after which it gives up.
            min_steps_per_round: a run with fewer steps a round is refused before it is joined.
            agents: how many are hosted.
            memory_gib: GiB that the rounds of a run may need; a run that needs more is refused.

        Raises:
            InvalidValueError: `min_steps_per_round` is out of its range.
        """
        self.workload = workload
        self.learner: L | None = None
        self.on_round: list[Callable[[Self, int], None]] = []
        """Called after each round learnt, in the learning thread, with the agent and the round."""
        self.on_note: list[Callable[[Self, str], None]] = []
        """Called, in the learning thread, with what people should know: which file it goes on from, or not."""
        self.on_warning: list[Callable[[Self, Warned], None]] = []
        """Called, in the learning thread, with what is wrong and does not keep the agent from learning on."""
        self._progress_timeout_seconds, self._kind, self._keeping = progress_timeout_seconds, kind, keeping
        self._min_steps_per_round = checked_floor(min_steps_per_round)
        self._agents, self._memory_gib = agents, memory_gib
        self._keeper: StateKeeper[L] | None = None
        self._transport = transport
        self._state: session.SessionState | None = None
        self._inbox: deque[session.Event] = deque()
        self._stepping = False
        self._stream: AgentStream | None = None
        self._outbox: asyncio.Queue[AgentMessage | None] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._specification: RunSpecification | None = None
        self._worker: LearnerThread
        self._loop: asyncio.AbstractEventLoop
        self._outcome: asyncio.Future[AgentEnd]
        self._ticker: asyncio.TimerHandle | None = None
        self._background: asyncio.Task[AgentEnd] | None = None
        self._told = self._bound_told = False
        self._was_slow = False
        self.is_writing = False
        """Whether the conversation is over, and what was learnt is being written for the last time."""
        self._attempt = 0
        self._rng = random.Random(secrets.randbits(64))

    # What is hosted -------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def name(self) -> str:
        """What the agent, or the group, is called."""

    @abstractmethod
    def _make_sites(self, specification: RunSpecification) -> tuple[tuple[str, ...], FeatureMap]:
        """Makes the sites of this run; the agents' names, none where the coordinator is to give one, and φ."""

    @abstractmethod
    def _make_learner(self, welcome: Welcome) -> L:
        """The learner, which has learnt nothing; the specification is final."""

    @abstractmethod
    def _close_sites(self) -> None:
        """Closes the environments that were made; in the learning thread."""

    def _hosted(self) -> tuple[str, ...] | None:
        """The names of the agents that are hosted now, sorted, where others have joined; else None."""
        return None

    @property
    def _holder(self) -> str:
        """Who asks for a site; empty where the site is known."""
        return ""

    @property
    def state_path(self) -> Path | None:
        """The file that `state_file` has led to; None without one, and before the run has welcomed the agent."""
        state_file = self._state_file
        return None if state_file is None else state_file.path

    @property
    def _state_file(self) -> StateFile[L] | None:
        return None if self._keeper is None else self._keeper.state_file

    @property
    def is_exact(self) -> bool:
        """Whether it comes to the bits of a process that was never broken, as far as is known."""
        return self._keeper is None or self._keeper.is_exact

    @property
    def is_awaited(self) -> bool:
        """Whether the coordinator speaks with this process, and has not said that it goes down."""
        state = self._state
        return state is not None and state.phase is session.Phase.ACTIVE and state.resume_at <= time.monotonic()

    @property
    def run_id(self) -> str | None:
        """The run's name; None before the run has welcomed the agent."""
        return None if self._state is None or self._state.stamp is None else self._state.stamp.run_id

    def _learnt(self) -> L:
        if self.learner is None:
            raise InvalidValueError(f"{self._title} has learnt nothing yet; run it first")
        return self.learner

    @property
    def _title(self) -> str:
        return f"agent {self.name}"

    def _write_last(self, state_file: StateFile[L]) -> None:
        """Writes what was learnt for the last time, when the learning is over; in a thread that may block."""
        state_file.finish()

    # Running ----------------------------------------------------------------------------------------------------

    def run(self) -> AgentEnd:
        """Takes part until the run is over, and blocks meanwhile.

        Raises:
            CospanError: it did not end in order; what was learnt can be saved all the same.
            InvalidValueError: an event loop runs in this thread, as in a notebook. It may serve the coordinator,
                which would wait for an agent that waits for it: so `await agent.run_async()` there.
        """
        fork_guard.refuse_in_child()
        if loop_runs_here():
            raise InvalidValueError(
                f"{self._title} cannot block here, for an event loop runs in this thread, as in a notebook; "
                "write `await agent.run_async()` in place of run()"
            )
        return asyncio.run(self.run_async())

    async def run_async(self) -> AgentEnd:
        """Takes part until the run is over; see `run`."""
        fork_guard.begin()
        try:
            return await self._take_part()
        finally:
            fork_guard.end()

    async def _take_part(self) -> AgentEnd:
        self._worker, self._loop = LearnerThread(f"learner-{self.name}"), asyncio.get_running_loop()
        self._outcome = asyncio.get_running_loop().create_future()
        self._state, commands = session.initial_state(
            progress_timeout_seconds=self._progress_timeout_seconds,
            now=time.monotonic(),
            min_steps_per_round=self._min_steps_per_round,
            spread=self._rng.random(),
            near=is_near(self._transport),
        )
        try:
            self._tick_later()
            for command in commands:
                self._execute(command)
            self._step()
            return await self._outcome
        finally:
            await self._end()

    async def _end(self) -> None:
        """Leaves nothing behind that runs on: no stream, no task, no learning; and what was learnt in its file."""
        keeper, state_file = self._keeper, self._state_file
        if keeper is not None:
            self._worker.submit(keeper.after_last_round)
        self._worker.submit(self._close_sites)
        self._worker.stop()
        if self._ticker is not None:
            self._ticker.cancel()
        await self._hang_up(wait_seconds=_FAREWELL_SECONDS)
        await end_tasks(self._tasks)
        await self._hang_up()
        await asyncio.to_thread(self._worker.join, _ROUND_END_SECONDS)
        if state_file is not None:
            self.is_writing = True
            try:
                await asyncio.to_thread(self._write_last, state_file)
            finally:
                self.is_writing = False

    def stop(self, cause: str, *, returning: bool = False) -> None:
        """Asks the agent to leave the run; `run` returns soon after. Call it on the event loop's thread.

        Args:
            cause: one sentence, for the coordinator's log.
            returning: whether the agent will be started again: a run whose agents have all left waits for it.
        """
        fork_guard.refuse_in_child()
        self._post(session.StopRequested(cause, returning))

    async def __aenter__(self) -> Self:
        fork_guard.refuse_in_child()
        self._told = False
        self._background = asyncio.create_task(self.run_async())
        return self

    async def wait(self) -> AgentEnd:
        """Within `async with`: waits for the end of the run; raises as `run` does."""
        fork_guard.refuse_in_child()
        if self._background is None:
            raise InvalidValueError("wait() works within `async with agent:` only")
        self._told = True
        return await self._background

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the run. A failure that `wait` has not told of is raised, unless the block has failed itself."""
        fork_guard.refuse_in_child()
        assert self._background is not None
        if not self._background.done():
            self.stop("its program has finished with it")
        (outcome,) = await asyncio.gather(self._background, return_exceptions=True)
        if isinstance(outcome, Exception) and kind is None and not self._told:
            raise outcome

    def _tick_later(self) -> None:
        """Lets the machine know, in a while, that time has passed: that is what bounds every one of its waits."""
        if self._ticker is not None:
            self._ticker.cancel()
        assert self._state is not None
        self._ticker = asyncio.get_running_loop().call_later(session.tick_seconds(self._state), self._tick)

    def _tick(self) -> None:
        self._post(session.Tick())
        self._tick_later()

    def _post(self, event: session.Event) -> None:
        """Lets an event happen, on the event loop's thread: at once, or after the one that is happening."""
        self._inbox.append(event)
        self._step()

    def _step(self) -> None:
        if self._stepping or self._state is None:
            return
        self._stepping = True
        try:
            while self._inbox and not self._outcome.done():
                self._state, commands = session.step(self._state, self._inbox.popleft(), time.monotonic())
                for command in commands:
                    self._execute(command)
        except Exception as failure:  # also of a callback: there it would end in a log and nobody would know
            self._fail(failure)
        finally:
            self._stepping = False

    def _fail(self, failure: Exception) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(failure)

    def _execute(self, command: session.Command) -> None:
        match command:
            case session.Inquire(after_seconds=pause):
                self._in_background(self._inquire(pause))
            case session.Prepare(specification=specification):
                self._in_worker(partial(self._prepare, specification))
            case session.Connect(after_seconds=pause):
                self._in_background(self._connect(pause))
            case session.Ask(within_seconds=seconds):
                self._in_background(self._ask(seconds))
            case session.Begin(welcome=welcome):
                self._in_worker(partial(self._begin, welcome))
                self._tick_later()  # how often is known only now
            case session.Transmit(message=message):
                self._outbox.put_nowait(message)
            case session.Learn():
                self._in_worker(partial(self._learn, command))
            case session.Conclude(message=message, left=left):
                rounds = 0 if self.learner is None else self.learner.rounds
                self._outcome.set_result(AgentEnd(message, rounds, left))
            case session.Fail(error=error):
                self._fail(error)
            case _:
                assert_never(command)

    def _in_background(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._guarded(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, job: Coroutine[Any, Any, None]) -> None:
        """Runs a job of the connection; one that fails in a way that nobody foresaw must not fail in silence."""
        try:
            await job
        except Exception as failure:
            error = CospanError(f"the connection of {self.name} failed: {type(failure).__name__}: {failure}")
            error.__cause__ = failure
            self._post(session.LearningFailed(error))

    def _in_worker(self, job: Callable[[], session.Event | None]) -> None:
        """Runs a job in the learning thread; the event that it returns, if any, comes back to the loop."""
        loop = asyncio.get_running_loop()

        def report() -> None:
            event: session.Event | None
            try:
                event = job()
            except CospanError as failure:
                event = session.LearningFailed(failure)
            except BaseException as failure:  # an environment may also call sys.exit
                event = session.LearningFailed(_unexpected(self.name, failure))
            if event is None:
                return
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._post, event)

        self._worker.submit(report)

    # What the commands do --------------------------------------------------------------------------------------

    async def _inquire(self, pause: float) -> None:
        await asyncio.sleep(pause)
        try:
            self._post(session.Described(await self._transport.describe()))
        except CospanError as failure:
            self._broke(failure)

    def _prepare(self, specification: RunSpecification) -> session.Event:
        """Makes the sites; in the learning thread, where all of the workload's code runs.

        Raises:
            RunTooLargeError: a round needs more memory than the process may use.
        """
        self._specification = specification
        names, features = self._make_sites(specification)
        if specification.feature_dim == features.dim:  # else the session refuses it for that
            problem = memory_problem(specification, self._agents, self._memory_gib)
            if problem is not None:
                raise problem
        return session.Prepared(
            Join(
                instance_id=secrets.token_hex(16),
                agent_ids=names,
                site_claim_id=self._holder,
                feature_dim=features.dim,
                feature_fingerprint=features.fingerprint,
                workload=self.workload.name[:MAX_TEXT],
                client_version=importlib.metadata.version("cospan"),
                keeps_state=self._keeping.state_file is not None,
            )
        )

    async def _connect(self, pause: float) -> None:
        """Opens a stream and reads from it until it breaks."""
        self._attempt = attempt = self._attempt + 1
        await self._hang_up()
        await asyncio.sleep(pause)
        assert self._specification is not None
        stream = None
        try:
            if attempt != self._attempt:  # a group that has regrouped meanwhile connects at once
                return
            stream = await self._transport.open(self._specification)
            if attempt != self._attempt:
                await stream.close()
                return
            self._stream = stream
            self._outbox = asyncio.Queue()
            self._writer = asyncio.create_task(self._guarded(_write_all(stream, self._outbox)))
            self._post(session.Connected())
            while True:
                self._post(session.Received(await stream.receive()))
        except CospanError as failure:
            if self._stream is stream and attempt == self._attempt:  # else it was hung up on purpose
                self._broke(failure)

    async def _ask(self, seconds: float) -> None:
        """Asks over the stream whether the coordinator still answers."""
        stream = self._stream
        if stream is None:
            return
        answer = await stamp_or_error(stream, seconds)
        if self._stream is stream:  # else the question was for one that is closed
            self._post(session.answer_to_ask(answer))

    def _begin(self, welcome: Welcome) -> None:
        """The first welcome: the specification is final, the learner can be made; in the learning thread."""
        around = LearnerContext(
            self._token, self._durable_round, self._outcome.done, self._saved, self._progress_timeout_seconds
        )
        self._keeper = StateKeeper(
            lambda first_round: self._make_learner(replace(welcome, first_round=first_round)),
            self._kind,
            self._keeping,
            around,
            run_id=welcome.stamp.run_id,
            first_round=welcome.first_round,
        )
        self.learner = self._keeper.learner
        for note in self._keeper.notes:
            self._note(note)
        self._regroup()

    def _regroup(self) -> None:
        """Takes part as those that are left, where some were dropped; before a sum without them is sent."""
        hosted = self._hosted()
        if hosted is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._post, session.Regrouped(hosted))

    def _note(self, note: str, *, level: int = logging.INFO) -> None:
        """What people should know, for the log and for those who listen."""
        log.log(level, "%s: %s", self.name, note)
        for listener in self.on_note:
            listener(cast("Self", self), note)

    def _token(self) -> str | None:
        return None if self._state is None else self._state.token

    def _durable_round(self) -> int:
        return 0 if self._state is None or self._state.stamp is None else self._state.stamp.durable_round

    def _saved(self, rounds: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._post, session.Saved(rounds))

    def _learn(self, command: session.Learn) -> session.Event:
        check_basis(command.basis, command.round, command.turn)
        keeper = self._keeper
        assert keeper is not None
        known = keeper.upload_of(command.round, command.basis)
        if known is not None:
            return session.GradientReady(known)
        note = keeper.come_back(command.round, self._transport, self._loop)
        self.learner = learner = keeper.learner
        if note:
            self._note(note)
        begun = time.monotonic()
        upload = keeper.learn(command.round, command.basis)
        self._say_slow(time.monotonic() - begun)
        if upload.bounded and not self._bound_told:
            self._bound_told = True
            self._note(bound_note(upload.bounded, learner.specification.method), level=logging.WARNING)
        self._regroup()
        warnings, learner.warnings[:] = list(learner.warnings), []
        for warning in warnings:
            log.warning("%s", warning.text)
            for tell in self.on_warning:
                tell(cast("Self", self), warning)
        for listener in self.on_round:
            listener(cast("Self", self), command.round)
        keeper.save_now_and_then()
        return session.GradientReady(upload)

    def _say_slow(self, seconds: float) -> None:
        """Says once that a round takes longer here than the run waits for one agent."""
        spec = self._specification
        if spec is None or seconds <= spec.round_timeout_seconds or self._was_slow:
            return
        self._was_slow = True
        note = (
            f"a round of {spec.method.steps_per_round} steps took {seconds:.3g} s here, and a round of this run "
            f"waits for {spec.round_timeout_seconds:g} s once another agent has sent its gradient: an agent that "
            "takes "
            "longer is given up. Start the coordinator with a longer --round-timeout-seconds or fewer "
            "--steps-per-round"
        )
        self._note(note, level=logging.WARNING)

    def _broke(self, failure: CospanError) -> None:
        self._post(session.StreamBroke(failure, jitter=self._rng.random()))

    async def _hang_up(self, wait_seconds: float = 0.0) -> None:
        """Closes the stream, if there is one, after waiting so many seconds for what is still to be sent."""
        stream, self._stream = self._stream, None
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                self._outbox.put_nowait(None)
                if wait_seconds:
                    await asyncio.wait({writer}, timeout=wait_seconds)
                writer.cancel()
        finally:
            if stream is not None:
                await within(_CLOSE_SECONDS, stream.close())


def loop_runs_here() -> bool:
    """Whether an event loop runs in this thread, so that whoever blocks holds up all that it serves."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _write_all(stream: AgentStream, outbox: asyncio.Queue[AgentMessage | None]) -> None:
    """Sends what is put into the outbox, until None; a broken stream is noticed by its reader, which says why."""
    with contextlib.suppress(CospanError):
        while (message := await outbox.get()) is not None:
            await stream.send(message)


def _unexpected(name: str, failure: BaseException) -> CospanError:
    error = WorkloadBehaviourError(f"the learner of {name} failed: {type(failure).__name__}: {failure}")
    error.__cause__ = failure
    return error
