"""The image and the swarm of these tests. Everything has a name of this suite alone, and goes with it."""

import secrets
import signal
from collections.abc import Iterator
from types import FrameType

import docker
import pytest
from images import Images
from rig.machines import missing
from swarm.cluster import Swarm, swarm

SUITE = f"cospan-swarm-{secrets.token_hex(4)}"


def pytest_configure() -> None:
    """A suite that is told to end cleans up as one that is interrupted."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The image, built from this tree on the engine of this machine."""
    if missing():
        pytest.skip(missing())
    images = Images(docker.from_env(timeout=120), SUITE)
    try:
        yield images.built()
    finally:
        images.remove()
    assert not images.left()


@pytest.fixture(scope="session")
def cluster(image: str) -> Iterator[Swarm]:
    """Three machines."""
    with swarm(3, image) as found:
        yield found
