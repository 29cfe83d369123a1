"""The processes of a benchmark: the coordinator, its ceiling and agents that only speak, each killed at the end."""

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cospan.benchmarks.tools.machine import cores
from cospan.client.environment.import_path import python_module
from cospan.wire.errors import CospanError

PROGRESS_TIMEOUT_SECONDS = 120.0
_PROCESSES = 8
_SECONDS_FIELDS = slice(11, 13)
"""utime and stime among the fields of /proc/PID/stat after the name of the program."""


@dataclass(frozen=True, slots=True)
class Case:
    """How many agents, the shape of what they send, and how many of them share a stream and an upload."""

    agents: int
    feature_dim: int
    rank: int
    group: int = 1

    @property
    def streams(self) -> int:
        """Connections to the coordinator: one for each group."""
        return -(-self.agents // self.group)


@contextlib.asynccontextmanager
async def bounded(what: str, seconds: float = PROGRESS_TIMEOUT_SECONDS) -> AsyncIterator[None]:
    """Whatever is waited for, it is not waited for for ever: a process may have died."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as failure:
        raise CospanError(f"{what} took longer than {seconds:g} s; is there memory enough?") from failure


def coordinator(case: Case, folder: Path) -> list[str]:
    """The command of a coordinator whose run never ends."""
    size = ["--agents", str(case.agents), "--feature-dim", str(case.feature_dim), "--rank", str(case.rank)]
    patient = ["--session-timeout-seconds", "3600", "--round-timeout-seconds", "3600"]
    settings = ["--preset", "paper", "--rounds", "0", "--port", "0", "--run-folder", str(folder), "--json"]
    return python_module("cospan.cli.main", "coordinator", *size, *settings, *patient)


def listening(line: str) -> str:
    """The address, once the coordinator says it."""
    document = json.loads(line)
    if document["event"] == "failed":
        raise CospanError(f"the coordinator did not start: {document['message']}")
    return str(document["address"]) if document["event"] == "listening" else ""


def ceiling(case: Case) -> list[str]:
    """The command of the bare ceiling."""
    return python_module("cospan.benchmarks.ceiling", str(case.agents), str(case.feature_dim), str(case.rank))


def shares(case: Case) -> list[range]:
    """Which streams each further process holds: one, up to eight processes; beyond that there is one a core."""
    processes = case.streams - 1 if case.streams <= _PROCESSES else cores()
    return [range(first, case.streams, processes) for first in range(1, processes + 1)]


@contextlib.asynccontextmanager
async def server(command: list[str], address_of: Callable[[str], str]) -> AsyncIterator[tuple[Process, str]]:
    """A server's process, and where it listens; what it says later is read and dropped."""
    async with saying(command, "a server's start", address_of) as (process, address):
        yield process, address


@contextlib.asynccontextmanager
async def saying(command: list[str], what: str, found: Callable[[str], str]) -> AsyncIterator[tuple[Process, str]]:
    """A process that has said something, and what was found in it; what it says later is read and dropped.

    Args:
        command: with its arguments.
        what: is waited for, as an error says it.
        found: what is looked for in a line, empty where it is not there.
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
async def speakers(case: Case, addresses: Sequence[str]) -> AsyncIterator[None]:
    """The processes of all agents but those of stream 0, in the run of every address."""
    async with contextlib.AsyncExitStack() as stack:
        for share in shares(case):
            numbers = [str(number) for number in share]
            shape = [str(case.feature_dim), str(case.rank), str(case.agents), str(case.group)]
            command = python_module("cospan.benchmarks.tools.load_generator", ",".join(addresses), *shape, *numbers)
            await stack.enter_async_context(_process(command))
        yield


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is started meanwhile inherits that SIGINT is held back: a terminal sends it to everybody, but it is the
    benchmark that ends its processes, and one that is still importing would answer with a traceback. Here it comes
    a little later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.asynccontextmanager
async def _process(command: list[str], stdout: int = DEVNULL) -> AsyncIterator[Process]:
    """A Python process that is killed at the end: what it has stored is thrown away with its folder."""
    with _deaf_to_ctrl_c():
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=stdout)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, in steps of 10 ms; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[_SECONDS_FIELDS])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory of a process that is its own, anonymous and in use; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
