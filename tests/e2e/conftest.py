"""The image and the stacks of the end-to-end suite. Everything has a name of this suite alone, and goes with it."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from ctrl_c import end_as_interrupted
from docker import DockerClient
from e2e.stack import ROOT, Stack, is_stale
from images import Images

SUITE = f"cospan-e2e-{secrets.token_hex(4)}"
LOGS = ROOT / "build" / "e2e-logs"


def pytest_configure() -> None:
    """Prepares the process of the suite."""
    end_as_interrupted()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Lets a fixture know whether its test has failed."""
    report = yield
    if report.when == "call":  # type: ignore[attr-defined]
        item.stash[FAILED] = report.failed  # type: ignore[attr-defined]
    return report  # type: ignore[return-value]


FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def client() -> Iterator[DockerClient]:
    """The engine; afterwards nothing of this suite is left on it."""
    engine = docker.from_env(timeout=120)
    yield engine
    images = Images(engine, SUITE)
    images.remove()
    left = images.left()
    left += [thing.name for thing in engine.containers.list(all=True) if thing.name.startswith(SUITE)]
    networks = [thing for thing in engine.networks.list() if thing.name.startswith(SUITE)]
    left += [thing.name for thing in networks if not is_stale(thing)]
    left += [thing.name for thing in engine.volumes.list() if thing.name.startswith(SUITE)]
    engine.close()
    assert not left, f"the suite has left behind {left}"


@pytest.fixture(scope="session")
def image(client: DockerClient) -> str:
    """The image, built from this tree."""
    return Images(client, SUITE).built()


@pytest.fixture(scope="session")
def tools(client: DockerClient) -> str:
    """An image with iptables, to break networks with from a sidecar."""
    return Images(client, SUITE).base("iptables")


@pytest.fixture
def start(client: DockerClient, image: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Stack]]:
    """Starts a stack; it ends with the test. Where the test has failed its logs are kept."""
    stacks: list[Stack] = []

    def started(*arguments: str, **settings: object) -> Stack:
        stack = Stack(client, image, f"{SUITE}-{len(stacks)}-{secrets.token_hex(2)}", **settings)
        stacks.append(stack)
        stack.up(*arguments)
        return stack

    yield started
    for stack in stacks:
        if request.node.stash.get(FAILED, True):
            print(f"\nlogs are kept in {_keep_logs(stack, request.node.name)}")
        stack.down()


def _keep_logs(stack: Stack, test: str) -> Path:
    folder = LOGS / test.replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    for container in stack.containers():
        state = container.attrs["State"]
        head = f"{state['Status']}, exit code {state['ExitCode']}, out of memory: {state['OOMKilled']}\n"
        (folder / f"{container.name}.log").write_bytes(head.encode() + container.logs(timestamps=True))
    return folder
