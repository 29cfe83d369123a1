"""Admission control: concurrency and rate limits per peer, and a bound on the time of each request.

`Collaborate` calls `admitted` itself, because only it knows when a stream has joined. The interceptor wraps the
calls of all other methods, those of the health and reflection services included.
"""

import asyncio
import inspect
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from cospan.server.admission import peer_limits
from cospan.server.admission.auth import peer_identity
from cospan.server.admission.peer_limits import Account, Kind, limit_of_all, limit_of_peer
from cospan.server.net.log_throttle import LogThrottle
from cospan.wire.codec.error_status import status_code, to_trailing_metadata
from cospan.wire.errors import CospanError, InvalidMessageError, RemoteError
from cospan.wire.security.identity import Identity, with_malformed_certificate

log = logging.getLogger(__name__)

_REQUEST_SECONDS = 10.0
"""A call must send its request within this time."""
_SWEEP_FROM = 1024
"""From this number of accounts on, blank ones are deleted."""

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


async def refuse(context: Context, error: RemoteError) -> NoReturn:
    """Ends a call with a typed error."""
    await context.abort(status_code(error), str(error), to_trailing_metadata(error))
    raise AssertionError("abort raises")


@dataclass(slots=True)
class Entry:
    """One call that was admitted."""

    key: str
    agents: int
    kind: Kind
    has_joined: bool


class AdmissionInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc's stubs leave it untyped
    """The accounts of all peers of one coordinator; on one event loop, without locks."""

    def __init__(
        self,
        agents: int,
        own_way: frozenset[str],
        looking: frozenset[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """No peer has an account yet.

        Args:
            agents: number of agents in the run's specification.
            own_way: full names of the methods that call `admitted` themselves.
            looking: full names of the methods whose cost grows with the run.
            clock: gives the time, in seconds.
        """
        self.refused: Counter[str] = Counter()
        """Number of calls and streams that were rejected or ended, by error reason."""
        self.on_refusal: list[Callable[[CospanError], None]] = []
        """Called with the error of each of them."""
        self.received_bytes = 0
        """Total size of the messages of streams that have joined."""
        self._agents, self._own_way, self._looking, self._clock = agents, own_way, looking, clock
        self._accounts: dict[tuple[str, Kind], tuple[Account, int]] = {}
        self._all = dict.fromkeys(Kind, Account())
        self._sweep_from = _SWEEP_FROM
        self._throttle = LogThrottle(clock=clock)
        self._tasks: set[asyncio.Task[Any]] = set()

    # Accounts ---------------------------------------------------------------------------------------------------

    @contextmanager
    def admitted(self, kind: Kind, identity: Identity) -> Iterator[Entry]:
        """Counts a call as open within the context.

        Raises:
            TooManyStreamsError: this peer, or all peers together, have reached their limit.
            RateLimitedError: this peer opens them too fast.
        """
        entry = self._enter(kind, identity)
        try:
            yield entry
        finally:
            self._leave(entry)

    async def identified(self, context: Context) -> Identity:
        """The identity of the caller; aborts a call whose certificate is malformed.

        Raises:
            IdentityMismatchError: it is malformed; the call has ended.
        """
        try:
            return peer_identity(context)
        except RemoteError as refusal:
            self.count(refusal, with_malformed_certificate(address=context.peer() or ""))
            await refuse(context, refusal)

    def accompany(self) -> None:
        """Records the current task, which serves a call, until it has ended."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def calls_ended(self, seconds: float) -> None:
        """Waits at most this time until the tasks of all calls have ended.

        gRPC's server may stop sooner, and a task that the end of the event loop cancels logs a traceback.
        """
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    def joined(self, entry: Entry) -> None:
        """Notes that the stream has joined, with its `Welcome` queued: it no longer counts as unjoined."""
        entry.has_joined = True
        self._change(entry, peer_limits.joined)

    def count(self, error: CospanError, identity: Identity) -> None:
        """Counts a rejection, and logs it unless another was logged within the last second."""
        self.refused[error.reason] += 1
        if self._throttle.due("rejection") is not None:
            log.warning("refused %s: %s (%s)", identity.name, error, error.reason)
        for listener in self.on_refusal:
            listener(error)

    def _enter(self, kind: Kind, identity: Identity) -> Entry:
        now, agents = self._clock(), identity.most_agents(self._agents)
        entry = Entry(identity.key, agents, kind, has_joined=False)
        account, _ = self._accounts.get((entry.key, kind), (Account(), agents))
        account = peer_limits.opened(account, kind, limit_of_peer(kind, agents), now, identity.name)
        of_all = limit_of_all(kind, self._agents)
        self._all[kind] = peer_limits.opened(self._all[kind], kind, of_all, now, "this run")
        self._accounts[entry.key, kind] = account, agents
        if len(self._accounts) >= self._sweep_from:
            self._sweep(now)
        return entry

    def _leave(self, entry: Entry) -> None:
        unjoined = entry.kind is Kind.STREAM and not entry.has_joined
        self._change(entry, lambda account: peer_limits.closed(account, unjoined=unjoined))

    def _change(self, entry: Entry, change: Callable[[Account], Account]) -> None:
        account, agents = self._accounts[entry.key, entry.kind]
        self._accounts[entry.key, entry.kind] = change(account), agents
        self._all[entry.kind] = change(self._all[entry.kind])

    def _sweep(self, now: float) -> None:
        """Deletes blank accounts, so that their number is bounded by what is open."""
        self._accounts = {
            (key, kind): (account, agents)
            for (key, kind), (account, agents) in self._accounts.items()
            if not peer_limits.is_blank(account, limit_of_peer(kind, agents), now)
        }
        self._sweep_from = max(_SWEEP_FROM, 2 * len(self._accounts))

    # Calls ------------------------------------------------------------------------------------------------------

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call, wrapped in its admission check."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method in self._own_way:
            return handler
        short = Kind.LOOK if method in self._looking else Kind.CALL
        return self._guarded(handler, Kind.WATCH if handler.response_streaming else short)

    def _guarded(self, handler: Any, kind: Kind) -> Any:
        """The handler as a stream handler that reads the request itself: gRPC would wait for it without limit."""

        async def call(requests: AsyncIterator[Any], context: Context) -> Any:
            self.accompany()
            identity = await self.identified(context)
            try:
                with self.admitted(kind, identity):
                    return await _answer(handler, requests, context)
            except RemoteError as error:
                self.count(error, identity)
                await refuse(context, error)

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(call, handler.request_deserializer, handler.response_serializer)


async def _answer(handler: Any, requests: AsyncIterator[Any], context: Context) -> Any:
    """Runs the handler on its one request or its stream of requests."""
    if handler.request_streaming:
        behaviour = handler.stream_stream if handler.response_streaming else handler.stream_unary
        answer = behaviour(requests, context)
    else:
        behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary
        answer = behaviour(await _request(context), context)
    if not inspect.isasyncgen(answer):
        return await answer
    async for response in answer:
        await context.write(response)
    return None


async def _request(context: Context) -> Any:
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            request = await context.read()
    except TimeoutError:
        raise InvalidMessageError(f"no request came within {_REQUEST_SECONDS:g} s") from None
    except DecodeError:
        raise InvalidMessageError("the bytes are no request of this method") from None
    if request is grpc.aio.EOF:
        raise InvalidMessageError("the call has ended without a request")
    return request
