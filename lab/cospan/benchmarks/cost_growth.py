"""Growth of the coordinator's time and memory with streams, agents in groups, and the size of a basis."""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cospan.benchmarks.tools.growth import exponent, shares
from cospan.benchmarks.tools.paced_run import fitting_rounds, paced_coordinator, take_turns
from cospan.benchmarks.tools.processes import Case, resident_bytes
from cospan.benchmarks.tools.report import (
    SHAPE_COLUMNS,
    Cell,
    Column,
    Report,
    Row,
    interval_cells,
    interval_columns,
)

_BLOCK_SECONDS = 0.2
_LEAST_BLOCKS = 3

NOTES = (
    "CPU: microseconds of the coordinator a round; ms: median of a round; MiB: memory of its own afterwards.",
    "exponent: the slope of log y against log x of a series by least squares, its 95 % interval by Student's t.",
    "a stream: CPU / streams, and in times of the first case of the series; KiB a stream: what each stream beyond",
    "those of the first case adds to memory, less the payload of its last upload.",
    "streams: one stream an agent; groups: two streams that share all agents; numbers: d · r, 8 streams.",
)
COLUMNS = (
    Column("series", "series"),
    Column("agents", "agents", ",d"),
    Column("streams", "streams", ",d"),
    *SHAPE_COLUMNS,
    Column("cpu_us_per_round", "CPU", ",.0f"),
    Column("round_ms", "ms", ".3g"),
    Column("memory_mib", "MiB", ".1f"),
    Column("cpu_us_per_stream", "a stream", ",.0f"),
    Column("cpu_growth_per_stream", "of the first", ".2f"),
    Column("memory_kib_per_stream", "KiB a stream", ",.1f"),
    *interval_columns("cpu_exponent", "cpu", "CPU ~", ".2f"),
    *interval_columns("time_exponent", "time", "ms ~", ".2f"),
    *interval_columns("memory_exponent", "memory", "MiB ~", ".2f"),
)


@dataclass(frozen=True, slots=True)
class Series:
    """Cases along which one size grows.

    Attributes:
        name: of the size.
        cases: from small to large, three or more.
        sizes: x of each case.
    """

    name: str
    cases: tuple[Case, ...]
    sizes: tuple[int, ...]


def streams(counts: Sequence[int] = (8, 32, 128, 512, 1024), shape: tuple[int, int] = (20, 3)) -> Series:
    """One stream an agent."""
    return Series("streams", tuple(Case(agents, *shape) for agents in counts), tuple(counts))


def groups(counts: Sequence[int] = (200, 2000, 20_000, 100_000), shape: tuple[int, int] = (20, 3)) -> Series:
    """All agents in two groups."""
    cases = tuple(Case(agents, *shape, group=-(-agents // 2)) for agents in counts)
    return Series("groups", cases, tuple(counts))


def numbers(
    shapes: Sequence[tuple[int, int]] = ((64, 8), (512, 8), (2048, 16), (8192, 16), (32_768, 32)),
) -> Series:
    """Bases of increasing size, with 8 agents."""
    return Series("numbers", tuple(Case(8, *shape) for shape in shapes), tuple(d * r for d, r in shapes))


def benchmark(chosen: Sequence[Series], seconds: float, say: Callable[[str], None]) -> Report:
    """Measures each case for about `seconds` and fits each series.

    Raises:
        CospanError: a coordinator did not start, or ended.
    """
    rows: list[Row] = []
    cases: list[Case] = []
    costs: list[Cost] = []
    for series in chosen:
        measured = []
        for case in series.cases:
            say(f"{series.name}: {case.agents} agents, {case.streams} streams, {case.feature_dim} × {case.rank}")
            measured.append(asyncio.run(_measured(case, seconds)))
        rows += _fitted(series, measured)
        cases += series.cases
        costs += measured
    return Report("cost-growth", (*NOTES, *_models(cases, costs)), COLUMNS, tuple(rows))


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a round, and the coordinator's memory at the end; None if the system does not report it."""

    cpu_us: float | None
    milliseconds: float
    mebibytes: float | None
    rounds: int


async def _measured(case: Case, seconds: float) -> Cost:
    with tempfile.TemporaryDirectory(prefix="cospan-bench-") as folder:
        async with paced_coordinator(case, Path(folder) / "run") as run:
            rounds = await fitting_rounds([run], min(_BLOCK_SECONDS, seconds))
            await take_turns([(run, rounds)], seconds, _LEAST_BLOCKS)
            memory = resident_bytes(run.process.pid)
            measured = sum(len(block) for block in run.seconds)
            return Cost(run.cpu_us(1), run.milliseconds(50.0), memory / 2**20 if memory else None, measured)


def _fitted(series: Series, costs: Sequence[Cost]) -> list[Row]:
    fits: dict[str, Cell] = {}
    for name, values in (
        ("cpu", [cost.cpu_us for cost in costs]),
        ("time", [cost.milliseconds for cost in costs]),
        ("memory", [cost.mebibytes for cost in costs]),
    ):
        known = [(size, value) for size, value in zip(series.sizes, values, strict=True) if value]
        fit = exponent(*map(np.array, zip(*known, strict=True))) if len(known) > 2 else None
        fits |= interval_cells(f"{name}_exponent", name, fit)
    return [
        {
            "series": series.name,
            **case.cells,
            "streams": case.streams,
            "cpu_us_per_round": cost.cpu_us,
            "round_ms": cost.milliseconds,
            "memory_mib": cost.mebibytes,
            "rounds": cost.rounds,
            **per_stream(case, cost, series.cases[0], costs[0]),
            **fits,
        }
        for case, cost in zip(series.cases, costs, strict=True)
    ]


def per_stream(case: Case, cost: Cost, first: Case, least: Cost) -> dict[str, Cell]:
    """The cost of a stream relative to the first case of the series; None if unknown."""
    cpu = cost.cpu_us and cost.cpu_us / case.streams
    cpu_of_first = least.cpu_us and least.cpu_us / first.streams
    more = case.streams - first.streams
    memory = None
    if cost.mebibytes and least.mebibytes and more > 0:
        payload = 8 * case.feature_dim * case.rank / 1024.0
        memory = 1024.0 * (cost.mebibytes - least.mebibytes) / more - payload
    return {
        "cpu_us_per_stream": cpu,
        "cpu_growth_per_stream": cpu / cpu_of_first if cpu and cpu_of_first else None,
        "memory_kib_per_stream": memory,
    }


def _models(cases: Sequence[Case], costs: Sequence[Cost]) -> list[str]:
    """Linear models of CPU and memory in the sizes of a case: a sentence for each, with its misfit."""
    names = ("1", "streams", "agents", "d·r", "streams·d·r")
    terms = np.array(
        [
            (1, case.streams, case.agents, numbers, case.streams * numbers)
            for case in cases
            for numbers in (case.feature_dim * case.rank,)
        ],
        float,
    )
    sentences = []
    for what, values in (
        ("CPU in µs", [cost.cpu_us for cost in costs]),
        ("memory in KiB", [cost.mebibytes and 1024.0 * cost.mebibytes for cost in costs]),
    ):
        known = np.array([value is not None for value in values])
        if known.sum() <= len(names):
            continue
        y = np.array([value for value in values if value is not None], float)
        coefficients = shares(terms[known], y)
        misfit = np.abs(terms[known] @ coefficients / y - 1.0)
        each = zip(coefficients, names, strict=True)
        formula = " + ".join(f"{value:.3g} {name}".removesuffix(" 1") for value, name in each if value)
        off = f"off by {np.median(misfit):.0%} of a case at the median, {misfit.max():.0%} at most"
        sentences.append(f"model: {what} = {formula}; {off}.")
    return sentences
