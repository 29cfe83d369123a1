"""`python -m cospan.benchmarks.ceiling AGENTS D R`: the fastest conceivable coordinator of this protocol.

A barrier, a mean and a QR step on raw bytes: no session, check, store, timeout or protobuf. It takes the same
requests as the coordinator and reads only the numbers at the end of each.
"""

import asyncio
import sys
from typing import Any

import grpc
import grpc.aio
import numpy as np

from cospan.benchmarks.jobs.gradient_exchange import first_basis, next_basis
from cospan.wire.limits import NO_COMPRESSION, max_message_bytes, server_options

_HEADER = bytes(64)
"""In place of the stamp."""


class Ceiling:
    """One run of n agents that never ends."""

    def __init__(self, agents: int, feature_dim: int, rank: int) -> None:
        self._basis = first_basis(feature_dim, rank)
        self._uploads: list[bytes] = [b""] * agents
        self._missing, self._joined = agents, 0
        self._encoded, self._opened = b"", asyncio.get_running_loop().create_future()

    async def collaborate(self, _requests: Any, context: Any) -> None:
        """One agent: its join is answered, and then each of its uploads, by the next basis."""
        number, self._joined = self._joined, self._joined + 1
        upload = await context.read()
        await context.write(_HEADER)
        while upload is not grpc.aio.EOF:
            self._uploads[number] = upload
            self._missing -= 1
            if self._missing:
                await self._opened
            else:
                self._close_round()
            await context.write(self._encoded)
            upload = await context.read()

    def _close_round(self) -> None:
        """The first round has no uploads but the joins."""
        size = self._basis.nbytes
        if len(self._uploads[0]) >= size:
            total = np.zeros(self._basis.shape)
            for upload in self._uploads:
                total += np.frombuffer(upload, "<f8", offset=len(upload) - size).reshape(total.shape)
            self._basis = next_basis(self._basis, total, len(self._uploads))
        self._encoded, self._missing = _HEADER + self._basis.tobytes(), len(self._uploads)
        opened, self._opened = self._opened, asyncio.get_running_loop().create_future()
        opened.set_result(None)


async def _serve(agents: int, feature_dim: int, rank: int) -> None:
    server = grpc.aio.server(
        options=server_options(max_message_bytes(feature_dim, rank), 2 * agents + 64, agents),
        compression=NO_COMPRESSION,
    )
    collaborate: Any = grpc.stream_stream_rpc_method_handler(Ceiling(agents, feature_dim, rank).collaborate)
    handler = grpc.method_handlers_generic_handler("cospan.rpc.v1.CoordinatorService", {"Collaborate": collaborate})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(*map(int, sys.argv[1:4])))
