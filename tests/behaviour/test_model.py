"""A small exhaustive search; in a process of its own, because the checks of shapes exchange the functions."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from model.agents import Kind
from model.parties import Settings
from model.search import Search

TESTS = Path(__file__).parents[1]


def test_all_states_of_tiny_runs_are_sound_and_every_removed_guard_is_missed() -> None:
    """Two agents, of which one is behind a relay in the second search; the third one has a quorum."""
    command = [sys.executable, "-m", "model", "--quick"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    states = re.findall(r"any fault: ([\d,]+) states", done.stdout)
    assert len(states) == 3
    assert all(int(each.replace(",", "")) > 1000 for each in states)
    assert done.stdout.count("without a guard") == 11
    assert "20 simulated runs, 0 of them not found" in done.stdout


def test_agents_are_interchangeable() -> None:
    """Joins in any order come to one state; then each agent is first, second or last in the disk's queue."""
    found = Search(Settings(rounds=1, faults=0)).run()
    assert (found.violation, found.complete) == ("", True)
    joining, counting, complete, over = 3, 1 + 3 + 3, 1, 1
    assert found.states == joining + counting + complete + over


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.FREE])
def test_every_kind_of_fault_leads_to_other_states(kind: Kind) -> None:
    limits = {"coordinator_stops": 0, "agent_stops": 0, "cuts": 0, "timeouts": 0, "relay_stops": 0}
    names = dict(zip(list(Kind)[1:], limits, strict=True))
    without = Search(Settings(agents=1, relayed=1, rounds=2, faults=1, **limits)).run()
    with_it = Search(Settings(agents=1, relayed=1, rounds=2, faults=1, **limits | {names[kind]: 1})).run()
    assert with_it.states > without.states
    assert with_it.violation == without.violation == ""
