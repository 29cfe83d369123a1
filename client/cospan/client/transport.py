"""How an agent reaches its coordinator: gRPC, or anything else with the same two methods."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar, runtime_checkable

import grpc
import grpc.aio

from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec import decode_coordinator_message, decode_specification, encode_agent_message
from cospan.wire.errors import CoordinatorUnavailableError, CospanError
from cospan.wire.limits import NO_COMPRESSION, client_options, max_message_bytes
from cospan.wire.messages import AgentMessage, CoordinatorMessage
from cospan.wire.status import from_rpc_error

METHOD_PREFIX = f"/{pb.DESCRIPTOR.services_by_name['CoordinatorService'].full_name}/"
_UNARY_SECONDS = 10.0
_SEND_SECONDS = 30.0
_FAREWELL_SECONDS = 1.0
_SMALL_MESSAGE = 1 << 20

_T = TypeVar("_T")


@runtime_checkable
class AgentStream(Protocol):
    """One open conversation."""

    async def send(self, message: AgentMessage) -> None:
        """Sends a message. Raises CospanError when the stream is broken."""
        ...

    async def receive(self) -> CoordinatorMessage:
        """The next message. Raises CospanError when the stream is broken or has ended."""
        ...

    async def close(self) -> None:
        """Ends the conversation; what was sent is delivered first where that is still possible."""
        ...


@runtime_checkable
class Transport(Protocol):
    """Opens conversations."""

    async def describe(self) -> RunSpecification:
        """What the run is. Raises CospanError when the coordinator cannot be reached."""
        ...

    async def open(self, specification: RunSpecification) -> AgentStream:
        """A new stream. Raises CospanError when the coordinator cannot be reached."""
        ...


class GrpcTransport:
    """gRPC over TCP without TLS."""

    def __init__(self, address: str, *, group_size: int = 1) -> None:
        """Prepares; connects when a stream is opened.

        Args:
            address: HOST:PORT of the coordinator.
            group_size: number of agents in this process; the message limit depends on it.
        """
        self._address, self._group_size = address, group_size

    async def open(self, specification: RunSpecification) -> AgentStream:
        """A new stream, whose message limit follows from the run's d and r."""
        limit = max_message_bytes(specification.feature_dim, specification.rank, self._group_size)
        channel = grpc.aio.insecure_channel(
            self._address, options=client_options(limit), compression=NO_COMPRESSION
        )
        collaborate = channel.stream_stream(
            METHOD_PREFIX + "Collaborate",
            request_serializer=pb.CollaborateRequest.SerializeToString,
            response_deserializer=pb.CollaborateResponse.FromString,
        )
        call = collaborate()
        try:
            # Here, and not when the first message is sent: a peer that accepts and then says nothing must not hold
            # up the agent's loop.
            await _translated(lambda: asyncio.wait_for(call.wait_for_connection(), _UNARY_SECONDS), self._address)
        except BaseException:
            await channel.close()
            raise
        return GrpcAgentStream(self._address, channel, call)

    async def describe(self) -> RunSpecification:
        """What the run is, asked with a small message limit before anything large may arrive."""
        async with grpc.aio.insecure_channel(self._address, options=client_options(_SMALL_MESSAGE)) as channel:
            get_run = channel.unary_unary(
                METHOD_PREFIX + "GetRun",
                request_serializer=pb.GetRunRequest.SerializeToString,
                response_deserializer=pb.GetRunResponse.FromString,
            )
            response = await _translated(
                lambda: _awaited(get_run(pb.GetRunRequest(), timeout=_UNARY_SECONDS)), self._address
            )
            return decode_specification(response.specification)


class GrpcAgentStream:
    """One `Collaborate` call."""

    def __init__(self, address: str, channel: grpc.aio.Channel, call: Any) -> None:
        self._address, self._channel, self._call = address, channel, call

    async def send(self, message: AgentMessage) -> None:
        """Sends a message; a peer that does not read for 30 s counts as gone."""
        encoded = encode_agent_message(message)
        # Cheaper than asyncio.timeout, and the reader notices that the call is cancelled.
        watchdog = asyncio.get_running_loop().call_later(_SEND_SECONDS, self._call.cancel)
        try:
            await self._call.write(encoded)
        except asyncio.InvalidStateError as failure:  # the call has ended: its status says why
            await _translated(self._raise_status, self._address)
            raise _translation(failure, self._address) from failure
        except BaseException as failure:
            raise _translation(failure, self._address) from failure
        finally:
            watchdog.cancel()

    async def receive(self) -> CoordinatorMessage:
        """The next message."""
        try:
            response = await self._call.read()
        except BaseException as failure:
            raise _translation(failure, self._address) from failure
        if response is grpc.aio.EOF:
            await _translated(self._raise_status, self._address)
            raise CoordinatorUnavailableError(f"the coordinator at {self._address} ended the stream")
        return decode_coordinator_message(response)

    async def _raise_status(self) -> None:
        """Raises the error that the call ended with, if it did."""
        code = await asyncio.wait_for(self._call.code(), _UNARY_SECONDS)
        if code is not grpc.StatusCode.OK:
            metadata = await self._call.trailing_metadata() or grpc.aio.Metadata()
            details = await self._call.details()
            raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details)

    async def close(self) -> None:
        """Half-closes, and gives the last messages a moment to leave."""
        try:
            with contextlib.suppress(CospanError):
                await _translated(
                    lambda: asyncio.wait_for(self._call.done_writing(), _FAREWELL_SECONDS), self._address
                )
        finally:
            await self._channel.close(grace=_FAREWELL_SECONDS)


async def _awaited(call: Any) -> Any:
    return await call


async def _translated(attempt: Callable[[], Coroutine[Any, Any, _T]], address: str) -> _T:
    """Runs a call and turns every way in which gRPC fails into a CospanError."""
    try:
        return await attempt()
    except BaseException as failure:
        raise _translation(failure, address) from failure


def _translation(failure: BaseException, address: str) -> BaseException:
    """What a failed call means: a CospanError, or `failure` itself where it is none of gRPC's."""
    if isinstance(failure, grpc.RpcError):
        if _is_broken_off(failure):
            return CoordinatorUnavailableError(f"the call to the coordinator at {address} broke off")
        return from_rpc_error(failure, address=address)
    broken: tuple[type[BaseException], ...] = (TimeoutError, asyncio.InvalidStateError, grpc.aio.UsageError)
    if isinstance(failure, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is None or task.cancelling():
            return failure
        # It was the call that was cancelled, and not who waits for it: to grpc.aio the two look alike.
    elif not isinstance(failure, broken):
        return failure
    return CoordinatorUnavailableError(f"the stream to the coordinator at {address} is broken")


def _is_broken_off(failure: grpc.RpcError) -> bool:
    """Whether a status is nobody's answer, but made up on the way.

    A proxy or a server that stops cancels calls; and a message that is written just when the call ends gives
    INTERNAL, whatever the coordinator has ended it with. Its own refusals carry an ErrorInfo.
    """
    if not isinstance(failure, grpc.aio.AioRpcError):
        return False
    made_up = failure.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)
    return made_up and not failure.trailing_metadata()
