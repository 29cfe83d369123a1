"""What an onlooker asks a running coordinator: its state, and its rounds as they close."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio

from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1.coordinator_service_pb2_grpc import CoordinatorServiceStub
from cospan.wire.limits import NO_COMPRESSION, client_options
from cospan.wire.messages import RoundReport, RunReport
from cospan.wire.reports import decode_round_report, decode_run_report
from cospan.wire.status import from_rpc_error

_ANSWER_SECONDS = 10.0
_REPORT_BYTES = 64 * 2**20
"""Bound of a `GetRun` answer: about 100 bytes for each agent that ever joined."""


async def fetch_run(address: str) -> RunReport:
    """The run as it stands.

    Raises:
        CospanError: the coordinator does not answer within 10 s, or not as it should.
    """
    async with grpc.aio.insecure_channel(address, options=client_options(_REPORT_BYTES)) as channel:
        try:
            response = await CoordinatorServiceStub(channel).GetRun(pb.GetRunRequest(), timeout=_ANSWER_SECONDS)
        except grpc.RpcError as failure:
            raise from_rpc_error(failure, address=address) from failure
    return decode_run_report(response)


async def watch_rounds(
    address: str, *, from_round: int, include_basis: bool, message_bytes: int
) -> AsyncIterator[RoundReport]:
    """Each round as it closes, until the run is over.

    Args:
        address: HOST:PORT of the coordinator.
        from_round: the first round of interest.
        include_basis: whether each report carries its basis.
        message_bytes: the largest message to take.

    Raises:
        CospanError: the stream broke.
    """
    options = client_options(message_bytes)
    async with grpc.aio.insecure_channel(address, options=options, compression=NO_COMPRESSION) as channel:
        request = pb.WatchRoundsRequest(from_round=from_round, include_basis=include_basis)
        try:
            async for response in CoordinatorServiceStub(channel).WatchRounds(request):
                yield decode_round_report(response)
        except grpc.RpcError as failure:
            raise from_rpc_error(failure, address=address) from failure
