"""The coordinator's machine under random histories: processes that join, break, come back, leave and lie."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from runs import LIVENESS, ROUND, START, CoordinatorDriver, moved, upload

from cospan.server import events, machine
from cospan.wire.errors import (
    AgentIdTakenError,
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
    Finish,
    Receipt,
    Resumption,
    RunPhase,
    Welcome,
)

AGENTS = ("a", "b", "c", "d")
GROUPS = [("a",), ("b",), ("c",), ("d",), ("a", "b"), ("c", "d"), ("b", "c", "d")]
ROUNDS = 3


@dataclass
class Process:
    """What one agent process knows of itself."""

    instance: str
    agents: tuple[str, ...]
    token: str | None = None
    streams: list[int] = field(default_factory=list)


class CoordinatorHistories(RuleBasedStateMachine):
    """Draws events, and keeps a book of its own of what should have come of them."""

    def __init__(self) -> None:
        super().__init__()
        self.run = CoordinatorDriver(agents=3, rounds=ROUNDS)
        self.processes: list[Process] = []
        self.computing: events.ComputeBasis | None = None
        self.closed: list[int] = []
        self.opened: list[int] = []
        self.accepted: Counter[tuple[str, int]] = Counter()
        self.ends = 0
        self.chatty = False

    @initialize(missing=st.sampled_from([0, 0, 0, 3]), rounds=st.integers(0, ROUNDS - 1), chatty=st.booleans())
    def begin(self, missing: int, rounds: int, chatty: bool) -> None:
        """Most histories begin with a run that has started; half of them end with processes that only chat."""
        self.chatty = chatty
        for agents in (("a",), ("b",), ("c", "d"))[missing:]:
            self.join_as(agents)
        for _ in range(0 if missing else rounds):
            for process in self.processes:
                self.send(process.token or "", process.agents)
            self.computed(False)

    # What the book says ----------------------------------------------------------------------------------

    def step(self, event: events.Event) -> None:
        """Lets an event happen and writes the book. Refusals are raised, after it is sure that nothing changed."""
        before = self.run.state
        try:
            self.run.step(event)
        except RemoteError:
            assert self.run.state is before
            raise
        state = self.run.state
        if before.phase is RunPhase.FINISHED:
            assert state.phase is RunPhase.FINISHED
            assert (state.round, state.basis is before.basis) == (before.round, True)
            assert (state.finish_cause, state.departures) == (before.finish_cause, before.departures)
        assert state.round - before.round in (0, 1), "rounds neither skip nor go back"
        for command in self.run.commands:
            self.note(command)

    def note(self, command: events.Command) -> None:
        state = self.run.state
        match command:
            case events.ComputeBasis(round=number, contributions=contributions):
                assert self.computing is None, "one round closes at a time"
                assert number == state.round
                assert sum(c.weight for c in contributions) == len(state.counted)
                self.computing = command
            case events.ReportRound(report=report):
                self.closed.append(report.closed_round)
            case events.Broadcast(message=BasisUpdate(stamp=stamp, basis=basis)):
                assert (stamp, basis is state.basis) == (state.stamp, True)
                self.opened.append(stamp.round)
            case events.Broadcast(message=Finish(stamp=stamp, basis=basis)):
                assert (stamp, basis is state.basis) == (state.stamp, True)
            case events.Send(token=token, message=message):
                assert token in state.sessions
                assert isinstance(message, Welcome | Receipt)
            case events.CloseStream(stream=number):
                assert number not in {session.stream for session in state.sessions.values()}
            case events.EndRun():
                self.ends += 1

    # Joining ---------------------------------------------------------------------------------------------

    @rule(agents=st.sampled_from(GROUPS))
    def join_as(self, agents: tuple[str, ...]) -> None:
        """A new process. It is refused exactly where a live one has one of its agents."""
        hosts, sessions = self.run.state.hosts, self.run.state.sessions
        live = any(sessions[hosts[name]].phase is AgentPhase.CONNECTED for name in agents if name in hosts)
        process = Process(f"process {len(self.processes)}", agents)
        self.processes.append(process)
        self.attempt(process, None, AgentIdTakenError if live else None)

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def join_twice(self, data: st.DataObject) -> None:
        """A process that has joined, or tried to, joins anew under its instance id."""
        process = data.draw(st.sampled_from(self.processes))
        hosts, sessions = self.run.state.hosts, self.run.state.sessions
        others = [sessions[hosts[name]] for name in process.agents if name in hosts]
        live = any(
            other.phase is AgentPhase.CONNECTED and other.instance_id != process.instance for other in others
        )
        self.attempt(process, None, AgentIdTakenError if live else None)

    @precondition(lambda self: self.run.state.sessions)
    @rule(agents=st.sampled_from(GROUPS))
    def restart(self, agents: tuple[str, ...]) -> None:
        """The processes of these agents die, and a new one takes their place at once."""
        hosts = self.run.state.hosts
        for token in {hosts[agent] for agent in agents if agent in hosts}:
            self.step(events.StreamClosed(token, self.run.stream(token)))
        self.join_as(agents)

    @precondition(lambda self: any(process.token for process in self.processes))
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        process = self.draw_member(data)
        known = process.token in self.run.state.sessions
        resumption = Resumption(process.token or "", self.run.state.run_id, 0)
        self.attempt(process, resumption, None if known else SessionUnknownError)

    def attempt(self, process: Process, resumption: Resumption | None, error: type[RemoteError] | None) -> None:
        event = self.run.joining(*process.agents, instance=process.instance, resumption=resumption)
        if self.run.state.phase is RunPhase.FINISHED:
            error = RunFinishedError
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
        if state.phase is RunPhase.COLLECTING and welcome.started:
            awaited = state.awaited.intersection(process.agents)
            assert welcome.first_round == state.round + (0 if awaited else 1)

    def draw_member(self, data: st.DataObject) -> Process:
        """A process that was welcomed some time; its session may be gone by now."""
        return data.draw(st.sampled_from([process for process in self.processes if process.token]))

    # Speaking --------------------------------------------------------------------------------------------

    @precondition(lambda self: any(process.token for process in self.processes))
    @rule(data=st.data(), lag=st.sampled_from([0, 0, 0, 0, 1, 2, -1]))
    def gradient(self, data: st.DataObject, lag: int) -> None:
        """A gradient of this round, of one before, or of the next; of all its agents, or of some of them."""
        process = self.draw_member(data)
        chosen = data.draw(st.sets(st.sampled_from(process.agents), min_size=1))
        agents = tuple(sorted(chosen)) if data.draw(st.booleans()) else process.agents
        number = max(0, self.run.state.round - lag)
        event = events.GradientArrived(process.token or "", upload(number, *agents, weight=float(len(agents))))
        error = self.expected_refusal(process, number, agents)
        if error is not None:
            self.run.refuse(event, error)
            return
        before = self.run.state
        self.step(event)
        receipts = [message for message in self.run.sent() if isinstance(message, Receipt)]
        counts = self.counts(before, number, agents)
        assert [receipt.disposition for receipt in receipts] == ([] if counts is None else [counts])
        if counts is None:
            self.accepted.update((agent, number) for agent in agents)

    def expected_refusal(self, process: Process, number: int, agents: tuple[str, ...]) -> type[RemoteError] | None:
        state = self.run.state
        if process.token not in state.sessions:
            return SessionUnknownError
        if state.phase is RunPhase.WAITING or number > state.round:
            return OutOfTurnError
        mixed = bool(state.counted.intersection(agents)) and not state.counted.issuperset(agents)
        is_open = state.phase is RunPhase.COLLECTING and number == state.round
        return InvalidMessageError if is_open and mixed else None

    def counts(self, state: Any, number: int, agents: tuple[str, ...]) -> Disposition | None:
        """None where the gradient counts, by the book of gradients that have counted."""
        if all(self.accepted[agent, number] for agent in agents) and number >= state.round - 1:
            stopped = state.phase is RunPhase.FINISHED and number == state.round
            return Disposition.LATE if stopped else Disposition.DUPLICATE
        is_open = state.phase is RunPhase.COLLECTING and number == state.round
        return None if is_open else Disposition.LATE

    @precondition(lambda self: self.run.state.phase is RunPhase.COLLECTING)
    @rule(data=st.data(), but=st.integers(0, 1))
    def everybody_sends(self, data: st.DataObject, but: int) -> None:
        """All gradients that the round waits for come in, in any order; or all but one."""
        state = self.run.state
        tokens = data.draw(st.permutations(sorted({state.hosts[agent] for agent in state.awaited})))
        for token in tokens[but:]:
            self.send(token, tuple(sorted(self.run.state.awaited.intersection(state.sessions[token].agent_ids))))

    def send(self, token: str, agents: tuple[str, ...]) -> None:
        """A gradient that counts."""
        number = self.run.state.round
        self.step(events.GradientArrived(token, upload(number, *agents, weight=float(len(agents)))))
        self.accepted.update((agent, number) for agent in agents)

    @precondition(lambda self: any(process.token for process in self.processes))
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        process = self.draw_member(data)
        event = events.HeartbeatArrived(process.token or "")
        if process.token in self.run.state.sessions:
            self.step(event)
        else:
            self.run.refuse(event, SessionUnknownError)

    @precondition(lambda self: any(process.token for process in self.processes))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        process = self.draw_member(data)
        event = events.LeaveArrived(process.token or "", "for a test")
        if process.token in self.run.state.sessions:
            self.step(event)
            over = self.run.state.phase is RunPhase.FINISHED
            assert over or process.token not in self.run.state.sessions
        else:
            self.run.refuse(event, SessionUnknownError)

    @precondition(lambda self: any(process.token for process in self.processes))
    @rule(data=st.data())
    def stream_closed(self, data: st.DataObject) -> None:
        """The newest stream of a process breaks, or an older one is found to have ended."""
        process = self.draw_member(data)
        number = data.draw(st.sampled_from(process.streams))
        before = self.run.state
        self.step(events.StreamClosed(process.token or "", number))
        session = before.sessions.get(process.token or "")
        if session is None or session.stream != number or before.phase is RunPhase.FINISHED:
            assert self.run.state is before

    # Time and arithmetic ---------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.125, 1.0, LIVENESS - 0.125, LIVENESS, ROUND - 4.0]), chatty=st.booleans())
    def time_passes(self, seconds: float, chatty: bool) -> None:
        """Time passes, in which those whose streams are open are silent, or chat."""
        end = self.run.now + seconds
        while self.run.now < end:
            self.run.now = min(end, self.run.now + 4.0) if chatty else end
            self.step(events.Tick())
            if chatty:
                self.chat()

    @precondition(lambda self: self.computing is not None)
    @rule(fails=st.sampled_from([False] * 19 + [True]))
    def computed(self, fails: bool) -> None:
        assert self.computing is not None
        number, self.computing = self.computing.round, None
        before = self.run.state
        self.step(events.BasisFailed(number, "no basis") if fails else moved(before, number))
        if before.phase is RunPhase.FINISHED:
            assert self.run.state is before
        else:
            assert fails or self.run.state.round == number + 1

    @precondition(lambda self: self.run.state.round > 0)
    @rule(number=st.integers(0, ROUNDS))
    def computed_out_of_turn(self, number: int) -> None:
        """The arithmetic of a round that does not close."""
        if self.computing is None or self.computing.round != number:
            before = self.run.state
            self.step(moved(before, number))
            self.step(events.BasisFailed(number, "no basis"))
            assert self.run.state is before

    @precondition(lambda self: self.run.state.round > 1 and len(self.processes) > 5)
    @rule()
    def stop(self) -> None:
        self.step(events.StopRequested("for a test"))
        assert self.run.state.phase is RunPhase.FINISHED

    # What always holds -----------------------------------------------------------------------------------

    @invariant()
    def rounds_close_one_after_another(self) -> None:
        assert self.closed == list(range(self.run.state.round))
        last = self.run.state.phase is RunPhase.FINISHED and self.run.state.round == ROUNDS
        begun = self.opened or self.run.state.phase is not RunPhase.WAITING
        if begun and (self.opened or self.run.state.phase is not RunPhase.FINISHED):
            assert self.opened == list(range(self.run.state.round + (0 if last else 1)))

    @invariant()
    def nobody_counts_twice(self) -> None:
        state = self.run.state
        assert all(count == 1 for count in self.accepted.values())
        in_closed = Counter(agent for agent, number in self.accepted if number < state.round)
        assert in_closed == Counter(dict(state.rounds_counted))
        if state.phase in (RunPhase.COLLECTING, RunPhase.CLOSING):
            assert state.counted == {agent for agent, number in self.accepted if number == state.round}

    @invariant()
    def a_round_closes_exactly_while_its_basis_is_computed(self) -> None:
        if self.run.state.phase is RunPhase.CLOSING:
            assert self.computing is not None
            assert self.computing.round == self.run.state.round

    @invariant()
    def it_ends_once(self) -> None:
        assert self.ends == (1 if self.run.state.phase is RunPhase.FINISHED else 0)

    def teardown(self) -> None:
        """With nobody who learns, every run ends, and soon: nothing is waited for without a bound."""
        most = self.run.now + max(START, LIVENESS + 3 * ROUND)
        while self.run.state.phase is not RunPhase.FINISHED:
            if self.computing is not None:
                self.computed(False)
                continue
            deadline = machine.next_deadline(self.run.state)
            assert deadline is not None
            self.run.now = max(self.run.now, deadline)
            if self.chatty:
                self.chat()
            self.step(events.Tick())
            assert self.run.now <= most
        self.it_ends_once()

    def chat(self) -> None:
        """Every process whose stream is open says that it is alive."""
        for session in tuple(self.run.state.sessions.values()):
            if session.phase is AgentPhase.CONNECTED:
                self.step(events.HeartbeatArrived(session.token))


TestCoordinatorHistories = CoordinatorHistories.TestCase
TestCoordinatorHistories.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
