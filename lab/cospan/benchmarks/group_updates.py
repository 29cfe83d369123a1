"""Agents' updates per second: in groups, which upload one sum, against one stream per agent, in turns."""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cospan.benchmarks.tools.paced_run import fitting_rounds, paced_coordinator, take_turns
from cospan.benchmarks.tools.processes import Case
from cospan.benchmarks.tools.report import SHAPE_COLUMNS, Column, Report, Row, interval_cells, interval_columns
from cospan.experiments.estimates import median_estimate

_BLOCK_SECONDS = 1.0
"""Long, because the answers of a thousand streams to the last basis of a block reach into the next block."""
_LEAST_BLOCKS = 3

NOTES = (
    "updates/s: rounds a second of a run times its agents; two coordinators with their stores, in turns.",
    "ratio: in groups / one stream an agent, pair by pair; both runs have the same number of agents.",
)
COLUMNS = (
    Column("agents", "agents", ",d"),
    Column("group", "group", "d"),
    *SHAPE_COLUMNS,
    Column("updates_per_second", "updates/s", ",.0f"),
    Column("single_updates_per_second", "one a stream", ",.0f"),
    *interval_columns("ratio_to_single", "ratio", "ratio", ".1f"),
    Column("blocks", "blocks", "d"),
)


def benchmark(cases: Sequence[Case], seconds: float, say: Callable[[str], None]) -> Report:
    """Measures each case, and its agents with a stream each, for about `seconds`.

    Raises:
        CospanError: a coordinator did not start, or ended.
    """
    rows = []
    for case in cases:
        shape = f"{case.feature_dim} × {case.rank}"
        say(f"{case.agents} agents: in groups of {case.group}, and by themselves; {shape}")
        rows.append(asyncio.run(_measured(case, replace(case, group=1), seconds)))
    return Report("groups", NOTES, COLUMNS, tuple(rows))


async def _measured(grouped: Case, single: Case, seconds: float) -> Row:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cospan-bench-")))
        sides = [
            await stack.enter_async_context(paced_coordinator(case, folder / name))
            for case, name in ((grouped, "grouped"), (single, "single"))
        ]
        # Blocks of equal time, so of more rounds of the faster run.
        fitting = [(side, await fitting_rounds([side], min(_BLOCK_SECONDS, seconds))) for side in sides]
        await take_turns(fitting, seconds, _LEAST_BLOCKS)
    updates = [side.rates() * case.agents for side, case in zip(sides, (grouped, single), strict=True)]
    ratio = median_estimate(updates[0] / updates[1])
    return {
        **grouped.cells,
        "group": grouped.group,
        "updates_per_second": float(np.median(updates[0])),
        "single_updates_per_second": float(np.median(updates[1])),
        **interval_cells("ratio_to_single", "ratio", ratio),
        "blocks": len(updates[0]),
    }
