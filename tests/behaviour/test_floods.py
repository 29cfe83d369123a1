"""Peers that send or ask too much, open too many streams, say nothing, or do not listen."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import grpc.aio
import pytest
from behaviour.attacks import EARLY, FINGERPRINT, HEARTBEAT, SPEC, WRONG, gradient, unharmed
from behaviour.raw_client import COLLABORATE, SERVICE, RawStream, joining
from runs import SECONDS, D, ring_site, run, specification, until

from cospan.client.agent import Agent
from cospan.client.workload import Workload
from cospan.server.admission import interceptor
from cospan.server.admission.peer_limits import Kind, limit_of_all, limit_of_peer
from cospan.server.coordinator import Coordinator
from cospan.server.rpc import service
from cospan.wire import errors
from cospan.wire.errors import CospanError


async def refusals(coordinator: Coordinator, reached: Callable[[], bool]) -> None:
    """Waits for something that a refusal brings about."""
    refused = asyncio.Event()
    coordinator.door.on_refusal.append(lambda _: refused.set())
    while not reached():
        refused.clear()
        await refused.wait()


# Floods -----------------------------------------------------------------------------------------------------------


LARGE = HEARTBEAT + b"\x7a\xff\xff\x03" + bytes(65_535)
"""With an unknown field, about as large as a message may be."""
FLOODS = {"heartbeats": HEARTBEAT, "late gradients": gradient(round=0), "large heartbeats": LARGE}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_cut_off(name: str) -> None:
    async def attack(coordinator: Coordinator) -> None:
        async with RawStream(coordinator.address) as stream:
            await stream.join("flood", D, FINGERPRINT)
            sending = asyncio.create_task(_send_for_ever(stream, FLOODS[name]))
            error = await stream.refusal()
            # To who is just writing when a call ends, gRPC says INTERNAL, whatever it was ended with.
            assert isinstance(error, errors.RateLimitedError | errors.InternalError)
            await sending
            await refusals(coordinator, lambda: coordinator.door.refused == {"RATE_LIMITED": 1})

    unharmed(attack)


async def _send_for_ever(stream: RawStream, data: bytes) -> None:
    while await stream.send(data):
        pass


def test_a_peer_that_opens_many_streams_is_refused_and_gives_nobody_s_place_away() -> None:
    most = limit_of_peer(Kind.STREAM, SPEC.agents).unjoined

    async def attack(coordinator: Coordinator) -> None:
        async with AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(RawStream(coordinator.address)) for _ in range(most + 20)]
            refused = asyncio.Event()

            async def told(stream: RawStream) -> CospanError:
                error = await stream.refusal()
                refused.set()
                return error

            waiting = [asyncio.create_task(told(stream)) for stream in streams]
            while sum(task.done() for task in waiting) < 20:
                refused.clear()
                async with asyncio.timeout(SECONDS):
                    await refused.wait()
            ended = [task.result() for task in waiting if task.done()]
            assert {type(error) for error in ended} == {errors.TooManyStreamsError}
            assert len(ended) == 20, "the others hold their places"
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    unharmed(attack)


def test_an_agent_that_finds_all_places_taken_tries_again() -> None:
    most = limit_of_peer(Kind.STREAM, 1).unjoined

    async def squatted() -> None:
        async with Coordinator(replace(SPEC, agents=1)) as coordinator, AsyncExitStack() as stack:
            squatters = [await stack.enter_async_context(RawStream(coordinator.address)) for _ in range(most + 5)]
            (first, *_), _ = await asyncio.wait(
                {asyncio.create_task(squatter.refusal()) for squatter in squatters},
                return_when=asyncio.FIRST_COMPLETED,
            )
            assert type(first.result()) is errors.TooManyStreamsError
            agent = Agent(ring_workload(), index=0, coordinator=coordinator.address)
            async with agent:
                await refusals(coordinator, lambda: coordinator.door.refused["TOO_MANY_STREAMS"] >= 7)
                await stack.aclose()
                assert (await agent.wait()).rounds == SPEC.rounds

    run(squatted())


def ring_workload() -> Workload:
    return Workload(make_site=ring_site, name="rings")


CALLS = {
    "what the run is": (SERVICE + "GetSpecification", Kind.CALL),
    "how it is": ("/grpc.health.v1.Health/Check", Kind.CALL),
    "how the run stands": (SERVICE + "GetRun", Kind.LOOK),
}


@pytest.mark.parametrize("name", CALLS)
def test_whoever_asks_too_often_is_told_to_wait(name: str) -> None:
    method, kind = CALLS[name]
    limit = limit_of_peer(kind, SPEC.agents)

    async def attack(coordinator: Coordinator) -> None:
        async with grpc.aio.insecure_channel(coordinator.address) as channel:
            ask = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
            codes = []
            for _ in range(int(4 * limit.burst)):
                try:
                    await ask(b"", timeout=SECONDS)
                except grpc.aio.AioRpcError as failure:
                    codes.append(failure.code())
        assert codes, "nothing was refused"
        assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert coordinator.door.refused["RATE_LIMITED"] == len(codes)

    unharmed(attack)


def test_watchers_have_a_limit() -> None:
    most = limit_of_peer(Kind.WATCH, SPEC.agents).at_once

    async def attack(coordinator: Coordinator) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(most):
                watcher = await stack.enter_async_context(RawStream(coordinator.address, SERVICE + "WatchRounds"))
                await watcher.send(b"")
                await watcher.receive()
            one_more = await stack.enter_async_context(
                RawStream(coordinator.address, "/grpc.health.v1.Health/Watch")
            )
            assert type(await one_more.refusal()) is errors.TooManyStreamsError
        assert most < limit_of_all(Kind.WATCH, SPEC.agents).at_once

    unharmed(attack)


# Those who say nothing, or do not listen ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [COLLABORATE, SERVICE + "GetBasis", SERVICE + "WatchRounds", "/grpc.health.v1.Health/Check"]
)
def test_a_call_without_a_request_does_not_stay_open(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptor, "_REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(service, "_JOIN_SECONDS", 0.2)

    async def attack(coordinator: Coordinator) -> None:
        async with RawStream(coordinator.address, method) as stream:
            assert type(await stream.refusal()) is (EARLY if method == COLLABORATE else WRONG)

    unharmed(attack)


def test_a_stream_that_never_reads_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run whose basis is larger than what gRPC sends ahead."""
    monkeypatch.setattr(service, "_LAST_WORDS_SECONDS", 0.2)
    wide = replace(specification(rounds=0), feature_dim=50_000, rank=8, agents=1, round_timeout_seconds=0.5)
    ahead = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535))

    async def unread() -> None:
        async with Coordinator(wide) as coordinator, RawStream(coordinator.address, options=ahead) as stream:
            await stream.send(joining("deaf", 50_000, "any"))
            await until(coordinator.engine, lambda: "deaf" in coordinator.engine.state.members.departures)
            await refusals(coordinator, lambda: coordinator.door.refused["UNREAD"] == 1)

    run(unread())
