"""A TCP bridge between agents and a coordinator, for whatever a network can do to a connection."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class Bridge:
    """Forwards every connection to `target`. In a connection both directions are treated alike.

    async with Bridge(coordinator.address) as bridge:
        Agent(…, coordinator=bridge.address)
        bridge.drop()        # resets every connection
        bridge.pause()       # connections stay open, new ones too, and nothing moves: what is sent waits
        bridge.black_hole()  # as `pause`, and what is sent never arrives
        bridge.refuse()      # resets every connection, and ends new ones at once
        bridge.delay(0.1)    # what is sent arrives that many seconds later, in both directions
        bridge.resume()      # ends each of these: what has waited moves on, what was lost is reset
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._moving = asyncio.Event()
        self._moving.set()
        self._refusing = self._losing = False
        self._delay_seconds = 0.0
        self.connections = 0
        """How many connections were accepted."""
        self.changed = asyncio.Event()
        """Set when a connection is accepted; clear it to wait for the next."""

    @property
    def address(self) -> str:
        """HOST:PORT for the agents."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def drop(self) -> None:
        """Resets every connection; new ones are welcome."""
        for writer in self._writers:
            writer.transport.abort()

    def pause(self) -> None:
        """Nothing moves any more."""
        self._moving.clear()

    def black_hole(self) -> None:
        """Nothing arrives any more."""
        self._losing = True
        self.pause()

    def refuse(self) -> None:
        """Resets every connection, and ends new ones at once."""
        self._refusing = True
        self.drop()

    def delay(self, seconds: float) -> None:
        """Everything takes so much longer; what is sent meanwhile follows in one piece."""
        self._delay_seconds = seconds

    def resume(self) -> None:
        """Everything moves at once, and new connections are welcome."""
        if self._losing:
            self.drop()
        self._refusing = self._losing = False
        self._delay_seconds = 0.0
        self._moving.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.drop()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.changed.set()
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            await self._link(reader, writer)
        except asyncio.CancelledError:
            pass  # the bridge is taken down; a stream server would log the cancellation
        finally:
            self._links.discard(link)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            await self._moving.wait()
            if self._refusing:
                return
            answers, onward = await asyncio.open_connection(*self._target)
            self._writers.add(onward)
            await self._forward_both(reader, writer, answers, onward)
        except OSError:
            pass
        finally:
            for end in (writer, onward):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()
                    with contextlib.suppress(OSError):
                        await end.wait_closed()

    async def _forward_both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        onward: asyncio.StreamWriter,
    ) -> None:
        """Forwards until one direction ends; then the other is of no use."""
        ways = {
            asyncio.create_task(self._forward(reader, onward)),
            asyncio.create_task(self._forward(answers, writer)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            if self._delay_seconds:
                await asyncio.sleep(self._delay_seconds)
            await self._moving.wait()
            sink.write(data)
            await sink.drain()
