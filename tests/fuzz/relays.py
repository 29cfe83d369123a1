"""A relay that hears fuzzed messages, of its agents or of its coordinator; who is on the other side is honest."""

from collections import deque
from dataclasses import replace

import numpy as np
from fuzz import specimens
from fuzz.subjects import BREAKS, PAUSES, PEERS, Agent, Clock, refused
from google.protobuf.message import DecodeError

from cospan.client.session import machine as session
from cospan.core.aggregation.basis_update import initial_head_covariance
from cospan.core.secure_sums.layout import layout_of
from cospan.core.secure_sums.membership import Member, Membership
from cospan.core.specification import RunSpecification
from cospan.relay import machine
from cospan.relay.events import DeclineUp, EpochAbove, Event, HostAgents, RoundOpened, SumUp, Welcomed
from cospan.relay.members import partial_sum
from cospan.relay.vectors import VectorsBelow
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.server.machine import events
from cospan.server.machine.secure_sums.epochs import Offer
from cospan.server.machine.state import OVER
from cospan.wire import messages as m
from cospan.wire.codec.messages import (
    decode_agent_message,
    decode_coordinator_message,
    encode_agent_message,
    encode_coordinator_message,
)
from cospan.wire.errors import (
    MembershipRefusedError,
    OutOfTurnError,
    RemoteError,
)


class Below:
    """A relay whose agents speak: its decoder and its machine. Its coordinator answers at once.

    Four processes speak to it. Two are in the run, two begin as strangers.
    """

    def __init__(self, spec: RunSpecification) -> None:
        self._spec, self._clock = spec, Clock()
        self._state = machine.initial_state(spec, gather_agents=4, level=1, now=0.0)
        self._streams: list[tuple[int, str | None] | None] = [None] * PEERS
        self._numbers, self._round = 0, 0
        self._closed: set[int] = set()
        self._posted: deque[Event] = deque()
        for which, agents in enumerate(specimens.HOSTED):
            join = m.Join(specimens.instance(which), agents, spec.feature_dim, specimens.FINGERPRINT)
            self._numbers += 1
            self._streams[which] = self._numbers, specimens.TOKENS[which]
            joining = specimens.with_key(spec, join)
            self._handle(events.JoinRequested(joining, self._numbers, specimens.TOKENS[which]))

    def hear(self, first: int, wire: bytes) -> None:
        """One message of one of the processes, over a new stream where its older one has ended."""
        peer, happening = first % PEERS, first // PEERS % 8
        self._clock.now += 0.01
        if happening in PAUSES:
            self._clock.now += PAUSES[happening]
            self._handle(events.Tick())
        elif happening == BREAKS:
            self._hang_up(peer)
        stream = self._streams[peer]
        if stream is not None and stream[0] in self._closed:
            self._hang_up(peer)
            stream = None
        if stream is None:
            self._numbers += 1
            self._streams[peer] = self._numbers, None
        try:
            self._receive(peer, decode_agent_message(pb.CollaborateRequest.FromString(wire), self._spec_now))
        except DecodeError:
            self._hang_up(peer)
        except RemoteError as refusal:
            refused(refusal)
            self._hang_up(peer)
        if self._state.fleet.phase in OVER:
            self.__init__(self._spec)  # type: ignore[misc]  # the next message is of another run

    @property
    def _spec_now(self) -> RunSpecification:
        return self._state.shown.specification

    def _receive(self, peer: int, message: m.AgentMessage) -> None:
        """What the service does with a message."""
        stream = self._streams[peer]
        assert stream is not None
        number, token = stream
        match message:
            case m.Join() if token is None:
                token = f"token-of-join-{number}"
                self._handle(events.JoinRequested(message, number, token))
                sessions = self._state.fleet.members.sessions.values()
                own = next((each.token for each in sessions if each.stream == number), None)
                self._streams[peer] = number, own
            case m.GradientUpload() if token is not None:
                self._handle(events.GradientArrived(token, message))
            case m.Heartbeat() if token is not None:
                self._handle(events.HeartbeatArrived(token))
            case m.RoundDeclined(round=declined) if token is not None:
                self._handle(events.DeclineArrived(token, declined))
            case m.Leave(cause=cause, returning=returning) if token is not None:
                self._handle(events.LeaveArrived(token, cause, returning))
                self._streams[peer] = None
            case _:
                raise OutOfTurnError("the first message of a stream must be a Join, and no other")

    def _hang_up(self, peer: int) -> None:
        stream, self._streams[peer] = self._streams[peer], None
        if stream is not None and stream[1] is not None:
            self._handle(events.StreamClosed(stream[1], stream[0]))

    def _handle(self, event: Event) -> None:
        self._posted.append(event)
        while self._posted:
            self._state, commands = machine.step(self._state, self._posted.popleft(), self._clock.now)
            self._state.check()
            for command in commands:
                match command:
                    case events.Send(message=message) | events.Broadcast(message=message):
                        decode_coordinator_message(encode_coordinator_message(message))
                    case events.CloseStream(stream=number):
                        self._closed.add(number)
                    case HostAgents(agent_ids=agents, offer=offer):
                        self._host(agents, offer)
                    case SumUp():
                        self._look_at(command)
                        self._open(self._round + 1)
                    case DeclineUp(round=declined):
                        assert declined <= self._round
                        self._open(self._round + 1)

    # The coordinator ----------------------------------------------------------------------------------------------

    @property
    def _stamp(self) -> m.Stamp:
        return replace(specimens.STAMP, round=self._round, durable_round=self._round)

    @property
    def _covariance(self) -> np.ndarray | None:
        return initial_head_covariance(self._spec.method, self._spec.rank)

    def _host(self, agents: tuple[str, ...], offer: Offer | None) -> None:
        """It knows the agents, and opens the next round with them."""
        self._offer = offer
        if agents:
            stamp, basis = self._stamp, self._spec.initial_basis()
            known = replace(self._spec, feature_fingerprint=specimens.FINGERPRINT)
            welcome = m.Welcome(stamp, "above", known, basis, self._round, True, agents)
            self._posted.append(Welcomed(replace(welcome, head_covariance=self._covariance)))
            self._open(self._round + 1 if self._round else 0)

    def _open(self, number: int) -> None:
        epoch = None
        if self._spec.secure_sums:
            assert self._offer is not None
            members = self._offer.members
            if len(members) < self._spec.min_cohort:
                return  # it waits for more
            epoch = EpochAbove(Membership.of(specimens.RUN_ID, members), self._offer.key_proofs, len(members))
        self._round = number
        basis, covariance = self._spec.initial_basis(), self._covariance
        self._posted.append(RoundOpened(self._stamp, number, basis, covariance, epoch))

    def _look_at(self, command: SumUp) -> None:
        """What goes up is one vector over all that it names, and can be encoded."""
        total = partial_sum(command.contributions)
        if total is None:
            return
        assert total.weight == len(command.agent_ids), "a sum is over other agents than it names"
        assert len(total.words) == layout_of(self._spec, command.round).words
        encode_agent_message(m.GradientUpload(command.round, total, command.agent_ids))


class Above(Agent):
    """A relay whose coordinator speaks: the session machine that passes rounds on, and its part in secure sums."""

    def __init__(self, spec: RunSpecification) -> None:
        self._spec, self._now = spec, 0.0
        agents = specimens.HOSTED[0]
        key = specimens.key_of(agents[0])
        self._join = m.Join("relay", agents, spec.feature_dim, specimens.FINGERPRINT)
        self._offer = Offer((Member(key, agents),))
        self._begin()

    def _begin(self) -> None:
        self._vectors = VectorsBelow()
        self._vectors.offer = self._offer
        self._summed: dict[int, bytes] = {}
        self._state, _ = session.initial_state(progress_timeout_seconds=60.0, now=self._now, passes_on=True)
        for event in (session.Described(self._spec), session.Prepared(self._join), session.Connected()):
            self._step(event)

    def _happens(self, happening: int) -> None:
        if happening == 1 and self._state.learning is not None:
            self._step(session.Unsummed(self._state.learning))
        elif happening == 2 and self._state.join is not None:
            self._step(session.Regrouped(self._join.agent_ids))
        else:
            super()._happens(happening)

    def _step(self, event: session.Event) -> None:
        self._state, commands = session.step(self._state, event, self._now)
        self._state.check()
        for command in commands:
            match command:
                case session.Learn(round=number) if self._vectors.epoch is not None and number % 3:
                    self._sum(number)
                case session.Agree(members=members):
                    self._agree(members)
                case session.TransmitMasked(upload=upload, epoch_id=epoch_id):
                    vector = upload.contribution
                    assert isinstance(vector, m.MaskedVector)
                    assert vector.epoch_id == epoch_id, "a sum is sent in another epoch than it was masked in"
                    assert self._summed.setdefault(upload.round, epoch_id) == epoch_id, "a round has two sums"
                case session.Transmit(message=message):
                    encode_agent_message(message).SerializeToString()
                case session.Fail(error=error):
                    assert str(error).isprintable(), "a refusal moves the cursor"

    def _sum(self, number: int) -> None:
        """The agents below have sent, in the newest epoch; of some rounds they never do."""
        assert self._vectors.epoch is not None
        epoch_id = self._vectors.epoch.membership.epoch_id
        words = np.zeros(layout_of(self._spec, number).words, np.uint64)
        vector = m.MaskedVector(words, epoch_id, float(len(self._join.agent_ids)))
        self._step(session.GradientReady(m.GradientUpload(number, vector, self._join.agent_ids)))

    def _agree(self, members: m.SumMembers) -> None:
        try:
            self._step(session.Agreed(self._vectors.agree(members, self._state)))
        except MembershipRefusedError as refusal:
            self._step(session.LearningFailed(refusal))
