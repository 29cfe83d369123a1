"""Rounds per second of the coordinator, as users have it, against the bare ceiling of `cospan.benchmarks.ceiling`.

Both serve the same agents with the same bytes (`cospan.benchmarks.tools.load_generator`). One agent of each run is
in this process and sets the pace: while it keeps its gradient back, its run stands still, so the two runs take
turns.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cospan.benchmarks.tools.load_generator import LoadAgent
from cospan.benchmarks.tools.paced_run import PacedRun, fitting_rounds
from cospan.benchmarks.tools.processes import Case, ceiling, coordinator, listening, server, shares, speakers
from cospan.benchmarks.tools.report import Cell, Column, Report, Row
from cospan.experiments.estimates import median_estimate

SWEEP_AGENTS = (1, 8, 32, 128, 512, 1024)
SWEEP_SHAPES = ((20, 3), (1024, 16), (8192, 16), (65_536, 32))
_MOST_BYTES = 1 << 30
"""A case whose uploads of one round are more than 1 GiB in all is left out of the sweep."""
_BLOCK_SECONDS = 0.2

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


async def _measured(case: Case, seconds: float) -> Row:
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cospan-bench-"))
        servers = [
            await stack.enter_async_context(server(coordinator(case, Path(folder) / "run"), listening)),
            await stack.enter_async_context(server(ceiling(case), str.strip)),
        ]
        addresses = [address for _, address in servers]
        await stack.enter_async_context(speakers(case, addresses))
        sides = [PacedRun(process, LoadAgent(address, case.feature_dim, case.rank)) for process, address in servers]
        for side in sides:
            stack.push_async_callback(side.pacer.close)
        await asyncio.gather(*(side.begin() for side in sides))
        await _take_turns(sides, seconds)
    return _row(case, *sides)


async def _take_turns(sides: list[PacedRun], seconds: float) -> None:
    """Blocks of as many rounds as take a fifth of a second, in turns, and each time the other way round."""
    rounds = await fitting_rounds(sides, min(_BLOCK_SECONDS, seconds))
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    blocks = 0
    while blocks < 2 or loop.time() < until:
        for side in sides if blocks % 2 == 0 else reversed(sides):
            await side.play_block(rounds)
        blocks += 1


def _row(case: Case, subject: PacedRun, yardstick: PacedRun) -> Row:
    ratio = median_estimate(subject.rates() / yardstick.rates())
    shape: dict[str, Cell] = {"agents": case.agents, "feature_dim": case.feature_dim, "rank": case.rank}
    return shape | {
        "ratio_to_ceiling": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "rounds_per_second": float(np.median(subject.rates())),
        "ceiling_rounds_per_second": float(np.median(yardstick.rates())),
        "p50_ms": subject.milliseconds(50.0),
        "p99_ms": subject.milliseconds(99.0),
        "ceiling_p50_ms": yardstick.milliseconds(50.0),
        "ceiling_p99_ms": yardstick.milliseconds(99.0),
        "cpu_us_per_agent_round": subject.cpu_us(case.agents),
        "ceiling_cpu_us_per_agent_round": yardstick.cpu_us(case.agents),
        "bytes_per_agent_round": subject.pacer.bytes_sent + subject.pacer.bytes_received,
        "rounds": sum(len(block) for block in subject.seconds),
        "blocks": len(subject.seconds),
        "processes": len(shares(case)) + 1,
    }
