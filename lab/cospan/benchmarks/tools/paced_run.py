"""A run whose pace this process sets: the run waits while its agent holds its gradient back."""

import asyncio
import contextlib
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from cospan.benchmarks.tools.load_generator import LoadAgent, agents_of
from cospan.benchmarks.tools.processes import (
    Case,
    bounded,
    coordinator,
    cpu_seconds,
    listening,
    load_generators,
    server,
)

_SETTLING = 2
"""Rounds at the start of a block that are not counted: the other agents' gradients have already arrived."""


class Paced(Protocol):
    """A side of a benchmark that measures its blocks of rounds."""

    async def run_block(self, rounds: int) -> object:
        """Runs and measures a block."""


@dataclass(slots=True)
class PacedRun:
    """A server's run whose pace one agent in this process sets, and what was measured of it."""

    process: Process
    pacer: LoadAgent
    seconds: list[list[float]] = field(default_factory=list)
    cpu: float = 0.0
    cpu_rounds: int = 0

    async def begin(self) -> None:
        """Joins and waits for the first basis, that is, until all agents have joined."""
        async with bounded("the first round"):
            await self.pacer.join()
            await self.pacer.basis()

    async def run_block(self, rounds: int, *, counted: bool = True) -> None:
        """Runs and measures a block of rounds after `_SETTLING` unmeasured ones."""
        async with bounded("a block of rounds"):
            await self.pacer.run(_SETTLING)
            before = cpu_seconds(self.process.pid)
            seconds = await self.pacer.run(rounds)
        if counted:
            self.seconds.append(seconds)
            self.cpu += cpu_seconds(self.process.pid) - before
            self.cpu_rounds += rounds

    def rates(self) -> np.ndarray:
        """Rounds per second of each block."""
        return np.array([len(block) / sum(block) for block in self.seconds])

    def milliseconds(self, percentile: float) -> float:
        """A percentile of the times of rounds."""
        return 1e3 * float(np.percentile(np.concatenate(self.seconds), percentile))

    def cpu_us(self, agents: int) -> float | None:
        """CPU of the server per agent and round; None if the system does not report it."""
        return 1e6 * self.cpu / (self.cpu_rounds * agents) if self.cpu else None


async def fitting_rounds(runs: Sequence[PacedRun], block_seconds: float) -> int:
    """The number of rounds that take about `block_seconds` over all runs, found by unmeasured blocks."""
    loop = asyncio.get_running_loop()
    begun, rounds = loop.time(), 1
    while loop.time() - begun < block_seconds:
        rounds *= 2
        begun = loop.time()
        for run in runs:
            await run.run_block(rounds, counted=False)
    return max(1, rounds // 2)


@contextlib.asynccontextmanager
async def paced_coordinator(case: Case, folder: Path) -> AsyncIterator[PacedRun]:
    """A coordinator with its store in `folder`, whose agents have all joined; this process sets its pace.

    Raises:
        CospanError: the coordinator did not start, or not all agents joined in time.
    """
    async with contextlib.AsyncExitStack() as stack:
        process, address = await stack.enter_async_context(server(coordinator(case, folder), listening))
        await stack.enter_async_context(load_generators(case, [address]))
        pacer = LoadAgent(address, case.feature_dim, case.rank, agents_of(0, case.group, case.agents))
        stack.push_async_callback(pacer.close)
        run = PacedRun(process, pacer)
        await run.begin()
        yield run


async def take_turns(sides: Sequence[tuple[Paced, int]], seconds: float, least_blocks: int) -> None:
    """Runs one block of each side in turns, in alternating order.

    Args:
        sides: each run with the rounds of one of its blocks.
        seconds: further blocks are added until this time has passed.
        least_blocks: of each side.
    """
    loop = asyncio.get_running_loop()
    until, blocks = loop.time() + seconds, 0
    while blocks < least_blocks or loop.time() < until:
        for side, rounds in sides if blocks % 2 == 0 else reversed(sides):
            await side.run_block(rounds)
        blocks += 1
