"""Fuzzed messages over live streams: a client that says what it likes, and notes how it is refused.

A conversation follows from (seed, peer, its number) and from the round that is open when a message is sent;
where the coordinator ends it, what is left of it is not said. Any refusal with a reason is as it should be.
"""

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Self

import grpc
import grpc.aio
from fuzz import specimens
from fuzz.mutation import mutated

from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire import messages as m
from cospan.wire.codec.error_status import from_rpc_error
from cospan.wire.codec.messages import encode_agent_message
from cospan.wire.errors import CoordinatorUnavailableError, InternalError, NoFreeSiteError, RemoteError
from cospan.wire.limits import max_message_bytes

_METHOD = "/cospan.rpc.v1.CoordinatorService/Collaborate"
_MOST_MESSAGES = 12
_ANSWER_SECONDS = 30.0
_BACK_OFF_SECONDS = (0.02, 0.2)
_MADE_UP = (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)
"""Of gRPC, for a message that is written just when the call ends; the coordinator's own carry a reason."""


@dataclass(slots=True)
class FuzzCounts:
    """What became of the messages."""

    sent: int = 0
    streams: int = 0
    welcomes: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        named = ", ".join(f"{name} {count:,}" for name, count in self.endings.most_common())
        return [
            f"  {self.sent:,} fuzzed messages over {self.streams:,} streams; {self.welcomes:,} welcomes",
            f"  streams ended: {named}",
        ]


class LiveFuzzer:
    """Peers that share one connection to a coordinator.

    async with LiveFuzzer(address, spec, seed=1) as fuzzer:
        await fuzzer.send(1000)
        print(fuzzer.counts)
    """

    def __init__(self, address: str, spec: RunSpecification, *, seed: int, peers: int = 2) -> None:
        """Connects with the first message.

        Args:
            address: HOST:PORT of the coordinator.
            spec: of its run.
            seed: of all chance.
            peers: streams at a time.
        """
        self.counts = FuzzCounts()
        self._spec = spec
        limit = max_message_bytes(spec.feature_dim, spec.rank, pooled=spec.pooled_length)
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", limit)])
        self._collaborate = self._channel.stream_stream(_METHOD)  # no serialisers: bytes
        self._peers = [Peer(self, f"{seed}-{number}") for number in range(peers)]
        self._wanted = 0

    async def send(self, count: int) -> None:
        """Sends at least `count` more fuzzed messages; afterwards no peer of the fuzzer is in the run."""
        self._wanted = self.counts.sent + count
        async with asyncio.TaskGroup() as group:
            for peer in self._peers:
                group.create_task(peer.speak())

    @property
    def enough(self) -> bool:
        """Whether as many were sent as were asked for, or something is wrong."""
        return self.counts.sent >= self._wanted or bool(self.counts.problems)

    def open(self) -> "Line":
        """A new stream."""
        self.counts.streams += 1
        return Line(self._collaborate(timeout=_ANSWER_SECONDS), self.counts)

    @property
    def spec(self) -> RunSpecification:
        """Of the run."""
        return self._spec

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


class Line:
    """One stream. A task reads whatever comes."""

    def __init__(self, call: Any, counts: FuzzCounts) -> None:
        self._call, self._counts = call, counts
        self.round = 0
        """Of the newest message."""
        self.welcomed = asyncio.Event()
        self.ended = asyncio.Event()
        self.refusal: Exception | None = None
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while (wire := await self._call.read()) is not grpc.aio.EOF:
                response = pb.CollaborateResponse.FromString(wire)
                self.round = response.stamp.round
                if response.WhichOneof("event") == "welcome":
                    self._counts.welcomes += 1
                    self.welcomed.set()
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                metadata = await self._call.trailing_metadata() or grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, await self._call.details())
            self._counts.endings["in order"] += 1
        except grpc.aio.AioRpcError as failure:
            self._judge(failure)
        except asyncio.CancelledError:
            self._counts.endings["broken off here"] += 1
        finally:
            self.ended.set()

    def _judge(self, failure: grpc.aio.AioRpcError) -> None:
        if failure.code() in _MADE_UP and not failure.trailing_metadata():
            self._counts.endings["broken off"] += 1
            return
        self.refusal = from_rpc_error(failure, address="the coordinator")
        self._counts.endings[self.refusal.reason] += 1
        if isinstance(self.refusal, InternalError | CoordinatorUnavailableError):
            self._counts.problems.append(f"a stream ended with {failure.code().name}: {failure.details()}")

    async def say(self, wire: bytes) -> bool:
        """Sends bytes; whether the stream still takes any."""
        if self.ended.is_set():
            return False
        try:
            await self._call.write(wire)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError, asyncio.CancelledError):
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            return False  # the reader knows how it ended
        return True

    async def join(self, wire: bytes) -> bool:
        """Sends a Join; whether it was welcomed."""
        if not await self.say(wire):
            return False
        waiting = {asyncio.create_task(event.wait()) for event in (self.welcomed, self.ended)}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return self.welcomed.is_set()

    async def end(self, *, abruptly: bool = False) -> None:
        """Half-closes and waits for the coordinator; or breaks off."""
        if abruptly:
            self._call.cancel()
        elif not self.ended.is_set():
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
                await self._call.done_writing()
        await self.ended.wait()
        await self._reading


class Peer:
    """Holds one conversation after the other."""

    def __init__(self, fuzzer: LiveFuzzer, name: str) -> None:
        self._fuzzer, self._name = fuzzer, name
        self._conversations = 0
        self._agent = f"fuzz-{name}"
        fingerprint = specimens.fingerprint_of(fuzzer.spec)
        own = m.Join(f"fuzzer {name}", (self._agent,), fuzzer.spec.feature_dim, fingerprint)
        self._own = encode_agent_message(own).SerializeToString()
        self._left_behind: bytes | None = None
        """The join of a session that is still in the run."""

    async def speak(self) -> None:
        """Until there is enough."""
        while not self._fuzzer.enough:
            self._conversations += 1
            await self._converse(random.Random(f"{self._name}-{self._conversations}"))
        await self._clear()

    async def _converse(self, rng: random.Random) -> None:
        """A join, valid or not, and messages after it."""
        stranger = rng.random() < 0.3
        if stranger or self._left_behind != self._own or rng.random() < 0.5:
            await self._clear()
        first = self._fuzzed(rng, 0, 1) if stranger else self._own
        line = self._fuzzer.open()
        if await line.join(first):
            self._left_behind = first
            for _ in range(rng.randint(1, _MOST_MESSAGES)):
                mutations = rng.choice((0, 1, 1, 1, 2))
                if self._fuzzer.enough or not await line.say(self._fuzzed(rng, line.round, mutations)):
                    break
                self._fuzzer.counts.sent += mutations > 0
        await line.end(abruptly=rng.random() < 0.1)
        if line.refusal is not None and _asks_for_less(line.refusal):
            await asyncio.sleep(rng.uniform(*_BACK_OFF_SECONDS))
        elif stranger:  # a stream refused at admission has not had its join checked
            self._fuzzer.counts.sent += 1

    async def _clear(self) -> None:
        """Takes what was left behind out of the run, so that no round waits for it: comes back, and leaves."""
        if self._left_behind is None:
            return
        line = self._fuzzer.open()
        if await line.join(self._left_behind):
            await line.say(encode_agent_message(m.Leave("it has said enough")).SerializeToString())
        await line.end()
        self._left_behind = None

    def _fuzzed(self, rng: random.Random, number: int, mutations: int) -> bytes:
        """What an agent might say in this round, so often mutated."""
        spec = self._fuzzer.spec
        said = specimens.agent_message(spec, rng)
        if rng.random() < 0.7:
            gradient = specimens.gradient(
                spec, rng, max(0, number + rng.choice((0, 0, 0, 0, -1, 1))), (self._agent,)
            )
            said = replace(gradient, agent_ids=()) if rng.random() < 0.5 else gradient
        wire = encode_agent_message(said).SerializeToString()
        for _ in range(mutations):
            wire = mutated(wire, pb.CollaborateRequest, rng)
        return wire


def _asks_for_less(refusal: Exception) -> bool:
    """Whether it speaks too much for the coordinator."""
    exhausted = isinstance(refusal, RemoteError) and refusal.code == "RESOURCE_EXHAUSTED"
    return exhausted and not isinstance(refusal, NoFreeSiteError)
