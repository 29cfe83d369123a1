"""A child process of `cospan run`: its JSON lines, its complaints, and its end."""

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections.abc import Sequence
from typing import Any, Protocol

from cospan.client.environment.import_path import python_module
from cospan.wire.text import MAX_RECORD, printable

_LONGEST_LINE = 2**24
"""Of a coordinator that names all agents of a run."""
_MOST_UNREAD = 2**20
"""Bytes that wait for a child to read them."""
_LAST_LINES_SECONDS = 1.0
"""How long the lines that a child wrote before its end are waited for, where another process holds its pipes."""


class AnyChild(Protocol):
    """What a fleet asks of a process, wherever it runs; `Child` says what each means."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def last_line(self) -> str:
        """What it wrote to its standard error last."""

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""

    @property
    def pid(self) -> int:
        """Its number where it runs."""

    @property
    def exit_code(self) -> int | None:
        """Its exit code, the negative number of the signal that ended it, or None while it runs."""

    @property
    def ending(self) -> str:
        """How it ended, in words."""

    async def wait(self) -> None:
        """Waits for its end."""

    def tell(self, line: bytes) -> None:
        """Writes a line to its standard input."""

    def terminate(self) -> None:
        """Asks it to stop in order."""

    def kill(self) -> None:
        """Ends it at once."""


class Listener(Protocol):
    """Who is told of what children do."""

    def on_event(self, child: AnyChild, document: dict[str, Any]) -> None:
        """A JSON line came in."""

    def on_complaint(self, child: AnyChild, text: str) -> None:
        """A line on its standard error."""

    def on_exit(self, child: AnyChild) -> None:
        """It has ended, and everything it said has been heard."""


class Child:
    """One `cospan` process that speaks JSON lines.

    It has a session of its own, so that Ctrl-C reaches the parent alone. Its standard input is a pipe that ends
    with the parent: told `--follow-stdin`, it then stops in order, however the parent went.
    """

    def __init__(self, name: str, process: Process, pipes: "_Pipes", listener: Listener) -> None:
        self.name, self._process, self._pipes, self._listener = name, process, pipes, listener
        self.last_line = ""
        """What it wrote to its standard error last."""
        self._attending = asyncio.create_task(self._attend())

    @classmethod
    async def start(
        cls, name: str, arguments: Sequence[str], listener: Listener, *, inherits: Sequence[int] = ()
    ) -> "Child":
        """Starts `cospan` with these arguments; it has the descriptors that it inherits until it ends."""
        process, pipes = await _started(
            *python_module("cospan.cli.main", *arguments, "--follow-stdin"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
            pass_fds=inherits,
            limit=_LONGEST_LINE,
        )
        return cls(name, process, pipes, listener)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._attending.done()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, the negative number of the signal that ended it, or None while it runs."""
        return self._process.returncode

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        code = self._process.returncode
        if code is None:
            return "is still running"
        return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"

    async def wait(self) -> None:
        """Waits until it has ended and everything it said has been heard."""
        await asyncio.shield(self._attending)

    def tell(self, line: bytes) -> None:
        """Writes a line to its standard input; one that does not read is told less."""
        stdin = self._process.stdin
        if self.running and stdin is not None and stdin.transport.get_write_buffer_size() < _MOST_UNREAD:
            with contextlib.suppress(ConnectionError, RuntimeError):
                stdin.write(line)

    def terminate(self) -> None:
        """Asks it to stop in order."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """Ends it, and what it may have started, at once."""
        if self.running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _attend(self) -> None:
        """Reads until the process has ended; processes that it has started may hold its pipes open for longer."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        reading = [
            asyncio.ensure_future(self._read(self._process.stdout, data=True)),
            asyncio.ensure_future(self._read(self._process.stderr, data=False)),
        ]
        await self._pipes.exited.wait()
        _, held = await asyncio.wait(reading, timeout=_LAST_LINES_SECONDS)
        for each in held:
            each.cancel()
        self._pipes.close()
        self._listener.on_exit(self)

    async def _read(self, stream: asyncio.StreamReader, *, data: bool) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the limit: no line of ours
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            document = _document(text) if data else None
            if document is not None:
                self._listener.on_event(self, document)
            elif text:
                text = printable(text, MAX_RECORD)
                self.last_line = self.last_line if data else text
                self._listener.on_complaint(self, text)


class _Pipes(SubprocessStreamProtocol):
    """A child's pipes, and its end. `Process.wait` waits for the end of the pipes as well."""

    def __init__(self, *, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=limit, loop=loop)
        self.exited = asyncio.Event()
        self._own_transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process has started."""
        super().connection_made(transport)
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._own_transport = transport

    def process_exited(self) -> None:
        """The process has ended."""
        super().process_exited()
        self.exited.set()

    def close(self) -> None:
        """Closes what is still open of the pipes."""
        if self._own_transport is not None:
            self._own_transport.close()


async def _started(*command: str, limit: int, **how: Any) -> tuple[Process, _Pipes]:
    """As `asyncio.create_subprocess_exec`, with the pipes."""
    loop = asyncio.get_running_loop()
    transport, pipes = await loop.subprocess_exec(lambda: _Pipes(limit=limit, loop=loop), *command, **how)
    return Process(transport, pipes, loop), pipes


def _document(text: str) -> dict[str, Any] | None:
    """The object of a JSON line that is an event; None for anything else."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return None
    return document if isinstance(document, dict) and "event" in document else None
