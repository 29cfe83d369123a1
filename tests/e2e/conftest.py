"""The image and the stacks of the end-to-end suite. Everything has a name of this suite alone, and goes with it."""

import io
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import docker
import pytest
from docker import DockerClient
from docker.errors import ImageNotFound
from e2e.stack import ROOT, Stack

SUITE = f"cospan-e2e-{secrets.token_hex(4)}"
OFFICIAL = "python:3.12-slim-bookworm"
LOGS = ROOT / "build" / "e2e-logs"


def pytest_configure() -> None:
    """A suite that is told to end cleans up as one that is interrupted."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


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
    label = {"label": f"dev.cospan.build={SUITE}"}
    for image in engine.images.list(filters=label):
        for tag in image.tags or [image.id]:
            engine.images.remove(tag, force=True)
    for image in engine.images.list(filters=label | {"dangling": True}):
        engine.images.remove(image.id, force=True)
    left = [image.tags or image.id for image in engine.images.list(all=True) if _is_ours(image.tags, image.labels)]
    left += [thing.name for thing in engine.containers.list(all=True) if thing.name.startswith(SUITE)]
    left += [thing.name for thing in engine.networks.list() if thing.name.startswith(SUITE)]
    left += [thing.name for thing in engine.volumes.list() if thing.name.startswith(SUITE)]
    engine.close()
    assert not left, f"the suite has left behind {left}"


def _is_ours(tags: list[str], labels: dict[str, str] | None) -> bool:
    return any(tag.startswith(SUITE) for tag in tags) or (labels or {}).get("dev.cospan.build") == SUITE


def _base(client: DockerClient, *packages: str) -> str:
    """What the image is built on, with more Debian packages where they are asked for.

    What the environment says; an image that is here; else a local look-alike where one can be made, which needs
    root on a Debian; else what the registry has.
    """
    named = os.environ.get("COSPAN_BASE_IMAGE")
    if not packages and (named or _is_here(client, OFFICIAL)):
        return named or OFFICIAL
    tag = f"{SUITE}-base{'-'.join(('', *packages))}"
    if os.geteuid() == 0 and Path("/etc/debian_version").exists() and not _is_here(client, OFFICIAL):
        environment = {**os.environ, "EXTRA_PACKAGES": " ".join(packages), "LABEL": f"dev.cospan.build={SUITE}"}
        _run([str(ROOT / "deploy" / "make-base-image.sh"), tag], environment)
        return tag
    client.images.pull(OFFICIAL)
    if not packages:
        return OFFICIAL
    install = f"RUN apt-get -qq update && apt-get -qq -y install --no-install-recommends {' '.join(packages)}"
    recipe = f"FROM {OFFICIAL}\n{install}\nLABEL dev.cospan.build={SUITE}\n"
    client.images.build(fileobj=io.BytesIO(recipe.encode()), tag=tag, rm=True)
    return tag


def _is_here(client: DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"


@pytest.fixture(scope="session")
def image(client: DockerClient) -> str:
    """The image, built from this tree."""
    tag = f"{SUITE}:image"
    arguments = {"BASE_IMAGE": _base(client), "BUILD_ID": SUITE}
    flags = [flag for name, value in arguments.items() for flag in ("--build-arg", f"{name}={value}")]
    _run(["docker", "build", "--quiet", "--tag", tag, *flags, str(ROOT)])
    return tag


@pytest.fixture(scope="session")
def tools(client: DockerClient) -> str:
    """An image with iptables, to break networks with from a sidecar."""
    return _base(client, "iptables")


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
