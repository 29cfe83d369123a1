"""Connections that say nothing to the HTTP listeners, more than the coordinator may have files open."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from behaviour.crowd import crowds
from behaviour.idlers import open_files, processor_seconds
from faults.processes import cospan, environment

from cospan.cli.processes.admin_client import fetch_run, watch_rounds

_AGENTS = 2
_WORKLOAD = "paced:rings"
_PACE = 0.002
_SLOW_SCRAPES = 16
_EVERY_SECONDS = 0.5
_START_SECONDS = 60.0
_COMMAND_EVERY = 5
_MESSAGE_BYTES = 1 << 20
_OWN_FILES = 4
STATUS_SECONDS = 1.0
"""An answer to `status` takes less: over gRPC, and as a command once Python has loaded it."""
_TRIES = 3
"""Browsers and Prometheus ask again when a connection was closed before its answer. On a machine that lets a client
stand still between its connection and its request, the crowd takes its place meanwhile.
"""
LOG_BYTES = 1_000_000


@dataclass
class SocketsReport:
    """What came of it. `problems` is empty when all is well."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class _Addresses:
    agents: str
    dashboard: int
    metrics: int


@dataclass
class _Times:
    """How long answers took, in seconds; and what was answered wrongly."""

    status: list[float] = field(default_factory=list)
    command: list[float] = field(default_factory=list)
    page: list[float] = field(default_factory=list)
    scrape: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


async def run_sockets(
    folder: Path,
    *,
    connections: int = 700,
    files: int = 600,
    seconds: float = 45.0,
    status_seconds: float = STATUS_SECONDS,
) -> SocketsReport:
    """One run; `connections` to its dashboard for `seconds`, of a coordinator that may have `files` open.

    Each is opened again when it was closed. Sixteen slow requests come to the metrics meanwhile.
    """
    report, times = SocketsReport(), _Times()
    await asyncio.to_thread(folder.mkdir, parents=True)
    async with (
        _coordinator(folder, files) as (process, addresses),
        _agents(folder, addresses.agents),
    ):
        first = await _round_from(addresses.agents, 3)
        log_before, used, begun = _logged(folder), processor_seconds(process.pid), time.monotonic()
        most_files = 0
        which = (f"{addresses.dashboard}:{connections}", f"{addresses.metrics}:{_SLOW_SCRAPES}:slow")
        async with crowds(*which) as crowd:
            while time.monotonic() < begun + seconds:
                await _look(addresses, times)
                most_files = max(most_files, open_files(process.pid))
                await asyncio.sleep(_EVERY_SECONDS)
        used = (processor_seconds(process.pid) - used) / (time.monotonic() - begun)
        rounds = await _round_from(addresses.agents, first) - first
        grown = _logged(folder) - log_before
        if process.returncode is not None:
            report.problems.append(f"the coordinator has ended with {process.returncode}")
    report.lines += [
        f"sockets: {connections} connections for {seconds:g} s, opened {crowd.opened} times; "
        f"{files} files allowed, {most_files} open at most",
        f"  status: {len(times.status)} answers, {_shown(times.status)}; as a command {_shown(times.command)}",
        f"  page {_shown(times.page)}; scrape {_shown(times.scrape)}",
        f"  {rounds} rounds, {used:.2f} cores; the log grew by {grown} bytes",
    ]
    report.problems += times.wrong
    _judge(report, times, rounds, grown, status_seconds)
    if most_files > files - _OWN_FILES:
        report.problems.append(f"{most_files} files were open, of {files}")
    return report


def _judge(report: SocketsReport, times: _Times, rounds: int, grown: int, status_seconds: float) -> None:
    for what, took in (("status", times.status), ("`cospan status`", times.command)):
        if not took or max(took) >= status_seconds:
            report.problems.append(f"{what} took {_shown(took)}; the bound is {status_seconds:g} s")
    if rounds <= 0:
        report.problems.append("no round closed meanwhile")
    if grown >= LOG_BYTES:
        report.problems.append(f"the log grew by {grown} bytes; the bound is {LOG_BYTES}")


def _shown(seconds: list[float]) -> str:
    return f"at most {max(seconds):.3f} s" if seconds else "never"


# Processes ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _coordinator(folder: Path, files: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, _Addresses]]:
    command = cospan("coordinator", "--workload", _WORKLOAD, "--agents", str(_AGENTS), "--rounds", "0", "--json")
    command += ["--port", "0", "--run-folder", "run", "--dashboard", "127.0.0.1:0", "--metrics", "0"]
    limited = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh", *command]
    with (folder / "stderr").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *limited, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL
        )
    assert process.stdout is not None
    said: dict[str, Any] = {}
    reading = None
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not {"listening", "metrics", "dashboard"} <= said.keys():
                line = json.loads(await process.stdout.readline())
                said[line["event"]] = line
        reading = asyncio.create_task(_passed_over(process.stdout))
        ports = (urlsplit(said["dashboard"]["address"]).port, urlsplit(said["metrics"]["url"]).port)
        yield process, _Addresses(said["listening"]["address"], *(port or 0 for port in ports))
    finally:
        await _ended(process)
        if reading is not None:
            await reading


async def _passed_over(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


@contextlib.asynccontextmanager
async def _agents(folder: Path, address: str) -> AsyncIterator[None]:
    processes = []
    try:
        for index in range(_AGENTS):
            command = cospan("agent", _WORKLOAD, "--id", str(index), "--coordinator", address, "--no-baseline")
            processes.append(
                await asyncio.create_subprocess_exec(
                    *command,
                    cwd=folder,
                    env=environment(PACE_SECONDS=str(_PACE)),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    stdin=subprocess.DEVNULL,
                )
            )
        yield
    finally:
        for process in processes:
            await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


# Looking --------------------------------------------------------------------------------------------------------


async def _round_from(address: str, number: int) -> int:
    """The round that is open, once that is `number` or a later one."""
    rounds = watch_rounds(address, from_round=0, include_basis=False, message_bytes=_MESSAGE_BYTES)
    async with asyncio.timeout(_START_SECONDS), contextlib.aclosing(rounds):
        async for closed in rounds:
            if closed.closed_round + 1 >= number:
                break
    return (await fetch_run(address)).stamp.round


async def _look(addresses: _Addresses, times: _Times) -> None:
    """One look of each sort, at the same time."""
    looks: list[Any] = [
        _timed(times, "status", times.status, fetch_run(addresses.agents)),
        _timed(times, "page", times.page, _page(addresses.dashboard, "/")),
        _timed(times, "scrape", times.scrape, _page(addresses.metrics, "/metrics")),
    ]
    if len(times.status) % _COMMAND_EVERY == 0:
        looks.append(_command(addresses.agents, times))
    await asyncio.gather(*looks)


async def _timed(times: _Times, what: str, into: list[float], asked: Any) -> None:
    begun = time.monotonic()
    try:
        await asked
    except Exception as failure:
        times.wrong.append(f"{what}: {failure!r}")
    into.append(time.monotonic() - begun)


async def _page(port: int, path: str) -> None:
    async with asyncio.timeout(10.0):
        for _ in range(_TRIES):
            line = await _first_line(port, path)
            if line:
                break
    if line.split(b" ")[1:2] != [b"200"]:
        raise AssertionError(f"it was answered with {line!r}")


async def _first_line(port: int, path: str) -> bytes:
    """Of a whole answer; empty where the connection was closed before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        line = await reader.readline()
        await reader.read(-1)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
    return line


_STATUS = """
import sys, time
import cospan.cli.processes.admin_client, cospan.cli.commands.status
from cospan.cli.main import main
begun = time.monotonic()
try:
    main(["status", "--coordinator", sys.argv[1]])
finally:
    print(time.monotonic() - begun, file=sys.stderr)
"""


async def _command(address: str, times: _Times) -> None:
    """`cospan status` in a process of its own: how long it takes from when Python has started and has it loaded."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _STATUS, address),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    _, said = await process.communicate()
    times.command.append(float(said.split()[-1]))
    if process.returncode:
        times.wrong.append(f"`cospan status` ended with {process.returncode}: {said.decode()}")


def _logged(folder: Path) -> int:
    """The bytes of the log, and of what the coordinator said on standard error."""
    paths = (folder / "run" / "log.jsonl", folder / "stderr")
    return sum(path.stat().st_size for path in paths)
