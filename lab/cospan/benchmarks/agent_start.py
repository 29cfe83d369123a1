"""CPU of `cospan agent` from its start to its first gradient, beside that of Python with numpy and gRPC alone."""

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
from cospan.benchmarks.tools.report import Column, Report, Row
from cospan.client.environment.import_path import python_module
from cospan.client.environment.workload_loader import load_workload
from cospan.experiments.estimates import median_estimate
from cospan.wire.errors import CospanError

_YARDSTICK = "import numpy, grpc.aio"
_PATIENCE_SECONDS = 60.0

NOTES = (
    "CPU: seconds of the agent's process, from its start until it says that its first gradient is made.",
    "imports: CPU of `python -c 'import numpy, grpc.aio'`, start and end included; ratio: CPU / imports, in turns.",
)
COLUMNS = (
    Column("workload", "workload"),
    Column("cpu_seconds", "CPU", ".2f"),
    Column("cpu_low", "from", ".2f"),
    Column("cpu_high", "to", ".2f"),
    Column("most_cpu_seconds", "at most", ".2f"),
    Column("imports_cpu_seconds", "imports", ".2f"),
    Column("ratio_to_imports", "ratio", ".2f"),
    Column("ratio_low", "from", ".2f"),
    Column("ratio_high", "to", ".2f"),
    Column("turns", "turns", "d"),
)


def benchmark(workload: str, turns: int, say: Callable[[str], None]) -> Report:
    """Starts an agent so many times, each in a run of its own.

    Raises:
        CospanError: the coordinator or the agent did not start, or the system does not tell the CPU of a process.
        WorkloadError: there is no such workload.
    """
    load_workload(workload)  # told at once, and by nobody else
    seconds = []
    for turn in range(turns):
        say(f"{workload}: turn {turn + 1} of {turns}")
        seconds.append((asyncio.run(_until_first_gradient(workload)), _imports()))
    agent, imports = np.array(seconds).T
    cpu, ratio = median_estimate(agent), median_estimate(agent / imports)
    row: Row = {
        "workload": workload,
        "cpu_seconds": cpu.value,
        "cpu_low": cpu.low,
        "cpu_high": cpu.high,
        "most_cpu_seconds": float(agent.max()),
        "imports_cpu_seconds": float(np.median(imports)),
        "ratio_to_imports": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "turns": turns,
    }
    return Report("agent-start", NOTES, COLUMNS, (row,))


def learnt(line: str) -> str:
    """The event that says that a round has been learnt, which comes before its gradient is sent."""
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
        raise CospanError("this system does not tell the CPU time of a process; measure on Linux")
    return seconds


def _imports() -> float:
    """CPU of a whole process that imports what every agent needs; other children are not waited for meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-P", "-c", _YARDSTICK], check=True, timeout=_PATIENCE_SECONDS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
