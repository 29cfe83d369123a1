"""Runs of `cospan run` that are killed or interrupted, and resumed: to the bits of a run that never was."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from faults.processes import cospan, environment

from cospan.benchmarks.tools.processes import family
from cospan.client.files.result_file import load_result

WORKLOAD, AGENTS, ROUNDS = "microgrids", 8, 200
KILLED_NEAR = (60, 150)
_SPREAD = 10
_SECONDS = 600.0
_LOOK_SECONDS = 0.005
_INTERRUPTED = 75
_NOTHING = subprocess.DEVNULL


@dataclass(slots=True)
class ResumeReport:
    """What came of it. `problems` is empty when all is well."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def run_resume(folder: Path, seed: int) -> ResumeReport:
    """One run for each way to break it, each broken twice."""
    folder.mkdir(parents=True)
    flags = [WORKLOAD, "--agents", str(AGENTS), "--rounds", str(ROUNDS), "--quiet"]
    _run(folder, [*flags, "--output", "whole"])
    rng, report = random.Random(seed), ResumeReport()
    for way in ("SIGKILL of all", "SIGKILL of cospan run", "SIGKILL of the coordinator", "SIGTERM", "SIGINT"):
        name = way.replace(" ", "-")
        at = [number + rng.randrange(_SPREAD) for number in KILLED_NEAR]
        broken = [
            _broken(folder / name, flags if not count else [], way, number, rng) for count, number in enumerate(at)
        ]
        report.problems += [f"{way}: {problem}" for problem in broken if problem]
        _run(folder, ["--resume", name, "--quiet"])
        differing = _differences(folder / "whole", folder / name)
        report.problems += [f"{way}: {what}" for what in differing]
        bits = "OTHER BITS" if differing else "the same bits"
        report.lines.append(f"resume: {way} near rounds {at[0]} and {at[1]}, resumed twice: {bits}")
    return report


def _run(folder: Path, arguments: list[str]) -> None:
    subprocess.run(
        cospan("run", *arguments),
        cwd=folder,
        env=environment(),
        stdin=_NOTHING,
        stdout=_NOTHING,
        check=True,
        timeout=_SECONDS,
    )


def _broken(run: Path, flags: list[str], way: str, number: int, rng: random.Random) -> str:
    """Begins or resumes a run, and breaks it when that many rounds are stored; returns what was wrong."""
    which = [*flags, "--output", run.name] if flags else ["--resume", run.name, "--quiet"]
    process = subprocess.Popen(
        cospan("run", *which), cwd=run.parent, env=environment(), stdin=_NOTHING, stdout=_NOTHING
    )
    deadline = time.monotonic() + _SECONDS
    while rounds_stored(run) < number:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            return f"round {number} was not reached"
        time.sleep(_LOOK_SECONDS)
    _break(process, way, rng)
    code = process.wait(_SECONDS)
    if way.startswith("SIG") and " " not in way and code != _INTERRUPTED:
        return f"the exit code is {code}"
    return ""


def _break(process: "subprocess.Popen[bytes]", way: str, rng: random.Random) -> None:
    children = list(family(process.pid))[1:]
    match way:
        case "SIGKILL of all":
            everybody = [process.pid, *children]
            rng.shuffle(everybody)
            for each in everybody:
                with contextlib.suppress(ProcessLookupError):  # it has followed its parent
                    os.kill(each, signal.SIGKILL)
        case "SIGKILL of the coordinator":
            for each in children:  # none, where it has just done the last round
                if b"\0coordinator\0" in _command_line(each):
                    os.kill(each, signal.SIGKILL)
        case "SIGKILL of cospan run":
            process.kill()
        case _:
            process.send_signal(signal.Signals[way])


def _command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def rounds_stored(folder: Path) -> int:
    """How many rounds of a run are stored; none while its store cannot be read."""
    try:
        connection = sqlite3.connect(f"file:{folder / 'coordinator.sqlite'}?mode=ro", uri=True)
    except sqlite3.Error:
        return 0
    try:
        return int(connection.execute("SELECT count(*) FROM rounds").fetchone()[0])
    except sqlite3.Error:
        return 0
    finally:
        connection.close()


def _differences(whole: Path, resumed: Path) -> list[str]:
    ours, theirs = (json.loads((folder / "result.json").read_text()) for folder in (whole, resumed))
    found = [
        f"{name} is {theirs[name]!r}, and was {ours[name]!r}"
        for name in ("basis_sha256", "rounds", "agents", "agent_steps", "value_error", "departures")
        if ours[name] != theirs[name]
    ]
    for index in range(AGENTS):
        name = f"agents/site-{index}.npz"
        one, other = (load_result(folder / name).values for folder in (whole, resumed))
        for key, value in one.items():
            if key == "run_id" or key.startswith("kept_"):
                continue
            if not np.array_equal(value, other[key], equal_nan=value.dtype.kind == "f"):
                found.append(f"{key} of {name} differs")
    rows = (resumed / "rounds.csv").read_text().splitlines()[1:]
    if [int(row.partition(",")[0]) for row in rows] != list(range(ROUNDS)):
        found.append("rounds.csv has a round twice, or lacks one")
    return found
