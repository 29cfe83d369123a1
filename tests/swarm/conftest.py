"""The image and the swarm of these tests. Everything has a name of this suite alone, and goes with it."""

import secrets
from collections.abc import Iterator

import pytest
from ctrl_c import end_as_interrupted
from rig.images import suite_image
from swarm.cluster import Swarm, swarm

SUITE = f"cospan-swarm-{secrets.token_hex(4)}"


def pytest_configure() -> None:
    """Prepares the process of the suite."""
    end_as_interrupted()


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The image, built from this tree on the engine of this machine."""
    with suite_image(SUITE) as tag:
        yield tag


@pytest.fixture(scope="session")
def cluster(image: str) -> Iterator[Swarm]:
    """Three machines."""
    with swarm(3, image) as found:
        yield found
