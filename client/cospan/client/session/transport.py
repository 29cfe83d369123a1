"""How an agent reaches its coordinator: gRPC, or another transport with the same two methods."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import grpc
import grpc.aio

from cospan.client.session.connection import explain, open_channel
from cospan.client.session.coordinator_address import AddressSource, CoordinatorAddress
from cospan.client.session.proxy import proxy_of
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec.error_status import from_rpc_error
from cospan.wire.codec.messages import decode_coordinator_message, decode_stamp, encode_agent_message
from cospan.wire.codec.past_rounds import decode_recalled
from cospan.wire.codec.specification import decode_specification
from cospan.wire.errors import CoordinatorUnavailableError, CospanError
from cospan.wire.limits import client_options, max_membership_bytes, max_message_bytes, max_recalled_bytes
from cospan.wire.messages import AgentMessage, BasisUpdate, CoordinatorMessage, RecalledRounds, Stamp
from cospan.wire.security.tls import TlsFiles, TlsMaterial, TlsSource

METHOD_PREFIX = f"/{pb.DESCRIPTOR.services_by_name['CoordinatorService'].full_name}/"
_UNARY_SECONDS = 10.0
_RECALL_SECONDS = 30.0
_SEND_SECONDS = 30.0
_FAREWELL_SECONDS = 1.0
_SMALL_MESSAGE = 1 << 20
_MOMENT_SECONDS = 0.5
"""After the deadline of a call, gRPC itself ends it; a stream that is none of gRPC's is given this long."""
_WATCH_SECONDS = 1.0
"""The interval at which the files of the certificate are checked."""
_ROUND_END_SECONDS = 4.0
"""The longest time that a stream with a former certificate waits for a basis before it ends."""

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

    async def ask(self, seconds: float) -> Stamp:
        """The coordinator's stamp, by a short call over the connection of this stream.

        Raises:
            CospanError: the call was refused or broke off, or no answer came in time.
        """
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
    """gRPC over TCP, with mutual TLS where certificates are named."""

    def __init__(self, address: AddressSource, *, group_size: int = 1, tls: TlsFiles | None = None) -> None:
        """Prepares; connects when a stream is opened.

        Args:
            address: HOST:PORT, [IPV6]:PORT or unix:PATH of the coordinator; or @FILE or a function, which give it
                again at each connection.
            group_size: number of agents in this process; the message limit depends on it.
            tls: certificate, key and authority. When they change on disk, a stream breaks off soon after, between
                two rounds, and the next one shows the new certificate. None for no TLS.

        Raises:
            InvalidValueError: the address is none, or a file of `tls` is not what it should be.
        """
        self._where, self._group_size = CoordinatorAddress(address), group_size
        # With TLS a failed attempt costs a second look (`explain`): some milliseconds, wherever the coordinator is.
        fixed = self._where.fixed
        self.is_near = fixed is not None and fixed.is_local and tls is None
        """Whether the coordinator stays on this machine, and a failed attempt costs next to nothing."""
        self._files, self._tls = tls, None if tls is None else TlsSource(tls)

    @property
    def tls(self) -> TlsSource | None:
        """The certificates in use; None without TLS."""
        return self._tls

    async def open(self, specification: RunSpecification) -> AgentStream:
        """A new stream, whose message limit follows from the run's d and r."""
        d, r, pooled = specification.feature_dim, specification.rank, specification.pooled_length
        limit = max_message_bytes(d, r, self._group_size, pooled=pooled)
        if specification.secure_sums:
            limit += max_membership_bytes(specification.agents, self._group_size)
        address = await self._where.now()
        proxied = await proxy_of(address) is not None
        channel = open_channel(address, client_options(limit), self._tls, proxied=proxied)
        renewal = None if self._tls is None else partial(_renewed, self._tls, self._tls.material)
        collaborate = channel.stream_stream(
            METHOD_PREFIX + "Collaborate",
            request_serializer=pb.CollaborateRequest.SerializeToString,
            response_deserializer=pb.CollaborateResponse.FromString,
        )
        call = collaborate()
        try:
            # Here, and not when the first message is sent: a peer that accepts and then says nothing must not hold
            # up the agent's loop.
            await _translated(lambda: asyncio.wait_for(call.wait_for_connection(), _UNARY_SECONDS), address)
        except BaseException as failure:
            await channel.close()
            if isinstance(failure, CospanError) and self._tls is not None:
                await explain(failure, address, self._files)
            raise
        return GrpcAgentStream(address, channel, call, renewal)

    async def describe(self) -> RunSpecification:
        """What the run is, asked with a small message limit before anything large may arrive."""
        address = await self._where.now()
        try:
            return await self._describe(address)
        except CoordinatorUnavailableError as failure:
            await explain(failure, address, self._files)
            raise

    async def _describe(self, address: str) -> RunSpecification:
        proxied = await proxy_of(address) is not None
        options = client_options(_SMALL_MESSAGE)
        async with open_channel(address, options, self._tls, proxied=proxied) as channel:
            call = _unary(channel, "GetSpecification", pb.GetSpecificationRequest, pb.GetSpecificationResponse)
            request = pb.GetSpecificationRequest()
            response = await _translated(lambda: _awaited(call(request, timeout=_UNARY_SECONDS)), address)
            return decode_specification(response.specification)

    async def recall(self, specification: RunSpecification, token: str, first: int, before: int) -> RecalledRounds:
        """Past rounds of the session's agents; see `cospan.client.files.persistence.RecallTransport`."""
        options = client_options(max_recalled_bytes(specification.feature_dim, specification.rank))
        address = await self._where.now()
        proxied = await proxy_of(address) is not None
        async with open_channel(address, options, self._tls, proxied=proxied) as channel:
            call = _unary(channel, "RecallRounds", pb.RecallRoundsRequest, pb.RecallRoundsResponse)
            request = pb.RecallRoundsRequest(session_token=token, from_round=first, before_round=before)
            response = await _translated(lambda: _awaited(call(request, timeout=_RECALL_SECONDS)), address)
            return decode_recalled(response, specification, from_round=first, before_round=before)


def is_near(transport: Transport) -> bool:
    """Whether it leads to a coordinator on this machine, which may be asked more often than others.

    A transport of another kind says so by an attribute `is_near`, which is True.
    """
    return getattr(transport, "is_near", False) is True


def tls_of(transport: Transport) -> TlsSource | None:
    """The certificates that a transport uses; None without TLS. One of another kind has an attribute `tls`."""
    source = getattr(transport, "tls", None)
    return source if isinstance(source, TlsSource) else None


class GrpcAgentStream:
    """One `Collaborate` call."""

    def __init__(
        self, address: str, channel: grpc.aio.Channel, call: Any, is_renewed: Callable[[], bool] | None
    ) -> None:
        self._address, self._channel, self._call = address, channel, call
        self._get_specification = _unary(
            channel, "GetSpecification", pb.GetSpecificationRequest, pb.GetSpecificationResponse
        )
        self._renewed = self._between_rounds = False
        self._watcher = None if is_renewed is None else asyncio.create_task(self._watch(is_renewed))

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
            if not _is_of_the_call(failure):
                raise
            raise _translation(failure, self._address) from failure
        finally:
            watchdog.cancel()

    async def receive(self) -> CoordinatorMessage:
        """The next message."""
        if self._renewed and self._between_rounds:
            raise CoordinatorUnavailableError(
                f"the certificate for {self._address} was renewed; the stream is opened again"
            )
        try:
            response = await self._call.read()
        except BaseException as failure:
            if not _is_of_the_call(failure):
                raise
            raise _translation(failure, self._address) from failure
        if response is grpc.aio.EOF:
            await _translated(self._raise_status, self._address)
            raise CoordinatorUnavailableError(f"the coordinator at {self._address} ended the stream")
        message = decode_coordinator_message(response)
        self._between_rounds = isinstance(message, BasisUpdate)
        return message

    async def ask(self, seconds: float) -> Stamp:
        """The stamp of `GetSpecification`, asked of the process that holds this stream, without a new handshake."""
        request = pb.GetSpecificationRequest()
        response = await _translated(
            lambda: _awaited(self._get_specification(request, timeout=seconds)), self._address
        )
        return decode_stamp(response.stamp)

    async def _watch(self, is_renewed: Callable[[], bool]) -> None:
        """Ends the stream when there is a new certificate, for a channel keeps the one that it was opened with.

        If possible just after a basis: the agent then learns while the next stream is opened. Without a basis the
        stream ends all the same: the session continues over the next one, which repeats what was not acknowledged.
        """
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if await asyncio.to_thread(is_renewed):
                break
        self._renewed = True
        await asyncio.sleep(_ROUND_END_SECONDS)
        self._call.cancel()

    async def _raise_status(self) -> None:
        """Raises the error that the call ended with, if it did."""
        async with asyncio.timeout(_UNARY_SECONDS):
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                metadata = await self._call.trailing_metadata() or grpc.aio.Metadata()
                details = await self._call.details()
                raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details)

    async def close(self) -> None:
        """Half-closes, and gives the last messages a moment to leave."""
        if self._watcher is not None:
            self._watcher.cancel()
        try:
            with contextlib.suppress(CospanError):
                await _translated(
                    lambda: asyncio.wait_for(self._call.done_writing(), _FAREWELL_SECONDS), self._address
                )
        finally:
            await self._channel.close(grace=_FAREWELL_SECONDS)


def _renewed(tls: TlsSource, shown: TlsMaterial) -> bool:
    """Whether the files hold something else than what a channel has shown."""
    tls.refresh()
    return tls.material is not shown


async def stamp_or_error(stream: AgentStream, seconds: float) -> Stamp | CospanError:
    """What a stream answers to `ask`, or the error; within `seconds` and 0.5 s, whatever the stream does."""
    try:
        async with asyncio.timeout(seconds + _MOMENT_SECONDS):
            return await stream.ask(seconds)
    except TimeoutError:
        return CoordinatorUnavailableError(f"no answer came within {seconds:.3g} s")
    except CospanError as failure:
        return failure


def _unary(channel: grpc.aio.Channel, method: str, request: Any, response: Any) -> Any:
    """A unary method of the service, as something to call with a request."""
    return channel.unary_unary(
        METHOD_PREFIX + method,
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )


async def _awaited(call: Any) -> Any:
    return await call


async def _translated(attempt: Callable[[], Coroutine[Any, Any, _T]], address: str) -> _T:
    """Runs a call and turns every way in which gRPC fails into a CospanError."""
    try:
        return await attempt()
    except BaseException as failure:
        if not _is_of_the_call(failure):
            raise
        raise _translation(failure, address) from failure


def _is_of_the_call(failure: BaseException) -> bool:
    """Whether the call has failed, and not who waits for it: to grpc.aio, both may be cancelled."""
    if isinstance(failure, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(failure, (grpc.RpcError, TimeoutError, asyncio.InvalidStateError, grpc.aio.UsageError))


def _translation(failure: BaseException, address: str) -> CospanError:
    """What a failed call means."""
    if not isinstance(failure, grpc.RpcError):
        return CoordinatorUnavailableError(f"the stream to the coordinator at {address} is broken")
    if _is_broken_off(failure):
        return CoordinatorUnavailableError(f"the call to the coordinator at {address} broke off")
    return from_rpc_error(failure, address=address)


def _is_broken_off(failure: grpc.RpcError) -> bool:
    """Whether a status was generated on the way and is no answer of the coordinator.

    A proxy or a server that stops cancels calls; and a message that is written just when the call ends gives
    INTERNAL, whatever the coordinator has ended it with. Its own refusals carry an ErrorInfo.
    """
    if not isinstance(failure, grpc.aio.AioRpcError):
        return False
    made_up = failure.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)
    return made_up and not failure.trailing_metadata()
