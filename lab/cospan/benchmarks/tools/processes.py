"""Processes of a benchmark: the coordinator, its ceiling and the load generators; each is killed at the end."""

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cospan.client.environment.import_path import python_module
from cospan.experiments.runner import cores
from cospan.wire.errors import CospanError, InvalidValueError

PROGRESS_TIMEOUT_SECONDS = 120.0
_PROCESSES = 8
_SECONDS_FIELDS = slice(11, 13)
"""utime and stime among the fields of /proc/PID/stat after the name of the program."""


@dataclass(frozen=True, slots=True)
class Case:
    """The number of agents, the shape of their gradients, and how many share a stream and an upload.

    Raises:
        InvalidValueError: r is larger than d.
    """

    agents: int
    feature_dim: int
    rank: int
    group: int = 1

    def __post_init__(self) -> None:
        if self.rank > self.feature_dim:
            raise InvalidValueError(f"rank is {self.rank}; it must be 1 to feature_dim = {self.feature_dim}")

    @property
    def cells(self) -> dict[str, str | int | float | None]:
        """Agents and shape as cells of a report."""
        return {"agents": self.agents, "feature_dim": self.feature_dim, "rank": self.rank}

    @property
    def streams(self) -> int:
        """Connections to the coordinator: one for each group."""
        return -(-self.agents // self.group)


@contextlib.asynccontextmanager
async def bounded(what: str, seconds: float = PROGRESS_TIMEOUT_SECONDS) -> AsyncIterator[None]:
    """Bounds a wait, because a process may have died."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as failure:
        raise CospanError(f"{what} took longer than {seconds:g} s; is there enough memory?") from failure


def coordinator(case: Case, folder: Path) -> list[str]:
    """The command of a coordinator whose run never ends."""
    size = ["--agents", str(case.agents), "--feature-dim", str(case.feature_dim), "--rank", str(case.rank)]
    timeouts = ["--session-timeout-seconds", "3600", "--round-timeout-seconds", "3600"]
    settings = ["--preset", "paper", "--rounds", "0", "--port", "0", "--run-folder", str(folder), "--json"]
    return python_module("cospan.cli.main", "coordinator", *size, *settings, *timeouts)


def listening(line: str) -> str:
    """The address in the coordinator's line; empty in other lines."""
    document = json.loads(line)
    if document["event"] == "failed":
        raise CospanError(f"the coordinator did not start: {document['message']}")
    return str(document["address"]) if document["event"] == "listening" else ""


def ceiling(case: Case) -> list[str]:
    """The command of the bare ceiling."""
    return python_module("cospan.benchmarks.ceiling", str(case.agents), str(case.feature_dim), str(case.rank))


def shares(case: Case) -> list[range]:
    """The streams of each load process: one, for up to eight streams; otherwise one process per core."""
    processes = case.streams - 1 if case.streams <= _PROCESSES else cores()
    return [range(first, case.streams, processes) for first in range(1, processes + 1)]


@contextlib.asynccontextmanager
async def server(command: list[str], address_of: Callable[[str], str]) -> AsyncIterator[tuple[Process, str]]:
    """A server's process and its address; its later output is dropped."""
    async with saying(command, "a server's start", address_of) as (process, address):
        yield process, address


@contextlib.asynccontextmanager
async def saying(command: list[str], what: str, found: Callable[[str], str]) -> AsyncIterator[tuple[Process, str]]:
    """A process that has printed an expected line, and what was found in it; its later output is dropped.

    Args:
        command: with its arguments.
        what: name of what is awaited, for errors.
        found: extracts it from a line; empty if it is absent.
    """
    async with _process(command, stdout=PIPE) as process:
        assert process.stdout is not None
        said = ""
        async with bounded(what):
            while not said:
                line = await process.stdout.readline()
                if not line:
                    raise CospanError(f"`{' '.join(command)}` ended while {what} was waited for")
                said = found(line.decode())
        reading = asyncio.create_task(_drop(process.stdout))
        try:
            yield process, said
        finally:
            reading.cancel()


async def _drop(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass


@contextlib.asynccontextmanager
async def load_generators(case: Case, addresses: Sequence[str]) -> AsyncIterator[None]:
    """Processes of all agents except those of stream 0, in the runs of all addresses."""
    async with contextlib.AsyncExitStack() as stack:
        for share in shares(case):
            numbers = [str(number) for number in share]
            shape = [str(case.feature_dim), str(case.rank), str(case.agents), str(case.group)]
            command = python_module("cospan.benchmarks.tools.load_generator", ",".join(addresses), *shape, *numbers)
            await stack.enter_async_context(_process(command))
        yield


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Blocks SIGINT, also in children: the benchmark ends them itself, and one still importing would print a
    traceback. This process receives the signal afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.asynccontextmanager
async def _process(command: list[str], stdout: int = DEVNULL) -> AsyncIterator[Process]:
    """A Python process that is killed at the end; its files are temporary."""
    with _sigint_blocked():
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=stdout)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def family(pid: int) -> Iterator[int]:
    """A process and its descendants; only itself if the system does not report them."""
    yield pid
    try:
        children = [
            int(child)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for child in (thread / "children").read_text(encoding="ascii").split()
        ]
    except OSError:
        return
    for child in children:
        yield from family(child)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, in steps of 10 ms; 0 if the system does not report it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[_SECONDS_FIELDS])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Resident anonymous memory of a process; 0 if the system does not report it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
