"""`cospan run --engine ray` on a real cluster of three nodes: one is killed, and others have no room."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from behaviour.command import cospan, ended, started
from ray_cluster.cluster import CPUS, Cluster, running

from cospan.cli.output.exit_codes import INTERRUPTED
from cospan.server.storage.lock import STORE
from cospan.server.storage.reader import read_state
from cospan.wire.errors import RunFileError

pytest.importorskip("ray", reason="make ray-test installs Ray in an environment of its own")

RUN = ("run", "queues", "--seed", "3", "--quiet")
PATIENT = ("--session-timeout-seconds", "200")
"""The fleet waits for a group that is started elsewhere, so each round has all agents, and the bits are those of a
run without failures."""

_SECONDS = 600.0
"""For a run of a thousand agents on a machine that has other things to do as well."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running() as found:
        yield found


def on_ray(cluster: Cluster) -> tuple[str, ...]:
    return ("--engine", "ray", "--address", cluster.address)


def rounds_of(folder: Path) -> int:
    """How many rounds are stored."""
    store = folder / STORE
    try:
        return read_state(store).rounds if store.exists() else 0
    except RunFileError:  # it is being made
        return 0


def until(holds: Callable[[], bool], seconds: float = _SECONDS) -> None:
    bound = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < bound, "it has not happened in time"
        time.sleep(0.1)


def result_of(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "result.json").read_text())
    return found


def children(folder: Path) -> list[str]:
    """The command lines of a run's coordinator, and of the agents that are told its address."""
    listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    lines = [line for line in listed.splitlines() if "cospan.cli.main" in line and "--follow-stdin" in line]
    return [line for line in lines if str(folder) in line or " agent queues " in line]


def test_a_thousand_agents_and_a_node_that_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """Its groups run on the other node, learn again what they lost, and the bits are those of a local run."""
    sizes = ("--agents", "1000", "--rounds", "100")
    assert cospan(*RUN, *sizes, "--processes", "4", "--in-process", "--output", "here", cwd=tmp_path)[0] == 0
    there = tmp_path / "there"
    with started(
        *RUN, *sizes, "--groups", "4", *PATIENT, *on_ray(cluster), "--output", "there", cwd=tmp_path
    ) as run:
        until(lambda: rounds_of(there) >= 20 or run.poll() is not None)
        cluster.kill_node()
        try:
            code, _, said = ended(run, _SECONDS)
        finally:
            cluster.add_node()
    assert (code, "raylet" in said) == (0, False), said
    result, expected = result_of(there), result_of(tmp_path / "here")
    assert (result["rounds"], result["basis_sha256"]) == (100, expected["basis_sha256"])
    assert "was lost with its node" in (there / "log.jsonl").read_text()
    names = {path.name for path in (there / "agents").iterdir()}
    assert names == {path.name for path in (tmp_path / "here" / "agents").iterdir()}
    assert result["per_agent"] == expected["per_agent"]


def test_too_few_cpus_are_said(cluster: Cluster, tmp_path: Path) -> None:
    since = time.monotonic()
    code, _, said = cospan(*RUN, "--agents", "12", *on_ray(cluster), "--output", "none", cwd=tmp_path)
    assert time.monotonic() - since < 60.0
    assert code == 1
    assert f"{2 * CPUS} of the cluster's {2 * CPUS} are free; start fewer processes (--groups)" in said
    assert not (tmp_path / "none").exists()


def test_an_interrupted_run_is_resumed_on_its_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """Ctrl-C ends all processes in order, and brings their files back, which the resumed run begins with."""
    sizes = ("--agents", "4", "--rounds", "1500")
    assert cospan(*RUN, *sizes, "--in-process", "--output", "here", cwd=tmp_path)[0] == 0
    there = tmp_path / "there"
    with started(*RUN, *sizes, *on_ray(cluster), "--output", "there", cwd=tmp_path) as run:
        until(lambda: rounds_of(there) >= 20 or run.poll() is not None)
        run.send_signal(signal.SIGINT)
        code, _, said = ended(run)
    assert code == INTERRUPTED, said
    assert "cospan run --resume there" in said
    assert {path.name for path in (there / "agents").iterdir()} == {f"site-{number}.npz" for number in range(4)}
    assert cospan("run", "--resume", "there", "--quiet", cwd=tmp_path)[0] == 0
    assert "site-0 is on" in (there / "log.jsonl").read_text()
    assert result_of(there)["basis_sha256"] == result_of(tmp_path / "here")["basis_sha256"]


def test_a_run_that_is_killed_leaves_nothing_on_the_nodes(cluster: Cluster, tmp_path: Path) -> None:
    there = tmp_path / "there"
    sizes = ("--agents", "4", "--rounds", "0", "--groups", "2")
    with started(*RUN, *sizes, *on_ray(cluster), "--output", str(there), cwd=tmp_path) as run:
        until(lambda: rounds_of(there) >= 20 or run.poll() is not None)
        assert run.poll() is None, ended(run)
        assert children(there)
        run.kill()
        ended(run)
    until(lambda: not children(there))


def test_a_workload_of_the_working_folder_is_sent_to_the_nodes(cluster: Cluster, tmp_path: Path) -> None:
    toy = Path(__file__).parents[1] / "behaviour" / "toy_workload.py"
    (tmp_path / "my_own_workload.py").write_bytes(toy.read_bytes())
    own = ("run", "my_own_workload:workload", "--agents", "4", "--groups", "2", "--rounds", "30", "--rank", "1")
    code, _, said = cospan(*own, *on_ray(cluster), "--output", "there", cwd=tmp_path, PYTHONPATH="")
    assert code == 0, said
    assert result_of(tmp_path / "there")["rounds"] == 30
