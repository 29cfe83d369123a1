"""Holds the unit tests to what `make unit` promises: no sockets, no other processes."""

import multiprocessing.process
import sys
from typing import Any, NoReturn

import grpc
import grpc.aio
import pytest

_FORBIDDEN = {"socket.bind", "socket.connect", "subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"}
_ADVICE = "is not for a unit test: move the test to tests/behaviour"
_state = {"in_test": False}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _FORBIDDEN and _state["in_test"]:
        raise AssertionError(f"{event} {_ADVICE}")


def _refused(what: str) -> Any:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError(f"{what} {_ADVICE}")

    return refuse


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def _no_sockets_and_no_processes(monkeypatch: pytest.MonkeyPatch) -> Any:
    # gRPC opens its sockets in C, and multiprocessing starts its processes there: no audit event tells of either.
    for name in ("server", "insecure_channel", "secure_channel"):
        monkeypatch.setattr(grpc.aio, name, _refused(f"grpc.aio.{name}"))
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", _refused("a process"))
    _state["in_test"] = True
    yield
    _state["in_test"] = False
