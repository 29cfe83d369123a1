"""Broken and hostile peers on live streams: each is told what is wrong, and all others come to the same bits."""

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import grpc.aio
import numpy as np
import pytest
from behaviour.raw_client import COLLABORATE, SERVICE, RawStream, joining
from runs import D, R, Ring, States, coin, ring_site, run, specification, until

from cospan.client.agent import Agent
from cospan.client.workload import Site, Workload
from cospan.core.method import practical
from cospan.core.specification import basis_digest
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1 import matrix_pb2
from cospan.server.admission import interceptor
from cospan.server.admission.peer_limits import Kind, limit_of_all, limit_of_peer
from cospan.server.coordinator import Coordinator
from cospan.server.rpc import service
from cospan.wire import errors
from cospan.wire.codec.matrices import encode_matrix
from cospan.wire.errors import CospanError

SPEC = specification(practical(3), agents=2, rounds=8, session_timeout_seconds=3.0)
ATTACKED_ROUND = 3
FINGERPRINT = States().fingerprint
Attack = Callable[[Coordinator], Awaitable[None]]


class Held(Ring):
    """A ring that stands still in its fourth round until the attack is over."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__(0)
        self._gate, self._steps = gate, 0

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        if self._steps == 3 * ATTACKED_ROUND + 1:
            assert self._gate.wait(30.0)
        return super().step(action)


async def refusals(coordinator: Coordinator, reached: Callable[[], bool]) -> None:
    """Waits for something that a refusal brings about."""
    refused = asyncio.Event()
    coordinator.door.on_refusal.append(lambda _: refused.set())
    while not reached():
        refused.clear()
        await refused.wait()


async def digest(attack: Attack | None = None) -> str:
    """The last basis of two honest agents' run, which is attacked in its fourth round."""
    gate = threading.Event()

    def make(index: int, seed: int) -> Site:
        return Site(env=Held(gate), features=States(), policy=coin) if index == 0 else ring_site(index, seed)

    rings = Workload(make_site=make, name="rings")
    async with Coordinator(SPEC) as coordinator:
        state = coordinator.engine.state
        agents = [Agent(rings, index=index, coordinator=coordinator.address) for index in range(2)]
        running = asyncio.gather(*(agent.run_async() for agent in agents))
        try:
            await until(coordinator.engine, lambda: coordinator.engine.state.round == ATTACKED_ROUND)
            if attack is not None:
                await attack(coordinator)
        finally:
            gate.set()
        assert {end.message for end in await running} == {"all 8 rounds are done"}
        state = coordinator.engine.state
        assert {name: state.history.rounds_counted[name] for name in ("site-0", "site-1")} == {
            "site-0": 8,
            "site-1": 8,
        }
        return basis_digest(state.basis)


def unharmed(attack: Attack, seconds: float = 40.0) -> None:
    """The attack changes nothing for the honest agents."""
    assert run(digest(attack), seconds) == run(digest())


# Messages of a stream that has joined ---------------------------------------------------------------------------


def matrix(values: Any, dtype: type = np.float64, **changes: Any) -> matrix_pb2.Matrix:
    message = encode_matrix(np.array(values, dtype=dtype))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def gradient(**changes: Any) -> bytes:
    """A gradient of the open round as the run wants it, with other fields; None leaves one out."""
    fields: dict[str, Any] = {
        "round": ATTACKED_ROUND,
        "weight": 1.0,
        "dense": matrix(np.ones((D, R))),
        "head_second_moment": matrix(np.eye(R)),
        "pooled": matrix(np.ones((D, 1))),
    } | changes
    if "factored" in changes:
        del fields["dense"]
    message = pb.SubspaceGradient(**{name: value for name, value in fields.items() if value is not None})
    return pb.CollaborateRequest(gradient=message).SerializeToString()


def factored(left: Any, right: Any) -> bytes:
    return gradient(factored=pb.FactoredMatrix(left=matrix(left), right=matrix(right)))


def dense(values: Any, **changes: Any) -> bytes:
    return gradient(dense=matrix(values, **changes))


ONES = np.ones((D, R))
WRONG = errors.InvalidMessageError
EARLY = errors.OutOfTurnError
AFTER_JOIN: dict[str, tuple[bytes, type[CospanError]]] = {
    "garbage": (b"\xff\xff\xff\xff", WRONG),
    "text": (b"GET / HTTP/1.1\r\n\r\n", WRONG),
    "nothing": (b"", WRONG),
    "an unknown event": (b"\x7a\x02hi", WRONG),
    "a truncated message": (gradient()[:-7], WRONG),
    "a string that is no text": (b"\x22\x04\x0a\x02\xff\xfe", WRONG),
    "another join": (joining("twice", D, FINGERPRINT), EARLY),
    "a farewell that is too long": (
        pb.CollaborateRequest(leave=pb.Leave(cause="x" * 513)).SerializeToString(),
        WRONG,
    ),
    "no element type": (dense(ONES, data_type=0), WRONG),
    "an unknown element type": (dense(ONES, data_type=77), WRONG),
    "the other element type": (dense(ONES, data_type=matrix_pb2.DATA_TYPE_FLOAT32), WRONG),
    "bytes missing": (dense(ONES, data=bytes(8 * D * R - 1)), WRONG),
    "bytes too many": (dense(ONES, data=bytes(8 * D * R + 8)), WRONG),
    "no bytes": (dense(ONES, data=b""), WRONG),
    "a huge shape": (dense(ONES, rows=2**32 - 1, columns=2**32 - 1), WRONG),
    "another shape": (dense(np.ones((D + 1, R))), WRONG),
    "another rank": (dense(np.ones((D, R + 1))), WRONG),
    "transposed": (dense(np.ones((R, D))), WRONG),
    "not a number": (dense(ONES * math.nan), WRONG),
    "infinite": (dense(ONES * math.inf), WRONG),
    "huge": (dense(ONES * 1e300), WRONG),
    "just too large": (dense(ONES * -1.01e60), WRONG),
    "no payload": (gradient(dense=None), WRONG),
    "no factors": (gradient(factored=pb.FactoredMatrix()), WRONG),
    "too many factors": (factored(np.ones((D, R + 1)), np.ones((R, R + 1))), WRONG),
    "factors that do not fit": (factored(np.ones((D, 2)), np.ones((R, 1))), WRONG),
    "a factor not a number": (factored([[math.nan]] * D, [[1.0]] * R), WRONG),
    "a product that overflows": (factored([[1e200]] * D, [[1e200]] * R), WRONG),
    "weight 0": (gradient(weight=0.0), WRONG),
    "weight negative": (gradient(weight=-1.0), WRONG),
    "weight not a number": (gradient(weight=math.nan), WRONG),
    "weight infinite": (gradient(weight=math.inf), WRONG),
    "weight tiny": (gradient(weight=5e-324), WRONG),
    "weight of two": (gradient(weight=2.0), WRONG),
    "a future round": (gradient(round=ATTACKED_ROUND + 1), EARLY),
    "the last round there can be": (gradient(round=2**64 - 1), EARLY),
    "of another agent": (gradient(agent_ids=["site-0"]), WRONG),
    "of an unknown agent": (gradient(agent_ids=["unknown"]), WRONG),
    "an agent twice": (gradient(agent_ids=["a", "a"]), WRONG),
    "a name that is a path": (gradient(agent_ids=["../../up"]), WRONG),
    "no second moment": (gradient(head_second_moment=None), WRONG),
    "a second moment of another shape": (gradient(head_second_moment=matrix(ONES)), WRONG),
    "a second moment not a number": (gradient(head_second_moment=matrix(np.eye(R) * math.nan)), WRONG),
    "a second moment that makes the step singular": (
        gradient(head_second_moment=matrix(np.diag([1.0, -0.05]))),
        WRONG,
    ),
    "a negative second moment": (gradient(head_second_moment=matrix(-1e50 * np.eye(R))), WRONG),
    "a huge second moment": (gradient(head_second_moment=matrix(1e61 * np.eye(R))), WRONG),
    "no row sums": (gradient(pooled=None), WRONG),
    "row sums of another shape": (gradient(pooled=matrix(np.ones((D + 1, 1)))), WRONG),
    "negative row sums": (gradient(pooled=matrix(-np.ones((D, 1)))), WRONG),
    "row sums not a number": (gradient(pooled=matrix(np.full((D, 1), math.nan))), WRONG),
    "huge row sums": (gradient(pooled=matrix(np.full((D, 1), 1e300))), WRONG),
    "a message as no group can send it": (bytes(1 << 20), errors.MessageTooLargeError),
}


def test_whatever_is_wrong_with_a_message_its_sender_is_told_and_nobody_is_harmed() -> None:
    """All of them in one round of one run, each from an agent of its own."""

    async def attack(coordinator: Coordinator) -> None:
        async def one(number: int, data: bytes, expected: type[CospanError]) -> None:
            async with RawStream(coordinator.address) as stream:
                await stream.join(f"bad-{number}", D, FINGERPRINT)
                await stream.send(data)
                told[number] = await stream.refusal()

        told: dict[int, CospanError] = {}
        # Half the fleet's places are for streams that have not joined: so not all of them at once.
        for number, (data, expected) in enumerate(AFTER_JOIN.values()):
            await one(number, data, expected)
        for (name, (_, expected)), error in zip(AFTER_JOIN.items(), told.values(), strict=True):
            assert type(error) is expected, f"{name}: {error!r}"
        assert not coordinator.engine.state.open_round.counted - {"site-1"}

    unharmed(attack)


# The first message of a stream ----------------------------------------------------------------------------------


def join(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "instance_id": "raw",
        "agent_ids": ["bad"],
        "feature_dim": D,
        "feature_fingerprint": FINGERPRINT,
    } | changes
    return pb.CollaborateRequest(join=pb.Join(**fields)).SerializeToString()


def resumption(token: str = "guessed", run_id: str = "") -> pb.SessionResumption:
    return pb.SessionResumption(session_token=token, run_id=run_id)


HEARTBEAT = pb.CollaborateRequest(heartbeat=pb.Heartbeat()).SerializeToString()
FIRST: dict[str, tuple[bytes, type[CospanError]]] = {
    "garbage": (b"\xff\xff\xff\xff", WRONG),
    "nothing": (b"", WRONG),
    "a truncated join": (join()[:-3], WRONG),
    "a heartbeat": (HEARTBEAT, EARLY),
    "a gradient": (gradient(), EARLY),
    "a farewell": (pb.CollaborateRequest(leave=pb.Leave()).SerializeToString(), EARLY),
    "another dimension": (join(feature_dim=D + 1), errors.FeatureMismatchError),
    "the largest dimension": (join(feature_dim=2**32 - 1), errors.FeatureMismatchError),
    "another feature map": (join(feature_fingerprint="other"), errors.FeatureMismatchError),
    "no feature map": (join(feature_fingerprint=""), WRONG),
    "a long feature map": (join(feature_fingerprint="x" * 257), WRONG),
    "no instance": (join(instance_id=""), WRONG),
    "a long instance": (join(instance_id="x" * 65), WRONG),
    "neither names nor claim": (join(agent_ids=[]), WRONG),
    "names and claim": (join(site_claim_id="h"), WRONG),
    "a claim that is a path": (join(agent_ids=[], site_claim_id="a/b"), WRONG),
    "a name twice": (join(agent_ids=["a", "a"]), WRONG),
    "a name that is a path": (join(agent_ids=["../up"]), WRONG),
    "a name with a line break": (join(agent_ids=["a\nforged"]), WRONG),
    "a long name": (join(agent_ids=["x" * 65]), WRONG),
    "more names than a process may host": (
        join(agent_ids=[f"{number:x}" for number in range(65_537)]),
        errors.MessageTooLargeError,
    ),
    "a long workload": (join(workload="x" * 257), WRONG),
    "a long version": (join(client_version="x" * 65), WRONG),
    "the name of a live agent": (join(agent_ids=["site-1"]), errors.AgentIdTakenError),
    "a group with a live agent": (join(agent_ids=["other", "site-0"]), errors.AgentIdTakenError),
    "a token that was guessed": (join(resumption=resumption()), errors.SessionUnknownError),
    "a long token": (join(resumption=resumption("x" * 129)), WRONG),
    "a long run": (join(resumption=resumption(run_id="x" * 129)), WRONG),
}


def test_whatever_is_wrong_with_a_join_nobody_gets_in() -> None:
    async def attack(coordinator: Coordinator) -> None:
        for name, (data, expected) in FIRST.items():
            async with RawStream(coordinator.address) as stream:
                await stream.send(data)
                error = await stream.refusal()
                assert type(error) is expected, f"{name}: {error!r}"
        assert set(coordinator.engine.state.members.hosts) == {"site-0", "site-1"}
        assert not coordinator.engine.state.members.departures

    unharmed(attack)


def test_the_token_of_another_process_opens_nothing() -> None:
    async def attack(coordinator: Coordinator) -> None:
        state = coordinator.engine.state
        for session in state.members.sessions.values():
            stolen = resumption(session.token, state.config.run_id)
            async with RawStream(coordinator.address) as stream:
                await stream.send(join(agent_ids=["bad"], resumption=stolen))
                assert type(await stream.refusal()) is errors.SessionUnknownError

    unharmed(attack)


# What changes nothing ---------------------------------------------------------------------------------------------


def test_late_and_repeated_gradients_are_acknowledged_and_change_nothing() -> None:
    async def attack(coordinator: Coordinator) -> None:
        async with RawStream(coordinator.address) as stream:
            await stream.join("late", D, FINGERPRINT)
            for number in range(ATTACKED_ROUND):
                await stream.send(gradient(round=number))
                receipt = (await stream.receive()).receipt
                assert (receipt.gradient_round, receipt.disposition) == (number, pb.GRADIENT_DISPOSITION_LATE)

    unharmed(attack)


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
                async with asyncio.timeout(10.0):
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
                    await ask(b"", timeout=10.0)
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
