"""A fleet on this machine as `cospan run` starts it: rounds per second and memory of all processes."""

import csv
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cospan.benchmarks.tools.processes import family
from cospan.benchmarks.tools.report import Column, Report, Row, interval_columns
from cospan.client.environment.import_path import python_module
from cospan.client.environment.workload_loader import load_workload
from cospan.experiments.estimates import median_estimate
from cospan.wire.errors import CospanError

_TIMEOUT_SECONDS = 1800.0
_ENDING_SECONDS = 30.0
_SAMPLE_SECONDS = 0.1

NOTES = (
    "rounds/s: 1 / the median of the seconds of a round, and its interval; without the first, which waits.",
    "MiB: the largest sum of the resident memory of all processes, sampled ten times a second; an upper bound,",
    "because shared pages count once per process.",
)
COLUMNS = (
    Column("workload", "workload"),
    Column("agents", "agents", ",d"),
    Column("processes", "processes", "d"),
    Column("rounds", "rounds", "d"),
    *interval_columns("rounds_per_second", "rounds_per_second", "rounds/s", ".3g"),
    Column("memory_mib", "MiB", ",.0f"),
    Column("seconds", "whole command", ".1f"),
)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Agents of a workload in a number of processes, for a number of rounds."""

    workload: str
    agents: int
    processes: int
    rounds: int


def benchmark(fleet: Fleet, say: Callable[[str], None]) -> Report:
    """Runs the fleet once.

    Raises:
        CospanError: the run failed, or took longer than half an hour.
        WorkloadError: there is no such workload.
    """
    load_workload(fleet.workload)  # fails before anything is started
    say(f"{fleet.workload}: {fleet.agents} agents in {fleet.processes} processes, {fleet.rounds} rounds")
    with tempfile.TemporaryDirectory(prefix="cospan-bench-") as folder:
        output = Path(folder) / "run"
        begun = time.perf_counter()
        peak = _run(fleet, output, Path(folder) / "said")
        seconds = time.perf_counter() - begun
        with (output / "rounds.csv").open(encoding="utf-8", newline="") as file:
            rounds = [float(row["seconds"]) for row in csv.DictReader(file)]
    took = median_estimate(np.array(rounds[1:] or rounds))
    row: Row = {
        "workload": fleet.workload,
        "agents": fleet.agents,
        "processes": fleet.processes,
        "rounds": len(rounds),
        "rounds_per_second": 1.0 / took.value,
        "rounds_per_second_low": 1.0 / took.high if took.high else None,
        "rounds_per_second_high": 1.0 / took.low if took.low else None,
        "memory_mib": peak / 2**20 if peak else None,
        "seconds": seconds,
    }
    return Report("fleet", NOTES, COLUMNS, (row,))


def _run(fleet: Fleet, output: Path, said: Path) -> int:
    """The largest sum of memory of the command and its descendants, in bytes; 0 if unknown."""
    size = ["--agents", str(fleet.agents), "--processes", str(fleet.processes), "--rounds", str(fleet.rounds)]
    command = ["run", fleet.workload, *size, "--output", str(output), "--quiet"]
    until, peak = time.monotonic() + _TIMEOUT_SECONDS, 0
    with said.open("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            python_module("cospan.cli.main", *command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            while True:
                try:
                    process.wait(_SAMPLE_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    peak = max(peak, sum(map(_resident, family(process.pid))))
                if time.monotonic() > until:
                    raise CospanError(
                        f"`cospan {' '.join(command)}` took longer than half an hour; choose a smaller fleet"
                    )
        finally:
            _end(process)
        errors.seek(0)
        if process.returncode:
            raise CospanError(f"`cospan {' '.join(command)}` failed: {errors.read().strip()[-300:]}")
    return peak


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a run, and its agents with it."""
    process.terminate()
    try:
        process.wait(_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
