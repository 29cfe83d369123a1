"""Admission control: concurrency and rate limits per peer, and a bound on the time of each request.

Every call passes here before anything is done for it. `Collaborate` asks by itself, for only it knows when a stream
has joined; all other calls of all services, health and reflection among them, are wrapped by the interceptor.
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

from cospan.server.admission.auth import peer_identity
from cospan.server.admission.peer_limits import (
    Account,
    Kind,
    closed,
    is_blank,
    joined,
    opened,
    quota_of_all,
    quota_of_peer,
)
from cospan.wire.codec.error_status import status_code, to_trailing_metadata
from cospan.wire.errors import CospanError, InvalidMessageError, RemoteError
from cospan.wire.security.identity import Identity, with_malformed_certificate

log = logging.getLogger(__name__)

_REQUEST_SECONDS = 10.0
"""How long a call may take to send its request."""
_SWEEP_FROM = 1024
"""With so many accounts, those that are blank are looked for."""
_QUIET_SECONDS = 1.0
"""At most one refusal in so many seconds is logged: a flood must not fill the disk."""

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


async def refuse(context: Context, error: RemoteError) -> NoReturn:
    """Ends a call with a typed error."""
    await context.abort(status_code(error), str(error), to_trailing_metadata(error))
    raise AssertionError("abort raises")


@dataclass(slots=True)
class Entry:
    """One call that was let in."""

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
        """Begins with empty accounts.

        Args:
            agents: of the run.
            own_way: full names of the methods that call `admitted` themselves.
            looking: full names of those that cost as much as the run is large.
            clock: gives the time, in seconds.
        """
        self.refused: Counter[str] = Counter()
        """How many calls and streams were refused or cut off, by reason."""
        self.on_refusal: list[Callable[[CospanError], None]] = []
        """Called with what each of them was told."""
        self.received_bytes = 0
        """Of all messages of streams that have joined."""
        self._agents, self._own_way, self._looking, self._clock = agents, own_way, looking, clock
        self._accounts: dict[tuple[str, Kind], tuple[Account, int]] = {}
        self._all = dict.fromkeys(Kind, Account())
        self._sweep_from = _SWEEP_FROM
        self._next_line = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()

    # Accounts ---------------------------------------------------------------------------------------------------

    @contextmanager
    def admitted(self, kind: Kind, identity: Identity) -> Iterator[Entry]:
        """Within it a call is open.

        Raises:
            TooManyStreamsError: this peer, or all together, have too many of them open.
            RateLimitedError: this peer has opened too many of late.
        """
        entry = self._enter(kind, identity)
        try:
            yield entry
        finally:
            self._leave(entry)

    async def identified(self, context: Context) -> Identity:
        """Who calls; a call whose certificate is malformed is refused here.

        Raises:
            IdentityMismatchError: it is malformed. The call has ended.
        """
        try:
            return peer_identity(context)
        except RemoteError as refusal:
            self.count(refusal, with_malformed_certificate(address=context.peer() or ""))
            await refuse(context, refusal)

    def accompany(self) -> None:
        """Remembers the task that this is called in, that of a call, until it has ended."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def calls_ended(self, seconds: float) -> None:
        """Waits until the tasks of all calls have ended, for so long at most.

        gRPC's server may be stopped sooner, and what the end of the event loop then cancels leaves a traceback.
        """
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    def joined(self, entry: Entry) -> None:
        """A stream has joined."""
        entry.has_joined = True
        self._change(entry, joined)

    def count(self, error: CospanError, identity: Identity) -> None:
        """Counters a refusal, and logs it unless another one was logged just before."""
        self.refused[error.reason] += 1
        now = self._clock()
        if now >= self._next_line:
            self._next_line = now + _QUIET_SECONDS
            log.warning("refused %s: %s (%s)", identity.name, error, error.reason)
        for listener in self.on_refusal:
            listener(error)

    def _enter(self, kind: Kind, identity: Identity) -> Entry:
        now, agents = self._clock(), identity.most_agents(self._agents)
        entry = Entry(identity.key, agents, kind, has_joined=False)
        account, _ = self._accounts.get((entry.key, kind), (Account(), agents))
        account = opened(account, kind, quota_of_peer(kind, agents), now, identity.name)
        self._all[kind] = opened(self._all[kind], kind, quota_of_all(kind, self._agents), now, "this run")
        self._accounts[entry.key, kind] = account, agents
        if len(self._accounts) >= self._sweep_from:
            self._sweep(now)
        return entry

    def _leave(self, entry: Entry) -> None:
        unjoined = entry.kind is Kind.STREAM and not entry.has_joined
        self._change(entry, lambda account: closed(account, unjoined=unjoined))

    def _change(self, entry: Entry, change: Callable[[Account], Account]) -> None:
        account, agents = self._accounts[entry.key, entry.kind]
        self._accounts[entry.key, entry.kind] = change(account), agents
        self._all[entry.kind] = change(self._all[entry.kind])

    def _sweep(self, now: float) -> None:
        """Forgets the accounts that are worth no more than new ones; so their number is bounded by what is open."""
        self._accounts = {
            (key, kind): (account, agents)
            for (key, kind), (account, agents) in self._accounts.items()
            if not is_blank(account, quota_of_peer(kind, agents), now)
        }
        self._sweep_from = max(_SWEEP_FROM, 2 * len(self._accounts))

    # Calls ------------------------------------------------------------------------------------------------------

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call, behind the door."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method in self._own_way:
            return handler
        short = Kind.LOOK if method in self._looking else Kind.CALL
        return self._guarded(handler, Kind.WATCH if handler.response_streaming else short)

    def _guarded(self, handler: Any, kind: Kind) -> Any:
        """The same to the other side; but the request is read here: gRPC would wait for it for ever, uncounted."""

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
    """Does what the handler does, for its one request or for its stream of them."""
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
