"""A coordinator whose event loop hangs while gRPC keeps its connections alive: every wait for it has an end."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from runs import RINGS, SECONDS, run, specification

from cospan.client.agent import Agent, ClientSettings
from cospan.relay.engine import RelaySettings
from cospan.relay.relay import Relay
from cospan.server.coordinator import Coordinator
from cospan.wire.errors import CoordinatorUnavailableError

PROGRESS_TIMEOUT = 2.0


@contextmanager
def hanging_coordinator(agents: int) -> Iterator[str]:
    """The address of a coordinator in a thread of its own; its loop hangs when the first round is closed."""
    listening, released = threading.Event(), threading.Event()
    found: list[str] = []
    stop: list[asyncio.Event] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        spec = specification(agents=agents, rounds=0)
        async with Coordinator(spec) as coordinator:
            coordinator.engine.on_round.append(lambda _: released.wait(SECONDS))
            found.append(coordinator.address)
            stop.append(asyncio.Event())
            loops.append(asyncio.get_running_loop())
            listening.set()
            await stop[0].wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert listening.wait(SECONDS)
        yield found[0]
    finally:
        released.set()
        loops[0].call_soon_threadsafe(stop[0].set)
        thread.join()


def test_an_agent_and_a_relay_give_up_a_coordinator_whose_event_loop_hangs() -> None:
    async def gave_up(address: str) -> list[CoordinatorUnavailableError]:
        async with Relay(
            address, settings=RelaySettings(progress_timeout_seconds=PROGRESS_TIMEOUT, gather_agents=1)
        ) as relay:
            behind = asyncio.create_task(Agent(RINGS, index=1, coordinator=relay.address).run_async())
            with pytest.raises(CoordinatorUnavailableError) as of_agent:
                await Agent(
                    RINGS,
                    index=0,
                    coordinator=address,
                    settings=ClientSettings(progress_timeout_seconds=PROGRESS_TIMEOUT),
                ).run_async()
            with pytest.raises(CoordinatorUnavailableError) as of_relay:
                await relay.wait()
            behind.cancel()
            await asyncio.wait({behind})
        return [of_agent.value, of_relay.value]

    with hanging_coordinator(agents=2) as address:
        for failure in run(gave_up(address)):
            assert failure.reason == "COORDINATOR_UNAVAILABLE"
            assert "the stream to the coordinator is open, but the coordinator does not answer" in str(failure)
