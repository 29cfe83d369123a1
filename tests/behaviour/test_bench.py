"""`cospan bench` from outside: a coordinator, its ceiling, agents in processes of their own, and no trace."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECONDS = 60.0


def bench(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COSPAN_")}
    return subprocess.run(
        [sys.executable, "-m", "cospan.cli.main", "bench", *arguments],
        cwd=tmp_path,
        env={**kept, "NO_COLOR": "1", "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize("agents", [1, 3, 10])
def test_rounds_of_the_coordinator_and_of_its_ceiling(tmp_path: Path, agents: int) -> None:
    """One process, one process an agent, and several agents a process."""
    size = ("--agents", str(agents), "--feature-dim", "6", "--rank", "2", "--seconds", "0.3")
    done = bench(tmp_path, "rounds", *size, "--json", "--output", "rounds.json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert json.loads((tmp_path / "rounds.json").read_text(encoding="utf-8")) == document
    assert (document["benchmark"], document["agents"], len(document["cases"])) == ("rounds", agents, 1)
    assert document["ratio_low"] <= document["ratio_to_ceiling"] <= document["ratio_high"]
    assert 0.0 < document["p50_ms"] <= document["p99_ms"]
    assert document["rounds"] >= document["blocks"] >= 2
    assert document["bytes_per_agent_round"] > 2 * 6 * 2 * 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rounds.json"], "nothing else is left"


def test_a_table_for_people(tmp_path: Path) -> None:
    done = bench(tmp_path, "orthonormalise", "--shape", "12x3", "--seconds", "0")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "numpy" in lines[0], "the machine"
    assert lines[2].split()[:3] == ["d", "r", "condition"]
    assert lines[3].split()[:3] == ["12", "3", "1.5"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("rounds", "--feature-dim", "2", "--rank", "3"), "rank is 3; it must be 1 to the feature dimension 2"),
        (("encodings", "--shape", "3"), "--shape is '3'; it must be DxR with 1 ≤ R ≤ D, as 65536x32"),
        (("learner", "--output", "none/x.json"), "there is no folder 'none' for --output; make it first"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = bench(tmp_path, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"cospan: {sentence}\n")
