"""The image and the cluster of these tests. Everything has a name of this suite alone, and goes with it."""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ctrl_c import end_as_interrupted
from images import ROOT
from kube_cluster.cluster import Cluster, cluster
from rig.images import suite_image

SUITE = f"cospan-kube-{secrets.token_hex(4)}"


def pytest_configure() -> None:
    """Prepares the process of the suite."""
    end_as_interrupted()


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
    with suite_image(SUITE) as tag:
        yield tag


@pytest.fixture(scope="session")
def kubernetes(image: str) -> Iterator[Cluster]:
    """Three machines."""
    with cluster(3, image, ensured("ensure-kubernetes")) as found:
        yield found
