"""Rows per second of one agent that learns from a log on one core: reading, features and learning."""

import csv
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from cospan.benchmarks.tools.report import SHAPE_COLUMNS, Column, Report, Row
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.logs.log_source import LogSource
from cospan.client.logs.log_workload import LogFleet
from cospan.client.logs.mapping import LogMapping, mapping_of
from cospan.client.logs.rows import RowReader
from cospan.client.logs.tables.parquet_file import parquet_writer
from cospan.client.logs.tables.sites import file_of
from cospan.client.step_source import StepSource
from cospan.client.workload import SourceSite
from cospan.core.aggregation.basis_update import initial_head_covariance
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import PRESETS
from cospan.core.specification import RunSpecification

ROWS = 200_000
STEPS = (24, 256, 1024)
LONGER = 5
"""By how much longer the logs are that are learnt with the L that they have by default."""
FORMATS = ("parquet", "csv")
RANK = 12
_NAMES = ("step", "hour", "level", "outlook", "reward")
_BLOCK = 50_000
NOTES = (
    "rows/s of CPU time on one core, without a network; L: steps a round.",
    "read: rows and gaps; features: these and the features; learn: all, with the preset practical and without TD "
    "alone beside it.",
)
COLUMNS = (
    Column("format", "format"),
    *SHAPE_COLUMNS,
    Column("steps_per_round", "L", "d"),
    Column("rows", "rows", ",d"),
    Column("read_per_second", "read", ",.0f"),
    Column("features_per_second", "features", ",.0f"),
    Column("learn_per_second", "learn", ",.0f"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A format, L (None for that of `cospan run` without one), and the number of rows."""

    form: str
    steps: int | None
    rows: int = ROWS


def cases(rows: int = ROWS) -> tuple[Case, ...]:
    """Each format with each length of a round; and longer logs with the length that is theirs by default."""
    given = [Case(form, steps, rows) for form in FORMATS for steps in STEPS]
    return (*given, *(Case(form, None, LONGER * rows) for form in FORMATS))


def benchmark(chosen: Sequence[Case], say: Callable[[str], None]) -> Report:
    """Measures each case once, in a folder that is removed afterwards."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="cospan-logs-") as folder:
        for case in chosen:
            say(f"{case.form}, L = {case.steps or 'the default'}, {case.rows:,} rows")
            rows.append(_measured(case, Path(folder)))
    return Report("logs", NOTES, COLUMNS, tuple(rows))


def table_mapping() -> LogMapping:
    """A mapping with d = 95: 12 hats around the day, 2 of a level and 4 of an outlook, and all products."""
    return mapping_of(
        {
            "log": {"reward": "reward", "time": "step", "step": 1},
            "features": {
                "hour": {"kind": "cyclic", "period": 24, "knots": 12},
                "level": {"kind": "numeric", "range": [0, 1], "knots": 2},
                "outlook": {"kind": "numeric", "range": [0, 1], "knots": 4},
            },
            "products": {"pairs": [["hour", "level", "outlook"]]},
        }
    )


def write_log(path: Path, rows: int) -> None:
    """A synthetic log, as Parquet or CSV by its suffix; it is written block by block."""
    with path.open("wb") as file:
        if path.suffix == ".parquet":
            with parquet_writer(file, _NAMES) as write:
                for block in _blocks(rows):
                    write(block)
            return
    with path.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(_NAMES)
        for block in _blocks(rows):
            writer.writerows(block.tolist())


def _blocks(rows: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for begin in range(0, rows, _BLOCK):
        numbers = np.arange(begin, min(rows, begin + _BLOCK), dtype=np.float64)
        drawn = rng.random((len(numbers), 2)).round(6)
        yield np.column_stack([numbers, numbers % 24, drawn, rng.standard_normal(len(numbers)).round(6)])


def _measured(case: Case, folder: Path) -> Row:
    mapping, path = table_mapping(), folder / f"{case.rows}.{case.form}"
    if not path.exists():
        write_log(path, case.rows)
    steps = case.steps or LogFleet(mapping, [file_of(path)]).steps_of()

    def read() -> None:
        for _ in RowReader(mapping, file_of(path)):
            pass

    def opened(name: str) -> StepSource:
        return LogSource(mapping, file_of(path), name)

    def with_features() -> None:
        source = opened("agent")
        while not source.at_end:
            source.advance(steps)

    d, method = mapping.features.dim, PRESETS["practical"](steps)
    basis = random_basis(d, RANK, np.random.default_rng(0))

    def learn() -> None:
        spec = RunSpecification("logs", d, RANK, 20, 0, 0, method)
        site = SourceSite(opened, mapping.features)
        learner = SiteLearner(site, spec, name="agent", index=0, with_baseline=False)
        for number in count():
            if learner.source.at_end:
                return
            learner.learn(number, basis, initial_head_covariance(method, RANK))

    return {
        "format": case.form,
        "feature_dim": d,
        "rank": RANK,
        "steps_per_round": steps,
        "rows": case.rows,
        "read_per_second": case.rows / _seconds(read),
        "features_per_second": case.rows / _seconds(with_features),
        "learn_per_second": case.rows / _seconds(learn),
    }


def _seconds(way: Callable[[], None]) -> float:
    """CPU seconds of this process."""
    begun = time.process_time()
    way()
    return max(time.process_time() - begun, 1e-9)
