"""A book of what should have come of a run of the coordinator's machine, kept beside it event by event."""

from dataclasses import dataclass, field

from hypothesis import strategies as st
from runs import CoordinatorDriver, Disk, upload

from cospan.server.machine import events
from cospan.server.machine.state import CoordinatorState
from cospan.wire.errors import (
    DrainingError,
    InvalidMessageError,
    OutOfTurnError,
    RemoteError,
    RunFinishedError,
    SessionUnknownError,
)
from cospan.wire.messages import (
    AgentPhase,
    BasisUpdate,
    Disposition,
    Drain,
    Finish,
    Receipt,
    Resumption,
    RunPhase,
    Welcome,
)

ROUNDS = 6
OVER = (RunPhase.FINISHED, RunPhase.DRAINING)


@dataclass
class Process:
    """What one agent process knows of itself."""

    instance: str
    agents: tuple[str, ...]
    token: str | None = None
    streams: list[int] = field(default_factory=list)


class Book:
    """Steps a run, and checks after every event what the events so far have promised."""

    def __init__(self) -> None:
        super().__init__()
        self.run = CoordinatorDriver(agents=3, rounds=ROUNDS)
        self.disk = Disk(self.run.state.specification)
        self.to_store: list[events.Command] = []
        self.processes: list[Process] = []
        self.computing: events.ComputeBasis | None = None
        self.closed: list[int] = []
        self.opened: list[int] = []
        self.open: dict[tuple[str, ...], int] = {}
        self.records: dict[int, events.RoundRecord] = {}
        self.promised: dict[int, frozenset[str]] = {}
        self.ends = 0
        self.chatty = False

    def step(self, event: events.Event) -> None:
        """Lets an event happen and writes the book. Refusals are raised, after it is sure that nothing changed."""
        before = self.run.state
        self.forget_promises(event)
        try:
            self.run.step(event)
        except RemoteError:
            assert self.run.state is before
            raise
        state = self.run.state
        if before.phase in OVER:
            assert state.phase is before.phase
            assert (state.round, state.basis is before.basis) == (before.round, True)
            assert (state.finish_cause, state.members.departures) == (
                before.finish_cause,
                before.members.departures,
            )
        assert state.round - before.round in (0, 1), "rounds neither skip nor go back"
        if state.round != before.round:
            self.open = {}
        # Where a round runs ahead of the disk, everybody is told before it is stored.
        for command in sorted(self.run.commands, key=lambda command: not isinstance(command, events.StoreRound)):
            self.note(command)

    def forget_promises(self, event: events.Event) -> None:
        """Where one of those who took part in what was told is gone, nothing is promised any more."""
        names = frozenset().union(*self.promised.values())
        others = isinstance(event, events.JoinRequested) and (
            event.join.resumption is not None or names.isdisjoint(event.join.agent_ids)
        )
        gradients = events.GradientArrived | events.GradientsArrived
        harmless = gradients | events.BasisComputed | events.RoundsStored | events.HeartbeatArrived
        if not others and not isinstance(event, harmless):
            self.promised = {}

    def note(self, command: events.Command) -> None:
        state = self.run.state
        match command:
            case events.ComputeBasis(round=number, contributions=contributions):
                assert self.computing is None, "one round closes at a time"
                assert number == state.round < len(self.disk.rounds) + state.config.max_inflight_rounds, (
                    "no round runs too far ahead"
                )
                assert sum(c.weight for c in contributions) == len(state.open_round.counted)
                self.computing = command
            case events.ReportRound(report=report):
                assert report.closed_round < len(self.disk.rounds), "observers are told of what is stored"
                self.closed.append(report.closed_round)
            case events.Broadcast(message=BasisUpdate(stamp=stamp, basis=basis)):
                assert (stamp, basis is state.basis) == (state.stamp, True)
                self.check_told(stamp.round, stamp.durable_round)
                if self.opened[-1:] != [stamp.round]:  # opened again, where all are gone that it was opened for
                    self.opened.append(stamp.round)
            case events.Broadcast(message=Finish(stamp=stamp, basis=basis)):
                assert (stamp, basis is state.basis) == (state.stamp, True)
            case events.Broadcast(message=Drain()):
                assert state.phase is RunPhase.DRAINING
            case events.Send(token=token, message=message):
                assert token in state.members.sessions
                assert isinstance(message, Welcome | Receipt)
            case events.CloseStream(stream=number):
                assert number not in {session.stream for session in state.members.sessions.values()}
            case events.EndRun() | events.Suspend():
                self.ends += 1
            case events.StoreRound(record=record):
                self.check_record(record)
                self.to_store.append(command)
            case events.StoreMember() | events.DropMember() | events.StoreSpecification():
                self.to_store.append(command)

    def check_record(self, record: events.RoundRecord) -> None:
        """No gradient is in two rounds, and no agent twice in one."""
        number = record.closed_round
        assert record.weight == len(record.contributors)
        assert not set(record.absent_agent_ids) & set(record.contributors)
        promised = self.promised.get(number)
        assert promised is None or promised == set(record.contributors), "what was told comes to the same again"
        before = {pair for record in self.disk.rounds for pair in record.contributors.items()}
        assert not before & set(record.contributors.items()), "no gradient counts in two rounds"
        oldest = number - self.run.state.specification.max_staleness
        assert all(oldest <= of <= number for of in record.contributors.values())
        self.records[number] = record

    def check_told(self, number: int, durable: int) -> None:
        """A round that anybody is told of is stored, or comes to the same after a restart."""
        assert durable == len(self.disk.rounds)
        assert number <= durable + self.run.state.config.max_inflight_rounds
        for ahead in range(durable, number):
            assert set(self.records[ahead].contributors) == set(self.disk.rounds[-1].contributors)

    def attempt(self, process: Process, resumption: Resumption | None, error: type[RemoteError] | None) -> None:
        event = self.run.joining(*process.agents, instance=process.instance, resumption=resumption)
        if self.run.state.phase in OVER:
            error = RunFinishedError if self.run.state.phase is RunPhase.FINISHED else DrainingError
        before = self.run.state
        if error is not None:
            self.run.refuse(event, error)
            return
        self.step(event)
        welcome = self.run.welcome()
        process.token = welcome.session_token
        process.streams.append(event.stream)
        if resumption is not None:
            assert welcome.session_token == resumption.session_token
        self.check_welcome(process, welcome, before.phase)

    def check_welcome(self, process: Process, welcome: Welcome, phase_before: RunPhase) -> None:
        """The first round is the one that takes the next gradient of this process."""
        state = self.run.state
        assert welcome.started == (phase_before is not RunPhase.WAITING)
        opened_again = any(isinstance(message, BasisUpdate) for message in self.run.sent())
        if state.phase is RunPhase.COLLECTING and welcome.started and not opened_again:
            awaited = state.open_round.awaited.intersection(process.agents)
            assert welcome.first_round == state.round + (0 if awaited else 1)

    def draw_member(self, data: st.DataObject) -> Process:
        """A process that was welcomed some time; its session may be gone by now."""
        return data.draw(st.sampled_from([process for process in self.processes if process.token]))

    def known(self) -> set[tuple[str, int]]:
        """The gradients that count: those of closed rounds, and of the open one."""
        closed = {pair for record in self.all_records() for pair in record.contributors.items()}
        return closed | {(agent, number) for agents, number in self.open.items() for agent in agents}

    def all_records(self) -> list[events.RoundRecord]:
        """Of the rounds that are closed, stored or not."""
        return [*self.disk.rounds, *(self.records[n] for n in range(len(self.disk.rounds), self.run.state.round))]

    def count(self, before: CoordinatorState, number: int, agents: tuple[str, ...]) -> None:
        """A gradient counts; what is older of its agents does not any more. The round may have closed by it."""
        if self.run.state.round == before.round:
            replaced = [key for key, of in self.open.items() if of < number and not set(key).isdisjoint(agents)]
            self.open = {key: of for key, of in self.open.items() if key not in replaced} | {agents: number}

    def expected_refusal(self, process: Process, number: int, agents: tuple[str, ...]) -> type[RemoteError] | None:
        state = self.run.state
        if process.token not in state.members.sessions:
            return SessionUnknownError
        if state.phase is RunPhase.DRAINING:
            return None
        if state.phase is RunPhase.WAITING or number > state.round:
            return OutOfTurnError
        fresh = {agent for key, of in self.open.items() if of == state.round for agent in key}
        mixed = bool(fresh.intersection(agents)) and not fresh.issuperset(agents)
        takes_part = not state.open_round.replaying or state.durability.replay_agents.issuperset(agents)
        is_open = state.phase is RunPhase.COLLECTING and number == state.round and takes_part
        return InvalidMessageError if is_open and mixed else None

    def counts(
        self, state: CoordinatorState, known: set[tuple[str, int]], number: int, agents: tuple[str, ...]
    ) -> Disposition | None:
        """None where the gradient counts, by the book of gradients that have counted."""
        spec = state.specification
        if all((agent, number) in known for agent in agents) and number >= state.round - max(1, spec.max_staleness):
            stopped = state.phase is RunPhase.FINISHED and number == state.round
            return Disposition.LATE if stopped else Disposition.DUPLICATE
        replay_agents = state.durability.replay_agents
        takes_part = not state.open_round.replaying or replay_agents.issuperset(agents)
        if state.phase is not RunPhase.COLLECTING or not takes_part:
            return Disposition.LATE
        if number == state.round:
            return None
        stale = state.round - number <= spec.max_staleness and not state.open_round.replaying
        counted = {agent for key in self.open for agent in key} | {agent for agent, of in known if of == number}
        return None if stale and counted.isdisjoint(agents) else Disposition.LATE

    def send(self, token: str, agents: tuple[str, ...]) -> None:
        """A gradient that counts."""
        before, number = self.run.state, self.run.state.round
        self.step(events.GradientArrived(token, upload(number, *agents, weight=float(len(agents)))))
        self.count(before, number, agents)

    def come_back(self, on_disk: int) -> None:
        """Another coordinator resumes from the disk."""
        known = len(self.disk.rounds)
        self.disk.write(self.to_store[:on_disk])
        before, self.to_store, self.computing, self.open = self.run.state, [], None, {}
        self.run.restart(self.disk.saved())
        self.promised = {}
        state = self.run.state
        assert state.round == state.durability.durable_round == len(self.disk.rounds) >= known
        assert known >= before.durability.durable_round
        assert state.round >= before.round - state.config.max_inflight_rounds
        self.closed, self.opened = list(range(state.round)), list(range(state.round))
        self.ends = 0

    def chat(self) -> None:
        """Every process whose stream is open says that it is alive."""
        for session in tuple(self.run.state.members.sessions.values()):
            if session.phase is AgentPhase.CONNECTED:
                self.step(events.HeartbeatArrived(session.token))
