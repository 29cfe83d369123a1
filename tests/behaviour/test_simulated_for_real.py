"""Scripts of kills and restarts in the simulator and with real processes: both end alike (docs/simulator.md)."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from runs import SECONDS
from simulator.alike.compare import compared
from simulator.alike.played import PlayedStage
from simulator.alike.script import Act, Performance, Script, What, script_of

TESTS = Path(__file__).parents[1]


def test_both_worlds_end_alike() -> None:
    """In a process of its own: real ones are forked from a server that has not started anything else."""
    command = [sys.executable, "-m", "simulator.alike", "--seed", "0", "--seeds", "8"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    said = re.search(r"8 of 8 seeds end alike: 48 rounds, (\d+) of them void", done.stdout)
    assert said is not None
    assert int(said[1]) > 0


def test_a_difference_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated agent does not leave, and the real one does."""
    leaves = Script(1, 0, (Act(1, What.AGENT_LEAVES, 0),), rounds=3)
    perform = Performance.perform

    def stays(self: Performance):  # type: ignore[no-untyped-def]
        if isinstance(self.stage, PlayedStage):
            self.script = replace(self.script, acts=())
        return perform(self)

    monkeypatch.setattr(Performance, "perform", stays)
    problem = compared(leaves, tmp_path).problem
    everyone = "('agent-00-0', 'agent-01-0', 'agent-02-0')"
    real = "('agent-01-0', 'agent-02-0')"
    assert problem == f"round 1 has the contributors {everyone} in the simulator, and {real} for real"


def test_scripts_have_all_that_can_happen() -> None:
    scripts = [script_of(seed) for seed in range(100)]
    assert {act.what for script in scripts for act in script.acts} == set(What)
    assert {script.min_cohort for script in scripts} == {0, 2}


def test_a_wrong_count_is_refused() -> None:
    command = [sys.executable, "-m", "simulator.alike", "--seeds", "0"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 2
    assert "--seeds is 0; it must be at least 1" in done.stderr
