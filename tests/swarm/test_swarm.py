"""The stacks of `cospan deploy swarm` on a real Docker Swarm of three machines, which are killed and drained."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from behaviour.command import in_this_process
from rig.machines import Machine, until
from rig.stored_run import StoredRun
from swarm.cluster import IMAGE, LABEL, Swarm

AGENTS, GROUPS, ROUNDS = 12, 4, 1500
RUN = ("queues", "--agents", str(AGENTS), "--rounds", str(ROUNDS), "--seed", "3")
PATIENT = ("--session-timeout-seconds", "200")
"""The fleet waits for a group that is started elsewhere, so each round has all agents, and the bits are those of a
run without failures."""
USER = 10001
"""Of the image."""
_BOUND = 240.0


@pytest.fixture(scope="session")
def undisturbed(cluster: Swarm) -> str:
    """`basis_sha256` of the run in one process, in the same image."""
    command = ("run", *RUN, "--processes", str(GROUPS), "--in-process", "--quiet", "--json", "--output=/tmp/run")
    said = cluster.manager.docker("run", "--rm", "--tmpfs=/tmp", IMAGE, *command, seconds=_BOUND)
    return str(json.loads(said)["basis_sha256"])


@pytest.fixture
def deployed(cluster: Swarm, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Deploys the stack that the command writes; it is removed with the test."""
    names: list[str] = []

    def deploy(name: str, *options: str, image: str = IMAGE, overlay: str = "") -> str:
        folder = tmp_path / name
        made = (*RUN, *PATIENT, "--groups", str(GROUPS), "--name", name, "--image", image, *options)
        assert in_this_process("deploy", "swarm", *made, "--output", str(folder)) == 0
        files = [folder / "stack.yml"]
        if "--tls" in options:
            make_secrets(cluster, files[0])
        if overlay:
            files.append(folder / "overlay.yml")
            files[1].write_text(f'version: "3.8"\n{overlay}')
        names.append(name)
        cluster.deploy(name, *files)
        return name

    yield deploy
    for name in names:
        cluster.remove(name)


def make_secrets(cluster: Swarm, stack: Path) -> None:
    """Runs the commands that the first lines of the stack say."""
    said = [line[1:].strip() for line in stack.read_text().splitlines() if line.startswith("#   ")]
    made = [each for each in said if each.startswith(("cospan certs", "docker secret"))]
    commands = ["cospan certs init certs", *made]
    assert len(commands) == 8
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DOCKER_HOST": f"unix://{cluster.manager.folder}/sock",
    }
    subprocess.run(
        ["sh", "-ec", "\n".join(commands)], cwd=stack.parent, env=environment, check=True, timeout=_BOUND
    )


def run_of(cluster: Swarm, stack: str) -> StoredRun:
    """What is in the volume of the coordinator."""
    return StoredRun(cluster.volume(cluster.manager, f"{stack}_runs"))


def wait_for_end(cluster: Swarm, stack: str) -> None:
    """Every task has ended with exit code 0."""
    for service, count in (("coordinator", 1), ("agents", GROUPS)):
        until(
            lambda: sum(task.state == "Complete" for task in cluster.tasks(f"{stack}_{service}")) == count,  # noqa: B023
            f"{stack}_{service} is complete",
            _BOUND,
        )


def test_an_image_that_is_missing_is_named(cluster: Swarm, deployed: Callable[..., str]) -> None:
    cluster.update(cluster.manager, "--label-add", LABEL)
    stack = deployed("missing", image="localhost:1/nothing:1")
    for service in ("coordinator", "agents"):
        assert cluster.wait_for_error(f"{stack}_{service}", "No such image: localhost:1/nothing:1") < 60


def test_machines_without_room_are_counted(cluster: Swarm, deployed: Callable[..., str]) -> None:
    more = "services: {agents: {deploy: {resources: {limits: {memory: 9000g}, reservations: {memory: 8000g}}}}}"
    stack = deployed("crowded", overlay=more)
    assert cluster.wait_for_error(f"{stack}_agents", "insufficient resources on 3 nodes") < 60


def test_certificates(cluster: Swarm, deployed: Callable[..., str], undisturbed: str) -> None:
    """The coordinator is killed on the way."""
    cluster.update(cluster.manager, "--label-add", LABEL)
    stack = deployed("secured", "--tls")
    run = run_of(cluster, stack)
    run.wait_for_more(100)
    cluster.manager.docker("kill", cluster.container(f"{stack}_coordinator", cluster.manager))
    wait_for_end(cluster, stack)
    assert (run.result()["rounds"], run.result()["basis_sha256"], run.state.incarnation) == (ROUNDS, undisturbed, 2)


def test_machines_that_are_killed_and_drained_change_nothing(
    cluster: Swarm, deployed: Callable[..., str], undisturbed: str
) -> None:
    manager = cluster.manager
    learnt = cluster.rig.folder / "learnt"
    learnt.mkdir()
    os.chown(learnt, USER, USER)
    shared = f"volumes: {{learnt: {{driver_opts: {{type: none, o: bind, device: {learnt}}}}}}}"
    cluster.update(manager, "--label-add", LABEL, "--availability", "pause")
    stack = deployed("broken", overlay=shared)
    coordinator, agents = f"{stack}_coordinator", f"{stack}_agents"
    run = run_of(cluster, stack)

    cluster.wait_for_error(coordinator, "no suitable node")
    until(lambda: len(cluster.running(agents)) == GROUPS, "the agents wait for a coordinator", _BOUND)
    cluster.update(manager, "--availability", "active")
    run.wait_for_more(100)

    cluster.update(manager, "--availability", "pause")  # groups that are drained later would leave rounds
    lost = busiest(cluster, agents)
    slots = {task.name for task in cluster.running(agents) if task.node == lost.name}
    lost.kill()
    cluster.alive.remove(lost)
    run.wait_for_more(200)
    assert slots <= {task.name for task in cluster.running(agents) if task.node != lost.name}

    cluster.update(manager, "--availability", "active")
    manager.docker("kill", cluster.container(coordinator, manager))
    run.wait_for_more(200)
    assert run.state.incarnation == 2

    cluster.update(manager, "--availability", "drain")
    cluster.wait_for_error(coordinator, "no suitable node")
    until(lambda: not cluster.container(coordinator, manager), "the coordinator has left")
    reached = run.rounds
    cluster.update(manager, "--availability", "active")
    until(lambda: run.rounds > reached, "the run is resumed", _BOUND)

    wait_for_end(cluster, stack)
    assert (run.result()["rounds"], run.result()["basis_sha256"], run.state.incarnation) == (ROUNDS, undisturbed, 3)
    assert {file.name for file in learnt.glob("site-*.npz")} == {f"site-{index}.npz" for index in range(AGENTS)}


def busiest(cluster: Swarm, service: str) -> Machine:
    """The worker with the most tasks of a service."""
    nodes = [task.node for task in cluster.running(service)]
    return max(cluster.alive[1:], key=lambda machine: nodes.count(machine.name))
