"""A process with a session: the session machine that ships, over a simulated connection and with its own clock.

Agents are such processes, and relays are towards their coordinator.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cospan.client.session import machine as session
from cospan.client.session.run_checks import Demands
from cospan.core.specification import RunSpecification
from cospan.wire.errors import CoordinatorUnavailableError, CospanError
from cospan.wire.messages import AgentMessage, GradientUpload, Join, RoundDeclined, Stamp, Welcome
from simulator.duties.session_rounds import SessionRounds
from simulator.duties.session_waits import SessionWaits
from simulator.parties.listener import Listener
from simulator.parties.masks import Masks
from simulator.parties.network import Connection, Network
from simulator.parties.processes import Process, Timeline
from simulator.plan import Settings
from simulator.witness import Witness

PROGRESS_SECONDS = 30.0


class Host(Protocol):
    """A process that agents join: a coordinator, or a relay."""

    alive: bool
    stalled: bool
    listener: Listener

    @property
    def specification(self) -> RunSpecification:
        """Of the run, as it is described to agents."""

    @property
    def stamp(self) -> Stamp:
        """The answer to whether it is there."""

    def do(self, action: Callable[[], None]) -> None:
        """Lets it do something."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process finds around it."""

    timeline: Timeline
    network: Network
    witness: Witness
    settings: Settings
    host: Callable[[], Any]
    """The `Host` that listens where it joins; None while there is none."""
    on_end: Callable[[Any], None]
    """Called with the process once it is over."""


class SessionProcess(Process):
    """Executes the commands of its session; a subclass learns, and says what follows its end."""

    passes_on = False
    """Whether others learn, as below a relay."""

    def __init__(self, around: Surroundings, rng: random.Random) -> None:
        super().__init__(around.timeline, rng)
        self.connection: Connection | None = None
        self.lied = False
        self.masks: Masks | None = None
        """In a run with secure sums."""
        self._around = around
        self._inbox: deque[session.Event] = deque()
        self._is_stepping = False
        self._call = 0
        self._begin_session()
        self._tick_later()

    def _begin_session(self) -> None:
        self.state, commands = session.initial_state(
            progress_timeout_seconds=PROGRESS_SECONDS,
            now=self.clock(),
            spread=self.rng.random(),
            demands=Demands(min_steps_per_round=1),
            passes_on=self.passes_on,
        )
        self._rounds, self._waits = SessionRounds(), SessionWaits(self.clock(), PROGRESS_SECONDS)
        self.do(lambda: self._execute_all(commands))

    # What a subclass does ------------------------------------------------------------------------------------

    def prepare(self, specification: RunSpecification) -> None:
        """Makes the site."""
        raise NotImplementedError

    def learn(self, command: session.Learn) -> None:
        """Begins a round."""
        raise NotImplementedError

    def end(self, command: session.Conclude | session.Fail) -> None:
        """The session is over."""
        raise NotImplementedError

    def took(self, message: Any) -> None:
        """The machine has taken a message."""

    def outgoing(self, message: AgentMessage) -> AgentMessage | None:
        """What is sent in place of a message of the machine; None for nothing."""
        return message

    def takes_over(self, error: CospanError) -> bool:
        """Whether the end of a stream is no matter of the session."""
        return False

    # The machine ---------------------------------------------------------------------------------------------

    def post(self, event: session.Event) -> None:
        """Lets an event happen, now or after the one that is happening."""
        self._inbox.append(event)
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while self._inbox and self.alive:
                self._take(self._inbox.popleft())
        finally:
            self._is_stepping = False

    def _take(self, event: session.Event) -> None:
        now, before = self.clock(), self.state
        # Who shows no session joins afresh: what is unknown then is an older join of its own; nobody gave it up.
        was_learning = self._is_learning and before.token is not None
        self.state, commands = session.step(before, event, now)
        if self.state is not before:  # most ticks change nothing
            self.state.check()
        self._waits.stepped(event, self.state, commands, now, was_learning=was_learning)
        self._rounds.stepped(event, self.state, commands)
        if isinstance(event, session.Received):
            again = isinstance(event.message, Welcome) and self.state.epoch_id == before.agreed
            assert not again or not any(isinstance(each, session.Agree) for each in commands), (
                "a process checks members at a welcome that it has agreed to"
            )
            self.took(event.message)
        self._execute_all(commands)

    @property
    def _is_learning(self) -> bool:
        """Whether a round has to end first; not one that a relay of secure sums has passed on: it may be void."""
        spec = self.state.specification
        passes_on = self.state.passes_on and spec is not None and bool(spec.secure_sums)
        return self.state.learning is not None and not passes_on

    def _execute_all(self, commands: tuple[session.Command, ...]) -> None:
        for command in commands:
            self.boundary()
            self._execute_session(command)

    def _execute_session(self, command: session.Command) -> None:
        match command:
            case session.Inquire(after_seconds=pause):
                self._begin_call(pause, self._inquire)
            case session.Prepare(specification=specification):
                self.prepare(specification)
            case session.Connect(after_seconds=pause):
                self._begin_call(pause, self._connect)
            case session.Transmit(message=message):
                self._transmit(message)
            case session.Agree() | session.TransmitMasked():
                self._mask(command)
            case session.Ask(within_seconds=seconds):
                self._ask(seconds)
            case session.Begin():
                pass
            case session.Learn():
                self.learn(command)
            case session.Conclude() | session.Fail():
                self.end(command)

    def _transmit(self, message: AgentMessage) -> None:
        if isinstance(message, Join):
            message = self.offered(message)
        if isinstance(message, RoundDeclined):
            self.declines(message.round)
        sent = self.outgoing(message)
        if sent is not None and self.connection is not None:
            self.connection.send(0, sent)

    def _mask(self, command: session.Agree | session.TransmitMasked) -> None:
        assert self.state.specification is not None
        if isinstance(command, session.Agree):
            try:
                self.post(session.Agreed(self.agree(command)))
            except CospanError as failure:
                self.post(session.LearningFailed(failure))
        else:
            self._transmit(self.masked(command, self.state.specification))

    def offered(self, join: Join) -> Join:
        """The join, with secure sums with a key."""
        return join if self.masks is None else self.masks.offered(join)

    def agree(self, command: session.Agree) -> bytes:
        """The id of the epoch of these members, after they were checked."""
        assert self.masks is not None
        return self.masks.agree(command, self.state)

    def masked(self, command: session.TransmitMasked, specification: RunSpecification) -> GradientUpload:
        """An upload as it is sent with secure sums."""
        assert self.masks is not None
        return self.masks.masked(command, specification)

    def declines(self, number: int) -> None:
        """It sends no vector for a round."""
        state = self.state
        assert self.masks is not None
        assert state.basis is not None
        key, book = self.masks.key.public_key, self._around.witness.secure_sums
        book.declined(key, number, state.epoch_id, state.basis.tobytes())

    def _tick_later(self) -> None:
        self.later(session.tick_seconds(self.state), self._tick)

    def _tick(self) -> None:
        self.post(session.Tick())
        self._tick_later()

    # The connection ------------------------------------------------------------------------------------------

    def _begin_call(self, pause: float, call: Callable[[], None]) -> None:
        self._hang_up()
        self._call += 1
        number = self._call

        def begin() -> None:
            if number == self._call:
                call()

        self.later(pause, begin)

    def _hang_up(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close(0)

    def _inquire(self) -> None:
        """Asks what the run is; the answer is of the process that listens when the question arrives."""
        number = self._call

        def arrive() -> None:
            host = self._reachable()
            answer: session.Event
            if host is None:
                answer = session.StreamBroke(CoordinatorUnavailableError("nothing listens"), self.rng.random())
            else:
                answer = session.Described(host.specification)
            self._around.timeline.after(self._around.network.delay(), lambda: self.do(lambda: back(answer)))

        def back(answer: session.Event) -> None:
            if number == self._call:
                self.post(answer)

        self._around.timeline.after(self._around.network.delay(), arrive)

    def _reachable(self) -> Host | None:
        host: Host | None = self._around.host()
        return None if self._around.network.parted or host is None or host.stalled else host

    def _connect(self) -> None:
        number = self._call

        def arrive() -> None:
            if not self.alive or number != self._call:
                return
            host = self._reachable()
            if host is None:
                self.do(refused)
                return
            stream = host.listener.next_stream()
            assert isinstance(host, Process)
            self.connection = Connection(self._around.network, stream, (self, host.listener), (self, host))
            self.connection.lied = self.lied
            self.do(lambda: self.post(session.Connected()))

        def refused() -> None:
            if number == self._call:
                self._broke(CoordinatorUnavailableError("nothing listens"))

        self._around.timeline.after(self._around.network.delay(), arrive)

    def received(self, connection: Connection, message: Any) -> None:
        """A message of the coordinator, or of a relay."""
        if connection is self.connection:
            self._around.witness.told(message.stamp)
            self.post(session.Received(message))

    def broke(self, connection: Connection, error: CospanError) -> None:
        """The stream is over."""
        if connection is self.connection:
            self.connection = None
            self._broke(error)

    def _broke(self, error: CospanError) -> None:
        if not self.takes_over(error):
            self.post(session.StreamBroke(error, self.rng.random()))

    def _ask(self, seconds: float) -> None:
        connection = self.connection
        timeline, network = self._around.timeline, self._around.network
        host: Host | None = self._around.host()
        answered: list[bool] = []

        def answer(event: session.Event) -> None:
            if connection is self.connection and connection is not None and not answered:
                answered.append(True)
                self.post(event)

        def reach() -> None:
            if host is not None and host.alive and connection is not None and connection.works:
                host.do(respond)

        def respond() -> None:
            assert host is not None
            stamp = host.stamp
            timeline.after(network.delay(), lambda: self.do(lambda: answer(session.Answered(stamp))))

        timeline.after(network.delay(), reach)
        late = CoordinatorUnavailableError("no answer came in time")
        self.later(seconds, lambda: answer(session.Unanswered(late)))

    def ended(self) -> None:
        """Its connection is reset, unless its whole machine is gone."""
        if self.connection is not None:
            if self.host_lost:
                self.connection.lose()
            else:
                self.connection.close(0)
        self._around.on_end(self)

    @property
    def waited_in_vain(self) -> bool:
        """Whether the progress timeout has run out."""
        return self.clock() - max(self.state.lost_since, self.state.resume_at) >= PROGRESS_SECONDS
