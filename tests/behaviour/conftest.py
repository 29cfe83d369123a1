"""Fixtures of several files of behaviour tests: folders, pipes, certificates."""

import os
import sys
from pathlib import Path

import pytest
from behaviour.certificates import Certificates
from behaviour.command import HERE, environment


@pytest.fixture
def no_matplotlib(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python path of an installation without matplotlib; a run is also a second shorter there."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "matplotlib.py").write_text("raise ImportError('not installed')\n")
    return os.pathsep.join((str(HERE), str(folder)))


@pytest.fixture
def _toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    monkeypatch.setattr(os, "environ", environment())


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A pipe through which a site of the toy workload says that it has come to its mark."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def certs(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "fleet")
