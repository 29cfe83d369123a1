"""`cospan run --resume` after every process of a run was killed: the bits of a run that was never broken."""

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from behaviour.command import (
    cospan,
    ended,
    in_this_process,
    result_of,
    started,
)
from faults.resume import rounds_stored
from runs import SECONDS

from cospan.benchmarks.tools.processes import family
from cospan.client.files.result_file import load_result
from cospan.server.storage.reader import read_reports

ROUNDS = 300
SIZE = ("--agents", "2", "--rounds", str(ROUNDS), "--seed", "3")
LOOK_SECONDS = 0.005

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="finds the children of a process in /proc"
)


def wait_for_round(folder: Path, number: int, process: "subprocess.Popen[str]") -> None:
    deadline, clock = time.monotonic() + SECONDS, threading.Event()
    while rounds_stored(folder) < number:
        assert process.poll() is None, "the run has ended before it could be killed"
        assert time.monotonic() < deadline, f"round {number} was not stored within {SECONDS:g} s"
        clock.wait(LOOK_SECONDS)


def kill_all(process: "subprocess.Popen[str]", rng: random.Random) -> None:
    """In any order, so that some live on for a moment without the others."""
    everybody = list(family(process.pid))
    rng.shuffle(everybody)
    for each in everybody:
        with contextlib.suppress(ProcessLookupError):  # it has followed its parent
            os.kill(each, signal.SIGKILL)
    process.wait(SECONDS)


def same_agents(one: Path, other: Path) -> bool:
    """Whether the agents of two runs have learnt the same, bit for bit. Their files belong to two runs, though."""
    files = sorted(path.name for path in (one / "agents").glob("*.npz"))
    assert files == [f"site-{index}.npz" for index in range(2)]
    for name in files:
        ours, theirs = (load_result(folder / "agents" / name).values for folder in (one, other))
        for key, value in ours.items():
            if key != "run_id" and not key.startswith("kept_"):
                kind = value.dtype.kind
                assert np.array_equal(value, theirs[key], equal_nan=kind == "f"), f"{key} of {name} differs"
    return True


def test_a_run_that_was_killed_twice_is_resumed_to_the_same_bits(
    tmp_path: Path,
    no_matplotlib: str,
) -> None:
    rng, quick = random.Random(20), {"COSPAN_CHECKPOINT_SECONDS": "0.1", "PYTHONPATH": no_matplotlib}
    run = tmp_path / "run"
    with started("run", "queues", *SIZE, "--output", "run", "--quiet", cwd=tmp_path, **quick) as process:
        wait_for_round(run, rng.randrange(40, 120), process)
        kill_all(process, rng)
    code, out, _ = cospan("runs", "run", "--json", cwd=tmp_path)
    (line,) = json.loads(out)
    assert (code, line["state"], line["resume"]) == (0, "resumable", "cospan run --resume run")
    with started("run", "--resume", "run", cwd=tmp_path, **quick) as process:
        wait_for_round(run, rng.randrange(180, 240), process)
        kill_all(process, rng)
    with started("run", "--resume", "runs/latest", cwd=tmp_path, **quick) as process:
        code, out, err = ended(process)
    assert code == 0, err
    assert f"of {ROUNDS} rounds are done" in err.splitlines()[0]

    whole = tmp_path / "whole"
    assert in_this_process("run", "queues", *SIZE, "--in-process", "--quiet", "--output", str(whole)) == 0
    result, expected = result_of(run), result_of(whole)
    assert result["basis_sha256"] == expected["basis_sha256"]
    ours = ("rounds", "agents", "agent_steps", "finish_cause", "departures", "value_error", "per_agent")
    assert {name: result[name] for name in ours} == {name: expected[name] for name in ours}
    with (run / "rounds.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["round"]) for row in rows] == list(range(ROUNDS)), "every round once"
    assert all(row["value_error"] for row in rows)
    assert sum(float(row["seconds"]) for row in rows) == pytest.approx(result["seconds"])
    for text in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(text)
    assert same_agents(whole, run)

    assert in_this_process("run", "--resume", str(run), "--quiet") == 0, "it is over, and stays as it is"
    assert result_of(run) == result


def test_a_resumed_run_that_loses_its_coordinator_has_no_result_of_before(
    tmp_path: Path,
    no_matplotlib: str,
) -> None:
    """The result of an interrupted run says that it was stopped: as that of the resumed one it would give 0."""
    run, quick = tmp_path / "run", {"PYTHONPATH": no_matplotlib}
    endless = ("--agents", "2", "--rounds", "0", "--seed", "3")
    with started("run", "queues", *endless, "--output", "run", "--quiet", cwd=tmp_path, **quick) as process:
        wait_for_round(run, 10, process)
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 75
    before = result_of(run)
    assert before["finish_cause"] == "stopped"
    stored = [report.closed_round for report in read_reports(run / "coordinator.sqlite")]
    with (run / "rounds.csv").open(newline="") as lines:
        assert [int(row["round"]) for row in csv.DictReader(lines)] == stored, "those of the last moment too"
    with started("run", "--resume", "run", "--quiet", cwd=tmp_path, **quick) as process:
        wait_for_round(run, before["rounds"] + 100, process)  # the disk may be 64 rounds behind
        (coordinator,) = (
            child
            for child in family(process.pid)
            if b"\0coordinator\0" in Path(f"/proc/{child}/cmdline").read_bytes()
        )
        os.kill(coordinator, signal.SIGKILL)
        code, _, err = ended(process)
    assert code == 1, err
    after = result_of(run)
    assert after["finish_cause"] == "coordinator-lost"
    assert after["rounds"] > before["rounds"]
