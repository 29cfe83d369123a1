"""The gRPC methods: decode and check, let the machine decide, run its commands, encode."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.server.access import peer_identity
from cospan.server.engine import Engine, Stream
from cospan.server.events import (
    GradientArrived,
    HeartbeatArrived,
    JoinRequested,
    LeaveArrived,
    StreamClosed,
)
from cospan.server.reporting import run_report
from cospan.wire.codec import decode_agent_message, encode_matrix, encode_specification, encode_stamp
from cospan.wire.errors import InternalError, InvalidMessageError, OutOfTurnError, RemoteError
from cospan.wire.identity import Identity, Right
from cospan.wire.limits import MAX_TEXT
from cospan.wire.messages import AgentMessage, GradientUpload, Heartbeat, Join, Leave
from cospan.wire.reports import encode_round_report, encode_run_report
from cospan.wire.status import to_trailing_metadata

_JOIN_SECONDS = 20.0
"""How long a stream may stay open without a Join."""

_FAREWELL_SECONDS = 1.0
"""How long a stream waits, after the last message, for the other side to end it."""

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class CoordinatorService:
    """`cospan.rpc.v1.CoordinatorService` over an `Engine`."""

    def __init__(self, engine: Engine, stop: Callable[[str], None]) -> None:
        """Serves an engine; `stop` ends its run, with a sentence that says why."""
        self._engine, self._stop = engine, stop

    async def collaborate(self, _requests: AsyncIterator[pb.CollaborateRequest], context: Context) -> None:
        """One agent process' stream: a task reads, this coroutine writes and decides when the stream ends."""
        stream = self._engine.open_stream()
        reader = asyncio.create_task(self._read(stream, context))
        try:
            await _write(stream, context)
            if stream.error is None:
                # Ending the call first would reset the other half of it, and some clients (grpclib) then throw away
                # what they have received and not read: the Finish.
                await asyncio.wait({reader}, timeout=_FAREWELL_SECONDS)
        finally:
            reader.cancel()
            self._engine.forget_stream(stream)
            if stream.token is not None:
                self._engine.handle(StreamClosed(stream.token, stream.number))
        if stream.error is not None:
            await _abort(context, stream.error)

    async def _read(self, stream: Stream, context: Context) -> None:
        """Feeds the machine with what the agent says, until it stops speaking or says something wrong."""
        try:
            identity = peer_identity(context)
            async with asyncio.timeout(_JOIN_SECONDS):
                request = await context.read()
            while request is not grpc.aio.EOF:
                if not stream.closed:
                    self._receive(stream, decode_agent_message(request, self._engine.state.specification), identity)
                request = await context.read()
        except RemoteError as refusal:
            stream.close(refusal)
        except DecodeError:
            stream.close(InvalidMessageError("the bytes are no CollaborateRequest of cospan.rpc.v1"))
        except TimeoutError:
            stream.close(OutOfTurnError(f"no Join came within {_JOIN_SECONDS:g} s"))
        except (grpc.aio.UsageError, grpc.RpcError):
            stream.close(None)  # the peer is gone
        except Exception:
            stream.close(InternalError("the coordinator failed; its log says how"))
            raise
        else:
            stream.close(None)

    def _receive(self, stream: Stream, message: AgentMessage, identity: Identity) -> None:
        token = stream.token
        if token is None:
            if not isinstance(message, Join):
                raise OutOfTurnError("the first message of a stream must be a Join")
            identity.require_agents(message.agent_ids)  # of a join that resumes, too: a token is no certificate
            self._engine.handle(JoinRequested(message, stream.number, secrets.token_urlsafe(24)))
            return
        match message:
            case GradientUpload():
                self._engine.handle(GradientArrived(token, message))
            case Heartbeat():
                self._engine.handle(HeartbeatArrived(token))
            case Leave(cause=cause, returning=returning):
                self._engine.handle(LeaveArrived(token, cause, returning))
                stream.close(None)
            case Join():
                raise OutOfTurnError("this stream has joined already")

    async def get_specification(
        self, _request: pb.GetSpecificationRequest, _context: Context
    ) -> pb.GetSpecificationResponse:
        """What the run is."""
        state = self._engine.state
        return pb.GetSpecificationResponse(
            stamp=encode_stamp(state.stamp), specification=encode_specification(state.specification)
        )

    async def get_run(self, _request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """The run as it stands."""
        peer_identity(context).require(Right.READ)
        return encode_run_report(run_report(self._engine))

    async def get_basis(self, _request: pb.GetBasisRequest, context: Context) -> pb.GetBasisResponse:
        """The newest basis."""
        peer_identity(context).require(Right.READ)
        state = self._engine.state
        return pb.GetBasisResponse(stamp=encode_stamp(state.stamp), basis=encode_matrix(state.basis))

    async def watch_rounds(
        self, request: pb.WatchRoundsRequest, context: Context
    ) -> AsyncIterator[pb.WatchRoundsResponse]:
        """Each round as it closes."""
        try:
            peer_identity(context).require(Right.READ)
        except RemoteError as refusal:
            await _abort(context, refusal)
        async for report in self._engine.history.follow(request.from_round):
            yield encode_round_report(report, include_basis=request.include_basis)

    async def stop_run(self, request: pb.StopRunRequest, context: Context) -> pb.StopRunResponse:
        """Ends the run in order; a run that is over stays as it is."""
        identity = peer_identity(context)
        identity.require(Right.STOP)
        if len(request.cause) > MAX_TEXT:
            raise InvalidMessageError(f"cause has {len(request.cause)} characters; it may have {MAX_TEXT}")
        said = f": {request.cause}" if request.cause else ""
        self._stop(f"it was stopped by {identity.name}{said}")
        return pb.StopRunResponse(stamp=encode_stamp(self._engine.state.stamp))


async def _write(stream: Stream, context: Context) -> None:
    """Writes what is queued until the stream is closed; an error overtakes what is queued."""
    while True:
        stream.wake.clear()
        while stream.outbox and stream.error is None:
            await context.write(stream.outbox.popleft()[0])
        if stream.closed and (stream.error is not None or not stream.outbox):
            return
        await stream.wake.wait()


async def _abort(context: Context, error: RemoteError) -> None:
    await context.abort(error.code, str(error), to_trailing_metadata(error))


def _serialise(message: Any) -> bytes:
    """Messages that are bytes already have been serialised once for all streams."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def _reporting(method: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
    """A unary method whose RemoteError becomes a status."""

    async def call(request: Any, context: Context) -> Any:
        try:
            return await method(request, context)
        except RemoteError as refusal:
            await _abort(context, refusal)

    return call


def handlers(service: CoordinatorService) -> grpc.GenericRpcHandler:
    """The generic handler of the service.

    It is written out rather than generated because a response may be bytes: a basis is serialised once a round.
    """
    return grpc.method_handlers_generic_handler(
        pb.DESCRIPTOR.services_by_name["CoordinatorService"].full_name,
        {
            "Collaborate": grpc.stream_stream_rpc_method_handler(
                service.collaborate, pb.CollaborateRequest.FromString, _serialise
            ),
            "GetSpecification": grpc.unary_unary_rpc_method_handler(
                _reporting(service.get_specification), pb.GetSpecificationRequest.FromString, _serialise
            ),
            "GetRun": grpc.unary_unary_rpc_method_handler(
                _reporting(service.get_run), pb.GetRunRequest.FromString, _serialise
            ),
            "GetBasis": grpc.unary_unary_rpc_method_handler(
                _reporting(service.get_basis), pb.GetBasisRequest.FromString, _serialise
            ),
            "WatchRounds": grpc.unary_stream_rpc_method_handler(
                service.watch_rounds, pb.WatchRoundsRequest.FromString, _serialise
            ),
            "StopRun": grpc.unary_unary_rpc_method_handler(
                _reporting(service.stop_run), pb.StopRunRequest.FromString, _serialise
            ),
        },
    )
