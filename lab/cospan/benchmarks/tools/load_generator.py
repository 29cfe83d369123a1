"""Load generator: agents without an environment that answer each basis at once with the same gradient.

They read and write bytes, so that they cost the same with the coordinator and with its ceiling, and as little as
gRPC allows. `python -m cospan.benchmarks.tools.load_generator` runs many, each with its own connection.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

import grpc.aio

from cospan.benchmarks.jobs.gradient_exchange import gradient_of
from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix
from cospan.wire.codec.messages import encode_agent_message
from cospan.wire.errors import CospanError
from cospan.wire.limits import client_options, max_message_bytes
from cospan.wire.messages import GradientUpload, Join

_METHOD = "/cospan.rpc.v1.CoordinatorService/Collaborate"
_GRADIENT_FIELD = b"\x12"
"""`CollaborateRequest.gradient`, and below `SubspaceGradient.round`: number and wire type."""
_ROUND_FIELD = b"\x08"


class Upload:
    """A gradient, or the sum of a group's, encoded once; only the number of the round changes."""

    def __init__(self, feature_dim: int, rank: int, seed: int, agents: int = 1) -> None:
        gradient = gradient_of(seed, feature_dim, rank)
        message = GradientUpload(0, Contribution(DenseMatrix(agents * gradient), float(agents)))
        self._rest = encode_agent_message(message).gradient.SerializeToString()

    def of_round(self, number: int) -> bytes:
        """The CollaborateRequest."""
        head = _ROUND_FIELD + _varint(number)
        return b"".join((_GRADIENT_FIELD, _varint(len(head) + len(self._rest)), head, self._rest))


def _varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


class LoadAgent:
    """One stream of a run that begins with round 0: that of an agent, or of a group.

    Args:
        address: of the coordinator.
        feature_dim: d.
        rank: r.
        agents: their numbers, one or more.
    """

    def __init__(self, address: str, feature_dim: int, rank: int, agents: Sequence[int] = (0,)) -> None:
        self._upload, self._round = Upload(feature_dim, rank, agents[0], len(agents)), 0
        self.bytes_received = 0
        """Of the newest message."""
        names = tuple(f"agent-{number:05}" for number in agents)
        join = Join(f"process {agents[0]}", names, feature_dim, "none")
        self._join = encode_agent_message(join).SerializeToString()
        options = client_options(max_message_bytes(feature_dim, rank, len(agents)))
        # Channels to one address would share a connection; agents on machines of their own do not.
        self._channel = grpc.aio.insecure_channel(
            address, [*options, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        )
        self._call: Any = self._channel.stream_stream(_METHOD)()

    @property
    def bytes_sent(self) -> int:
        """Of a round's message."""
        return len(self._upload.of_round(self._round))

    async def join(self) -> None:
        """Joins and waits for the answer."""
        await self._call.write(self._join)
        await self._call.read()

    async def basis(self) -> bool:
        """Waits for the next basis; False if the run is over."""
        message = await self._call.read()
        self.bytes_received = 0 if message is grpc.aio.EOF else len(message)
        return message is not grpc.aio.EOF

    async def answer(self) -> None:
        """Sends the gradient of the round that is open."""
        await self._call.write(self._upload.of_round(self._round))
        self._round += 1

    async def run_to_end(self) -> None:
        """Joins and takes part until the run is over."""
        await self.join()
        while await self.basis():
            await self.answer()

    async def run(self, rounds: int) -> list[float]:
        """Takes part in `rounds` rounds, after which the run waits; returns the seconds from basis to basis.

        Raises:
            CospanError: the run ended.
        """
        seconds = []
        for _ in range(rounds):
            begun = time.perf_counter()
            await self.answer()
            if not await self.basis():
                raise CospanError(f"the run ended in round {self._round - 1} during the measurement")
            seconds.append(time.perf_counter() - begun)
        return seconds

    async def close(self) -> None:
        """Ends its stream."""
        self._call.cancel()
        await self._channel.close()


def agents_of(stream: int, group: int, agents: int) -> range:
    """The numbers of the agents on a stream with `group` agents per stream."""
    return range(stream * group, min((stream + 1) * group, agents))


async def _generate(
    addresses: Sequence[str], feature_dim: int, rank: int, agents: int, group: int, streams: Sequence[int]
) -> None:
    """Runs one `LoadAgent` for each stream and address."""
    load = [
        LoadAgent(address, feature_dim, rank, agents_of(stream, group, agents))
        for stream in streams
        for address in addresses
    ]
    await asyncio.gather(*(agent.run_to_end() for agent in load), return_exceptions=True)


if __name__ == "__main__":
    _addresses, (_d, _r, _agents, _group, *_streams) = sys.argv[1].split(","), map(int, sys.argv[2:])
    asyncio.run(_generate(_addresses, _d, _r, _agents, _group, _streams))
