"""Ten thousand connections of every useless sort, and peers that hammer, against a run that is under way."""

import asyncio
import contextlib
import random
import resource
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from behaviour.idlers import SAYINGS, Idlers, open_files, resident_bytes
from behaviour.raw_client import SERVICE, RawStream
from faults.evidence import digest_of, longest_stall
from faults.fleet import Fleet
from faults.kills import reference_digest

from cospan.server.admission.peer_limits import most_connections

_AGENTS = 2
_ROUNDS = 6000
_PACE = 0.001
_HOLD_SECONDS = 2.0
_SECONDS = 300.0
_HAMMERS = 4
_OWN_FILES = 200
BYTES_EACH = 24 * 1024
"""What a connection may cost the coordinator."""
BYTES_MORE = 64 * 1024 * 1024
"""What it may need beside: for the calls of those who hammer, and for what is not given back to the system."""
LONGEST_STALL = 2.0
_MORE_FILES = 64
# Not StopRun: from this machine, and without certificates, that would be obeyed.
_METHODS = ("Collaborate", "GetSpecification", "GetRun", "GetBasis", "WatchRounds", "Nonsense")


@dataclass
class HostileReport:
    """What came of it. `problems` is empty when all is well."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def run_hostile(folder: Path, seed: int, *, connections: int) -> HostileReport:
    """One run with full participation; each sort of connection in turn, and hammering all the while."""
    report = HostileReport()
    await asyncio.to_thread(folder.mkdir, parents=True)
    count = _affordable(connections)
    if count < connections:
        report.lines.append(f"hostile: this process may have no more than {count} connections (ulimit -Hn)")
    flags = ["--agents", str(_AGENTS), "--rounds", str(_ROUNDS), "--seed", str(seed)]
    reference = await asyncio.to_thread(reference_digest, folder, flags)
    fleet = Fleet(folder, flags, agents=_AGENTS, witnesses=1, bridged=False, pace=_PACE)
    async with fleet.running():
        await fleet.reached(10)
        async with _hammering(fleet.address, seed):
            for name, saying in SAYINGS.items():
                await _crowd(fleet, count, name, saying, report)
        if fleet.finished.done():
            report.problems.append("the run was over before the attack was; give it more rounds")
        if not await fleet.coordinator.ended(_SECONDS):
            report.problems.append("the run does not end")
    report.problems += [*fleet.problems, *fleet.tracebacks()]
    digest, (stall, stalled) = digest_of(fleet.store), longest_stall(fleet.store)
    if digest != reference:
        report.problems.append(f"basis_sha256 is {digest}, and without an attack {reference}")
    if stall >= LONGEST_STALL:
        report.problems.append(f"round {stalled} took {stall:.2f} s; the bound is {LONGEST_STALL:g} s")
    report.lines.append(f"  the same bits as without; longest stall {stall:.2f} s, bound {LONGEST_STALL:g} s")
    return report


def _affordable(connections: int) -> int:
    """As many of them as this process may have open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return connections if hard == resource.RLIM_INFINITY else min(connections, hard - _OWN_FILES)


async def _crowd(fleet: Fleet, count: int, name: str, saying: bytes, report: HostileReport) -> None:
    """Opens them, holds them for a while, and lets go; what that has cost the coordinator."""
    pid = fleet.coordinator.pid
    used, round_before = resident_bytes(pid), fleet.evidence.newest
    begun = time.monotonic()
    async with Idlers(fleet.address, count, saying):
        await asyncio.sleep(_HOLD_SECONDS)
        files, more = open_files(pid), resident_bytes(pid) - used
    rounds = (fleet.evidence.newest - round_before) / (time.monotonic() - begun)
    most = most_connections(_AGENTS)
    report.lines.append(
        f"  {count} × {name}: {files} files open, {more / 2**20:.0f} MiB more, {rounds:.0f} rounds/s meanwhile"
    )
    if files > most + _MORE_FILES:
        report.problems.append(f"{name}: {files} files are open; {most} connections are allowed")
    if more > min(count, most) * BYTES_EACH + BYTES_MORE:
        report.problems.append(f"{name}: the coordinator has grown by {more / 2**20:.0f} MiB")
    if rounds <= 0:
        report.problems.append(f"{name}: no round closed meanwhile")


@contextlib.asynccontextmanager
async def _hammering(address: str, seed: int) -> AsyncIterator[None]:
    """Peers that make calls of all sorts with noise in them, as fast as they can."""
    hammers = [
        asyncio.create_task(_hammer(address, random.Random(f"{seed} {number}"))) for number in range(_HAMMERS)
    ]
    try:
        yield
    finally:
        for hammer in hammers:
            hammer.cancel()
        await asyncio.gather(*hammers, return_exceptions=True)


async def _hammer(address: str, chance: random.Random) -> None:
    while True:
        with contextlib.suppress(Exception):  # of a connection that was not to be had: that is as it should be
            async with RawStream(address, SERVICE + chance.choice(_METHODS)) as stream:
                await stream.send(chance.randbytes(chance.randrange(3000)))
                await stream.refusal()
