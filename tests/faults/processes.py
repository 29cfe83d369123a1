"""Real processes that are started again whenever they have ended: what an orchestrator does for a fleet."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.stalls import Schedule, Start, schedule_of

TESTS = Path(__file__).resolve().parents[1]
_END_SECONDS = 30.0
_SOON_SECONDS = 0.2


def environment(**more: str) -> dict[str, str]:
    """That of every process: nothing of Cospan's own from outside, and the workloads of the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COSPAN_")}
    path = os.pathsep.join(str(TESTS / name) for name in ("behaviour", "e2e"))
    return {**kept, "PYTHONPATH": path, "NO_COLOR": "1", **more}


def cospan(*arguments: str) -> list[str]:
    """A command line of `cospan`."""
    return [sys.executable, "-m", "cospan.cli.main", *arguments]


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Life:
    """One process of a `Kept`, from its start to its end. `asked` where the test has ended it."""

    name: str
    code: int
    asked: bool
    last_words: str
    start: Start


class Kept:
    """A process that is kept running.

    `on_line` is called with every JSON line of its standard output, on the event loop.
    """

    def __init__(
        self, name: str, command: list[str], folder: Path, on_line: Callable[[dict[str, Any]], None], **more: str
    ) -> None:
        self.name, self.lives = name, list[Life]()
        self._command, self._folder, self._on_line = command, folder, on_line
        self._environment = environment(**more)
        self._errors = folder / f"{name}.stderr"
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._asked = False
        self._listened: float | None = None
        self._schedule: Schedule | None = None
        self._pause = 0.0
        self._wanted = True
        self.stopped = False
        """Whether SIGSTOP holds it."""
        self.disturbed = 0
        """How often it was ended or held."""
        self.started = asyncio.Event()
        """Set while a process runs."""
        self.ended_once = asyncio.Event()
        """Set when the process that runs now has ended; the next one has another."""
        self.listening = asyncio.Event()
        """Set from the line that says so on, while the process runs."""
        self.before_start: Callable[[], None] = lambda: None
        """Called while no process runs, before each but the first."""
        self.over: Callable[[Life], bool] = lambda life: not life.asked and life.code == 0
        """Whether it need not be started again."""

    def start(self) -> None:
        """Starts it, and again after each end."""
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while self._wanted:
            life = await self._live()
            self.lives.append(life)
            ended, self.ended_once = self.ended_once, asyncio.Event()
            ended.set()
            if self.over(life) or not self._wanted:
                return
            pause = self._pause if life.asked else _SOON_SECONDS
            self._pause = 0.0
            await asyncio.sleep(pause)
            self.before_start()

    async def _live(self) -> Life:
        self._asked, self._listened, self._schedule = False, None, None
        begun = time.time()
        with self._errors.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                limit=1 << 24,
            )
        self.started.set()
        try:
            last = await self._read(self._process)
            code = await self._process.wait()
        finally:
            self.started.clear()
            self.listening.clear()
            self.stopped = False
        return Life(self.name, code, self._asked, last, Start(begun, self._listened, time.time(), self._schedule))

    async def _read(self, process: asyncio.subprocess.Process) -> str:
        last = ""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if not line.endswith(b"\n"):
                break  # it was killed in the middle of a line that is longer than a pipe takes at once
            last = line.decode().strip()
            document = json.loads(last)
            if document.get("event") == "listening":
                self._listened, self._schedule = time.time(), schedule_of(process.pid)
                self.listening.set()
            self._on_line(document)
        return last

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        assert self._process is not None
        return self._process.pid

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal; whether there was a process that had not ended."""
        if self._process is None or self._process.returncode is not None or not self.started.is_set():
            return False
        if self._listened is None:
            self._schedule = schedule_of(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
            return True
        return False

    def end(self, number: signal.Signals, pause: float = 0.0) -> bool:
        """Ends it; it is started again after `seconds`."""
        self._asked, self._pause = True, pause
        self.disturbed += 1
        return self.send(number)

    @property
    def ending(self) -> bool:
        """Whether it has been asked to end, and has not yet."""
        return self._asked

    async def hold(self, seconds: float) -> bool:
        """SIGSTOP, and SIGCONT after `seconds`."""
        self.stopped = True
        self.disturbed += 1
        held = self.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.send(signal.SIGCONT)
            self.stopped = False
        return held

    async def ended(self, seconds: float) -> bool:
        """Waits until it is over; whether that was in time."""
        assert self._keeping is not None
        done, _ = await asyncio.wait({self._keeping}, timeout=seconds)
        if done:
            self._keeping.result()
        return bool(done)

    async def close(self) -> None:
        """Ends it for good."""
        self._wanted = False
        if self._keeping is None:
            return
        deadline = time.monotonic() + _END_SECONDS
        while not self._keeping.done() and time.monotonic() < deadline:
            self.end(signal.SIGCONT)
            self.end(signal.SIGKILL)
            await asyncio.wait({self._keeping}, timeout=_SOON_SECONDS)
        self._keeping.cancel()

    def errors(self) -> str:
        """What its processes have said on standard error."""
        return self._errors.read_text(encoding="utf-8", errors="replace") if self._errors.exists() else ""
