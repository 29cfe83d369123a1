"""Updates of agents a second: in groups, whose sum is one upload, against a stream for each agent, in turns."""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cospan.benchmarks.tools.load_generator import LoadAgent, agents_of
from cospan.benchmarks.tools.paced_run import PacedRun, fitting_rounds
from cospan.benchmarks.tools.processes import Case, coordinator, listening, server, speakers
from cospan.benchmarks.tools.report import Column, Report, Row
from cospan.experiments.estimates import median_estimate

_BLOCK_SECONDS = 1.0
"""The answers of a thousand streams to the last basis of their block reach into the next one: it must be long."""
_LEAST_BLOCKS = 3

NOTES = (
    "updates/s: rounds a second of a run times its agents; two coordinators with their stores, in turns.",
    "ratio: in groups / one stream an agent, pair by pair; both runs have the same number of agents.",
)
COLUMNS = (
    Column("agents", "agents", ",d"),
    Column("group", "group", "d"),
    Column("feature_dim", "d", "d"),
    Column("rank", "r", "d"),
    Column("updates_per_second", "updates/s", ",.0f"),
    Column("single_updates_per_second", "one a stream", ",.0f"),
    Column("ratio_to_single", "ratio", ".1f"),
    Column("ratio_low", "from", ".1f"),
    Column("ratio_high", "to", ".1f"),
    Column("blocks", "blocks", "d"),
)


def benchmark(
    agents: Sequence[int], group: int, shape: tuple[int, int], seconds: float, say: Callable[[str], None]
) -> Report:
    """Measures each number of agents for about so many seconds.

    Raises:
        CospanError: a coordinator did not start, or ended.
    """
    rows = []
    for count in agents:
        say(f"{count} agents: in groups of {group}, and by themselves; {shape[0]} × {shape[1]}")
        rows.append(asyncio.run(_measured(Case(count, *shape, group=group), Case(count, *shape), seconds)))
    return Report("groups", NOTES, COLUMNS, tuple(rows))


async def _measured(grouped: Case, single: Case, seconds: float) -> Row:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cospan-bench-")))
        sides = [
            await _begun(stack, case, folder / name) for case, name in ((grouped, "grouped"), (single, "single"))
        ]
        await _take_turns(sides, seconds)
    updates = [side.rates() * case.agents for side, case in zip(sides, (grouped, single), strict=True)]
    ratio = median_estimate(updates[0] / updates[1])
    return {
        "agents": grouped.agents,
        "group": grouped.group,
        "feature_dim": grouped.feature_dim,
        "rank": grouped.rank,
        "updates_per_second": float(np.median(updates[0])),
        "single_updates_per_second": float(np.median(updates[1])),
        "ratio_to_single": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "blocks": len(updates[0]),
    }


async def _take_turns(sides: Sequence[PacedRun], seconds: float) -> None:
    """Blocks of equal time, so of more rounds of the quicker run, and each time the other way round."""
    fitting = [(side, await fitting_rounds([side], min(_BLOCK_SECONDS, seconds))) for side in sides]
    loop = asyncio.get_running_loop()
    until, blocks = loop.time() + seconds, 0
    while blocks < _LEAST_BLOCKS or loop.time() < until:
        for side, rounds in fitting if blocks % 2 == 0 else reversed(fitting):
            await side.play_block(rounds)
        blocks += 1


async def _begun(stack: contextlib.AsyncExitStack, case: Case, folder: Path) -> PacedRun:
    process, address = await stack.enter_async_context(server(coordinator(case, folder), listening))
    await stack.enter_async_context(speakers(case, [address]))
    pacer = LoadAgent(address, case.feature_dim, case.rank, agents_of(0, case.group, case.agents))
    stack.push_async_callback(pacer.close)
    run = PacedRun(process, pacer)
    await run.begin()
    return run
