"""What runs on a node of a cluster: one agent process, what it says, and the files that it leaves.

An engine calls the methods of `AgentHost` from threads of its own, and may call one again if it does not know
whether its answer arrived: so every method may be called twice.
"""

import asyncio
import shutil
import socket
import tempfile
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cospan.cli.processes.child_process import AnyChild, Child

EVENT, COMPLAINT, EXIT = "event", "complaint", "exit"
"""Kinds of news: a JSON line, a line of standard error, and the end as `{"code", "ending", "last_line", "pid"}`."""


class AgentHost:
    """One `cospan agent` process, in a folder of its own."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cospan-"))
        self._changed = threading.Condition()
        self._news: list[tuple[str, Any]] = []
        self._forgotten = 0
        self._child: Child | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def facts(self) -> dict[str, str]:
        """Where this is, and which version of Cospan."""
        return {"host": socket.gethostname(), "version": version("cospan")}

    def start(self, name: str, arguments: Sequence[str], files: Mapping[str, bytes]) -> None:
        """Starts `cospan` with these arguments, once.

        Args:
            name: of the process.
            arguments: of the command; the value of `--output` becomes a path in this host's folder.
            files: contents of the files that the process finds in the folder of its output.
        """
        if self._thread is not None:
            return
        self._agents.mkdir(exist_ok=True)
        for file, content in files.items():
            (self._agents / Path(file).name).write_bytes(content)
        self._thread = threading.Thread(target=self._attend, args=(name, self._here(arguments)), daemon=True)
        self._thread.start()

    def news(self, seen: int, seconds: float) -> list[tuple[str, Any]]:
        """What happened after the first `seen` news; waits for that at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._forgotten + len(self._news) > seen, seconds)
            heard = min(max(seen - self._forgotten, 0), len(self._news))
            del self._news[:heard]
            self._forgotten += heard
            return list(self._news)

    def stop(self) -> None:
        """Asks the process to stop in order."""
        self._tell("terminate")

    def kill(self) -> None:
        """Ends the process at once."""
        self._tell("kill")

    def files(self) -> dict[str, int]:
        """The files that the process has left, with their sizes in bytes."""
        found = self._agents.iterdir() if self._agents.is_dir() else ()
        return {path.name: path.stat().st_size for path in sorted(found) if path.is_file()}

    def read(self, name: str, offset: int, size: int) -> bytes:
        """A part of one of the files."""
        with (self._agents / Path(name).name).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def clear(self) -> None:
        """Removes the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    # Of the process, in the thread that attends to it ------------------------------------------------------------

    def on_event(self, child: AnyChild, document: dict[str, Any]) -> None:
        """The process wrote a JSON line."""
        self._add(EVENT, document)

    def on_complaint(self, child: AnyChild, text: str) -> None:
        """The process wrote to its standard error."""
        self._add(COMPLAINT, text)

    def on_exit(self, child: AnyChild) -> None:
        """The process has ended."""
        end = {"code": child.exit_code, "ending": child.ending, "last_line": child.last_line, "pid": child.pid}
        self._add(EXIT, end)

    @property
    def _agents(self) -> Path:
        return self._folder / "agents"

    def _here(self, arguments: Sequence[str]) -> list[str]:
        """The arguments, with an output in this host's folder: that folder for a group, else a file in it."""
        found = list(arguments)
        at = found.index("--output") + 1
        named = Path(found[at])
        found[at] = str(self._agents / named.name if named.suffix else self._agents)
        return found

    def _attend(self, name: str, arguments: Sequence[str]) -> None:
        """Runs the process in an event loop of the standard library, whichever the engine uses."""
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._run(name, arguments))
        except OSError as failure:
            said = f"its process cannot be started: {failure.strerror}"
            self._add(EXIT, {"code": 1, "ending": said, "last_line": "", "pid": 0})

    async def _run(self, name: str, arguments: Sequence[str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._child = await Child.start(name, arguments, self)
        await self._child.wait()

    def _tell(self, what: str) -> None:
        child, loop = self._child, self._loop
        if child is not None and loop is not None and child.running and not loop.is_closed():
            loop.call_soon_threadsafe(getattr(child, what))

    def _add(self, kind: str, value: object) -> None:
        with self._changed:
            self._news.append((kind, value))
            self._changed.notify_all()
