"""The gRPC methods: they decode and check requests, hand them to the engine, and encode responses.

If a method raises a `RemoteError`, `cospan.server.admission.interceptor` ends the call with it; `collaborate`,
which the interceptor does not wrap, does so itself. The engine executes the machine's commands.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from cospan.core.secure_sums.membership import Member
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.server.admission.auth import peer_identity
from cospan.server.admission.interceptor import AdmissionInterceptor, Context, Entry, refuse
from cospan.server.admission.peer_limits import Kind
from cospan.server.admission.stream_rate import StreamRateLimit, StreamRates
from cospan.server.machine.events import (
    DeclineArrived,
    HeartbeatArrived,
    JoinRequested,
    LeaveArrived,
    StreamClosed,
)
from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.agent_engine import AgentEngine
from cospan.server.runtime.streams import Stream
from cospan.server.telemetry.agent_stats import AgentStats
from cospan.server.telemetry.run_status import run_report
from cospan.wire.codec.fast_path import message_reader
from cospan.wire.codec.matrices import encode_matrix
from cospan.wire.codec.messages import decode_agent_message, encode_stamp, fill_head_covariance
from cospan.wire.codec.past_rounds import encode_recalled
from cospan.wire.codec.reports import encode_round_report, encode_run_report
from cospan.wire.codec.specification import encode_specification
from cospan.wire.errors import (
    CospanError,
    DrainingError,
    IdentityMismatchError,
    InternalError,
    InvalidMessageError,
    MembershipRefusedError,
    OutOfTurnError,
    RemoteError,
)
from cospan.wire.messages import AgentMessage, GradientUpload, Heartbeat, Join, Leave, RoundDeclined, RunPhase
from cospan.wire.secure_sums.proof import check_joined
from cospan.wire.security.identity import Identity, Right
from cospan.wire.security.tls import TlsSource
from cospan.wire.text import MAX_TEXT, printable

_SERVICE = pb.DESCRIPTOR.services_by_name["CoordinatorService"].full_name
OWN_WAY = frozenset({f"/{_SERVICE}/Collaborate"})
"""The methods that see to their own admission."""
LOOKING = frozenset(f"/{_SERVICE}/{name}" for name in ("GetRun", "GetBasis", "StopRun"))
"""Those that are for observers, and cost as much as the run is large."""
_JOIN_SECONDS = 20.0
"""How long a stream may stay open without a Join."""

_FAREWELL_SECONDS = 1.0
"""How long a stream waits, after the last message, for the other side to end it."""
_LAST_WORDS_SECONDS = 5.0
"""How long a stream that is to end waits for a peer that does not read what is on its way."""


class UnreadableMessageError(CospanError):
    """A peer does not read what is sent to it; nothing is sent, for it would not read that either."""

    reason = "UNREAD"
    remedy = "Inspect the peer's network, or end its process if that hangs."


class CoordinatorService:
    """`cospan.rpc.v1.CoordinatorService` over whatever serves a run."""

    def __init__(
        self,
        engine: AgentEngine,
        stop: Callable[[str], None],
        door: AdmissionInterceptor,
        agent_stats: AgentStats,
        tls: TlsSource | None = None,
    ) -> None:
        """Serves an engine; `stop` ends its run, with a sentence that says why; `door` says who may come in.

        What observers may know of agents beside the machine's state goes to `agent_stats`. Keys of secure sums are
        verified by the authority of `tls`, as their neighbours do: one that is not proven would end their sessions.
        """
        self._tls = tls
        self._engine, self._stop, self._door, self._agent_stats = engine, stop, door, agent_stats

    async def collaborate(self, _requests: AsyncIterator[pb.CollaborateRequest], context: Context) -> None:
        """One agent process' stream."""
        self._door.accompany()
        identity = await self._door.identified(context)
        try:
            with self._door.admitted(Kind.STREAM, identity) as entry:
                await self._converse(context, identity, entry)
        except RemoteError as refusal:
            self._door.count(refusal, identity)
            await refuse(context, refusal)
        except UnreadableMessageError as failure:
            self._door.count(failure, identity)
            # gRPC would say nothing more before what is on its way has arrived; so the stream is reset.
            raise asyncio.CancelledError from failure

    async def _converse(self, context: Context, identity: Identity, entry: Entry) -> None:
        """One task reads, another writes, and this coroutine decides when the stream ends.

        Raises:
            RemoteError: what the stream is to end with.
            UnreadableMessageError: the peer does not read what is sent to it.
        """
        stream = self._engine.streams.open()
        reader = asyncio.create_task(self._read(stream, context, identity, entry))
        writer = asyncio.create_task(stream.write_to(context))
        writer.add_done_callback(lambda _: stream.close(None))
        try:
            await stream.ended.wait()
            await _last_words(writer)
            if stream.error is None:
                # Ending the call first would reset the other half of it, and some clients (grpclib) then throw away
                # what they have received and not read: the Finish.
                await asyncio.wait({reader}, timeout=_FAREWELL_SECONDS)
        finally:
            reader.cancel()
            writer.cancel()
            self._engine.streams.forget(stream)
            if stream.token is not None:
                self._engine.handle(StreamClosed(stream.token, stream.number))
        if stream.error is not None:
            raise stream.error

    async def _read(self, stream: Stream, context: Context, identity: Identity, entry: Entry) -> None:
        """Feeds the machine with what the agent says, until it stops speaking or says something wrong."""
        try:
            async with asyncio.timeout(_JOIN_SECONDS):
                request = await context.read()
            if request is not grpc.aio.EOF:
                await self._join(stream, request, identity)
                self._door.joined(entry)
                await self._listen(stream, context)
        except RemoteError as refusal:
            self._agent_stats.note_rejection(self._engine.state, stream.token)
            stream.close(refusal)
        except DecodeError:
            self._agent_stats.note_rejection(self._engine.state, stream.token)
            stream.close(InvalidMessageError("the bytes are no CollaborateRequest of cospan.rpc.v1"))
        except TimeoutError:
            stream.close(OutOfTurnError(f"no Join came within {_JOIN_SECONDS:g} s"))
        except (grpc.aio.UsageError, grpc.RpcError):
            stream.close(None)  # the peer is gone
        except Exception:
            stream.close(InternalError("the coordinator failed; its log says how"))
            raise
        else:
            stream.close(None)

    async def _join(self, stream: Stream, request: bytes, identity: Identity) -> None:
        message = decode_agent_message(pb.CollaborateRequest.FromString(request), self._engine.state.specification)
        if not isinstance(message, Join):
            raise OutOfTurnError("the first message of a stream must be a Join")
        # Of a join that resumes, too: a token is no certificate.
        identity.require_agents(message.agent_ids, as_relay=True)
        if self._engine.state.specification.secure_sums and self._tls is not None:
            _check_keys(message, self._tls, self._engine.state)
        if not message.agent_ids:
            await self._engine.know_sites()
        self._engine.handle(JoinRequested(message, stream.number, secrets.token_urlsafe(24)))
        if stream.token is None and message.agent_ids:
            # A relay welcomes the session later, if at all; what the stream says, and its end, count from now on.
            stream.token = self._engine.state.members.hosts.get(message.agent_ids[0])

    async def _listen(self, stream: Stream, context: Context) -> None:
        """What a stream that has joined says; no more of it than its rates allow."""
        state = self._engine.state
        session = state.members.sessions.get(stream.token or "")
        agents = len(session.agent_ids) if session is not None else 1
        rates = StreamRates.of_session(state.specification, agents)
        rate_limit = StreamRateLimit(rates, round_number=state.round, now=time.monotonic())
        read, engine, door = message_reader(state.specification), self._engine, self._door
        while (request := await context.read()) is not grpc.aio.EOF:
            door.received_bytes += len(request)
            rate_limit.charge(len(request), engine.state.round, time.monotonic())
            if not stream.closed:
                self._receive(stream, read(request))

    def _receive(self, stream: Stream, message: AgentMessage) -> None:
        token = stream.token
        assert token is not None
        match message:
            case GradientUpload():
                self._engine.take(token, message)
                if message.td_error is not None:
                    self._agent_stats.note_td_error(self._engine.state, token, message.td_error)
                if message.bounded:
                    self._agent_stats.note_bounded(self._engine.state, token, message.bounded)
                if message.improved:
                    self._agent_stats.note_improved(self._engine.state, token, message.improved)
            case Heartbeat(saved_rounds=saved, feed_silent_seconds=silent):
                if silent is not None:
                    self._agent_stats.note_feed(self._engine.state, token, silent, self._engine.now())
                self._engine.handle(HeartbeatArrived(token, min(saved, self._engine.state.round + 1)))
            case RoundDeclined(round=number):
                self._engine.handle(DeclineArrived(token, number))
            case Leave(cause=cause, returning=returning):
                self._engine.handle(LeaveArrived(token, cause, returning))
                stream.close(None)
            case Join():
                raise OutOfTurnError("this stream has joined already")

    async def get_specification(
        self, _request: pb.GetSpecificationRequest, _context: Context
    ) -> pb.GetSpecificationResponse:
        """What the run is."""
        state = self._engine.state
        return pb.GetSpecificationResponse(
            stamp=encode_stamp(state.stamp),
            specification=encode_specification(state.specification),
            unix_seconds=time.time(),
        )

    async def recall_rounds(self, request: pb.RecallRoundsRequest, context: Context) -> pb.RecallRoundsResponse:
        """Past rounds of a session's agents, for its process, which was started again."""
        state = self._engine.state
        session = state.session(request.session_token)
        peer_identity(context).require_agents(session.agent_ids, as_relay=True)
        recalled = await self._engine.recall(session.agent_ids, request.from_round, request.before_round)
        return encode_recalled(state.stamp, recalled)

    async def get_run(self, _request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """The run as it stands."""
        peer_identity(context).require(Right.READ)
        engine = self._engine
        return encode_run_report(run_report(engine.state, engine.history, engine.now(), self._agent_stats))

    async def get_basis(self, _request: pb.GetBasisRequest, context: Context) -> pb.GetBasisResponse:
        """The newest basis."""
        peer_identity(context).require(Right.READ)
        state = self._engine.state
        answer = pb.GetBasisResponse(stamp=encode_stamp(state.stamp), basis=encode_matrix(state.basis))
        fill_head_covariance(answer, state.head_covariance)
        return answer

    async def watch_rounds(
        self, request: pb.WatchRoundsRequest, context: Context
    ) -> AsyncIterator[pb.WatchRoundsResponse]:
        """Each round as it closes; the end of the stream is that of the run, unless an error says otherwise."""
        peer_identity(context).require(Right.READ)
        async for report in self._engine.history.follow(request.from_round):
            yield encode_round_report(report, include_basis=request.include_basis)
        if self._engine.state.phase is RunPhase.DRAINING:
            raise DrainingError("the coordinator goes down, and the run goes on later; watch again then")

    async def stop_run(self, request: pb.StopRunRequest, context: Context) -> pb.StopRunResponse:
        """Ends the run in order; a run that is over stays as it is."""
        identity = peer_identity(context)
        identity.require(Right.STOP)
        if len(request.cause) > MAX_TEXT:
            raise InvalidMessageError(f"cause has {len(request.cause)} characters; it may have {MAX_TEXT}")
        said = f": {printable(request.cause)}" if request.cause else ""
        self._stop(f"it was stopped by {identity.name}{said}")
        return pb.StopRunResponse(stamp=encode_stamp(self._engine.state.stamp))


def _check_keys(join: Join, tls: TlsSource, state: CoordinatorState) -> None:
    """Checks that the keys of a join are of processes that may speak for its agents.

    A relay joins again with all its members whenever one comes or goes: those that are here already, with the same
    proof, were checked when they came.

    Raises:
        IdentityMismatchError: one is not proven.
    """
    sessions = {state.members.keys.get(each.public_key, "") for each in join.sum_members}
    offers = [state.members.offers[token] for token in sessions if token]
    checked = {member: offer.key_proofs.get(member.public_key) for offer in offers for member in offer.members}
    for each in join.sum_members:
        member = each if each.agent_ids else Member(each.public_key, join.agent_ids)
        proof = join.key_proofs.get(member.public_key)
        if proof is not None and checked.get(member) == proof:
            continue
        try:
            check_joined(member, proof, tls.material.authority, time.time())
        except MembershipRefusedError as refusal:
            raise IdentityMismatchError(f"{refusal}; use the certificate of that agent") from refusal


async def _last_words(writer: "asyncio.Task[None]") -> None:
    """Lets what is on its way arrive.

    Raises:
        UnreadableMessageError: the peer does not read it.
    """
    done, _ = await asyncio.wait({writer}, timeout=_LAST_WORDS_SECONDS)
    if not done:
        raise UnreadableMessageError(f"the peer did not read for {_LAST_WORDS_SECONDS:g} s what was sent to it")
    writer.result()


def _serialise(message: Any) -> bytes:
    """Messages that are bytes already have been serialised once for all streams."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def handlers(service: CoordinatorService) -> grpc.GenericRpcHandler:
    """The generic handler of the service.

    It is written out rather than generated because messages may be bytes: a basis is serialised once a round, and
    what agents send is counted before it is parsed.
    """
    unary: dict[str, tuple[Any, Any]] = {
        "GetSpecification": (service.get_specification, pb.GetSpecificationRequest),
        "RecallRounds": (service.recall_rounds, pb.RecallRoundsRequest),
        "GetRun": (service.get_run, pb.GetRunRequest),
        "GetBasis": (service.get_basis, pb.GetBasisRequest),
        "StopRun": (service.stop_run, pb.StopRunRequest),
    }
    methods = {
        name: grpc.unary_unary_rpc_method_handler(method, request.FromString, _serialise)
        for name, (method, request) in unary.items()
    }
    methods["Collaborate"] = grpc.stream_stream_rpc_method_handler(service.collaborate, None, _serialise)
    watch = grpc.unary_stream_rpc_method_handler(service.watch_rounds, pb.WatchRoundsRequest.FromString, _serialise)
    return grpc.method_handlers_generic_handler(_SERVICE, {**methods, "WatchRounds": watch})
