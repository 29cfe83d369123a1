"""The world of `secure_world` with a relay: the machine that ships, and the part of its engine that decides.

Processes below the relay, and the relay itself, break, die and come back as those beside it do. The witness
compares every sum at the coordinator with that of the vectors without masks, through the relay's partial sums.
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from runs import join
from secure_world import Peer, Process, World

from cospan.client.session import machine as session
from cospan.core.secure_sums.fixed_point import added
from cospan.relay import machine
from cospan.relay.events import Command, DeclineUp, Event, HostAgents, Refused, RoundOpened, SumUp, Welcomed
from cospan.relay.members import partial_sum
from cospan.relay.state import RelayState
from cospan.relay.vectors import VectorsBelow
from cospan.server.machine import events
from cospan.server.runtime.machine_loop import MachineLoop
from cospan.wire import errors
from cospan.wire import messages as m
from cospan.wire.codec.messages import (
    decode_agent_message,
    decode_coordinator_message,
    encode_agent_message,
    encode_coordinator_message,
)

_OF_SOME = (errors.AgentIdTakenError, errors.IdentityMismatchError, errors.TooManyAgentsError)


class RelayHost(Peer):
    """A relay's process: to the world above one of its processes, and a world to those below."""

    def __init__(self, world: "RelayedWorld", number: int) -> None:
        super().__init__(world)
        self.instance = f"relay {number}"
        self.vectors, self.names, self.welcomed = VectorsBelow(), (), frozenset[str]()
        spec = world.run.state.specification
        relay = machine.initial_state(spec, gather_agents=len(world.below), level=1, now=world.run.now)
        self.loop = MachineLoop[RelayState, Event, Command](
            machine, relay, self.execute, clock=lambda: self.world.run.now
        )
        self.loop._step = self._checked
        self.begin()

    def begin(self) -> None:
        self.state, commands = session.initial_state(
            progress_timeout_seconds=1e6, now=self.world.run.now, passes_on=True
        )
        self.take(commands)

    def _checked(self, state: RelayState, event: Event, now: float) -> Any:
        after, commands = machine.step(state, event, now)
        after.check()
        return after, commands

    def count(self) -> None:
        """Nothing: its agents count their own vectors."""

    # Upwards: what `cospan.relay.upstream` does ------------------------------------------------------------------

    def step(self, event: session.Event) -> None:
        self.state, commands = session.step(self.state, event, self.world.run.now)
        self.state.check()
        message = event.message if isinstance(event, session.Received) else None
        if isinstance(message, m.Welcome) and self.state.phase is session.Phase.ACTIVE:
            self.welcomed = frozenset(message.agent_ids)
            self.loop.post(Welcomed(message))
        self.take(commands)

    def take(self, commands: tuple[session.Command, ...]) -> None:
        for command in commands:
            match command:
                case session.Inquire():
                    self.step(session.Described(self.world.run.state.specification))
                case session.Prepare() if self.names:
                    self.step(session.Prepared(join(*self.names, instance=self.instance)))
                case session.Connect():
                    self.hang_up()
                    self.wants_to_connect = True
                case session.Transmit(message=m.Join() as joining):
                    self.outbox.append(self.vectors.offered(joining))
                case session.Transmit(message=message):
                    self.outbox.append(message)
                case session.Agree(members=members):
                    self.step(session.Agreed(self.vectors.agree(members, self.state)))
                case session.TransmitMasked(upload=upload):
                    named = self.state.join is not None and upload.agent_ids != self.state.join.agent_ids
                    self.outbox.append(upload if named else replace(upload, agent_ids=()))
                case session.Learn(round=number, basis=basis, head_covariance=covariance):
                    assert self.state.stamp is not None
                    epoch = self.vectors.epoch
                    self.loop.post(RoundOpened(self.state.stamp, number, basis, covariance, epoch))
                case session.Fail(error=error):
                    raise AssertionError(f"{self.instance} failed: {error}")

    def hang_up(self) -> None:
        """What is queued arrives first: the writer of a stream that is given up has a moment."""
        while self.outbox and self.stream is not None:
            self.world.hear(self, self.outbox.popleft())
        token, number, self.stream = self.token, self.stream, None
        self.inbox.clear()
        self.outbox.clear()
        if number is not None and token is not None:
            self.world.step(events.StreamClosed(token, number))

    def learn(self) -> None:
        """A relay learns nothing."""

    def broken(self, error: errors.CospanError | None) -> None:
        if isinstance(error, _OF_SOME) and self.welcomed and not self.welcomed.issuperset(self.names):
            self.loop.post(Refused(error))
            return
        super().broken(error)

    # Downwards: what `cospan.relay.engine` does ------------------------------------------------------------------

    @property
    def run(self) -> Any:
        """As `World.run`, for the processes below."""
        return SimpleNamespace(state=self.loop.state.shown, now=self.world.run.now)

    def new_stream(self) -> int:
        return self.world.new_stream()

    def next_value(self) -> int:
        return self.world.next_value()

    def witness(self, *seen: Any) -> None:
        self.world.witness(*seen)

    def step_below(self, event: Event) -> None:
        self.loop.handle(event)

    def execute(self, command: Command) -> None:
        sessions = self.loop.state.fleet.members.sessions
        match command:
            case events.Send(token=token, message=message) if token in sessions:
                self.deliver(sessions[token].stream, message)
            case events.Broadcast(message=message):
                for token, each in list(sessions.items()):
                    if token not in self.loop.state.unwelcomed:
                        self.deliver(each.stream, message)
            case events.CloseStream(stream=number, error=error):
                for process in self.world.below:
                    if process.stream == number:
                        process.lose_stream(error, told=False)
            case HostAgents(agent_ids=agent_ids, offer=offer):
                assert offer is not None
                self.host(agent_ids, offer)
            case SumUp(round=number, agent_ids=agent_ids, contributions=vectors):
                total = partial_sum(vectors)
                assert total is not None
                plain = self.world.plain
                plain[total.words.tobytes()] = added(
                    plain[each.words.tobytes()] for each in vectors if isinstance(each, m.MaskedVector)
                )
                if self.state.learning == number:
                    self.step(session.GradientReady(m.GradientUpload(number, total, agent_ids)))
            case DeclineUp(round=number):
                self.step(session.Unsummed(number))

    def host(self, agent_ids: tuple[str, ...], offer: Any) -> None:
        known = set(self.vectors.offer.members)
        self.welcomed -= {name for each in offer.members if each not in known for name in each.agent_ids}
        self.vectors.offer, self.names = offer, agent_ids
        self.welcomed &= set(agent_ids)
        if not agent_ids:
            self.step(session.StopRequested("the last of its agents is gone", returning=True))
            self.hang_up()
            self.welcomed = frozenset()
            self.begin()
        elif self.state.phase is session.Phase.PREPARING:
            self.step(session.Prepared(join(*agent_ids, instance=self.instance)))
        elif self.state.join is not None:
            self.step(session.Regrouped(agent_ids))

    def deliver(self, number: int, message: m.CoordinatorMessage) -> None:
        decoded = decode_coordinator_message(encode_coordinator_message(message))
        for process in self.world.below:
            if process.stream == number:
                process.inbox.append(decoded)

    def hear(self, process: Process, message: m.AgentMessage) -> None:
        decoded = decode_agent_message(encode_agent_message(message), self.world.run.state.specification)
        token, number = process.token, process.stream
        assert number is not None
        try:
            match decoded:
                case m.Join():
                    self.loop.handle(events.JoinRequested(decoded, number, f"token-{self.next_value()}"))
                case _ if token is None:
                    pass
                case m.GradientUpload():
                    self.loop.handle(events.GradientArrived(token, decoded))
                case m.RoundDeclined(round=declined):
                    self.loop.handle(events.DeclineArrived(token, declined))
                case m.Heartbeat():
                    self.loop.handle(events.HeartbeatArrived(token))
                case m.Leave(cause=cause, returning=returning):
                    self.loop.handle(events.LeaveArrived(token, cause, returning))
        except errors.RemoteError as refusal:
            process.lose_stream(refusal)


class Below(Process):
    """A process below the relay, whichever process of it there is."""

    def __init__(self, world: "RelayedWorld", agents: tuple[str, ...], number: int) -> None:
        self.whole = world
        super().__init__(world, agents, number)

    @property
    def world(self) -> Any:
        return Surface(self.whole)

    @world.setter
    def world(self, _: Any) -> None:
        """It is the relay that there is."""

    @property
    def token(self) -> str | None:
        sessions = self.world.run.state.members.sessions
        return next((token for token, each in sessions.items() if each.stream == self.stream), None)


class Surface:
    """What a process below sees of the world: its relay."""

    def __init__(self, whole: "RelayedWorld") -> None:
        self._whole = whole

    def __getattr__(self, name: str) -> Any:
        relay = self._whole.relay
        return relay.step_below if name == "step" else getattr(relay, name)


class RelayedWorld(World):
    """A run of secure sums in which the processes of `below` join a relay, and the others the coordinator."""

    def __init__(self, below: tuple[tuple[str, ...], ...], *direct: tuple[str, ...]) -> None:
        self.below: list[Below] = []
        self.relays = 1
        super().__init__(*direct, agents=sum(map(len, (*below, *direct))))
        self.below_agents = below
        self.below = [None] * len(below)  # type: ignore[list-item]
        self.relay = RelayHost(self, self.relays)
        self.below = [self.started_below(agents) for agents in below]
        self.processes.append(self.relay)  # type: ignore[arg-type]

    def started_below(self, agents: tuple[str, ...]) -> Below:
        self._processes += 1
        return Below(self, agents, self._processes)

    def kill_below(self, place: int) -> None:
        """A process below the relay dies, and is started again: with another key."""
        dead = self.below[place]
        self.below[place] = self.started_below(dead.agents)
        if dead.stream is not None and (token := dead.token) is not None:
            self.relay.step_below(events.StreamClosed(token, dead.stream))

    def kill_relay(self) -> None:
        """The relay dies with all that it knows, and is started again; its agents are not."""
        dead, self.relays = self.relay, self.relays + 1
        token, number = dead.token, dead.stream
        dead.stream = None
        self.relay = RelayHost(self, self.relays)
        self.processes[self.processes.index(dead)] = self.relay  # type: ignore[arg-type]
        if number is not None and token is not None:
            self.step(events.StreamClosed(token, number))
        for process in self.below:
            process.lose_stream(told=False)

    def tick(self, seconds: float) -> None:
        super().tick(seconds)
        self.relay.loop.handle(events.Tick())
        for process in self.below:
            process.step(session.Tick())

    def all_at_work(self) -> None:
        for process in self.below:
            process.connect()
            while process.outbox and process.stream is not None:
                process.send()
            while process.inbox:
                process.receive()
            process.learn()
            while process.outbox and process.stream is not None:
                process.send()
        super().all_at_work()
