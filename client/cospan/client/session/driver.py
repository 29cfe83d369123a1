"""One process' conversation with its coordinator: the loop around the session machine, its stream and its timer.

What the process does in the run is up to its `SessionHooks`: an agent or a group learns
(`cospan.client.learning_client`), a relay sums what its agents learn (`cospan.relay.upstream`).
"""

import asyncio
import contextlib
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, assert_never, runtime_checkable

from cospan.client.session import machine as session
from cospan.client.session.settings import SessionSettings
from cospan.client.session.tasks import end_tasks, within
from cospan.client.session.transport import AgentStream, Transport, is_near, stamp_or_error, tls_of
from cospan.core.privacy.word_source import WordSource
from cospan.core.specification import RunSpecification
from cospan.wire.errors import CospanError, InvalidValueError
from cospan.wire.messages import AgentMessage, GradientUpload, Join, SumMembers, Welcome
from cospan.wire.secure_sums.availability import require_cryptography


@runtime_checkable
class VectorSource(Protocol):
    """A process' part in secure sums; `cospan.client.session.masking.Masking` is that of an agent."""

    def offered(self, join: Join) -> Join:
        """The join with keys, and their proofs."""
        ...

    def agree(self, named: SumMembers, state: session.SessionState) -> bytes:
        """The id of the epoch of these members, after they were checked; raises MembershipRefusedError."""
        ...

    def masked(self, command: session.TransmitMasked, specification: RunSpecification) -> GradientUpload:
        """The upload as it is sent; the second time the same bytes."""
        ...


@dataclass(frozen=True, slots=True)
class SessionHooks:
    """What a process does with its session; all of this is called on the event loop's thread.

    Attributes:
        name: gives what the process is called in error messages.
        prepare: makes ready for a run of this specification, and posts `Prepared`, now or later.
        learn: is told of a round that takes gradients, and posts `GradientReady`, now or later.
        conclude: is told that the session is over, in order.
        fail: is told that it is over, and not in order.
        begin: is told of the first welcome of a session, which makes the specification final.
        welcomed: is told of every welcome, before anything that follows from it.
        outgoing: gives a message as it is sent.
        takes_over: whether a broken stream is dealt with here, so that the machine is not told of it.
        count: with differential privacy, counts a vector before it is sent, and posts `Counted`; None where vectors
            cannot be counted, and then a run with differential privacy is refused.
        noise: gives the source of a round's noise, in such a run.
        vectors: of a relay, what stands for its part in secure sums: the keys and vectors of those below it. None
            where the process has a key of its own, and masks.
    """

    name: Callable[[], str]
    prepare: Callable[[RunSpecification], None]
    learn: Callable[[session.Learn], None]
    conclude: Callable[[session.Conclude], None]
    fail: Callable[[Exception], None]
    begin: Callable[[Welcome], None] = lambda _: None
    welcomed: Callable[[Welcome], None] = lambda _: None
    outgoing: Callable[[AgentMessage], AgentMessage] = lambda message: message
    takes_over: Callable[[CospanError], bool] = lambda _: False
    count: Callable[[], None] | None = None
    noise: Callable[[int], WordSource] | None = None
    vectors: VectorSource | None = None


class SessionDriver:
    """Runs one session after the other, on one event loop and without locks.

    Attributes:
        state: of the session machine; None before `start`.
        is_over: whether no event is taken any more.
    """

    def __init__(self, transport: Transport, hooks: SessionHooks, settings: SessionSettings) -> None:
        """Nothing is connected yet."""
        self.state: session.SessionState | None = None
        self.is_over = False
        self._transport, self._hooks, self._settings = transport, hooks, settings
        self._specification: RunSpecification | None = None
        self._masking: VectorSource | None = None
        self._inbox: deque[session.Event] = deque()
        self._is_stepping = False
        self._stream: AgentStream | None = None
        self._outbox: asyncio.Queue[AgentMessage | None] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None
        self._caller: asyncio.Task[None] | None = None
        self._last_writer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._farewells: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.TimerHandle | None = None
        self._rng = random.Random(secrets.randbits(64))

    # The machine -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins a session: asks what the run is. Events that were posted before are taken now."""
        self.is_over = False
        self.state, commands = session.initial_state(
            progress_timeout_seconds=self._settings.progress_timeout_seconds,
            now=time.monotonic(),
            demands=self._settings.demands,
            spread=self._rng.random(),
            near=is_near(self._transport),
            passes_on=self._hooks.vectors is not None,
        )
        self._tick_later()
        for command in commands:
            self._execute(command)
        self._step()

    def post(self, event: session.Event) -> None:
        """Lets an event happen, on the event loop's thread: at once, or after the one that is happening."""
        self._inbox.append(event)
        self._step()

    def leave(self, cause: str, *, returning: bool) -> None:
        """Ends the session at once, whatever is happening; `start` may begin another one.

        Args:
            cause: one sentence, for the coordinator's log.
            returning: whether the process means to come back.
        """
        self._inbox.clear()
        self._take(session.StopRequested(cause, returning))
        self._hang_up()

    async def close(self) -> None:
        """Leaves nothing behind that runs on; what is queued is sent first where that is still possible."""
        self.is_over = True
        if self._ticker is not None:
            self._ticker.cancel()
        self._hang_up()
        try:
            if self._farewells:
                await asyncio.wait(self._farewells)
        finally:
            self._last_writer = None  # it belongs to this event loop, and the next session may run on another
            await end_tasks(self._tasks)

    def _step(self) -> None:
        if self._is_stepping or self.state is None:
            return
        self._is_stepping = True
        try:
            while self._inbox and not self.is_over:
                self._take(self._inbox.popleft())
        except Exception as failure:  # also of a callback, whose failure would end in a log only
            self._fail(failure)
        finally:
            self._is_stepping = False

    def _take(self, event: session.Event) -> None:
        assert self.state is not None
        self.state, commands = session.step(self.state, event, time.monotonic())
        message = event.message if isinstance(event, session.Received) else None
        if isinstance(message, Welcome) and self.state.phase is session.Phase.ACTIVE:
            self._hooks.welcomed(message)
        for command in commands:
            self._execute(command)

    def _execute(self, command: session.Command) -> None:
        match command:
            case session.Inquire(after_seconds=pause):
                self._call(partial(self._inquire, pause))
            case session.Prepare(specification=specification):
                self._prepare(specification)
            case session.Connect(after_seconds=pause):
                self._call(partial(self._connect, pause))
            case session.Transmit(message=Join() as join):
                self._send(join if self._masking is None else self._masking.offered(join))
            case session.Transmit(message=message):
                self._send(message)
            case session.Agree() | session.Count() | session.TransmitMasked():
                self._mask(command)
            case session.Ask(within_seconds=seconds):
                self._in_background(partial(self._ask, seconds))
            case session.Begin(welcome=welcome):
                self._hooks.begin(welcome)
                self._tick_later()  # the interval is known only now
            case session.Learn():
                self._hooks.learn(command)
            case session.Conclude():
                self._hooks.conclude(command)
            case session.Fail(error=error):
                self._fail(error)
            case _:
                assert_never(command)

    def _prepare(self, specification: RunSpecification) -> None:
        """Makes ready for a run; one with secure sums gets a new key."""
        self._specification, self._masking = specification, None
        if specification.secure_sums:
            try:
                require_cryptography()
                self._check_counted(specification)
            except CospanError as failure:
                self.post(session.LearningFailed(failure))
                return
            from cospan.client.session.masking import Masking, system_noise

            noise = self._hooks.noise or system_noise
            self._masking = self._hooks.vectors or Masking(tls_of(self._transport), noise=noise)
        self._hooks.prepare(specification)

    def _check_counted(self, specification: RunSpecification) -> None:
        """Refuses a run with differential privacy where this process cannot count its vectors."""
        if specification.is_private and self._hooks.count is None:
            raise InvalidValueError(
                f"the run has differential privacy, and {self._hooks.name()} keeps no count of its vectors; take "
                "part with `cospan agent`, or start the coordinator without --dp"
            )

    def _send(self, message: AgentMessage) -> None:
        self._outbox.put_nowait(self._hooks.outgoing(message))

    def _mask(self, command: session.Agree | session.Count | session.TransmitMasked) -> None:
        """The part of this process in secure sums; where it cannot take part, the session ends."""
        assert self.state is not None
        assert self.state.specification is not None
        assert self._masking is not None
        try:
            if isinstance(command, session.Agree):
                self.post(session.Agreed(self._masking.agree(command.members, self.state)))
            elif isinstance(command, session.Count):
                assert self._hooks.count is not None, "such a run is refused without it"
                self._hooks.count()
            else:
                self._send(self._masking.masked(command, self.state.specification))
        except CospanError as failure:
            self.post(session.LearningFailed(failure))

    def _fail(self, failure: Exception) -> None:
        if not self.is_over:
            self.is_over = True
            self._hooks.fail(failure)

    def _tick_later(self) -> None:
        """Tells the machine, in a while, that time has passed: this bounds every one of its waits."""
        if self._ticker is not None:
            self._ticker.cancel()
        assert self.state is not None
        self._ticker = asyncio.get_running_loop().call_later(session.tick_seconds(self.state), self._tick)

    def _tick(self) -> None:
        self.post(session.Tick())
        if not self.is_over:
            self._tick_later()

    # The connection ----------------------------------------------------------------------------------------------

    def _call(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begins a call to the coordinator, in place of the one before."""
        self._hang_up()
        self._caller = self._in_background(job)

    def _in_background(self, job: Callable[[], Coroutine[Any, Any, None]]) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._guarded(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs a job of the connection; one that fails in an unforeseen way ends the session."""
        try:
            await job()  # called only here: a task that is cancelled before it begins leaves no coroutine
        except Exception as failure:
            name, kind = self._hooks.name(), type(failure).__name__
            error = CospanError(f"the connection of {name} failed: {kind}: {failure}")
            error.__cause__ = failure
            self.post(session.LearningFailed(error))

    async def _inquire(self, pause: float) -> None:
        await asyncio.sleep(pause)
        try:
            self.post(session.Described(await self._transport.describe()))
        except CospanError as failure:
            self._broke(failure)

    async def _connect(self, pause: float) -> None:
        """Opens a stream and reads from it until it breaks, or is given up."""
        caller = asyncio.current_task()
        if self._last_writer is not None and not self._last_writer.done():
            await asyncio.wait({self._last_writer}, timeout=self._settings.farewell_seconds)
        await asyncio.sleep(pause)
        assert self._specification is not None
        try:
            stream = await self._transport.open(self._specification)
            if self._caller is not caller:  # gRPC may take a cancellation for its own
                await within(self._settings.close_seconds, stream.close())
                return
            self._stream, self._outbox = stream, asyncio.Queue()
            self._writer = self._in_background(partial(_write_all, stream, self._outbox))
            self.post(session.Connected())
            while self._caller is caller:
                message = await stream.receive()
                if self._caller is caller:
                    self.post(session.Received(message))
        except CospanError as failure:
            if self._caller is caller:  # else it was hung up on purpose
                self._broke(failure)

    async def _ask(self, seconds: float) -> None:
        """Asks over the stream whether the coordinator still answers."""
        stream = self._stream
        if stream is None:
            return
        answer = await stamp_or_error(stream, seconds)
        if self._stream is stream:  # else the question was for one that is closed
            self.post(session.answer_to_ask(answer))

    def _broke(self, failure: CospanError) -> None:
        if not self._hooks.takes_over(failure):
            self.post(session.StreamBroke(failure, jitter=self._rng.random()))

    def _hang_up(self) -> None:
        """Gives up the call, if there is one; the messages in the outbox of its stream have a moment to leave."""
        caller, self._caller = self._caller, None
        stream, self._stream = self._stream, None
        writer, self._writer = self._writer, None
        if stream is not None and writer is not None:
            # Its reader is left to find the end: cancelling it would cancel the call, and what is on its way.
            self._outbox.put_nowait(None)
            self._last_writer = writer
            farewell = self._in_background(partial(self._say_farewell, stream, writer))
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)
        elif caller is not None and caller is not asyncio.current_task():
            caller.cancel()
        self._outbox = asyncio.Queue()

    async def _say_farewell(self, stream: AgentStream, writer: "asyncio.Task[None]") -> None:
        try:
            await asyncio.wait({writer}, timeout=self._settings.farewell_seconds)
        finally:  # also where the farewell is cancelled, for only this session holds the stream
            writer.cancel()
            await within(self._settings.close_seconds, stream.close())


async def _write_all(stream: AgentStream, outbox: asyncio.Queue[AgentMessage | None]) -> None:
    """Sends what is put into the outbox, until None; a broken stream is noticed by its reader, which knows why."""
    with contextlib.suppress(CospanError):
        while (message := await outbox.get()) is not None:
            await stream.send(message)
