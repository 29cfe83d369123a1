"""CPU of `cospan agent` from its start to its first gradient, against the import of numpy and gRPC alone."""

import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cospan.benchmarks.tools.processes import cpu_seconds, listening, saying, server
from cospan.benchmarks.tools.report import Column, Report, Row, interval_cells, interval_columns
from cospan.client.environment.import_path import python_module
from cospan.client.environment.workload_loader import load_workload
from cospan.experiments.estimates import median_estimate
from cospan.wire.errors import CospanError

_REFERENCE = "import numpy, grpc.aio"
_TIMEOUT_SECONDS = 60.0

NOTES = (
    "CPU: seconds of the agent's process, from its start until its first gradient is computed.",
    "imports: CPU of `python -c 'import numpy, grpc.aio'`, start and end included; ratio: CPU / imports, in turns.",
)
COLUMNS = (
    Column("workload", "workload"),
    *interval_columns("cpu_seconds", "cpu", "CPU", ".2f"),
    Column("most_cpu_seconds", "at most", ".2f"),
    Column("imports_cpu_seconds", "imports", ".2f"),
    *interval_columns("ratio_to_imports", "ratio", "ratio", ".2f"),
    Column("turns", "turns", "d"),
)


def benchmark(workload: str, turns: int, say: Callable[[str], None]) -> Report:
    """Starts an agent `turns` times, each in its own run.

    Raises:
        CospanError: a process did not start, or the system does not report CPU times.
        WorkloadError: there is no such workload.
    """
    load_workload(workload)  # fails before a process is started
    seconds = []
    for turn in range(turns):
        say(f"{workload}: turn {turn + 1} of {turns}")
        seconds.append((asyncio.run(_until_first_gradient(workload)), _imports()))
    agent, imports = np.array(seconds).T
    cpu, ratio = median_estimate(agent), median_estimate(agent / imports)
    row: Row = {
        "workload": workload,
        **interval_cells("cpu_seconds", "cpu", cpu),
        "most_cpu_seconds": float(agent.max()),
        "imports_cpu_seconds": float(np.median(imports)),
        **interval_cells("ratio_to_imports", "ratio", ratio),
        "turns": turns,
    }
    return Report("agent-start", NOTES, COLUMNS, (row,))


def learnt(line: str) -> str:
    """The event of a learnt round, which precedes the sending of its gradient; empty for other events."""
    document = json.loads(line)
    if document["event"] == "failed":
        raise CospanError(f"the agent did not start: {document['message']}")
    return str(document["event"]) if document["event"] == "progress" else ""


async def _until_first_gradient(workload: str) -> float:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cospan-bench-")))
        settings = ["--workload", workload, "--agents", "1", "--rounds", "1", "--port", "0"]
        arguments = ["coordinator", *settings, "--run-folder", str(folder / "run"), "--json"]
        starting = server(python_module("cospan.cli.main", *arguments), listening)
        _, address = await stack.enter_async_context(starting)
        agent = ["agent", workload, "--id", "0", "--coordinator", address, "--json"]
        saved = ["--output", str(folder / "site-0.npz")]
        beginning = saying(python_module("cospan.cli.main", *agent, *saved), "an agent's first gradient", learnt)
        process, _ = await stack.enter_async_context(beginning)
        seconds = cpu_seconds(process.pid)
    if not seconds:
        raise CospanError("this system does not report the CPU time of a process; measure on Linux")
    return seconds


def _imports() -> float:
    """CPU of a process that imports what each agent needs; no other child is waited for meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-P", "-c", _REFERENCE], check=True, timeout=_TIMEOUT_SECONDS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
