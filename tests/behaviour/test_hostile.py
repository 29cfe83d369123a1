"""Messages that are wrong, late or repeated: their sender is told, and no other agent is harmed."""

import math
from typing import Any

import numpy as np
from behaviour.attacks import ATTACKED_ROUND, EARLY, FINGERPRINT, HEARTBEAT, WRONG, gradient, matrix, unharmed
from behaviour.raw_client import RawStream, joining
from runs import D, R

from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1 import matrix_pb2
from cospan.server.coordinator import Coordinator
from cospan.wire import errors
from cospan.wire.errors import CospanError

# Messages of a stream that has joined ---------------------------------------------------------------------------


def factored(left: Any, right: Any) -> bytes:
    return gradient(factored=pb.FactoredMatrix(left=matrix(left), right=matrix(right)))


def dense(values: Any, **changes: Any) -> bytes:
    return gradient(dense=matrix(values, **changes))


ONES = np.ones((D, R))
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
