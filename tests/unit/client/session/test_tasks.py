"""Every wait of a process has an end: tasks that do not take a cancellation, streams that do not close."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from runs import RINGS, run, specification

from cospan.cli.commands import agent as cli_agent
from cospan.cli.processes.this_process import LastExit
from cospan.client.agent import Agent, ClientSettings
from cospan.client.session import tasks
from cospan.client.session.learning_session import AgentEnd
from cospan.client.session.settings import SessionSettings
from cospan.core.specification import RunSpecification
from cospan.relay import upstream
from cospan.relay.engine import RelaySettings
from cospan.wire import messages as m


async def deaf(asleep: asyncio.Event, for_good: asyncio.Event) -> None:
    """Takes every cancellation for something else, as grpc.aio does before the first metadata."""
    asleep.set()
    while not for_good.is_set():
        try:
            await for_good.wait()
        except asyncio.CancelledError:
            continue


class DeafStream:
    """Accepts what is sent, never answers, and ends neither a read nor itself when it is told to."""

    def __init__(self, for_good: asyncio.Event) -> None:
        self.reading, self._for_good = asyncio.Event(), for_good

    async def send(self, message: m.AgentMessage) -> None:
        pass

    async def receive(self) -> m.CoordinatorMessage:
        await deaf(self.reading, self._for_good)
        raise AssertionError("the reader is gone")

    async def ask(self, seconds: float) -> m.Stamp:
        raise AssertionError("a stream that is not welcomed is not asked")

    async def close(self) -> None:
        await deaf(asyncio.Event(), self._for_good)


class DeafTransport:
    """Says what the run is; its streams are deaf."""

    def __init__(self) -> None:
        self.for_good = asyncio.Event()
        self.stream = DeafStream(self.for_good)

    async def describe(self) -> RunSpecification:
        return specification()

    async def open(self, specification: RunSpecification) -> DeafStream:
        return self.stream


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_ATTEMPT_SECONDS", 0.01)


def test_an_agent_ends_though_its_stream_takes_no_cancellation() -> None:
    async def stopped() -> AgentEnd:
        transport = DeafTransport()
        settings = ClientSettings(farewell_seconds=0.05, close_seconds=0.05)
        agent = Agent(RINGS, index=0, transport=transport, settings=settings)
        running = asyncio.create_task(agent.run_async())
        await transport.stream.reading.wait()
        agent.stop("for a test")
        try:
            return await asyncio.wait_for(running, 10.0)
        finally:
            transport.for_good.set()  # so that this loop can end

    assert run(stopped()).message == "for a test"


def test_a_relay_ends_though_its_stream_takes_no_cancellation() -> None:
    async def closed() -> None:
        transport = DeafTransport()
        above = upstream.Upstream(
            transport,
            SessionSettings(farewell_seconds=0.05, close_seconds=0.05),
            tell=lambda _: None,
            fail=lambda _: None,
        )
        above.start()
        await above.specification
        above.host(("site-0",), "map-1")
        await transport.stream.reading.wait()
        try:
            await asyncio.wait_for(above.close(), 10.0)
        finally:
            transport.for_good.set()

    run(closed())


def test_a_relay_that_is_over_begins_no_session_when_its_last_agent_goes() -> None:
    async def over() -> None:
        transport = DeafTransport()
        above = upstream.Upstream(transport, RelaySettings(), tell=lambda _: None, fail=lambda _: None)
        above.start()
        await above.specification
        above.leave("for a test")
        above.host((), "map-1")
        assert above._driver.is_over
        await above.close()

    run(over())


def test_a_relay_gives_its_stream_two_seconds_to_say_farewell_and_close() -> None:
    settings = RelaySettings()
    assert settings.farewell_seconds + settings.close_seconds <= 2.0


def test_tasks_that_end_are_waited_for_and_their_failures_are_dropped() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("slow")

    async def failing() -> None:
        raise ValueError("for a test")

    async def all_of_them() -> None:
        jobs: list[asyncio.Task[Any]] = [asyncio.create_task(slow()), asyncio.create_task(failing())]
        await asyncio.sleep(0)
        await tasks.end_tasks(jobs)
        assert all(job.done() for job in jobs)

    run(all_of_them())
    assert ended == ["slow"]


def test_a_job_within_its_time_raises_what_it_raises() -> None:
    async def failing() -> None:
        raise ValueError("for a test")

    async def both() -> None:
        with pytest.raises(ValueError, match="for a test"):
            await tasks.within(5.0, failing())
        assert not await tasks.within(0.01, asyncio.Event().wait())
        assert await tasks.within(5.0, asyncio.sleep(0))

    run(both())


class Left:
    """An agent that was told to stop, and stands still when its part is over."""

    is_awaited = False

    def stop(self, cause: str, *, returning: bool = False) -> None: ...

    async def run_async(self) -> AgentEnd:
        return AgentEnd("it was stopped", 3, left=True)


def test_an_agent_that_is_ended_after_it_was_stopped_says_that_it_was() -> None:
    class Noted(LastExit):
        codes: list[int] = []  # noqa: RUF012

        def due(self, seconds: float, code: int, say: Callable[[], None] | None = None) -> None:
            self.codes.append(code)

    left: Any = Left()
    settings: Any = None  # they are read only where no coordinator answers for seconds
    run(cli_agent._run(left, settings, None, Noted(), follow_stdin=False))
    assert Noted.codes == [75]
