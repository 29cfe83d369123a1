"""What belongs to the process as a whole, looked at from within one of its own."""

import subprocess
import sys

import pytest
from runs import SECONDS

FAULTS = """
import resource, sys
from cospan.cli.processes.this_process import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def one_round():
    return [bytearray(200_000) for _ in range(40)]
for _ in range(5):
    one_round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    one_round()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults_of(how: str) -> int:
    arguments = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=SECONDS).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_what_a_round_has_freed_is_there_for_the_next() -> None:
    assert faults_of("keep") < 100 < faults_of("give back")


LAST = """
import sys, threading
from cospan.cli.processes.this_process import LastExit
busy = [True, True, False]
last = LastExit(lambda: busy.pop(0))
last.due(0.01, 7, lambda: print("what was learnt"))
sys.stdout.flush()
threading.Event().wait()
"""


def test_a_process_that_does_not_end_is_ended_once_it_writes_no_more() -> None:
    done = subprocess.run(
        [sys.executable, "-u", "-c", LAST], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (7, "what was learnt\n")
    assert "did not end within 0.01 s after it was told to" in done.stderr
