"""A real coordinator with few descriptors, and more connections than that to what it serves over HTTP.

`make faults PARTS=sockets` does the same for 45 s, with 700 connections and 600 descriptors, and with the promised
second for an answer; here an answer has time enough on a machine that does much else.
"""

from pathlib import Path

import pytest
from faults.sockets import run_sockets
from runs import run


def test_silent_connections_do_not_take_the_coordinators_descriptors(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("what a process has open is read from /proc")
    looking = run_sockets(tmp_path / "sockets", connections=300, files=250, seconds=3.0, status_seconds=20.0)
    report = run(looking, 180.0)
    assert not report.problems, report.lines
