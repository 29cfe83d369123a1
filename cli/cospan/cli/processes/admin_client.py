"""Client of observers and administrators: run status, rounds as they close, and the end of a run."""

from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import grpc
import grpc.aio

from cospan.client.session.connection import explain, open_channel
from cospan.client.session.coordinator_address import CoordinatorAddress
from cospan.client.session.proxy import proxy_of
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1.coordinator_service_pb2_grpc import CoordinatorServiceStub
from cospan.wire.codec.error_status import from_rpc_error
from cospan.wire.codec.messages import decode_stamp
from cospan.wire.codec.reports import decode_round_report, decode_run_report
from cospan.wire.errors import CospanError
from cospan.wire.limits import client_options
from cospan.wire.messages import RoundReport, RunReport, Stamp
from cospan.wire.security.tls import TlsFiles, TlsSource

_ANSWER_SECONDS = 10.0
_SPECIFICATION_BYTES = 2**20
_REPORT_BYTES = 64 * 2**20
"""Bound of a `GetRun` answer: about 100 bytes for each agent that ever joined."""

_T = TypeVar("_T")


async def fetch_run(address: str, tls: TlsFiles | None = None) -> RunReport:
    """The run as it stands.

    Raises:
        CospanError: the coordinator does not answer within 10 s, or not as it should.
    """
    address = await CoordinatorAddress(address).now()
    async with await _channel(address, tls, _REPORT_BYTES) as channel:
        call = CoordinatorServiceStub(channel).GetRun(pb.GetRunRequest(), timeout=_ANSWER_SECONDS)
        response = await _answer(call, address, tls)
    return decode_run_report(response)


async def fetch_specification(
    address: str, tls: TlsFiles | None = None, *, seconds: float = _ANSWER_SECONDS
) -> pb.GetSpecificationResponse:
    """Specification and time of a coordinator, not decoded, because it may be of another version.

    Raises:
        CospanError: the coordinator does not answer within `seconds`, or refuses.
    """
    address = await CoordinatorAddress(address).now()
    async with await _channel(address, tls, _SPECIFICATION_BYTES) as channel:
        call = CoordinatorServiceStub(channel).GetSpecification(pb.GetSpecificationRequest(), timeout=seconds)
        return await _answer(call, address, tls)


async def stop_run(address: str, cause: str, tls: TlsFiles | None = None) -> Stamp:
    """Ends the run in order; where it stands then.

    Raises:
        CospanError: the coordinator does not answer within 10 s, or refuses.
    """
    address = await CoordinatorAddress(address).now()
    async with await _channel(address, tls, _REPORT_BYTES) as channel:
        request = pb.StopRunRequest(cause=cause)
        call = CoordinatorServiceStub(channel).StopRun(request, timeout=_ANSWER_SECONDS)
        response = await _answer(call, address, tls)
    return decode_stamp(response.stamp)


async def watch_rounds(
    address: str, *, from_round: int, include_basis: bool, message_bytes: int, tls: TlsFiles | None = None
) -> AsyncIterator[RoundReport]:
    """Each round as it closes, until the run is over.

    Args:
        address: of the coordinator, or @FILE.
        from_round: the first round of interest.
        include_basis: whether each report carries its basis.
        message_bytes: the largest message to take.
        tls: certificate, key and authority; None for no TLS.

    Raises:
        CospanError: the stream broke.
    """
    address = await CoordinatorAddress(address).now()
    async with await _channel(address, tls, message_bytes) as channel:
        request = pb.WatchRoundsRequest(from_round=from_round, include_basis=include_basis)
        try:
            async for response in CoordinatorServiceStub(channel).WatchRounds(request):
                yield decode_round_report(response)
        except grpc.RpcError as failure:
            raise from_rpc_error(failure, address=address) from failure


async def _answer(call: Awaitable[_T], address: str, tls: TlsFiles | None) -> _T:
    """What the coordinator answers. Raises CospanError: it does not, or refuses."""
    try:
        try:
            return await call
        except grpc.RpcError as failure:
            raise from_rpc_error(failure, address=address) from failure
    except CospanError as failure:
        await explain(failure, address, tls)
        raise


async def _channel(address: str, tls: TlsFiles | None, message_bytes: int) -> grpc.aio.Channel:
    proxied = await proxy_of(address) is not None
    source = None if tls is None else TlsSource(tls)
    return open_channel(address, client_options(message_bytes), source, proxied=proxied)
