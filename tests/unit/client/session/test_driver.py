"""The driver of a session: one stream at a time, farewells, failures that nothing foresaw, and a second session."""

import asyncio
from collections.abc import Callable

import numpy as np
from runs import join, run, specification

from cospan.client.session import machine as session
from cospan.client.session.driver import SessionDriver, SessionHooks
from cospan.client.session.settings import SessionSettings
from cospan.core.specification import RunSpecification
from cospan.wire import errors
from cospan.wire import messages as m

SPEC = specification(rounds=0)


class FakeStream:
    """Holds what was sent; a test puts what is received."""

    def __init__(self) -> None:
        self.sent: list[m.AgentMessage] = []
        self.incoming: asyncio.Queue[m.CoordinatorMessage | Exception] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.sending = asyncio.Event()
        """Set while a message is on its way."""
        self.may_send = asyncio.Event()
        self.may_send.set()

    async def send(self, message: m.AgentMessage) -> None:
        self.sending.set()
        await asyncio.sleep(0.01)  # so that a message is on its way when the stream is given up
        await self.may_send.wait()
        self.sending.clear()
        self.sent.append(message)

    async def receive(self) -> m.CoordinatorMessage:
        found = await self.incoming.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def ask(self, seconds: float) -> m.Stamp:
        return m.Stamp("run-1", 1, 0, 0)

    async def close(self) -> None:
        self.closed.set()
        self.incoming.put_nowait(errors.CoordinatorUnavailableError("the stream was closed"))


class FakeTransport:
    """Opens fake streams, as soon as it may."""

    def __init__(self) -> None:
        self.streams: list[FakeStream] = []
        self.opening = asyncio.Event()
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.asked = 0

    async def describe(self) -> RunSpecification:
        self.asked += 1
        return SPEC

    async def open(self, specification: RunSpecification) -> FakeStream:
        self.opening.set()
        try:
            await self.may_open.wait()
        except asyncio.CancelledError:
            await self.may_open.wait()  # as grpc.aio does: the cancellation has no effect
        self.streams.append(FakeStream())
        return self.streams[-1]


class Process:
    """A driver whose host joins at once, and notes what it is told."""

    def __init__(self, learn: Callable[[session.Learn], None] | None = None) -> None:
        self.transport = FakeTransport()
        self.told: list[object] = []
        hooks = SessionHooks(
            name=lambda: "a test",
            prepare=lambda _: self.driver.post(session.Prepared(join("a"))),
            learn=learn or self.told.append,
            conclude=self.told.append,
            fail=self.told.append,
        )
        self.driver = SessionDriver(self.transport, hooks, SessionSettings(farewell_seconds=1.0, close_seconds=0.1))

    async def joined(self) -> FakeStream:
        """The stream of a session that is welcomed."""
        self.driver.start()
        await self.reached(lambda: len(self.transport.streams) == 1 and len(self.transport.streams[0].sent) == 1)
        (stream,) = self.transport.streams
        stamp, basis = m.Stamp("run-1", 1, 0, 0), SPEC.initial_basis()
        stream.incoming.put_nowait(m.Welcome(stamp, "token", SPEC, basis, first_round=0, started=True))
        await self.reached(lambda: self.state.phase is session.Phase.ACTIVE)
        return stream

    @property
    def state(self) -> session.SessionState:
        assert self.driver.state is not None
        return self.driver.state

    async def reached(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - no event tells of a state of the driver
            await asyncio.sleep(0.001)


def test_a_process_that_leaves_says_so_before_its_stream_is_closed() -> None:
    async def left() -> None:
        process = Process()
        stream = await process.joined()
        process.driver.post(session.StopRequested("enough"))
        await process.driver.close()
        assert stream.closed.is_set()
        assert isinstance(stream.sent[-1], m.Leave)
        learn, conclusion = process.told
        assert isinstance(learn, session.Learn)
        assert isinstance(conclusion, session.Conclude)
        assert conclusion.left

    run(left())


def test_the_conclusion_says_why_the_run_ended() -> None:
    async def finished() -> None:
        process = Process()
        stream = await process.joined()
        basis = np.ascontiguousarray(SPEC.initial_basis()[:, ::-1])
        cause = m.FinishCause.ROUNDS_REACHED
        stream.incoming.put_nowait(m.Finish(m.Stamp("run-1", 1, 1, 1), cause, "all rounds are done", basis))
        await process.reached(lambda: len(process.told) == 2)
        await process.driver.close()
        conclusion = process.told[-1]
        assert isinstance(conclusion, session.Conclude)
        assert (conclusion.cause, conclusion.message, conclusion.left) == (cause, "all rounds are done", False)

    run(finished())


def test_a_stream_that_opens_too_late_is_closed_and_not_used() -> None:
    async def late() -> None:
        process = Process()
        process.transport.may_open.clear()
        process.driver.start()
        await process.reached(lambda: process.state.join is not None)
        await process.transport.opening.wait()
        process.driver.post(session.Regrouped(("b",)))
        process.transport.may_open.set()
        await process.reached(lambda: len(process.transport.streams) == 2)
        await process.reached(lambda: sum(len(each.sent) for each in process.transport.streams) == 1)
        (unused,) = [each for each in process.transport.streams if not each.sent]
        await asyncio.wait_for(unused.closed.wait(), 5.0)
        await process.driver.close()

    run(late())


def test_a_hook_that_fails_unforeseen_ends_the_session() -> None:
    def broken(_: session.Learn) -> None:
        raise ZeroDivisionError("for a test")

    async def failed() -> None:
        process = Process(learn=broken)
        await process.joined()
        await process.reached(lambda: bool(process.told))
        assert isinstance(process.told[0], ZeroDivisionError)
        assert process.driver.is_over
        await process.driver.close()

    run(failed())


def test_a_host_may_leave_and_begin_a_second_session() -> None:
    async def twice() -> None:
        process = Process()
        first = await process.joined()
        process.driver.leave("for a while", returning=True)
        process.driver.start()
        await process.reached(lambda: len(process.transport.streams) == 2)
        await asyncio.wait_for(first.closed.wait(), 5.0)
        assert isinstance(first.sent[-1], m.Leave)
        assert (process.transport.asked, process.state.token) == (2, None)
        await process.driver.close()

    run(twice())


def test_a_second_session_may_run_on_another_event_loop() -> None:
    """As with an agent that is run twice."""
    process = Process()

    async def once() -> None:
        stream = await process.joined()
        process.driver.post(session.StopRequested("enough"))
        await process.driver.close()
        assert isinstance(stream.sent[-1], m.Leave)
        assert isinstance(process.told[-1], session.Conclude)

    run(once())
    process.transport.streams.clear()
    run(once())


def test_a_writer_of_an_ended_event_loop_holds_up_no_session() -> None:
    """Also where the driver was not closed: what has ended is not waited for."""
    process = Process()

    async def ended() -> None:
        pass

    async def left() -> None:
        process.driver._last_writer = asyncio.create_task(ended())
        await process.driver._last_writer

    async def joined() -> None:
        await process.joined()
        await process.driver.close()

    run(left())
    run(joined())


def test_a_close_that_is_cancelled_still_closes_the_stream_and_ends_all_tasks() -> None:
    async def cancelled() -> None:
        process = Process()
        stream = await process.joined()
        stream.may_send.clear()
        process.driver.post(session.StopRequested("enough"))
        stream.sending.clear()
        closing = asyncio.create_task(process.driver.close())
        await stream.sending.wait()
        closing.cancel()
        await asyncio.wait({closing})
        assert stream.closed.is_set()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(cancelled())
