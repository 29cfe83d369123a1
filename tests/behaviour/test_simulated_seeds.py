"""Many simulated runs, in a process of their own: without the checks of shapes they take a third of the time."""

import re
import subprocess
import sys
from pathlib import Path

from runs import SECONDS

TESTS = Path(__file__).parents[1]


def test_many_seeds() -> None:
    command = [sys.executable, "-m", "simulator", "--seed", "0", "--seeds", "500"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=1800, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    faults = re.search(r"([\d,]+)  faults in", done.stdout)
    assert faults is not None
    assert int(faults[1].replace(",", "")) > 7000


def test_a_wrong_count_is_refused() -> None:
    command = [sys.executable, "-m", "simulator", "--seeds", "0"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 2
    assert "--seeds is 0; it must be at least 1" in done.stderr
