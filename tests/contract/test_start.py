"""What a coordinator that resumes a stored run imports, and what it asks: until it listens the fleet waits."""

import subprocess
import sys
from pathlib import Path

import pytest
from runs import SECONDS

from cospan.cli.commands.coordinator import CoordinatorOptions, _is_over, _plan
from cospan.cli.run_folder.stored_run import run_to_resume
from cospan.client.learning.run_config import specify
from cospan.server.storage.writer import create_store
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import FinishCause

NEEDLESS = ("gymnasium", "rich", "matplotlib", "starlette", "uvicorn", "prometheus_client", "opentelemetry")
"""Packages that a coordinator without their flags has no use for."""
WORKLOAD = "cospan.client.workloads"
AGENTS_OWN = (
    "cospan.client.environment.workload_loader",
    "cospan.client.workload",
    "cospan.client.agent",
    WORKLOAD,
)
PROGRAM = """
import os, sys
from cospan.cli import main
from cospan.cli.commands import coordinator

def listening(self, address, agents):
    os.write(2, ("LOADED " + " ".join(sys.modules)).encode())
    os._exit(0)

coordinator.JsonVoice.listening = listening
main.main(sys.argv[1:])
"""


def stored(folder: Path, *, agents: int = 3) -> Path:
    """A run folder of a run of the workload `queues` that can be resumed."""
    folder.mkdir()
    spec = specify("queues", agents=agents, rounds=9, rank=2)
    create_store(folder / "coordinator.sqlite", spec, run_id="0123456789abcdef").close()
    return folder


@pytest.mark.parametrize("said", [(), ("--workload", "queues", "--agents", "3", "--rounds", "9", "--once")])
def test_a_coordinator_of_a_stored_run_imports_no_workload(said: tuple[str, ...], tmp_path: Path) -> None:
    folder = stored(tmp_path / "run")
    arguments = ("coordinator", *said, "--run-folder", str(folder), "--port", "0", "--json")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    loaded = done.stderr.rpartition("LOADED ")[2].split()
    assert "cospan.server.coordinator" in loaded, done.stderr
    assert not [name for name in loaded if name.partition(".")[0] in NEEDLESS]
    assert not set(loaded) & set(AGENTS_OWN)


def options(folder: Path, workload: str = "queues") -> CoordinatorOptions:
    return CoordinatorOptions(workload=workload, spec=None, run_folder=folder)


def test_what_the_workload_decides_is_that_of_the_stored_run(tmp_path: Path) -> None:
    folder = stored(tmp_path / "run")
    found = run_to_resume(folder, None, new_run=False)
    assert found is not None
    plan = _plan(options(folder), {"rounds": "9"}, None, found)
    assert plan.specification == found.state.specification
    assert (plan.workload, plan.site) == (None, None)


@pytest.mark.parametrize(
    ("workload", "flags", "words"),
    [
        ("queues", {}, "has rounds = 9, and 0 is asked for"),
        ("queues", {"rounds": "9", "agents": "4"}, "has agents = 3, and 4 is asked for"),
        ("queues", {"rounds": "9", "rank": "3"}, "has rank = 2, and 3 is asked for"),
        ("queues", {"rounds": "9", "steps_per_round": "7"}, r"has steps_per_round = \d+, and 7 is asked for"),
        ("queues", {"rounds": "9", "seed": "1"}, "has seed = 0, and 1 is asked for"),
        ("synthetic", {"rounds": "9"}, "has workload = 'queues', and 'synthetic' is asked for"),
        ("queues", {"rounds": "9", "feature_dim": "4"}, "knows its features; leave out --feature-dim"),
    ],
)
def test_what_is_said_otherwise_is_refused(
    workload: str, flags: dict[str, str], words: str, tmp_path: Path
) -> None:
    folder = stored(tmp_path / "run")
    found = run_to_resume(folder, None, new_run=False)
    with pytest.raises(InvalidValueError, match=words):
        _plan(options(folder, workload), flags, None, found)


def test_a_run_that_is_over_is_known_without_its_workload(tmp_path: Path) -> None:
    folder = stored(tmp_path / "run")
    assert not _is_over(options(folder), {"rounds": "9"}, None), "it can be resumed"
    over = tmp_path / "over"
    over.mkdir()
    spec = specify("queues", agents=3, rounds=9)
    store = create_store(over / "coordinator.sqlite", spec, run_id="0123456789abcdef")
    store.write_end(FinishCause.STOPPED, "stopped", 0)
    store.close()
    assert _is_over(options(over), {"rounds": "9"}, None)
    assert not _is_over(options(over), {"rounds": "10"}, None), "another run is asked for"
    assert not _is_over(options(over, "synthetic"), {"rounds": "9"}, None)
