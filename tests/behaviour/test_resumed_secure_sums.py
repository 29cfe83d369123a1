"""`cospan run --resume` of secure sums after every process was killed: the bits of a run that never was."""

import csv
import random
from pathlib import Path

import pytest
from behaviour.command import ended, in_this_process, result_of, started
from behaviour.test_resumed_runs import kill_all, wait_for_round

from cospan.server.storage.reader import read_reports

ROUNDS = 240
SIZE = ("--agents", "4", "--rounds", str(ROUNDS), "--seed", "3", "--secure-sums")

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="finds the children of a process in /proc"
)


@pytest.mark.parametrize("checkpoint_seconds", ["0.001", "60"])
def test_a_run_that_was_killed_twice_is_resumed_to_the_same_bits(checkpoint_seconds: str, tmp_path: Path) -> None:
    """Every process has another key after a kill, so each epoch is new; no round is void, and no sum differs.

    With a file that is written often, rounds are repeated from kept gradients; with one that is not, by learning.
    """
    rng, often = random.Random(21), {"COSPAN_CHECKPOINT_SECONDS": checkpoint_seconds}
    run = tmp_path / "run"
    with started("run", "queues", *SIZE, "--output", "run", "--quiet", cwd=tmp_path, **often) as process:
        wait_for_round(run, rng.randrange(40, 80), process)
        kill_all(process, rng)
    with started("run", "--resume", "run", cwd=tmp_path, **often) as process:
        wait_for_round(run, rng.randrange(130, 180), process)
        kill_all(process, rng)
    with started("run", "--resume", "run", cwd=tmp_path, **often) as process:
        code, _, err = ended(process)
    assert code == 0, err

    whole = tmp_path / "whole"
    assert in_this_process("run", "queues", *SIZE, "--in-process", "--quiet", "--output", str(whole)) == 0
    assert result_of(run)["basis_sha256"] == result_of(whole)["basis_sha256"]
    assert result_of(run)["void_rounds"] == 0
    assert {report.contributors for report in read_reports(run / "coordinator.sqlite")} == {4}, "no round is void"
    with (run / "rounds.csv").open(newline="") as lines:
        assert [int(row["round"]) for row in csv.DictReader(lines)] == list(range(ROUNDS))
