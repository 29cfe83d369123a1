"""A client written from the `.proto` files alone, on the pure-Python grpclib: nothing of Cospan but its messages.

What a port to another language has to do is here, and no more.
"""

import contextlib
from types import TracebackType
from typing import Literal, Self

import numpy as np
from grpclib.client import Channel, Stream, StreamStreamMethod
from grpclib.exceptions import StreamTerminatedError
from h2.exceptions import StreamClosedError

from cospan.rpc.v1.coordinator_service_pb2 import (
    CollaborateRequest,
    CollaborateResponse,
    FactoredMatrix,
    Join,
    SessionResumption,
    SubspaceGradient,
    Welcome,
)
from cospan.rpc.v1.matrix_pb2 import DATA_TYPE_FLOAT64, Matrix

COLLABORATE = "/cospan.rpc.v1.CoordinatorService/Collaborate"


def to_message(values: np.ndarray) -> Matrix:
    """Little-endian float64 in row-major order."""
    rows, columns = values.shape
    return Matrix(rows=rows, columns=columns, data_type=DATA_TYPE_FLOAT64, data=values.astype("<f8").tobytes("C"))


def to_array(message: Matrix) -> np.ndarray:
    """The matrix of a message; the coordinator sends float64."""
    assert message.data_type == DATA_TYPE_FLOAT64
    return np.frombuffer(message.data, dtype="<f8").reshape(message.rows, message.columns)


class SecondClient:
    """One agent. It sends u vᵀ by its entries (`dense`) or by its factors (`factored`)."""

    def __init__(
        self, address: str, agent_id: str, feature_dim: int, encoding: Literal["dense", "factored"]
    ) -> None:
        host, _, port = address.rpartition(":")
        self._channel = Channel(host, int(port))
        self._method = StreamStreamMethod(self._channel, COLLABORATE, CollaborateRequest, CollaborateResponse)
        self._stream: Stream[CollaborateRequest, CollaborateResponse] | None = None
        self._encoding = encoding
        self._join = Join(
            instance_id=f"second client of {agent_id}",
            agent_ids=[agent_id],
            feature_dim=feature_dim,
            feature_fingerprint="written by hand",
        )
        self.run_id, self.round = "", 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.hang_up()
        finally:
            self._channel.close()

    async def join(self) -> Welcome:
        """Opens a stream, and resumes the session where there was one."""
        await self.hang_up()
        self._stream = self._method.open()
        await self._stream.__aenter__()
        await self._stream.send_message(CollaborateRequest(join=self._join))
        welcome = (await self.receive()).welcome
        self._join.resumption.CopyFrom(
            SessionResumption(session_token=welcome.session_token, run_id=self.run_id, last_round=self.round)
        )
        return welcome

    async def receive(self) -> CollaborateResponse:
        """The next message. Where the stream has ended instead, grpclib raises its status as a GRPCError."""
        assert self._stream is not None
        try:
            response = await self._stream.recv_message()
            if response is None:
                raise StreamTerminatedError("the coordinator has ended the stream")
        except StreamTerminatedError as ended:
            stream, self._stream = self._stream, None
            await stream.__aexit__(type(ended), ended, ended.__traceback__)  # raises the status, if there is one
            raise
        self.run_id, self.round = response.stamp.run_id, response.stamp.round
        return response

    async def send(self, round_number: int, left: np.ndarray, right: np.ndarray) -> None:
        """Sends the gradient u vᵀ, with u of shape d × m and v of shape r × m."""
        assert self._stream is not None
        gradient = SubspaceGradient(round=round_number, weight=1.0)
        if self._encoding == "dense":
            gradient.dense.CopyFrom(to_message(left @ right.T))
        else:
            gradient.factored.CopyFrom(FactoredMatrix(left=to_message(left), right=to_message(right)))
        await self._stream.send_message(CollaborateRequest(gradient=gradient))

    async def hang_up(self) -> None:
        """Resets the stream, if there is one, as a broken network would; one that has ended is let go."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(StreamTerminatedError, StreamClosedError):
                await stream.cancel()
            await stream.__aexit__(None, None, None)
