"""The agent's machine against a coordinator and a network that do what they like."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from runs import SESSION_TIMEOUT, AgentDriver, join, upload

from cospan.client.session import machine as session
from cospan.client.session.machine import Phase
from cospan.client.session.machine.idle_check import LONGEST_ANSWER_SECONDS
from cospan.wire import errors
from cospan.wire import messages as m

PROGRESS_TIMEOUT = 30.0
OVER = (Phase.DONE, Phase.FAILED)
JITTER = st.sampled_from([0.0, 0.5, 0.999])


class AgentHistories(RuleBasedStateMachine):
    """Plays the shell, which carries out what the machine commands, and a coordinator with rounds of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.agent = AgentDriver(PROGRESS_TIMEOUT)
        # What the shell has to do, and what it has done.
        self.due: list[session.Command] = []
        self.stream_open = False
        self.site_made = False
        self.learnt: list[int] = []
        self.last_alive = self.agent.now
        self.resume_at = 0.0
        # The coordinator.
        self.round = 0
        self.started = False
        self.first_round = 0
        self.tokens = 0
        self.session_known = False
        self.welcomed = False
        self.counted: set[int] = set()
        self.fatal = False
        self.take(self.agent.commands)

    @initialize(start=st.sampled_from([True, True, True, False]), rounds=st.integers(0, 2))
    def begin(self, start: bool, rounds: int) -> None:
        """Most histories begin with an agent that learns."""
        self.started, self.round = start, rounds
        if start:
            self.step(session.Described(self.agent.specification))
            self.prepared()
            self.connected()
            self.welcome()

    # The shell -------------------------------------------------------------------------------------------

    def step(self, event: session.Event) -> None:
        over = self.agent.state.phase in OVER
        if isinstance(event, session.Described | session.Prepared | session.Connected | session.StreamBroke):
            self.due = [command for command in self.due if isinstance(command, session.Learn)]
        self.agent.step(event)
        if over:
            assert self.agent.commands == (), "over is over"
        self.take(self.agent.commands)

    def take(self, commands: tuple[session.Command, ...]) -> None:
        for command in commands:
            match command:
                case session.Inquire(after_seconds=pause) | session.Connect(after_seconds=pause):
                    assert 0.0 <= pause <= max(5.0, self.resume_at - self.agent.now)
                    self.due.append(command)
                case session.Prepare():
                    self.due.append(command)
                case session.Learn(round=number, basis=basis):
                    assert not self.is_learning(), "one round at a time"
                    assert not self.learnt or number > self.learnt[-1], (
                        "no round is learnt twice, none after a later"
                    )
                    assert number == self.round
                    assert basis is self.agent.basis
                    self.learnt.append(number)
                    self.due.append(command)
                case session.Ask(within_seconds=seconds):
                    assert self.welcomed, "a question needs a session"
                    assert not self.is_due(session.Ask), "one question at a time"
                    assert 0.0 < seconds <= LONGEST_ANSWER_SECONDS
                    self.due.append(command)
                case session.Begin():
                    assert not self.learnt, "the learner is made once"
                case session.Transmit(message=message):
                    assert self.stream_open, "nothing is sent without a stream"
                    self.hear(message)
                case session.Conclude() | session.Fail():
                    self.stream_open = self.welcomed = False

    def is_learning(self) -> bool:
        return any(isinstance(command, session.Learn) for command in self.due)

    def is_due(self, kind: type[session.Command]) -> bool:
        return any(isinstance(command, kind) for command in self.due)

    # The coordinator -------------------------------------------------------------------------------------

    def hear(self, message: m.AgentMessage) -> None:
        match message:
            case m.Join(resumption=resumption):
                assert self.agent.state.phase is Phase.JOINING
                assert resumption is not None or not self.is_learning(), "who joins again is ready for a round"
                if resumption is not None:
                    assert resumption.session_token == f"token-{self.tokens}"
                    assert resumption.last_round <= self.round
            case m.GradientUpload(round=number):
                assert self.welcomed
                assert number in self.learnt
                if number == self.round and self.started:
                    self.counted.add(number)
            case m.Leave() | m.Heartbeat():
                pass

    def alive(self) -> None:
        self.last_alive = self.agent.now

    @precondition(lambda self: self.is_due(session.Inquire))
    @rule()
    def described(self) -> None:
        self.alive()
        self.step(session.Described(self.agent.specification))

    @precondition(lambda self: self.is_due(session.Prepare))
    @rule()
    def prepared(self) -> None:
        self.alive()
        self.site_made = True
        self.step(session.Prepared(join("a")))

    @precondition(lambda self: self.is_due(session.Connect))
    @rule()
    def connected(self) -> None:
        self.stream_open, self.welcomed = True, False
        self.step(session.Connected())

    @precondition(lambda self: self.is_due(session.Connect))
    @rule(closing=st.booleans())
    def comes_back(self, closing: bool) -> None:
        """The stream is open again, and the join is answered at once."""
        self.connected()
        self.welcome(closing)

    @precondition(lambda self: self.stream_open and not self.welcomed)
    @rule(closing=st.booleans())
    def welcome(self, closing: bool = False) -> None:
        """The answer to a join; a session that the coordinator has forgotten is refused by `breaks`."""
        self.alive()
        self.welcomed = True
        if not self.session_known:
            self.tokens += 1
            self.session_known = True
        late = self.started and (closing or self.round in self.counted)
        self.first_round = self.round + (1 if late else 0)
        self.step(
            session.Received(
                self.agent.welcome(
                    self.round,
                    session_token=f"token-{self.tokens}",
                    first_round=self.first_round,
                    started=self.started,
                )
            )
        )

    @rule(rounds=st.integers(1, 3))
    def rounds_pass(self, rounds: int) -> None:
        """The next round opens: with this agent's gradient, or because it has stopped waiting for it."""
        for _ in range(rounds):
            if self.started:
                self.round += 1
            self.started = True
            if self.welcomed:
                self.alive()
                self.step(session.Received(m.BasisUpdate(self.agent.stamp(self.round), self.agent.basis)))

    @precondition(lambda self: self.welcomed)
    @rule(disposition=st.sampled_from(m.Disposition), lag=st.integers(0, 2))
    def receipt(self, disposition: m.Disposition, lag: int) -> None:
        self.alive()
        number = max(0, self.round - lag)
        self.step(session.Received(m.Receipt(self.agent.stamp(self.round), number, disposition)))

    @precondition(lambda self: self.welcomed)
    @rule(seconds=st.sampled_from([0.0, 1.0, 2 * PROGRESS_TIMEOUT]))
    def drain(self, seconds: float) -> None:
        self.alive()
        self.resume_at = self.agent.now + seconds
        self.step(session.Received(m.Drain(self.agent.stamp(self.round), seconds)))

    @precondition(lambda self: self.is_due(session.Ask))
    @rule()
    def answers(self) -> None:
        """The coordinator runs: its answer is a sign of life, as a message is."""
        self.asked_is_over()
        self.alive()
        self.step(session.Answered(self.agent.stamp(self.round)))

    @precondition(lambda self: self.is_due(session.Ask))
    @rule()
    def does_not_answer(self) -> None:
        self.asked_is_over()
        self.step(session.Unanswered(errors.CoordinatorUnavailableError("no answer")))
        if self.agent.state.phase in OVER:
            self.stream_open = self.welcomed = False

    def asked_is_over(self) -> None:
        self.due = [command for command in self.due if not isinstance(command, session.Ask)]

    # The network -----------------------------------------------------------------------------------------

    @precondition(lambda self: self.is_due(session.Connect) or self.is_due(session.Inquire))
    @rule(jitter=JITTER, times=st.integers(1, 8))
    def cannot_be_reached(self, jitter: float, times: int) -> None:
        for _ in range(times):
            if self.agent.state.phase not in OVER:
                self.break_with(errors.CoordinatorUnavailableError("the connection was refused"), jitter)

    @precondition(lambda self: self.stream_open)
    @rule(jitter=JITTER, rounds=st.integers(0, 2), comes_back=st.booleans(), closing=st.booleans())
    def breaks(self, jitter: float, rounds: int, comes_back: bool, closing: bool) -> None:
        """The stream breaks; meanwhile the run may go on."""
        self.break_with(errors.CoordinatorUnavailableError("the connection was refused"), jitter)
        if rounds:
            self.rounds_pass(rounds)
        if comes_back and self.is_due(session.Connect):
            self.comes_back(closing)

    @precondition(lambda self: self.stream_open)
    @rule(jitter=JITTER, comes_back=st.booleans())
    def is_given_up(self, jitter: float, comes_back: bool) -> None:
        """The coordinator forgets the session, and says so on the stream or when it is resumed."""
        self.session_known = False
        self.break_with(errors.SessionUnknownError("given up"), jitter)
        if comes_back and self.is_due(session.Connect):
            self.comes_back(False)

    @precondition(lambda self: self.stream_open and not self.welcomed and not self.session_known)
    @rule(jitter=JITTER)
    def name_is_taken(self, jitter: float) -> None:
        self.break_with(errors.AgentIdTakenError("taken"), jitter)

    def break_with(self, error: errors.CospanError, jitter: float) -> None:
        if self.welcomed and not self.agent.state.hearing.unanswered:
            self.alive()
        self.stream_open = self.welcomed = False
        self.step(session.StreamBroke(error, jitter))

    @precondition(lambda self: self.stream_open and len(self.learnt) > 2)
    @rule(error=st.sampled_from([errors.InternalError("no"), errors.RunFinishedError("over")]))
    def is_refused(self, error: errors.RemoteError) -> None:
        self.fatal = True
        self.break_with(error, 0.5)
        assert self.agent.state.phase in OVER

    # The learner and the clock ---------------------------------------------------------------------------

    @precondition(lambda self: self.is_learning())
    @rule()
    def round_is_done(self) -> None:
        self.due = [command for command in self.due if not isinstance(command, session.Learn)]
        self.step(session.GradientReady(upload(self.learnt[-1])))

    @precondition(lambda self: len(self.learnt) > 2)
    @rule()
    def a_long_time_passes(self) -> None:
        self.time_passes(PROGRESS_TIMEOUT)

    @rule(seconds=st.sampled_from([0.125, 1.0, SESSION_TIMEOUT]))
    def time_passes(self, seconds: float) -> None:
        self.agent.now += seconds
        self.step(session.Tick())
        if self.agent.state.phase is Phase.ACTIVE:
            assert self.agent.now - self.agent.state.last_sent < SESSION_TIMEOUT / 4

    @precondition(lambda self: len(self.learnt) > 2 and self.agent.state.phase not in OVER)
    @rule(finish=st.booleans())
    def ends(self, finish: bool) -> None:
        self.fatal = True
        if finish and self.welcomed:
            self.alive()
            finished = m.Finish(self.agent.stamp(self.round), m.FinishCause.STOPPED, "enough", self.agent.basis)
            self.step(session.Received(finished))
        else:
            self.step(session.StopRequested("enough"))
        assert self.agent.state.phase is Phase.DONE

    # What always holds -----------------------------------------------------------------------------------

    @invariant()
    def something_is_always_under_way(self) -> None:
        """No silent hang: in every phase there is one thing from which the next event must come."""
        phase = self.agent.state.phase
        under_way: dict[Phase, Any] = {
            Phase.OFFLINE: self.is_due(session.Connect) if self.site_made else self.is_due(session.Inquire),
            Phase.PREPARING: self.is_due(session.Prepare),
            Phase.JOINING: self.stream_open and not self.welcomed,
            Phase.ACTIVE: self.stream_open and self.welcomed,
            Phase.LAGGING: self.is_learning(),
        }
        assert phase in OVER or under_way[phase]
        reaching = [command for command in self.due if not isinstance(command, session.Learn | session.Ask)]
        assert phase in OVER or len(reaching) == (1 if phase in (Phase.OFFLINE, Phase.PREPARING) else 0)

    @invariant()
    def an_idle_agent_is_not_awaited(self) -> None:
        """An agent in the run with nothing to learn has sent what the open round waits for."""
        idle = self.agent.state.phase is Phase.ACTIVE and not self.is_learning()
        if idle and self.started and self.round >= self.first_round:
            assert self.round in self.counted

    @invariant()
    def it_learns_while_the_book_says_so(self) -> None:
        if self.agent.state.phase not in OVER:
            assert (self.agent.state.learning is not None) == self.is_learning()

    @invariant()
    def it_gives_up_for_a_reason(self) -> None:
        if self.agent.state.phase is Phase.FAILED and not self.fatal:
            assert self.agent.now - max(self.last_alive, self.resume_at) >= PROGRESS_TIMEOUT


TestAgentHistories = AgentHistories.TestCase
TestAgentHistories.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
