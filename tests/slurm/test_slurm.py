"""The scripts of `cospan deploy slurm` on a real Slurm of four nodes, whose nodes are killed."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from behaviour.command import cospan, in_this_process
from slurm.cluster import PROGRAMS, Cluster, running, until

from cospan.server.storage.lock import STORE
from cospan.server.storage.reader import read_state

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
RUN = ("queues", "--agents", "12", "--groups", "4", "--rounds", "1500", "--seed", "3")
PATIENT = ("--session-timeout-seconds", "200")
"""The fleet waits for a group that is started elsewhere, so each round has all agents, and the bits are those of a
run without failures."""

pytestmark = pytest.mark.skipif(
    not all(shutil.which(program, path=PATH) for program in PROGRAMS) or os.geteuid() != 0,
    reason="Slurm is not installed (slurmctld slurmd slurm-client munge), or this is not root",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("slurm"), PATH) as found:
        yield found


def rounds_of(fleet: Path) -> int:
    """How many rounds are stored."""
    store = fleet / "runs" / "latest" / STORE
    return read_state(store).rounds if store.exists() else 0


def test_nodes_that_are_killed_change_nothing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = ("run", "queues", "--agents", "12", "--processes", "4", "--rounds", "1500", "--seed", "3")
    assert cospan(*whole, "--in-process", "--quiet", "--output", "whole", cwd=tmp_path)[0] == 0
    assert in_this_process("deploy", "slurm", *RUN, *PATIENT, "--output", "fleet") == 0
    fleet = tmp_path / "fleet"
    said = cluster.called("./submit.sh", cwd=fleet)
    coordinator = said.split("coordinator: job ")[1].split(",")[0]
    agents = said.split("agents: job ")[1].split(",")[0]

    until(lambda: rounds_of(fleet) >= 50)
    node = cluster.node_of(coordinator)
    others = {cluster.node_of(f"{agents}_{task}") for task in range(4)} - {node}
    cluster.kill_node(sorted(others)[0])
    reached = rounds_of(fleet)
    until(lambda: rounds_of(fleet) > reached + 100, 150.0)

    first_address = (fleet / "address").read_text()
    cluster.kill_node(node)
    reached = rounds_of(fleet)
    until(lambda: rounds_of(fleet) > reached + 100, 150.0)
    assert (fleet / "address").read_text() != first_address

    until(lambda: not cluster.called("squeue", "--noheader"), 150.0)
    result = json.loads((fleet / "runs" / "latest" / "result.json").read_text())
    expected = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert (result["rounds"], result["basis_sha256"]) == (1500, expected["basis_sha256"])
    assert {file.name for file in (fleet / "agents").glob("site-*.npz")} == {f"site-{k}.npz" for k in range(12)}
    assert read_state(fleet / "runs" / "latest" / STORE).incarnation == 2
