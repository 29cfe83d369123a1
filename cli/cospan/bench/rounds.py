"""Rounds per second of the coordinator, as users have it, against the bare ceiling of `cospan.bench.ceiling`.

Both serve the same agents with the same bytes (`cospan.bench.speakers`). One agent of each run is in this process
and sets the pace: while it keeps its gradient back, its run stands still, so the two runs take turns.
"""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cospan.bench.host import cores
from cospan.bench.report import Cell, Column, Report, Row
from cospan.bench.speakers import Speaker
from cospan.study.statistics import median_estimate
from cospan.wire.errors import CospanError

SWEEP_AGENTS = (1, 8, 32, 128, 512, 1024)
SWEEP_SHAPES = ((20, 3), (1024, 16), (8192, 16), (65_536, 32))
_MOST_BYTES = 1 << 30
"""A case whose uploads of one round are more than 1 GiB in all is left out of the sweep."""
_PROCESSES = 8
_BLOCK_SECONDS = 0.2
_SETTLING = 2
"""The first rounds of a block are not counted: everybody else's gradient was there already."""
_PATIENCE_SECONDS = 120.0
_SECONDS_FIELDS = slice(11, 13)
"""utime and stime among the fields of /proc/PID/stat after the name of the program."""

NOTES = (
    "rounds/s: medians over blocks of rounds, in turns with the ceiling; ratio: coordinator / ceiling.",
    "coordinator: `cospan coordinator` and its store (synchronous=FULL); ceiling: barrier, mean, QR between bytes.",
    "p50, p99: milliseconds from one basis to the next; CPU: microseconds of the server for each agent and round.",
)
COLUMNS = (
    Column("agents", "agents", "d"),
    Column("feature_dim", "d", "d"),
    Column("rank", "r", "d"),
    Column("rounds_per_second", "rounds/s", ".4g"),
    Column("ceiling_rounds_per_second", "ceiling", ".4g"),
    Column("ratio_to_ceiling", "ratio", ".3f"),
    Column("ratio_low", "from", ".3f"),
    Column("ratio_high", "to", ".3f"),
    Column("p50_ms", "p50", ".3g"),
    Column("p99_ms", "p99", ".3g"),
    Column("cpu_us_per_agent_round", "CPU", ".1f"),
    Column("ceiling_cpu_us_per_agent_round", "ceiling's", ".1f"),
    Column("bytes_per_agent_round", "bytes", ",d"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """How many agents, and the shape of what they send."""

    agents: int
    feature_dim: int
    rank: int


def sweep() -> tuple[Case, ...]:
    """Every number of agents with every shape, but those that no memory holds."""
    cases = (Case(agents, *shape) for shape in SWEEP_SHAPES for agents in SWEEP_AGENTS)
    return tuple(case for case in cases if 8 * case.agents * case.feature_dim * case.rank <= _MOST_BYTES)


def benchmark(cases: Sequence[Case], seconds: float, say: Callable[[str], None]) -> Report:
    """Measures each case for about so many seconds.

    Raises:
        CospanError: a server did not start, or ended.
    """
    rows = []
    for case in cases:
        say(f"{case.agents} agents, {case.feature_dim} × {case.rank}")
        rows.append(asyncio.run(_measured(case, seconds)))
    return Report("rounds", NOTES, COLUMNS, tuple(rows))


@dataclass(slots=True)
class _Side:
    """One of the two servers, this process' agent in its run, and what was measured."""

    process: Process
    pacer: Speaker
    seconds: list[list[float]] = field(default_factory=list)
    cpu: float = 0.0
    cpu_rounds: int = 0

    async def play_block(self, rounds: int, *, counted: bool = True) -> None:
        """So many rounds, after those in which it settles."""
        async with _bounded("a block of rounds"):
            await self.pacer.play(_SETTLING)
            before = _cpu_seconds(self.process.pid)
            seconds = await self.pacer.play(rounds)
        if counted:
            self.seconds.append(seconds)
            self.cpu += _cpu_seconds(self.process.pid) - before
            self.cpu_rounds += rounds

    def rates(self) -> np.ndarray:
        """Rounds per second of each block."""
        return np.array([len(block) / sum(block) for block in self.seconds])

    def milliseconds(self, percentile: float) -> float:
        """Of single rounds."""
        return 1e3 * float(np.percentile(np.concatenate(self.seconds), percentile))

    def cpu_us(self, agents: int) -> float | None:
        """Of the server, for each agent and round; None where the system does not tell."""
        return 1e6 * self.cpu / (self.cpu_rounds * agents) if self.cpu else None


async def _measured(case: Case, seconds: float) -> Row:
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cospan-bench-"))
        servers = [
            await stack.enter_async_context(_server(_coordinator(case, Path(folder) / "run"), _listening)),
            await stack.enter_async_context(_server(_ceiling(case), str.strip)),
        ]
        addresses = [address for _, address in servers]
        await stack.enter_async_context(_speakers(case, addresses))
        sides = [_Side(process, _speaker(address, case)) for process, address in servers]
        for side in sides:
            stack.push_async_callback(side.pacer.close)
        async with _bounded("the first round"):
            await asyncio.gather(*(_begin(side) for side in sides))
        await _take_turns(sides, seconds)
    return _row(case, *sides)


@contextlib.asynccontextmanager
async def _bounded(what: str) -> AsyncIterator[None]:
    """Whatever is waited for, it is not waited for for ever: a process may have died."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            yield
    except TimeoutError as failure:
        raise CospanError(f"{what} took longer than {_PATIENCE_SECONDS:g} s; is there memory enough?") from failure


async def _begin(side: _Side) -> None:
    await side.pacer.join()
    await side.pacer.basis()


async def _take_turns(sides: list[_Side], seconds: float) -> None:
    """Blocks of as many rounds as take a fifth of a second, in turns, and each time the other way round."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    rounds = 1
    while loop.time() - begun < min(_BLOCK_SECONDS, seconds):
        rounds *= 2
        begun = loop.time()
        for side in sides:
            await side.play_block(rounds, counted=False)
    rounds = max(1, rounds // 2)
    until = loop.time() + seconds
    blocks = 0
    while blocks < 2 or loop.time() < until:
        for side in sides if blocks % 2 == 0 else reversed(sides):
            await side.play_block(rounds)
        blocks += 1


def _row(case: Case, coordinator: _Side, ceiling: _Side) -> Row:
    ratio = median_estimate(coordinator.rates() / ceiling.rates())
    shape: dict[str, Cell] = {"agents": case.agents, "feature_dim": case.feature_dim, "rank": case.rank}
    return shape | {
        "ratio_to_ceiling": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "rounds_per_second": float(np.median(coordinator.rates())),
        "ceiling_rounds_per_second": float(np.median(ceiling.rates())),
        "p50_ms": coordinator.milliseconds(50.0),
        "p99_ms": coordinator.milliseconds(99.0),
        "ceiling_p50_ms": ceiling.milliseconds(50.0),
        "ceiling_p99_ms": ceiling.milliseconds(99.0),
        "cpu_us_per_agent_round": coordinator.cpu_us(case.agents),
        "ceiling_cpu_us_per_agent_round": ceiling.cpu_us(case.agents),
        "bytes_per_agent_round": coordinator.pacer.bytes_sent + coordinator.pacer.bytes_received,
        "rounds": sum(len(block) for block in coordinator.seconds),
        "blocks": len(coordinator.seconds),
        "processes": len(_shares(case)) + 1,
    }


# Processes ------------------------------------------------------------------------------------------------------


def _coordinator(case: Case, folder: Path) -> list[str]:
    size = ["--agents", str(case.agents), "--feature-dim", str(case.feature_dim), "--rank", str(case.rank)]
    patient = ["--liveness-seconds", "3600", "--round-seconds", "3600"]
    settings = ["--preset", "paper", "--rounds", "0", "--port", "0", "--run-folder", str(folder), "--json"]
    return ["-m", "cospan.cli.main", "coordinator", *size, *settings, *patient]


def _listening(line: str) -> str:
    """The address, once the coordinator says it."""
    document = json.loads(line)
    if document["event"] == "failed":
        raise CospanError(f"the coordinator did not start: {document['message']}")
    return str(document["address"]) if document["event"] == "listening" else ""


def _ceiling(case: Case) -> list[str]:
    return ["-m", "cospan.bench.ceiling", str(case.agents), str(case.feature_dim), str(case.rank)]


def _speaker(address: str, case: Case) -> Speaker:
    return Speaker(address, 0, case.feature_dim, case.rank)


def _shares(case: Case) -> list[range]:
    """Which agents each further process holds: one agent up to eight processes, beyond that one process a core."""
    processes = case.agents - 1 if case.agents <= _PROCESSES else cores()
    return [range(first, case.agents, processes) for first in range(1, processes + 1)]


@contextlib.asynccontextmanager
async def _server(arguments: list[str], address_of: Callable[[str], str]) -> AsyncIterator[tuple[Process, str]]:
    """A server's process, and where it listens; what it says later is read and dropped."""
    async with _process(arguments, stdout=PIPE) as process:
        assert process.stdout is not None
        address = ""
        async with _bounded("a server's start"):
            while not address:
                line = await process.stdout.readline()
                if not line:
                    raise CospanError(f"`python {' '.join(arguments)}` ended before it listened")
                address = address_of(line.decode())
        reading = asyncio.create_task(_drop(process.stdout))
        try:
            yield process, address
        finally:
            reading.cancel()


async def _drop(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass


@contextlib.asynccontextmanager
async def _speakers(case: Case, addresses: Sequence[str]) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for share in _shares(case):
            numbers = [str(number) for number in share]
            shape = [str(case.feature_dim), str(case.rank)]
            arguments = ["-m", "cospan.bench.speakers", ",".join(addresses), *shape, *numbers]
            await stack.enter_async_context(_process(arguments))
        yield


@contextlib.asynccontextmanager
async def _process(arguments: list[str], stdout: int = DEVNULL) -> AsyncIterator[Process]:
    """A Python process that is killed at the end: what it has stored is thrown away with its folder."""
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=DEVNULL, stdout=stdout)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, in steps of 10 ms; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[_SECONDS_FIELDS])) / os.sysconf("SC_CLK_TCK")
