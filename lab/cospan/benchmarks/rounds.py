"""Rounds per second of `cospan coordinator` against the ceiling of `cospan.benchmarks.ceiling`.

Both serve the same load generators. One agent of each run is in this process and sets the pace: while it holds its
gradient back the run waits, so the two runs take turns.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cospan.benchmarks.tools.load_generator import LoadAgent
from cospan.benchmarks.tools.paced_run import PacedRun, fitting_rounds, take_turns
from cospan.benchmarks.tools.processes import Case, ceiling, coordinator, listening, load_generators, server, shares
from cospan.benchmarks.tools.report import SHAPE_COLUMNS, Column, Report, Row, interval_cells, interval_columns
from cospan.experiments.estimates import median_estimate

SWEEP_AGENTS = (1, 8, 32, 128, 512, 1024)
SWEEP_SHAPES = ((20, 3), (1024, 16), (8192, 16), (65_536, 32))
_MOST_BYTES = 1 << 30
"""The sweep leaves out cases whose uploads of one round exceed 1 GiB."""
_BLOCK_SECONDS = 0.2

NOTES = (
    "rounds/s: medians over blocks of rounds, in turns with the ceiling; ratio: coordinator / ceiling.",
    "coordinator: `cospan coordinator` and its store (synchronous=FULL); ceiling: barrier, mean, QR between bytes.",
    "p50, p99: milliseconds from one basis to the next; CPU: microseconds of the server for each agent and round.",
)
COLUMNS = (
    Column("agents", "agents", "d"),
    *SHAPE_COLUMNS,
    Column("rounds_per_second", "rounds/s", ".4g"),
    Column("ceiling_rounds_per_second", "ceiling", ".4g"),
    *interval_columns("ratio_to_ceiling", "ratio", "ratio", ".3f"),
    Column("p50_ms", "p50", ".3g"),
    Column("p99_ms", "p99", ".3g"),
    Column("cpu_us_per_agent_round", "CPU", ".1f"),
    Column("ceiling_cpu_us_per_agent_round", "ceiling's", ".1f"),
    Column("bytes_per_agent_round", "bytes", ",d"),
)


def sweep() -> tuple[Case, ...]:
    """Each number of agents with each shape whose uploads fit into memory."""
    cases = (Case(agents, *shape) for shape in SWEEP_SHAPES for agents in SWEEP_AGENTS)
    return tuple(case for case in cases if 8 * case.agents * case.feature_dim * case.rank <= _MOST_BYTES)


def benchmark(cases: Sequence[Case], seconds: float, say: Callable[[str], None]) -> Report:
    """Measures each case for about `seconds`.

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
        await stack.enter_async_context(load_generators(case, addresses))
        sides = [PacedRun(process, LoadAgent(address, case.feature_dim, case.rank)) for process, address in servers]
        for side in sides:
            stack.push_async_callback(side.pacer.close)
        await asyncio.gather(*(side.begin() for side in sides))
        rounds = await fitting_rounds(sides, min(_BLOCK_SECONDS, seconds))
        await take_turns([(side, rounds) for side in sides], seconds, 2)
    return _row(case, *sides)


def _row(case: Case, subject: PacedRun, reference: PacedRun) -> Row:
    ratio = median_estimate(subject.rates() / reference.rates())
    return {
        **case.cells,
        **interval_cells("ratio_to_ceiling", "ratio", ratio),
        "rounds_per_second": float(np.median(subject.rates())),
        "ceiling_rounds_per_second": float(np.median(reference.rates())),
        "p50_ms": subject.milliseconds(50.0),
        "p99_ms": subject.milliseconds(99.0),
        "ceiling_p50_ms": reference.milliseconds(50.0),
        "ceiling_p99_ms": reference.milliseconds(99.0),
        "cpu_us_per_agent_round": subject.cpu_us(case.agents),
        "ceiling_cpu_us_per_agent_round": reference.cpu_us(case.agents),
        "bytes_per_agent_round": subject.pacer.bytes_sent + subject.pacer.bytes_received,
        "rounds": sum(len(block) for block in subject.seconds),
        "blocks": len(subject.seconds),
        "processes": len(shares(case)) + 1,
    }
