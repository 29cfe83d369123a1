"""Writing to a call what a stream has queued: one message at a time, in order, until the call ends."""

import asyncio

import pytest
from runs import run

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


def test_messages_go_out_one_after_another() -> None:
    async def write() -> None:
        stream, call = Stream(1), Call()
        assert isinstance(call, StreamCall)
        put(stream, b"welcome")
        writer = asyncio.create_task(stream.write_to(call))
        await settled()
        put(stream, b"first", b"second")
        stream.close(None)
        for begun in ([b"welcome"], [b"welcome", b"first"], [b"welcome", b"first", b"second"]):
            assert call.begun == begun
            assert not writer.done()
            await call.take()
        await writer

    run(write())


def test_it_waits_for_messages_and_for_the_end() -> None:
    async def write() -> None:
        stream, call = Stream(1), Call(slow=False)
        writer = asyncio.create_task(stream.write_to(call))
        for message in (b"first", b"second"):
            await settled()
            put(stream, message)
        await settled()
        assert (call.begun, writer.done()) == ([b"first", b"second"], False)
        stream.close(None)
        await writer

    run(write())


def test_an_error_overtakes_what_is_queued() -> None:
    async def write() -> None:
        stream, call = Stream(1), Call()
        writer = asyncio.create_task(stream.write_to(call))
        put(stream, b"first", b"second")
        await settled()
        stream.close(InternalError("it failed"))
        await call.take()
        await writer
        assert call.begun == [b"first"]

    run(write())


@pytest.mark.parametrize("failure", [RuntimeError("the call is over"), asyncio.CancelledError()])
def test_a_write_that_fails_ends_it(failure: BaseException) -> None:
    async def write() -> None:
        stream, call = Stream(1), Call()
        writer = asyncio.create_task(stream.write_to(call))
        put(stream, b"first", b"second")
        await settled()
        await call.take(failure)
        assert call.begun == [b"first"]
        with pytest.raises(type(failure)):
            await writer

    run(write())
