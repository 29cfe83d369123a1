"""Who hears fuzzed messages: the decoder, the machine behind it, and what must hold of both whatever was said."""

import contextlib
import functools
import logging
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from fuzz import specimens
from google.protobuf.message import DecodeError, Message

from cospan.client.session import machine as session
from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix
from cospan.core.linalg.subspace import orthonormality_error
from cospan.core.secure_sums.membership import Member, Membership
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.server.machine.events import (
    DeclineArrived,
    GradientArrived,
    HeartbeatArrived,
    JoinRequested,
    LeaveArrived,
    StreamClosed,
    Tick,
)
from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.engine import Engine
from cospan.server.runtime.streams import Stream
from cospan.server.telemetry.run_status import run_report
from cospan.wire import messages as m
from cospan.wire.codec.bounds import MAX_BASIS_ENTRY
from cospan.wire.codec.fast_path import MessageLayout
from cospan.wire.codec.messages import decode_agent_message, decode_coordinator_message, encode_agent_message
from cospan.wire.codec.reports import encode_run_report
from cospan.wire.errors import CoordinatorUnavailableError, InvalidMessageError, OutOfTurnError, RemoteError

PEERS = 4
_LONGEST_REFUSAL = 2000
"""A status travels in HTTP/2 headers, 8 KiB in all."""
_ORTHONORMAL = 1e-12
PAUSES = {6: 1.0, 7: 40.0}
"""Values of a turn's first byte that let time pass, and the seconds."""
BREAKS = 5


class Subject(Protocol):
    """A peer under test."""

    def hear(self, first: int, wire: bytes) -> None:
        """Takes a message; `first` says what happens before."""


class _Findings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(record.getMessage()) from (record.exc_info[1] if record.exc_info else None)


@contextlib.contextmanager
def errors_are_findings() -> Iterator[None]:
    """What the coordinator logs as an error is a finding: it has caught an unexpected exception."""
    log, handler = logging.getLogger("cospan"), _Findings(logging.ERROR)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def refused(refusal: RemoteError, kind: type[RemoteError] = RemoteError) -> None:
    """Looks at an error that was raised as it may be: it must fit into a status."""
    assert isinstance(refusal, kind), f"{type(refusal).__name__}: {refusal}"
    assert 0 < len(str(refusal)) < _LONGEST_REFUSAL, f"a refusal of {len(str(refusal))} characters"
    assert str(refusal).isprintable(), "a refusal moves the cursor"


class Value:
    """A decoder alone: it refuses, or gives a value that survives the way back."""

    def __init__(self, kind: type[Message], decode: Any, encode: Any) -> None:
        self._kind, self._decode, self._encode = kind, decode, encode

    def hear(self, first: int, wire: bytes) -> None:
        """Decodes, encodes, and decodes again."""
        try:
            value = self._decode(self._kind.FromString(wire))
        except DecodeError:
            return
        except RemoteError as refusal:
            refused(refusal, InvalidMessageError)
            return
        once = self._encode(value).SerializeToString(deterministic=True)
        again = self._encode(self._decode(self._kind.FromString(once)))
        assert again.SerializeToString(deterministic=True) == once, "what was decoded comes back as something else"


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@functools.cache
def _begun(spec: RunSpecification) -> CoordinatorState:
    """A run with its two processes in it."""
    engine = Engine(spec, run_id=specimens.RUN_ID, clock=Clock())
    for which, agents in enumerate(specimens.HOSTED):
        join = m.Join(specimens.instance(which), agents, spec.feature_dim, specimens.FINGERPRINT)
        join = specimens.with_key(spec, join)
        engine.handle(JoinRequested(join, engine.streams.open().number, specimens.TOKENS[which]))
    return engine.state


class Coordinator:
    """A coordinator without sockets: its decoder, its engine and its machine.

    Four processes speak to it. Two are in the run, two begin as strangers.
    """

    def __init__(self, spec: RunSpecification) -> None:
        self._clock = Clock()
        self._engine = Engine(spec, run_id=specimens.RUN_ID, clock=self._clock)
        self._streams: list[Stream | None] = [None] * PEERS
        for which, token in enumerate(specimens.TOKENS):
            stream = self._streams[which] = self._engine.streams.open()
            stream.token = token
        self._engine.loop.state = _begun(spec)
        self._basis: np.ndarray | None = None
        self._layout: MessageLayout | None = None
        self._tokens = 0
        """Whether a gradient had numbers so large or small that what they come to need not be finite."""

    def hear(self, first: int, wire: bytes) -> None:
        """One message of one of the processes, over a new stream where its older one has ended."""
        peer, happening = first % PEERS, first // PEERS % 8
        self._clock.now += 0.01
        if happening in PAUSES:
            self._clock.now += PAUSES[happening]
            self._engine.handle(Tick())
        elif happening == BREAKS:
            self._hang_up(peer)
        stream = self._streams[peer]
        if stream is None or stream.closed:
            self._hang_up(peer)
            stream = self._streams[peer] = self._engine.streams.open()
        try:
            self._receive(stream, wire)
        except DecodeError:
            stream.close(None)
        except RemoteError as refusal:
            refused(refusal)
            stream.close(refusal)
        self._check()

    def _receive(self, stream: Stream, wire: bytes) -> None:
        """What the service does with a message."""
        message = self._decoded(wire)
        if isinstance(message, m.GradientUpload) and isinstance(message.contribution, Contribution):
            self._look_at(message.contribution)
        token = stream.token
        match message:
            case m.Join() if token is None:
                self._tokens += 1
                self._engine.handle(JoinRequested(message, stream.number, f"token-of-join-{self._tokens}"))
            case m.GradientUpload() if token is not None:
                self._engine.handle(GradientArrived(token, message))
            case m.Heartbeat() if token is not None:
                self._engine.handle(HeartbeatArrived(token))
            case m.RoundDeclined(round=number) if token is not None:
                self._engine.handle(DeclineArrived(token, number))
            case m.Leave(cause=cause, returning=returning) if token is not None:
                self._engine.handle(LeaveArrived(token, cause, returning))
                stream.close(None)
            case _:
                raise OutOfTurnError("the first message of a stream must be a Join, and no other")

    def _decoded(self, wire: bytes) -> m.AgentMessage:
        """In full; what the layout of the newest gradient makes of it is the same, or nothing."""
        spec = self._engine.state.specification
        read = self._layout.read(wire) if self._layout is not None else None
        try:
            message = decode_agent_message(pb.CollaborateRequest.FromString(wire), spec)
        except (DecodeError, RemoteError):
            assert read is None, "what is refused was read by the layout of another"
            raise
        if isinstance(message, m.GradientUpload):
            in_full = encode_agent_message(message).SerializeToString(deterministic=True)
            if read is not None:
                assert encode_agent_message(read).SerializeToString(deterministic=True) == in_full, "read otherwise"
            self._layout = MessageLayout.of(wire, message, spec)
        return message

    def _look_at(self, contribution: Contribution) -> None:
        """What is decoded is what the arithmetic needs."""
        gradient = contribution.gradient
        parts = [gradient.left, gradient.right] if isinstance(gradient, FactoredMatrix) else [gradient.values]
        parts += [part for part in (contribution.head_second_moment, contribution.pooled) if part is not None]
        for part in parts:
            assert np.isfinite(part).all(), "an entry is not finite"

    def _hang_up(self, peer: int) -> None:
        stream = self._streams[peer]
        if stream is None:
            return
        self._engine.streams.forget(stream)
        if stream.token is not None:
            self._engine.handle(StreamClosed(stream.token, stream.number))
        self._streams[peer] = None

    def _check(self) -> None:
        """The invariants of the machine, the basis, and what everybody is told."""
        state = self._engine.state
        state.check()
        assert state.specification.problems() == []
        assert state.finish_cause is not m.FinishCause.FAILED, "an agent's numbers have ended the run"
        if state.basis is not self._basis:
            self._basis = state.basis
            assert state.basis.shape == (state.specification.feature_dim, state.specification.rank)
            assert np.isfinite(state.basis).all(), "the basis is not finite"
            assert orthonormality_error(state.basis) < _ORTHONORMAL, "the basis is not orthonormal"
        for stream in self._streams:
            while stream is not None and stream.outbox:
                decode_coordinator_message(pb.CollaborateResponse.FromString(stream.outbox.popleft()[0]))
        encode_run_report(
            run_report(self._engine.state, self._engine.history, self._engine.now())
        ).SerializeToString()


class Agent:
    """An agent without sockets: its decoder and its machine, and a learner that answers every basis."""

    def __init__(self, spec: RunSpecification) -> None:
        self._spec, self._now = spec, 0.0
        self._join = m.Join("process of a", specimens.HOSTED[0], spec.feature_dim, specimens.FINGERPRINT)
        self._gradient = Contribution(DenseMatrix(np.zeros((spec.feature_dim, spec.rank))))
        self._begin()

    def _begin(self) -> None:
        self._masked: dict[int, tuple[m.GradientUpload, bytes]] = {}
        self._state, _ = session.initial_state(progress_timeout_seconds=60.0, now=self._now)
        for event in (session.Described(self._spec), session.Prepared(self._join), session.Connected()):
            self._step(event)

    def hear(self, first: int, wire: bytes) -> None:
        """One message of the coordinator; over a new stream where the conversation has ended."""
        self._now += 0.01
        self._happens(first // PEERS % 8)
        if self._state.phase in (session.Phase.DONE, session.Phase.FAILED):
            self._begin()
        elif self._state.phase is session.Phase.OFFLINE:
            self._step(session.Connected())
        try:
            message = decode_coordinator_message(pb.CollaborateResponse.FromString(wire))
        except DecodeError:
            return
        except RemoteError as refusal:
            refused(refusal, InvalidMessageError)
            return
        self._step(session.Received(message))

    def _happens(self, happening: int) -> None:
        """What happens before the message."""
        if happening in PAUSES:
            self._now += PAUSES[happening]
            self._step(session.Tick())
        elif happening == BREAKS:
            self._step(session.StreamBroke(CoordinatorUnavailableError("the stream broke"), 0.5))

    def _step(self, event: session.Event) -> None:
        self._state, commands = session.step(self._state, event, self._now)
        self._state.check()
        for command in commands:
            match command:
                case session.Learn(round=number, basis=basis):
                    shape = (self._spec.feature_dim, self._spec.rank)
                    assert basis.shape == shape, f"a learner was handed a basis of shape {basis.shape}"
                    assert np.abs(basis).max() <= MAX_BASIS_ENTRY, "a learner was handed what can be no basis"
                    self._step(session.GradientReady(m.GradientUpload(number, self._gradient)))
                case session.Agree(members=members):
                    own = Member(specimens.key_of(specimens.HOSTED[0][0]), specimens.HOSTED[0])
                    membership = Membership(members.stamp.run_id, members.members)
                    if not membership.problem_for(own, self._spec.min_cohort):
                        self._step(session.Agreed(membership.epoch_id))
                case session.TransmitMasked(upload=sent, epoch_id=epoch_id):
                    once = self._masked.setdefault(sent.round, (sent, epoch_id))
                    assert once == (sent, epoch_id), "one vector is masked for a round"
                case session.Transmit(message=message):
                    encode_agent_message(message).SerializeToString()
                case session.Conclude(message=told, basis=basis):
                    shape = (self._spec.feature_dim, self._spec.rank)
                    assert basis is None or basis.shape == shape, f"the last basis has shape {basis.shape}"
                    assert told.isprintable(), "the last words move the cursor"
                case session.Fail(error=error):
                    assert str(error)
                    assert str(error).isprintable(), "a refusal moves the cursor"
