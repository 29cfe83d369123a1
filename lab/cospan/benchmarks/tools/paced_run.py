"""A run whose pace this process sets: while its agent keeps its gradient back, the run stands still."""

import asyncio
from asyncio.subprocess import Process
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cospan.benchmarks.tools.load_generator import LoadAgent
from cospan.benchmarks.tools.processes import bounded, cpu_seconds

_SETTLING = 2
"""The first rounds of a block are not counted: everybody else's gradient was there already."""


@dataclass(slots=True)
class PacedRun:
    """A server's run whose pace one agent in this process sets, and what was measured of it."""

    process: Process
    pacer: LoadAgent
    seconds: list[list[float]] = field(default_factory=list)
    cpu: float = 0.0
    cpu_rounds: int = 0

    async def begin(self) -> None:
        """Joins; returns when the first basis has come, that is, everybody else has joined as well."""
        async with bounded("the first round"):
            await self.pacer.join()
            await self.pacer.basis()

    async def play_block(self, rounds: int, *, counted: bool = True) -> None:
        """So many rounds, after those in which it settles."""
        async with bounded("a block of rounds"):
            await self.pacer.play(_SETTLING)
            before = cpu_seconds(self.process.pid)
            seconds = await self.pacer.play(rounds)
        if counted:
            self.seconds.append(seconds)
            self.cpu += cpu_seconds(self.process.pid) - before
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


async def fitting_rounds(runs: Sequence[PacedRun], block_seconds: float) -> int:
    """How many rounds of all of them together take about so long; they are played, and not counted."""
    loop = asyncio.get_running_loop()
    begun, rounds = loop.time(), 1
    while loop.time() - begun < block_seconds:
        rounds *= 2
        begun = loop.time()
        for run in runs:
            await run.play_block(rounds, counted=False)
    return max(1, rounds // 2)
