"""Writing to a call, with a task and without: one message at a time, in order, until the call ends."""

import asyncio
from typing import Any

import pytest
from runs import run

from cospan.server.rpc.stream_writer import StreamWriter
from cospan.server.runtime.fast_path import DirectWriter
from cospan.server.runtime.streams import Stream, StreamCall
from cospan.wire.errors import InternalError


class Call:
    """Takes a message at once, or when the test lets it."""

    def __init__(self, *, slow: bool = True) -> None:
        self.slow, self.begun = slow, list[bytes]()
        self.waiting: asyncio.Future[None] | None = None

    async def write(self, message: bytes, /) -> None:
        self.begun.append(message)
        if self.slow:
            self.waiting = asyncio.get_running_loop().create_future()
            await self.waiting

    async def take(self, outcome: BaseException | None = None) -> None:
        """What is on its way has arrived, or has failed; the writer hears of it."""
        assert self.waiting is not None
        waiting, self.waiting = self.waiting, None
        if outcome is None:
            waiting.set_result(None)
        elif isinstance(outcome, asyncio.CancelledError):
            waiting.cancel()
        else:
            waiting.set_exception(outcome)
        await settled()


async def settled() -> None:
    """Lets tasks and callbacks run until they wait for the call."""
    for _ in range(5):
        await asyncio.sleep(0)


def put(stream: Stream, *messages: bytes) -> None:
    for message in messages:
        stream.put(message, is_basis=False)


Writers = type[StreamWriter] | type[DirectWriter]
both = pytest.mark.parametrize("kind", [StreamWriter, DirectWriter])


@both
def test_messages_go_out_one_after_another(kind: Writers) -> None:
    async def write() -> None:
        stream, call = Stream(1), Call()
        assert isinstance(call, StreamCall)
        put(stream, b"welcome")
        writer = kind(stream, call)
        await settled()
        assert call.begun == [b"welcome"]
        put(stream, b"first", b"second")
        stream.close(None)
        assert call.begun == [b"welcome"]
        await call.take()
        assert call.begun == [b"welcome", b"first"]
        await call.take()
        assert not writer.ended.done(), "the last one is on its way"
        await call.take()
        assert call.begun == [b"welcome", b"first", b"second"]
        await writer.ended

    run(write())


def test_without_a_task_a_message_is_written_in_the_turn_that_queues_it() -> None:
    async def write() -> None:
        stream, call = Stream(1), Call(slow=False)
        writer = DirectWriter(stream, call)
        put(stream, b"first", b"second")
        assert call.begun == [b"first", b"second"]
        stream.close(None)
        assert writer.ended.done()

    run(write())


@both
def test_an_error_overtakes_what_is_queued(kind: Writers) -> None:
    async def write() -> None:
        stream, call = Stream(1), Call()
        writer = kind(stream, call)
        put(stream, b"first", b"second")
        await settled()
        stream.close(InternalError("it failed"))
        await call.take()
        assert (call.begun, writer.ended.done()) == ([b"first"], True)

    run(write())


@both
@pytest.mark.parametrize("failure", [RuntimeError("the call is over"), asyncio.CancelledError()])
def test_a_write_that_fails_closes_the_stream(failure: BaseException, kind: Writers) -> None:
    async def write() -> None:
        stream, call = Stream(1), Call()
        writer = kind(stream, call)
        put(stream, b"first", b"second")
        await settled()
        await call.take(failure)
        assert stream.closed
        assert call.begun == [b"first"]
        with pytest.raises(type(failure)):
            await writer.ended
        writer.stop()

    run(write())


def test_who_stops_hears_no_more_of_what_is_on_its_way() -> None:
    async def write() -> None:
        said = list[Any]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        stream, call = Stream(1), Call()
        writer = DirectWriter(stream, call)
        put(stream, b"first", b"second")
        await settled()
        writer.stop()
        put(stream, b"third")
        await call.take(RuntimeError("the call is over"))
        assert (call.begun, writer.ended.cancelled(), said) == ([b"first"], True, [])

    run(write())
