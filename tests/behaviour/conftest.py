"""Fixtures of several files of behaviour tests: folders, pipes, certificates. Their coverage is not measured."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from behaviour.certificates import Certificates
from behaviour.command import HERE, environment


@contextlib.contextmanager
def _unmeasured() -> Iterator[None]:
    """What runs here, and in threads that begin here, is not measured.

    The mark `no_cover` of pytest-cov has no effect in the processes of xdist.
    """
    tracer, of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        threading.settrace(of_threads)  # type: ignore[arg-type]
        sys.settrace(tracer)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    """The share of the code that tests run is that of the tests of single modules, in half the time."""
    with _unmeasured():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """See `pytest_runtest_setup`."""
    with _unmeasured():
        yield


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
