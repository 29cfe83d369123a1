"""Seconds of `cospan run` to a value error, over the network and in one process: the same run, bit for bit.

Both are whole commands, so the start of every process counts. The required number of rounds is found first.
"""

import csv
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cospan.benchmarks.tools.report import Column, Report, Row, interval_cells, interval_columns
from cospan.experiments.estimates import median_estimate
from cospan.experiments.over_network import cospan_run
from cospan.wire.errors import CospanError

_TIMEOUT_SECONDS = 600.0

NOTES = (
    "seconds: medians of the whole command, from its start to its end, in turns; learning: of its rounds alone.",
    "ratio: over the network / in process, pair by pair; both end with the same basis, bit for bit.",
)
COLUMNS = (
    Column("workload", "workload"),
    Column("agents", "agents", "d"),
    Column("value_error", "value error", ".3g"),
    Column("rounds", "rounds", "d"),
    Column("seconds", "seconds", ".2f"),
    Column("in_process_seconds", "in process", ".2f"),
    *interval_columns("ratio_to_in_process", "ratio", "ratio", ".2f"),
    Column("learning_seconds", "learning", ".2f"),
    Column("in_process_learning_seconds", "in process", ".2f"),
    *interval_columns("learning_ratio", "learning", "ratio", ".2f"),
    Column("turns", "turns", "d"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """The value error that a workload's fleet must reach within `most_rounds` rounds."""

    workload: str
    agents: int
    value_error: float
    most_rounds: int
    seed: int = 1


@dataclass(frozen=True, slots=True)
class _Run:
    """A finished run: its seconds, those of its rounds, the value error after each, and its basis."""

    seconds: float
    learning: float
    errors: tuple[float, ...]
    basis_sha256: str


def benchmark(target: Target, turns: int, say: Callable[[str], None]) -> Report:
    """Measures both ways `turns` times, in alternating order.

    Raises:
        CospanError: a run failed, the value error was not reached, or the two ways differ.
    """
    say(f"{target.workload}: how many rounds to a value error of {target.value_error:g}")
    errors = _run(target, target.most_rounds, in_process=True).errors
    reached = [number for number, error in enumerate(errors, 1) if error <= target.value_error]
    if not reached:
        raise CospanError(
            f"the value error is {min(errors):.3g} at best in {len(errors)} rounds; ask for that or for more rounds"
        )
    rounds = reached[0]
    runs: list[tuple[_Run, _Run]] = []
    for turn in range(turns):
        say(f"turn {turn + 1} of {turns}: {rounds} rounds")
        order = (False, True) if turn % 2 == 0 else (True, False)
        first, second = (_run(target, rounds, in_process=each) for each in order)
        runs.append((first, second) if turn % 2 == 0 else (second, first))
    if any(run.basis_sha256 != runs[0][0].basis_sha256 for pair in runs for run in pair):
        raise CospanError("the runs over the network and in process ended with different bases")
    if runs[0][0].errors[-1] > target.value_error:
        raise CospanError(
            f"{rounds} rounds alone end with a value error of {runs[0][0].errors[-1]:.3g}; report this"
        )
    return Report("time-to-accuracy", NOTES, COLUMNS, (_row(target, rounds, runs),))


def _run(target: Target, rounds: int, *, in_process: bool) -> _Run:
    with tempfile.TemporaryDirectory(prefix="cospan-bench-") as folder:
        output = Path(folder) / "run"
        size = ["--agents", str(target.agents), "--rounds", str(rounds), "--seed", str(target.seed)]
        arguments = [target.workload, *size, *(["--in-process"] if in_process else [])]
        begun = time.perf_counter()
        result = cospan_run(arguments, output, timeout=_TIMEOUT_SECONDS)
        seconds = time.perf_counter() - begun
        with (output / "rounds.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    if not rows or not rows[-1]["value_error"]:
        raise CospanError(
            f"the workload {target.workload!r} has no reference solution, so it has no value error; choose another"
        )
    errors = tuple(float(row["value_error"]) for row in rows)
    return _Run(seconds, sum(float(row["seconds"]) for row in rows), errors, result["basis_sha256"])


def _row(target: Target, rounds: int, runs: list[tuple[_Run, _Run]]) -> Row:
    seconds = np.array([[run.seconds for run in pair] for pair in runs])
    learning = np.array([[run.learning for run in pair] for pair in runs])
    ratio = median_estimate(seconds[:, 0] / seconds[:, 1])
    of_rounds = median_estimate(learning[:, 0] / learning[:, 1])
    return {
        "workload": target.workload,
        "agents": target.agents,
        "value_error": target.value_error,
        "reached": runs[0][0].errors[-1],
        "rounds": rounds,
        "seconds": float(np.median(seconds[:, 0])),
        "in_process_seconds": float(np.median(seconds[:, 1])),
        **interval_cells("ratio_to_in_process", "ratio", ratio),
        "learning_seconds": float(np.median(learning[:, 0])),
        "in_process_learning_seconds": float(np.median(learning[:, 1])),
        **interval_cells("learning_ratio", "learning", of_rounds),
        "turns": len(runs),
    }
