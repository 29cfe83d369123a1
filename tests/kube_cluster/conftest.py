"""The image and the cluster of these tests. Everything has a name of this suite alone, and goes with it."""

import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import docker
import pytest
from images import ROOT, Images
from kube_cluster.cluster import Cluster, cluster
from rig.machines import missing

SUITE = f"cospan-kube-{secrets.token_hex(4)}"


def pytest_configure() -> None:
    """A suite that is told to end cleans up as one that is interrupted."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def ensured(script: str) -> Path:
    """The path that a script of .ci prints, of what it has left behind."""
    done = subprocess.run([ROOT / ".ci" / script], stdout=subprocess.PIPE, text=True, check=True, timeout=7200)
    return Path(done.stdout.split()[-1])


@pytest.fixture(scope="session")
def helm() -> Path:
    """Helm."""
    return ensured("ensure-helm")


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
def kubernetes(image: str) -> Iterator[Cluster]:
    """Three machines."""
    with cluster(3, image, ensured("ensure-kubernetes")) as found:
        yield found
