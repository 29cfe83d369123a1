"""Streams and calls that the coordinator refuses, each with its reason."""

import asyncio
from dataclasses import replace

import grpc
import grpc.aio
import numpy as np
import pytest
from behaviour.fleets import CALLS, agents_of, channel_to, ends, get_run
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from runs import D, R, join, run, specification, upload

from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.method import Method, full_history
from cospan.server.coordinator import Coordinator
from cospan.server.rpc import service
from cospan.wire import messages as m
from cospan.wire.codec.messages import encode_agent_message


async def refusal(channel: grpc.aio.Channel, *messages: bytes) -> tuple[grpc.StatusCode, str, str]:
    """What a stream ends with that sends these messages: the code, the reason, and the sentence."""
    call = channel.stream_stream(CALLS + "Collaborate")()
    try:
        for message in messages:
            await call.write(message)
        while await call.read() is not grpc.aio.EOF:
            pass
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    details = dict(await call.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    info = ErrorInfo()
    for detail in Status.FromString(details).details:
        assert detail.Unpack(info)
        assert info.domain == "cospan"
    return await call.code(), info.reason, await call.details()


def encoded(message: m.AgentMessage) -> bytes:
    return encode_agent_message(message).SerializeToString()


JOIN = encoded(join("a"))
BAD_STREAMS = {
    "garbage": ([b"\xff\xff\xffgarbage"], grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE"),
    "nothing": ([b""], grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE"),
    "gradient first": ([encoded(upload(0))], grpc.StatusCode.ABORTED, "OUT_OF_TURN"),
    "heartbeat first": ([encoded(m.Heartbeat())], grpc.StatusCode.ABORTED, "OUT_OF_TURN"),
    "two joins": ([JOIN, JOIN], grpc.StatusCode.ABORTED, "OUT_OF_TURN"),
    "garbage later": ([JOIN, b"\xff"], grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE"),
    "gradient too early": ([JOIN, encoded(upload(0))], grpc.StatusCode.ABORTED, "OUT_OF_TURN"),
    "other features": (
        [encoded(join("a", feature_dim=17))],
        grpc.StatusCode.FAILED_PRECONDITION,
        "FEATURE_MISMATCH",
    ),
    "session unknown": (
        [encoded(join("a", resumption=m.Resumption("x", "y", 0)))],
        grpc.StatusCode.NOT_FOUND,
        "SESSION_UNKNOWN",
    ),
}


@pytest.mark.parametrize("name", BAD_STREAMS)
def test_a_stream_that_says_something_wrong_ends_with_a_reason(name: str) -> None:
    messages, code, reason = BAD_STREAMS[name]

    async def refused() -> None:
        async with Coordinator(specification()) as coordinator, channel_to(coordinator.address) as channel:
            answer = await refusal(channel, *messages)
            assert answer[:2] == (code, reason)
            assert answer[2]
            assert (await get_run(channel)).phase is m.RunPhase.WAITING, "the coordinator continues"
            assert not coordinator.engine.streams

    run(refused())


def test_a_message_beyond_the_limit_of_the_run_is_refused() -> None:
    async def refused() -> None:
        async with Coordinator(specification()) as coordinator, channel_to(coordinator.address) as channel:
            code, _, text = await refusal(channel, JOIN, bytes(2_000_000))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger than max" in text
            assert (await get_run(channel)).phase is m.RunPhase.WAITING

    run(refused())


def test_a_stream_that_never_joins_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_JOIN_SECONDS", 0.1)

    async def silent() -> None:
        async with Coordinator(specification()) as coordinator, channel_to(coordinator.address) as channel:
            answer = await refusal(channel)
            assert answer == (grpc.StatusCode.ABORTED, "OUT_OF_TURN", "no Join came within 0.1 s")
            assert not coordinator.engine.streams

    run(silent())


def test_the_bound_is_for_the_join_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_JOIN_SECONDS", 2.0)

    async def joined() -> None:
        async with Coordinator(specification(rounds=1), start_seconds=6.0) as coordinator:
            (end,) = await ends(agents_of(1, coordinator.address))
            assert "only 1 of 2" in end.message

    run(joined())


def test_the_method_and_the_shapes_are_those_of_the_run() -> None:
    """A gradient of another shape, and one without what the run scales its step with."""
    method: Method = full_history(3)

    async def refused() -> None:
        async with (
            Coordinator(specification(method, agents=1)) as coordinator,
            channel_to(coordinator.address) as channel,
        ):
            wrong = replace(upload(0).contribution, gradient=DenseMatrix(np.ones((R, D))))
            for contribution, text in (
                (wrong, "head_second_moment is missing"),
                (replace(wrong, head_second_moment=np.eye(R)), "pooled is missing"),
                (
                    replace(wrong, head_second_moment=np.eye(R), pooled=np.ones(D)),
                    "gradient.dense is 2 × 4; this run needs 4 × 2",
                ),
            ):
                answer = await refusal(channel, JOIN, encoded(m.GradientUpload(0, contribution)))
                assert answer[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
                assert text in answer[2]

    run(refused())
