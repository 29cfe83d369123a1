"""A coordinator's machine and processes with real keys and masks, and a network that does what a test says.

Every message passes through the codecs. A witness keeps what was masked: for one key and round never two vectors,
in never two epochs. Every sum that is formed is compared with that of the vectors without masks. With differential
privacy it also keeps each agent's file, and holds it to the vectors that were sent.
"""

from collections import Counter, defaultdict, deque
from typing import Any

import numpy as np
from private_runs import seeded
from runs import CoordinatorDriver, D, Disk, R, join, moved

from cospan.client.session import machine as session
from cospan.client.session.masking import Masking
from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.privacy.private_run import vector_of
from cospan.core.secure_sums.fixed_point import added, decode, sum_problem
from cospan.core.secure_sums.layout import layout_of
from cospan.server.machine import events
from cospan.wire import messages as m
from cospan.wire.codec.messages import (
    decode_agent_message,
    decode_coordinator_message,
    encode_agent_message,
    encode_coordinator_message,
)
from cospan.wire.errors import CoordinatorUnavailableError, CospanError, RemoteError

_STEPS_TO_HEAL = 200


class Peer:
    """What has a session with the coordinator of a world: the near end of its stream."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.stream: int | None = None
        self.inbox: deque[m.CoordinatorMessage] = deque()
        self.outbox: deque[m.AgentMessage] = deque()
        self.wants_to_connect = False

    @property
    def token(self) -> str | None:
        sessions = self.world.run.state.members.sessions
        return next((token for token, each in sessions.items() if each.stream == self.stream), None)

    def step(self, event: session.Event) -> None:
        raise NotImplementedError

    # What may happen to it ------------------------------------------------------------------------------------

    def connect(self) -> None:
        if self.wants_to_connect:
            self.wants_to_connect, self.stream = False, self.world.new_stream()
            self.inbox.clear()
            self.outbox.clear()
            self.step(session.Connected())

    def receive(self) -> None:
        if self.inbox and self.stream is not None:
            self.step(session.Received(self.inbox.popleft()))

    def send(self) -> None:
        if self.outbox and self.stream is not None:
            self.world.hear(self, self.outbox.popleft())

    def lose_stream(self, error: CospanError | None = None, *, told: bool = True) -> None:
        token, number, self.stream = self.token, self.stream, None
        self.outbox.clear()
        self.inbox.clear()
        if number is None:
            return
        if token is not None and told:
            self.world.step(events.StreamClosed(token, number))
        self.broken(error)

    def broken(self, error: CospanError | None) -> None:
        self.step(session.StreamBroke(error or CoordinatorUnavailableError("broken"), 0.0))


class Process(Peer):
    """An agent's process: the session machine and its shell."""

    def __init__(self, world: "World", agents: tuple[str, ...], number: int) -> None:
        super().__init__(world)
        self.agents = agents
        self.masking = Masking(None, noise=lambda round_number: seeded(f"{agents} {number}", round_number))
        self.instance = f"process {number}"
        self.state, commands = session.initial_state(progress_timeout_seconds=1e6, now=world.run.now)
        self.learning: session.Learn | None = None
        self.is_counting = self.is_over = False
        self.take(commands)

    def step(self, event: session.Event) -> None:
        if self.is_over:
            return
        self.state, commands = session.step(self.state, event, self.world.run.now)
        self.state.check()
        self.take(commands)

    def take(self, commands: tuple[session.Command, ...]) -> None:
        for command in commands:
            match command:
                case session.Inquire():
                    self.step(session.Described(self.world.run.state.specification))
                case session.Prepare():
                    self.step(session.Prepared(join(*self.agents, instance=self.instance)))
                case session.Connect():
                    self.wants_to_connect = True
                case session.Transmit(message=m.Join() as joining):
                    self.outbox.append(self.masking.offered(joining))
                case session.Transmit(message=message):
                    self.outbox.append(message)
                case session.Agree(members=members):
                    self.step(session.Agreed(self.masking.agree(members, self.state)))
                case session.Count() | session.TransmitMasked():
                    self.to_be_sent(command)
                case session.Learn():
                    assert self.learning is None
                    self.learning = command
                case session.Fail(error=error):
                    raise AssertionError(f"{self.agents} failed: {error}")
                case session.Conclude():
                    self.is_over = True

    def to_be_sent(self, command: session.Count | session.TransmitMasked) -> None:
        if isinstance(command, session.TransmitMasked):
            self.outbox.append(self.masked(command))
            return
        assert not self.is_counting
        self.is_counting = True

    def masked(self, command: session.TransmitMasked) -> m.GradientUpload:
        spec, number = self.state.specification, command.upload.round
        assert spec is not None
        sent = self.masking.masked(command, spec)
        agents = sum(len(member.agent_ids) for member in self.masking._members)
        noise = self.masking._noise(number)
        self.world.witness(self, sent, vector_of(command.upload.plain, spec, number, agents, noise).words)
        return sent

    def learn(self) -> None:
        if self.learning is not None:
            number, self.learning = self.learning.round, None
            values = np.full((D, R), float(self.world.next_value()))
            spec = self.state.specification
            assert spec is not None
            pooled = np.full(spec.pooled_length, 0.5) if spec.sends_pooled_in(number) else None
            contribution = Contribution(DenseMatrix(values), float(len(self.agents)), pooled=pooled)
            self.step(session.GradientReady(m.GradientUpload(number, contribution)))

    def count(self) -> None:
        """The vector is in the file; from then on it may be sent."""
        if self.is_counting:
            self.is_counting = False
            self.world.ledger[self.agents] += 1
            self.step(session.Counted())


class World:
    """A run of secure sums with processes of the given agents."""

    def __init__(self, *hosted: tuple[str, ...], **changes: Any) -> None:
        agents = sum(map(len, hosted))
        values = {"agents": agents, "rounds": 0, "secure_sums": True, "min_cohort": 3, "max_inflight_rounds": 3}
        self.run = CoordinatorDriver(**(values | changes))
        self.disk = Disk(self.run.state.specification)
        self.hosted = hosted
        self.unstored: list[Any] = []
        self.closing: events.ComputeBasis | None = None
        self.masked: dict[tuple[bytes, int], tuple[bytes, bytes]] = {}
        self.plain: dict[bytes, np.ndarray] = {}
        self.ledger: Counter[tuple[str, ...]] = Counter()
        """What the files of the agents say of the vectors that were sent."""
        self.vectors: defaultdict[tuple[str, ...], set[bytes]] = defaultdict(set)
        """Those that were sent."""
        self.deaths: Counter[tuple[str, ...]] = Counter()
        self.sums, self.voids = 0, 0
        self._streams = self._values = self._processes = 0
        self.processes = [self.started(agents) for agents in hosted]

    def started(self, agents: tuple[str, ...]) -> Process:
        self._processes += 1
        return Process(self, agents, self._processes)

    def new_stream(self) -> int:
        self._streams += 1
        return self._streams

    def next_value(self) -> int:
        self._values += 1
        return self._values

    def witness(self, process: Process, sent: m.GradientUpload, words: np.ndarray) -> None:
        vector = sent.contribution
        assert isinstance(vector, m.MaskedVector)
        key = process.masking.offered(join("x")).sum_members[0].public_key, sent.round
        once = self.masked.setdefault(key, (vector.epoch_id, vector.words.tobytes()))
        assert once == (vector.epoch_id, vector.words.tobytes()), "one vector is masked for a round, in one epoch"
        self.plain[vector.words.tobytes()] = words
        if self.run.state.specification.is_private:
            sent, agents = self.vectors[process.agents], process.agents
            sent.add(vector.words.tobytes())
            unsent = self.ledger[agents] - len(sent)
            assert unsent >= 0, "a vector is counted before it is sent"
            assert unsent <= self.deaths[agents], "one is counted too many for a death at most"

    # The coordinator ----------------------------------------------------------------------------------------------

    def step(self, event: events.Event) -> None:
        self.run.step(event)
        for command in self.run.commands:
            self.execute(command)

    def execute(self, command: events.Command) -> None:
        sessions = self.run.state.members.sessions
        match command:
            case events.Send(token=token, message=message) if token in sessions:
                self.deliver(sessions[token].stream, message)
            case events.Broadcast(message=message):
                for each in list(sessions.values()):
                    self.deliver(each.stream, message)
            case events.CloseStream(stream=number, error=error):
                for process in self.processes:
                    if process.stream == number:
                        process.lose_stream(error, told=False)
            case events.ComputeBasis():
                self.closing = command
            case events.StoreRound() | events.StoreMember() | events.DropMember() | events.StoreSpecification():
                self.unstored.append(command)
            case events.Note(kind="round-void"):
                self.voids += 1

    def deliver(self, number: int, message: m.CoordinatorMessage) -> None:
        decoded = decode_coordinator_message(encode_coordinator_message(message))
        for process in self.processes:
            if process.stream == number:
                process.inbox.append(decoded)

    def hear(self, process: Process, message: m.AgentMessage) -> None:
        decoded = decode_agent_message(encode_agent_message(message), self.run.state.specification)
        token, number = process.token, process.stream
        assert number is not None
        try:
            match decoded:
                case m.Join():
                    self.step(events.JoinRequested(decoded, number, f"token-{self.next_value()}"))
                case _ if token is None:
                    pass
                case m.GradientUpload():
                    self.step(events.GradientArrived(token, decoded))
                case m.RoundDeclined(round=declined):
                    self.step(events.DeclineArrived(token, declined))
                case m.Heartbeat():
                    self.step(events.HeartbeatArrived(token))
                case m.Leave(cause=cause, returning=returning):
                    self.step(events.LeaveArrived(token, cause, returning))
        except RemoteError as refusal:
            process.lose_stream(refusal)

    def compute(self) -> None:
        """Adds what came, and compares with the sum of what was meant."""
        closing, self.closing = self.closing, None
        if closing is None or closing.round != self.run.state.round:
            return
        vectors = [each for each in closing.contributions if isinstance(each, m.MaskedVector)]
        layout = layout_of(self.run.state.specification, closing.round)
        total = added(each.words for each in vectors)
        assert not sum_problem(total, layout, int(sum(each.weight for each in vectors)))
        meant = added(self.plain[each.words.tobytes()] for each in vectors)
        np.testing.assert_array_equal(total, meant)
        assert decode(total, layout).weight == sum(each.weight for each in vectors)
        self.sums += 1
        self.step(moved(self.run.state, closing.round))

    def store(self) -> None:
        """What is to be stored is."""
        operations, self.unstored = self.unstored, []
        self.disk.write(operations)
        records = tuple(each.record for each in operations if isinstance(each, events.StoreRound))
        if records:
            self.step(events.RoundsStored(records))

    def tick(self, seconds: float) -> None:
        self.run.now += seconds
        self.step(events.Tick())
        for process in self.processes:
            process.step(session.Tick())

    # What may happen ------------------------------------------------------------------------------------------

    def kill(self, place: int) -> None:
        """A process dies, and is started again: with another key."""
        dead = self.processes[place]
        self.deaths[dead.agents] += 1
        self.processes[place] = self.started(dead.agents)
        if dead.stream is not None and (token := dead.token) is not None:
            self.step(events.StreamClosed(token, dead.stream))

    def restart(self) -> None:
        """The coordinator dies with all that is not stored, and is started again."""
        self.unstored, self.closing = [], None
        self.run.restart(self.disk.saved())
        for process in self.processes:
            process.lose_stream(told=False)

    def all_at_work(self) -> None:
        """Every process does what it has to do."""
        for process in self.processes:
            process.connect()
            while process.outbox and process.stream is not None:
                process.send()
            while process.inbox:
                process.receive()
            process.learn()
            process.count()
            while process.outbox and process.stream is not None:
                process.send()
        self.compute()
        self.store()

    def heal(self, sums: int = 2) -> None:
        """Nothing fails any more, and before long rounds have sums again."""
        wanted = self.sums + sums
        for _ in range(_STEPS_TO_HEAL):
            if self.sums >= wanted:
                return
            self.all_at_work()
            self.tick(0.5)
        raise AssertionError(f"no sum is formed: {self.run.state.phase}, round {self.run.state.round}")
