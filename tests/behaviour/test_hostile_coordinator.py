"""A coordinator that means harm: whatever it sends, an agent ends in time, with a typed and printable reason."""

import asyncio
import dataclasses
import re
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from runs import RINGS, States, run, specification

from cospan.cli.processes.admin_client import fetch_run, stop_run, watch_rounds
from cospan.client.agent import Agent, ClientSettings
from cospan.client.files.result_file import load_result
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1 import run_pb2
from cospan.wire import errors
from cospan.wire import messages as m
from cospan.wire.codec.messages import encode_coordinator_message, encode_stamp
from cospan.wire.codec.reports import encode_run_report
from cospan.wire.codec.specification import encode_specification
from cospan.wire.text import MAX_SENTENCE

SERVICE = pb.DESCRIPTOR.services_by_name["CoordinatorService"].full_name
SPEC = dataclasses.replace(specification(rounds=0), feature_fingerprint=States().fingerprint)
BASIS = SPEC.initial_basis()
STAMP = m.Stamp("run-1", 1, 0, 0)
WELCOME = m.Welcome(STAMP, "token", SPEC, BASIS, 0, started=True, agent_ids=("site-0",))
ESCAPES = "\x1b[2J\x9b31m\u202e\nround 9: finished\x7f\0"
MOST_MEMORY = 32 << 20

Change = Callable[[Any], object]


class Script:
    """What a coordinator says, whatever it is asked: to an inquiry, and then over each stream."""

    def __init__(
        self, description: run_pb2.RunSpecification, told: Sequence[pb.CollaborateResponse], end: grpc.StatusCode
    ) -> None:
        self.description, self.told, self.end = description, told, end
        self.details, self.trailers = "over", tuple[tuple[str, str | bytes], ...]()
        self.report = pb.GetRunResponse()
        self.rounds: Sequence[pb.WatchRoundsResponse] = ()
        self.compression: grpc.Compression | None = None

    async def describe(self, _request: Any, _context: Any) -> pb.GetSpecificationResponse:
        return pb.GetSpecificationResponse(specification=self.description)

    async def collaborate(self, _requests: AsyncIterator[Any], context: Any) -> None:
        if self.compression is not None:
            context.set_compression(self.compression)
        await context.read()
        for response in self.told:
            await context.write(response)
        await self.over(context)

    async def over(self, context: Any) -> None:
        await context.abort(self.end, self.details, self.trailers)

    async def look(self, _request: Any, context: Any) -> Any:
        if self.end is not grpc.StatusCode.OK:
            await self.over(context)
        return self.report

    async def stop(self, _request: Any, _context: Any) -> Any:
        return pb.StopRunResponse(stamp=self.report.stamp)

    async def watch(self, _request: Any, context: Any) -> None:
        for report in self.rounds:
            await context.write(report)


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """The address of a server that plays it."""
    server = grpc.aio.server(options=[("grpc.max_metadata_size", 1 << 20), ("grpc.max_send_message_length", -1)])
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    methods = {
        "GetSpecification": unary(script.describe, None, pb.GetSpecificationResponse.SerializeToString),
        "Collaborate": stream(script.collaborate, None, pb.CollaborateResponse.SerializeToString),
        "GetRun": unary(script.look, None, pb.GetRunResponse.SerializeToString),
        "StopRun": unary(script.stop, None, pb.StopRunResponse.SerializeToString),
        "WatchRounds": grpc.unary_stream_rpc_method_handler(
            script.watch, None, pb.WatchRoundsResponse.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def changed(message: m.CoordinatorMessage, change: Change | None = None, **values: Any) -> pb.CollaborateResponse:
    """A message of the coordinator, of which something is then not as it should be."""
    response = encode_coordinator_message(dataclasses.replace(message, **values))
    if change is not None:
        change(response)
    return response


def described(change: Change | None = None) -> run_pb2.RunSpecification:
    spec = encode_specification(SPEC)
    if change is not None:
        change(spec)
    return spec


def having(path: str, value: Any) -> Change:
    """Sets a field of a message, named by its path."""

    def change(message: Any) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, name, value)

    return change


async def ended(script: Script, **values: Any) -> tuple[errors.CospanError, int]:
    """What an agent ends with, and how much memory Python took for it at most."""
    async with serving(script) as address:
        settings = ClientSettings(**{"progress_timeout_seconds": 60.0} | values)
        agent = Agent(RINGS, index=0, coordinator=address, settings=settings)
        tracemalloc.start()
        try:
            with pytest.raises(errors.CospanError) as refusal:
                await agent.run_async()
            return refusal.value, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def refused(script: Script, kind: type[errors.CospanError], words: str) -> None:
    error, memory = run(ended(script))
    assert (type(error), words in str(error)) == (kind, True), f"{type(error).__name__}: {error}"
    assert str(error).isprintable()
    assert len(str(error)) <= MAX_SENTENCE + 200
    assert memory < MOST_MEMORY


# What the run is ------------------------------------------------------------------------------------------------

INVALID, MISMATCH = errors.InvalidMessageError, errors.FeatureMismatchError
DESCRIPTIONS: dict[str, tuple[Change, type[errors.CospanError], str]] = {
    "2^31 steps": (
        having("method.steps_per_round", 2**31),
        errors.RunTooLargeError,
        "2147483648 steps a round with 4",
    ),
    "session timeout of nothing": (
        having("session_timeout_seconds", 1e-300),
        INVALID,
        "session_timeout_seconds is 1e-300",
    ),
    "endless session timeout": (
        having("session_timeout_seconds", 1e300),
        INVALID,
        "session_timeout_seconds is 1e+300",
    ),
    "a round for ever": (having("round_timeout_seconds", 1e308), INVALID, "round_timeout_seconds is 1e+308"),
    "a rank of a million": (having("rank", 10**6), INVALID, "rank is 1000000"),
    "2^24 features": (having("feature_dim", 2**24), MISMATCH, "have dimension 4, those of the run 16777216"),
    "both": (lambda spec: (having("feature_dim", 2**24)(spec), having("rank", 10**6)(spec)), INVALID, "a message"),
    "other features": (having("feature_fingerprint", "others"), MISMATCH, "'others'"),
    "more agents than there are": (having("agents", 2**32 - 1), INVALID, "agents is 4294967295"),
    "an escaping workload": (having("workload", ESCAPES), INVALID, "U+001B"),
    "an escaping fingerprint": (having("feature_fingerprint", ESCAPES), INVALID, "U+001B"),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_run_that_cannot_be_is_not_joined(name: str) -> None:
    change, kind, words = DESCRIPTIONS[name]
    told = [changed(WELCOME)]
    refused(Script(described(change), told, grpc.StatusCode.UNAVAILABLE), kind, words)


# What it is told over its stream --------------------------------------------------------------------------------

UPDATE = m.BasisUpdate(dataclasses.replace(STAMP, round=1, durable_round=1), BASIS)
FINISH = m.Finish(UPDATE.stamp, m.FinishCause.STOPPED, "it is over", BASIS)
CONVERSATIONS: dict[str, tuple[list[pb.CollaborateResponse], type[errors.CospanError], str]] = {
    "another specification": (
        [changed(WELCOME, having("welcome.specification.method.steps_per_round", 2**31))],
        errors.ForeignRunError,
        "is not the one",
    ),
    "other features": (
        [changed(WELCOME, having("welcome.specification.feature_fingerprint", "others"))],
        errors.ForeignRunError,
        "is not the one",
    ),
    "other agents": ([changed(WELCOME, agent_ids=("site-1",))], INVALID, "welcomes agent site-1"),
    "a thousand agents": (
        [changed(WELCOME, agent_ids=tuple(f"site-{index}" for index in range(1000)))],
        INVALID,
        "welcomes 1000 agents",
    ),
    "a name that escapes": ([changed(WELCOME, agent_ids=(ESCAPES,))], INVALID, "agent id"),
    "a token that escapes": ([changed(WELCOME, session_token=ESCAPES)], INVALID, "U+001B"),
    "a run that escapes": ([changed(WELCOME, having("stamp.run_id", ESCAPES))], INVALID, "U+001B"),
    "the last round": ([changed(WELCOME, having("stamp.round", 2**64 - 1))], INVALID, "18446744073709551615"),
    "the last incarnation": ([changed(WELCOME, having("stamp.incarnation", 2**64 - 1))], INVALID, "incarnation"),
    "a first round far away": ([changed(WELCOME, first_round=2**64 - 1)], INVALID, "first_round"),
    "a huge basis": ([changed(WELCOME, basis=1e300 * BASIS)], INVALID, "orthonormal"),
    "a basis of another shape": ([changed(WELCOME), changed(UPDATE, basis=BASIS.T)], INVALID, "2 × 4"),
    "a huge basis later": ([changed(WELCOME), changed(UPDATE, basis=1e300 * BASIS)], INVALID, "orthonormal"),
    "a round before what is stored": (
        [
            changed(WELCOME),
            changed(UPDATE, stamp=m.Stamp("run-1", 1, 9, 9)),
            changed(UPDATE, stamp=m.Stamp("run-1", 1, 3, 9)),
        ],
        errors.OutOfTurnError,
        "back to round 3",
    ),
    "a second welcome": ([changed(WELCOME), changed(WELCOME)], errors.OutOfTurnError, "out of turn"),
    "nothing": ([pb.CollaborateResponse()], INVALID, "no event"),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_what_cannot_be_ends_with_its_reason(name: str) -> None:
    told, kind, words = CONVERSATIONS[name]
    refused(Script(described(), told, grpc.StatusCode.UNAVAILABLE), kind, words)


def test_what_is_compressed_is_not_read() -> None:
    """Messages are not compressed, so a small one cannot unpack to a large one."""
    script = Script(described(), [changed(WELCOME, session_token="0" * 128)], grpc.StatusCode.UNAVAILABLE)
    script.compression = grpc.Compression.Gzip
    error, _ = run(ended(script, progress_timeout_seconds=3.0))
    assert isinstance(error, errors.CoordinatorUnavailableError), "nothing that was said has been read"
    ends = "broke off", "has not answered the join"  # the last attempt's; it may have been under way
    assert any(end in str(error) for end in ends), str(error)


def status_details(*infos: ErrorInfo) -> bytes:
    status = Status(code=3, message=ESCAPES)
    for info in infos:
        detail = AnyMessage()
        detail.Pack(info)
        status.details.append(detail)
    return status.SerializeToString()


REASON = ErrorInfo(reason="IDENTITY_MISMATCH", domain="cospan", metadata={ESCAPES: ESCAPES})
ODD = ErrorInfo(reason=ESCAPES, domain="cospan")
ENDS: dict[str, tuple[tuple[tuple[str, str | bytes], ...], type[errors.CospanError]]] = {
    "a reason with odd metadata": (
        (("grpc-status-details-bin", status_details(REASON)),),
        errors.IdentityMismatchError,
    ),
    "a reason that escapes": ((("grpc-status-details-bin", status_details(ODD)),), errors.InternalError),
    "trailers without end": (
        tuple((f"x-{number}", "y" * 1000) for number in range(200)),
        errors.MessageTooLargeError,
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_error_is_shown_in_printable_words(name: str) -> None:
    trailers, kind = ENDS[name]
    script = Script(described(), [changed(WELCOME)], grpc.StatusCode.INVALID_ARGUMENT)
    script.details, script.trailers = f"no{ESCAPES}{'x' * 2000}", trailers
    refused(script, kind, "")


# What stays -----------------------------------------------------------------------------------------------------


def test_what_was_learnt_stays_in_its_file(tmp_path: Path) -> None:
    """Two rounds are learnt before the coordinator sends what cannot be."""
    script = Script(described(), [], grpc.StatusCode.UNAVAILABLE)

    async def collaborate(_requests: Any, context: Any) -> None:
        await context.read()
        await context.write(changed(WELCOME))
        for number in (1, 2):
            await context.read()  # the gradient of the round before
            await context.write(changed(UPDATE, stamp=m.Stamp("run-1", 1, number, number)))
        await context.read()
        await context.write(changed(UPDATE, having("stamp.round", 2**64 - 1)))

    script.collaborate = collaborate  # type: ignore[method-assign]
    path = tmp_path / "site-0.npz"
    error, _ = run(ended(script, state_file=path))
    assert isinstance(error, INVALID)
    found = load_result(path)
    assert (found.text("run_id"), found.text("agent_id"), int(found.array("last_round"))) == ("run-1", "site-0", 2)


def test_the_last_words_are_printable_and_bounded() -> None:
    async def told() -> str:
        last = changed(FINISH, having("finish.message", ESCAPES + "x" * 10_000))
        async with serving(Script(described(), [changed(WELCOME), last], grpc.StatusCode.OK)) as address:
            return (await Agent(RINGS, index=0, coordinator=address).run_async()).message

    message = run(told())
    assert message.isprintable()
    assert len(message) == 512


# Observers ------------------------------------------------------------------------------------------------------

REPORT = m.RunReport(
    STAMP,
    SPEC,
    m.RunPhase.COLLECTING,
    1.0,
    (m.AgentReport("site-0", m.AgentPhase.GONE, 1.0, False, 0, 0, 0, "silent"),),
)
REPORTS: dict[str, tuple[Change, str]] = {
    "an agent that escapes": (lambda report: having("agent_id", ESCAPES)(report.agents[0]), "agent id"),
    "a run that escapes": (having("stamp.run_id", ESCAPES), "U+001B"),
    "silent for ever": (
        lambda report: having("seconds_since_last_message", 1e300)(report.agents[0]),
        "seconds_since_last_message",
    ),
    "silent for NaN": (
        lambda report: having("seconds_since_last_message", float("nan"))(report.agents[0]),
        "seconds_since_last_message",
    ),
    "a phase for ever": (having("phase_seconds", float("inf")), "phase_seconds"),
    "more rounds a second": (having("rounds_per_second", float("nan")), "rounds_per_second"),
    "more agents": (lambda report: [report.agents.add(agent_id="a") for _ in range(8201)], "8202 agents"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_an_observer_is_not_shown_what_cannot_be(name: str) -> None:
    change, words = REPORTS[name]
    script = Script(described(), [], grpc.StatusCode.OK)
    script.report = encode_run_report(REPORT)
    change(script.report)

    async def looked() -> None:
        async with serving(script) as address:
            with pytest.raises(INVALID, match=re.escape(words)) as refusal:
                await fetch_run(address)
            assert str(refusal.value).isprintable()
            if "run" in name:
                with pytest.raises(INVALID, match=re.escape(words)):
                    await stop_run(address, "")

    run(looked())


def test_why_an_agent_is_gone_is_shown_in_printable_words() -> None:
    script = Script(described(), [], grpc.StatusCode.OK)
    script.report = encode_run_report(REPORT)
    script.report.agents[0].gone_cause = ESCAPES + "x" * 10_000
    script.rounds = [pb.WatchRoundsResponse(stamp=encode_stamp(STAMP), departed_agent_ids=[ESCAPES])]

    async def looked() -> str:
        async with serving(script) as address:
            report = await fetch_run(address)
            rounds = watch_rounds(address, from_round=0, include_basis=False, message_bytes=1 << 20)
            with pytest.raises(INVALID, match="agent id"):
                await anext(rounds)
            return report.agents[0].gone_cause

    cause = run(looked())
    assert cause.isprintable()
    assert len(cause) == 1024


def test_two_at_once_are_refused_alike() -> None:
    """A refusal is of one agent, and cached nowhere."""

    async def both() -> list[errors.CospanError]:
        script = Script(described(having("method.steps_per_round", 2**31)), [], grpc.StatusCode.UNAVAILABLE)
        async with serving(script) as address:
            agents = [Agent(RINGS, index=index, coordinator=address) for index in range(2)]
            return await asyncio.gather(*(agent.run_async() for agent in agents), return_exceptions=True)  # type: ignore[return-value]

    assert [type(error) for error in run(both())] == [errors.RunTooLargeError] * 2
