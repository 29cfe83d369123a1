"""What a failed attempt to connect leaves behind: nothing, and not only once the garbage collector has come by."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator

import pytest
from faults.processes import free_port
from runs import specification

from cospan.cli.processes.admin_client import fetch_run
from cospan.client.session.transport import GrpcTransport
from cospan.wire.errors import CoordinatorUnavailableError, CospanError


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("attempt", ["describe", "open", "ask"])
def test_an_error_is_in_no_cycle(attempt: str) -> None:
    # A traceback holds the frames, these hold the call, and a call holds its connection: an agent that was started
    # before its coordinator kept a second, unused connection.
    address = f"127.0.0.1:{free_port()}"
    transport = GrpcTransport(address)
    attempts: dict[str, Callable[[], Awaitable[object]]] = {
        "describe": transport.describe,
        "open": lambda: transport.open(specification()),
        "ask": lambda: fetch_run(address),
    }
    assert asyncio.run(_failure(attempts[attempt]))() is None


async def _failure(attempt: Callable[[], Awaitable[object]]) -> "weakref.ref[CospanError]":
    try:
        await attempt()
    except CoordinatorUnavailableError as failure:
        return weakref.ref(failure)
    raise AssertionError("there was an answer")
