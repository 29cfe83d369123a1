"""A child process of `cospan run`: its JSON lines, its complaints, and its end."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import Any, Protocol

_LONGEST_LINE = 2**24
"""Of a coordinator that names all agents of a run."""
_MOST_UNREAD = 2**20
"""Bytes that wait for a child to read them."""


class Listener(Protocol):
    """Who is told of what children do."""

    def on_event(self, child: "Child", document: dict[str, Any]) -> None:
        """A JSON line came in."""

    def on_complaint(self, child: "Child", text: str) -> None:
        """A line on its standard error."""

    def on_exit(self, child: "Child") -> None:
        """It has ended, and everything it said has been heard."""


class Child:
    """One `cospan` process that speaks JSON lines.

    It has a session of its own, so that Ctrl-C reaches the parent alone. Its standard input is a pipe that ends
    with the parent: told `--follow-stdin`, it then stops in order, however the parent went.
    """

    def __init__(self, name: str, process: Process, listener: Listener) -> None:
        self.name, self._process, self._listener = name, process, listener
        self._attending = asyncio.create_task(self._attend())

    @classmethod
    async def start(
        cls, name: str, arguments: Sequence[str], listener: Listener, *, inherits: Sequence[int] = ()
    ) -> "Child":
        """Starts `cospan` with these arguments; it has the descriptors that it inherits until it ends."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cospan.cli.main",
            *arguments,
            "--follow-stdin",
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
            pass_fds=inherits,
            limit=_LONGEST_LINE,
        )
        return cls(name, process, listener)

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
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        await asyncio.gather(
            self._read(self._process.stdout, data=True), self._read(self._process.stderr, data=False)
        )
        await self._process.wait()
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
                self._listener.on_complaint(self, text)


def _document(text: str) -> dict[str, Any] | None:
    """The object of a JSON line that is an event; None for anything else."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return None
    return document if isinstance(document, dict) and "event" in document else None
