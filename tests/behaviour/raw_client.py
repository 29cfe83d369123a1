"""A peer that keeps to no protocol: it sends any bytes over any method, and hears what it is told."""

import asyncio
import contextlib
import random
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from runs import SECONDS

from cospan.client.session.connection import open_channel
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec.error_status import from_rpc_error
from cospan.wire.errors import CospanError
from cospan.wire.security.tls import TlsSource

SERVICE = "/cospan.rpc.v1.CoordinatorService/"
COLLABORATE = SERVICE + "Collaborate"


class RawStream:
    """One call, whatever the method is, over a connection of its own."""

    def __init__(
        self,
        address: str,
        method: str = COLLABORATE,
        options: tuple[tuple[str, int], ...] = (),
        tls: TlsSource | None = None,
    ) -> None:
        own = ("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 1 << 26)
        self._channel = open_channel(address, (*own, *options), tls)
        self._call: Any = self._channel.stream_stream(method, request_serializer=None, response_deserializer=None)()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()
        await self._channel.close()

    async def send(self, data: bytes) -> bool:
        """Sends a message; whether the call was still open."""
        try:
            async with asyncio.timeout(SECONDS):
                await self._call.write(data)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    async def end(self) -> None:
        """Says that nothing more will come."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    async def receive(self) -> pb.CollaborateResponse:
        """The next answer. Raises the CospanError that the call ended with instead."""
        try:
            async with asyncio.timeout(SECONDS):
                data = await self._call.read()
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure, address="raw") from failure
        if data is grpc.aio.EOF:
            raise await self._status()
        return pb.CollaborateResponse.FromString(data)

    async def join(self, agent: str, feature_dim: int, fingerprint: str) -> pb.Welcome:
        """Joins as an agent would."""
        await self.send(joining(agent, feature_dim, fingerprint))
        return (await self.receive()).welcome

    async def refusal(self) -> CospanError:
        """Reads until the call has ended; what it ended with."""
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    await self.receive()
        except CospanError as error:
            return error

    async def _status(self) -> CospanError:
        code = await self._call.code()
        metadata = await self._call.trailing_metadata() or grpc.aio.Metadata()
        details = await self._call.details()
        return from_rpc_error(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details), address="raw")


def joining(agent: str, feature_dim: int, fingerprint: str) -> bytes:
    """The Join of a process with one agent."""
    join = pb.Join(
        instance_id=f"raw {agent} {random.getrandbits(64):x}",
        agent_ids=[agent],
        feature_dim=feature_dim,
        feature_fingerprint=fingerprint,
    )
    return pb.CollaborateRequest(join=join).SerializeToString()
