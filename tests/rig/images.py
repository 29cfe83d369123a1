"""The image of a suite on machines of the rig."""

import contextlib
from collections.abc import Iterator

import docker
import pytest
from images import Images
from rig.machines import missing


@contextlib.contextmanager
def suite_image(suite: str) -> Iterator[str]:
    """The image, built from this tree on the engine of this machine; it goes with the suite, whose name it has."""
    if missing():
        pytest.skip(missing())
    images = Images(docker.from_env(timeout=120), suite)
    try:
        yield images.built()
    finally:
        images.remove()
    assert not images.left()
