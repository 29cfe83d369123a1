"""`docker compose up`, as a user does it: what comes out, and what the image is."""

import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
from docker import DockerClient
from e2e.stack import WAIT_SECONDS, Stack, basis_alone, command_alone

AGENTS, ROUNDS = 8, 300


def test_a_fleet_in_containers_learns_the_same_bits(
    start: Callable[..., Stack], client: DockerClient, image: str
) -> None:
    stack = start(
        *("--scale", f"agent={AGENTS}"),
        COSPAN_WORKLOAD="microgrids",
        COSPAN_AGENTS=AGENTS,
        COSPAN_ROUNDS=ROUNDS,
    )
    (published,) = stack.coordinator.attrs["NetworkSettings"]["Ports"]["15051/tcp"]
    assert published["HostIp"] == "127.0.0.1"
    assert all(not agent.ports.get("15051/tcp") for agent in stack.containers("agent"))
    store = {mount["Name"] for mount in stack.coordinator.attrs["Mounts"] if mount["Type"] == "volume"}
    for agent in stack.containers("agent"):
        assert not store & {mount["Name"] for mount in agent.attrs["Mounts"] if mount["Type"] == "volume"}
        assert agent.attrs["HostConfig"]["PidsLimit"] == 256
        assert agent.attrs["HostConfig"]["Memory"] == 512 << 20
    assert stack.end() == 0
    assert {agent.wait(timeout=WAIT_SECONDS)["StatusCode"] for agent in stack.containers("agent")} == {0}
    result = stack.result()
    assert (result["agents"], result["rounds"], result["finish_cause"]) == (AGENTS, ROUNDS, "rounds-reached")
    assert [int(row["round"]) for row in stack.rounds()] == list(range(ROUNDS))
    assert stack.learnt() == [f"site-{index}.npz" for index in range(AGENTS)]

    alone = [*command_alone("microgrids", AGENTS, ROUNDS), "--output", "/tmp/run"]
    in_one = client.containers.run(image, alone, tmpfs={"/tmp": ""}, remove=True)
    assert json.loads(in_one)["basis_sha256"] == result["basis_sha256"], "one process in the same image"
    numpy = client.containers.run(
        image, ["-c", "import numpy; print(numpy.__version__)"], entrypoint="python", remove=True
    )
    if numpy.decode().strip() == np.__version__:  # else the bits of a QR may differ
        assert basis_alone("microgrids", AGENTS, ROUNDS) == result["basis_sha256"], "one process on the host"


def test_the_image(client: DockerClient, image: str) -> None:
    built = client.images.get(image)
    assert built.attrs["Size"] < 250e6
    config = built.attrs["Config"]
    assert config["User"] == "10001:10001"
    assert "HEALTHCHECK" in str(built.history()) or config["Healthcheck"]
    assert config["Labels"]["org.opencontainers.image.title"] == "Cospan"
    whole_history = " ".join(layer["CreatedBy"] or "" for layer in built.history()).lower()
    for secret in ("password", "token", "secret", "://", "index_url"):
        assert secret not in whole_history, f"{secret!r} stands in the image's history"
    environment = " ".join(config["Env"]).lower()
    assert "://" not in environment
    here = "import os; print(os.getuid(), os.access('/opt/venv', os.W_OK), os.path.exists('/opt/venv/bin/pip'))"
    said = client.containers.run(image, ["-c", here], entrypoint="python", read_only=True, remove=True)
    assert said.decode().split() == ["10001", "False", "False"]


def test_a_start_of_a_container_compiles_nothing(client: DockerClient, image: str) -> None:
    """Its file system is read-only, so each start would compile the same modules, which takes a second."""
    commands = ("agent", "coordinator", "relay", "run", "status")
    others = ("client.workloads.microgrids", "server.telemetry.http", "dashboard.app")
    modules = ", ".join(
        [f"cospan.cli.commands.{name}" for name in commands] + [f"cospan.{name}" for name in others]
    )
    told = (
        f"import os, sys, grpc_health.v1.health_pb2_grpc, {modules}; "
        "names = [name for name, module in sys.modules.items() if name != '__main__' and "
        "getattr(module, '__cached__', None) and not os.path.exists(module.__cached__)]; print(*names)"
    )
    said = client.containers.run(image, ["-c", told], entrypoint="python", read_only=True, remove=True)
    assert said.decode().split() == []


def test_a_coordinator_is_seen_from_the_host_and_stopped_in_order(start: Callable[..., Stack]) -> None:
    stack = start(COSPAN_AGENTS=2, COSPAN_ROUNDS=100000, PACE_SECONDS=0.002)
    stack.wait_until_said("round 0: run started")
    port = stack.coordinator.attrs["NetworkSettings"]["Ports"]["15051/tcp"][0]["HostPort"]
    done = subprocess.run(
        [sys.executable, "-m", "cospan.cli.main", "status", "--coordinator", f"127.0.0.1:{port}", "--json"],
        capture_output=True,
        check=True,
        timeout=WAIT_SECONDS,
    )
    assert json.loads(done.stdout)["agents"]
    stack.coordinator.stop(timeout=20)
    stack.coordinator.reload()
    assert stack.coordinator.attrs["State"]["ExitCode"] == 75, "the run continues when it is started again"
    assert "the coordinator was stopped by SIGTERM" in stack.said()[-1]
    stack.coordinator.start()
    stack.wait_until_said("run resumed")
    stack.coordinator.kill(signal="SIGINT")
    assert stack.end() == 75, "it did not reach its last round, but it is no crash"
    assert stack.result()["finish_cause"] == "stopped"
    assert {agent.wait(timeout=WAIT_SECONDS)["StatusCode"] for agent in stack.containers("agent")} == {0}
