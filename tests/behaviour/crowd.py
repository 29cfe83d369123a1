"""Many connections that stay: each is opened again when the other side has closed it."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

AGAIN_SECONDS = 1.0
_DRIBBLE_SECONDS = 0.5
SLOW_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + 200 * b"x" + b"\r\n\r\n"


class Crowd:
    """Keeps `count` TCP connections open to one address, from entering to leaving.

    Each sends `saying` at once; with `dribble`, one byte of it every half second.
    """

    def __init__(self, port: int, count: int, saying: bytes = b"", *, dribble: bool = False) -> None:
        self._port, self._count, self._saying, self._dribble = port, count, saying, dribble
        self._tasks: list[asyncio.Task[None]] = []
        self.opened = 0
        """How many connections were opened, those that were opened again included."""
        self._first: list[asyncio.Event] = []

    async def __aenter__(self) -> Self:
        for _ in range(self._count):
            self._first.append(asyncio.Event())
            self._tasks.append(asyncio.create_task(self._hold(self._first[-1])))
        await asyncio.gather(*(event.wait() for event in self._first))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hold(self, first: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                self.opened += 1
                first.set()
                try:
                    await self._talk(reader, writer)
                finally:
                    writer.close()
            await asyncio.sleep(AGAIN_SECONDS)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Says what there is to say, and waits until the other side closes."""
        ended = asyncio.create_task(_drained(reader))
        try:
            if not self._dribble:
                writer.write(self._saying)
            else:
                for byte in self._saying:
                    writer.write(bytes((byte,)))
                    done, _ = await asyncio.wait({ended}, timeout=_DRIBBLE_SECONDS)
                    if done:
                        break
            await ended
        finally:
            ended.cancel()


async def _drained(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass


class CrowdProcess:
    """Crowds in a process of their own: what they cost is not taken from who measures."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.opened = 0
        """How many connections were opened; known at the end."""

    async def all_there(self) -> None:
        """Waits until each has been opened once."""
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"all are there\n"

    async def close(self) -> None:
        """Closes the connections."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        out, _ = await self._process.communicate()
        self.opened = int(out.split()[-1])


@contextlib.asynccontextmanager
async def crowds(*which: str) -> AsyncIterator[CrowdProcess]:
    """Crowds as PORT:COUNT, or PORT:COUNT:slow, of a process of their own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__)), *which, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    crowd = CrowdProcess(process)
    try:
        yield crowd
    finally:
        await crowd.close()


async def _main(crowds: list[str]) -> None:
    """PORT:COUNT says nothing; PORT:COUNT:slow is slow with a request. Until standard input ends."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(sys.stdin, lambda: ended.done() or ended.set_result(None))
    crowd = [_crowd_of(*text.split(":")) for text in crowds]
    entering = asyncio.gather(*(one.__aenter__() for one in crowd))
    entering.add_done_callback(lambda done: done.cancelled() or print("all are there", flush=True))
    await ended
    entering.cancel()
    print(sum(one.opened for one in crowd), flush=True)
    for one in crowd:
        await one.__aexit__(None, None, None)


def _crowd_of(port: str, count: str, slow: str = "") -> Crowd:
    return Crowd(int(port), int(count), SLOW_REQUEST if slow else b"", dribble=bool(slow))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
