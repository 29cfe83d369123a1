"""Runs that improve policies: the same bits in one process, over gRPC, and where they were killed and resumed."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from behaviour.command import cospan, in_this_process, result_of, started
from behaviour.test_resumed_runs import kill_all, wait_for_round

from cospan.client import GreedyPolicy
from cospan.client.files.result_file import load_result

EVALUATION, TRIAL, STEPS = 30, 24, 2
SIZE = (
    *("--agents", "3", "--seed", "5", "--improve", str(STEPS), "--quiet"),
    *("--evaluation-rounds", str(EVALUATION), "--trial-rounds", str(TRIAL)),
)
ROUNDS = STEPS * (EVALUATION + TRIAL) + EVALUATION


def files_of(run: Path) -> dict[str, dict[str, np.ndarray]]:
    return {path.name: load_result(path).values for path in (run / "agents").glob("site-*.npz")}


def assert_same(run: Path, expected: Path) -> None:
    """Whether two runs came to the same, bit for bit, policies and evidence among it."""
    ours, theirs = files_of(run), files_of(expected)
    assert sorted(ours) == sorted(theirs) == [f"site-{index}.npz" for index in range(3)]
    for name, values in ours.items():
        for key, value in values.items():
            if key != "run_id" and not key.startswith("kept_"):
                kind = value.dtype.kind
                assert np.array_equal(value, theirs[name][key], equal_nan=kind == "f"), f"{key} of {name} differs"
    here, there = result_of(run), result_of(expected)
    same = ("basis_sha256", "rounds", "improvement", "per_agent")
    assert {key: here[key] for key in same} == {key: there[key] for key in same}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the children of a process in /proc")
def test_a_run_that_was_killed_in_a_trial_and_in_an_evaluation_is_resumed_to_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, quick = random.Random(20), {"COSPAN_CHECKPOINT_SECONDS": "0.1"}
    run, whole = tmp_path / "run", tmp_path / "whole"
    with started("run", "queues", *SIZE, "--output", "run", cwd=tmp_path, **quick) as process:
        wait_for_round(run, EVALUATION + TRIAL // 3, process)
        kill_all(process, rng)
    with started("run", "--resume", "run", "--quiet", cwd=tmp_path, **quick) as process:
        wait_for_round(run, EVALUATION + TRIAL + 8, process)
        kill_all(process, rng)
    code, out, err = cospan("run", "--resume", "run", "--quiet", cwd=tmp_path, **quick)
    assert code == 0, err
    assert "agents hold a better policy than the given one; in 2 steps" in out
    assert in_this_process("run", "queues", *SIZE, "--in-process", "--output", str(whole)) == 0
    result = result_of(whole)
    assert result["rounds"] == ROUNDS
    assert result["improvement"]["policies_taken"] >= 1, "nothing was improved, so nothing was shown"
    assert result["improvement"]["trials"] == 3 * STEPS
    assert_same(run, whole)

    # What an agent holds is a thing of its own.
    improved = next(each for each in result["per_agent"] if each["policy"]["held_step"] is not None)
    saved = tmp_path / "policy.npz"
    assert in_this_process("export", str(run), "--policy", "--site", improved["id"], "--output", str(saved)) == 0
    assert not GreedyPolicy.load(saved).is_given
    capsys.readouterr()
    assert in_this_process("policy", str(run), "--site", improved["id"], "--at", "0=7", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["decisions"] == improved["policy"]["decisions"]
    assert sorted(each["action"] for each in told["actions"]) == [0, 1]


def test_groups_over_the_network_and_in_one_process_have_the_same_bits(tmp_path: Path) -> None:
    small = (*SIZE[:-4], "--evaluation-rounds", "12", "--trial-rounds", "24", "--processes", "2")
    code, _, err = cospan("run", "queues", *small, "--output", "run", cwd=tmp_path)
    assert code == 0, err
    assert in_this_process("run", "queues", *small, "--in-process", "--output", str(tmp_path / "whole")) == 0
    assert_same(tmp_path / "run", tmp_path / "whole")
