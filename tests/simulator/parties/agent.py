"""An agent process: the session machine that ships, with a simulated connection, learner and clock."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runs import SESSION_TIMEOUT, join

from cospan.client.session import machine as session
from cospan.wire.errors import CoordinatorUnavailableError, CospanError, SessionUnknownError
from cospan.wire.messages import AgentMessage, FinishCause, GradientUpload, Join, Welcome
from simulator import toy
from simulator.parties.coordinator import CoordinatorProcess
from simulator.parties.network import Connection, Network
from simulator.parties.processes import Process, Timeline
from simulator.plan import Settings
from simulator.witness import Witness

PROGRESS_SECONDS = 30.0
_HEARTBEAT_SECONDS = SESSION_TIMEOUT / 4.0
_HOLDS_BACK_SECONDS = 3.0
_HANG_STEP_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an agent finds around it."""

    timeline: Timeline
    network: Network
    witness: Witness
    settings: Settings
    coordinator: Callable[[], CoordinatorProcess | None]
    """The process that listens; None while there is none."""
    on_end: Callable[["AgentProcess"], None]


class AgentProcess(Process):
    """Hosts one agent or more, and takes part until its run is over, it gives up, or it is killed."""

    def __init__(self, around: Surroundings, rng: random.Random, agents: tuple[str, ...], generation: int) -> None:
        super().__init__(around.timeline, rng)
        self.agents, self.generation = agents, generation
        self.learning_slowness = 1.0
        self.hangs_for = 0.0
        self.holds_back = self.repeats = self._is_welcome_again = False
        self.sent: deque[GradientUpload] = deque(maxlen=4)
        self.cause: FinishCause | None = None
        self.left = self.lied = False
        self.connection: Connection | None = None
        self._around = around
        self._inbox: deque[session.Event] = deque()
        self._is_stepping = False
        self._call = 0
        self._learning = False
        self._held_back: GradientUpload | None = None
        self._transmitted = self.clock()
        self._unknown_tokens: set[str] = set()
        self.state, commands = session.initial_state(
            progress_timeout_seconds=PROGRESS_SECONDS, now=self.clock(), spread=rng.random(), min_steps_per_round=1
        )
        self.do(lambda: self._execute_all(commands))
        self._tick_later()

    # The machine ---------------------------------------------------------------------------------------------

    def post(self, event: session.Event) -> None:
        """Lets an event happen, now or after the one that is happening."""
        self._inbox.append(event)
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while self._inbox and self.alive:
                happening = self._inbox.popleft()
                before = self.state
                self.state, commands = session.step(before, happening, self.clock())
                self.state.check()
                self._execute_all(commands)
        finally:
            self._is_stepping = False

    def _execute_all(self, commands: tuple[session.Command, ...]) -> None:
        for command in commands:
            self.boundary()
            self._execute(command)

    def _execute(self, command: session.Command) -> None:
        match command:
            case session.Inquire(after_seconds=pause):
                self._begin_call(pause, self._inquire)
            case session.Prepare():
                instance = f"{'+'.join(self.agents)} {self.generation}"
                joining = join(*self.agents, instance=instance, feature_dim=toy.D)
                self.later(0.05, lambda: self.post(session.Prepared(joining)))
            case session.Connect(after_seconds=pause):
                self._begin_call(pause, self._connect)
            case session.Transmit(message=message):
                self._transmit(message)
            case session.Ask(within_seconds=seconds):
                self._ask(seconds)
            case session.Begin():
                pass
            case session.Learn():
                self._learn(command)
            case session.Conclude(cause=cause, left=left):
                self.cause, self.left = cause, left
                self._end(None)
            case session.Fail(error=error):
                self._end(error)

    def _end(self, error: CospanError | None) -> None:
        waited = self.clock() - max(self.state.lost_since, self.state.resume_at)
        self._around.witness.agent_ended(error, lied=self.lied, exhausted=waited >= PROGRESS_SECONDS)
        self._hang_up()
        self.alive = False
        self.ended()

    def ended(self) -> None:
        """Its connection is reset, unless its whole machine is gone."""
        if self.connection is not None:
            if self.host_lost:
                self.connection.lose()
            else:
                self.connection.close(0)
        self._around.on_end(self)

    def _tick_later(self) -> None:
        self.later(session.tick_seconds(self.state), self._tick)

    def _tick(self) -> None:
        self.post(session.Tick())
        if self.alive and self.state.phase is session.Phase.ACTIVE:
            silent = self.clock() - self._transmitted
            assert silent <= _HEARTBEAT_SECONDS, "an agent in an open session sends no heartbeat"
        self._tick_later()

    # Learning ------------------------------------------------------------------------------------------------

    def _learn(self, command: session.Learn) -> None:
        assert not self._learning, "one round is learnt at a time"
        self._learning = True
        mean = self._around.settings.learn_seconds * self.learning_slowness
        number, basis = command.round, command.basis
        self._around.witness.learns(self, number, basis)

        def ready() -> None:
            if self.hangs_for > 0.0:
                self.hangs_for -= _HANG_STEP_SECONDS
                self.later(_HANG_STEP_SECONDS, ready)
                return
            self._learning = False
            self.post(session.GradientReady(GradientUpload(number, toy.contribution(self.agents, number, basis))))

        self.later(self.rng.uniform(0.5, 1.5) * mean, ready)

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
        """Asks what the run is; the answer is of the coordinator that listens when the question arrives."""
        number = self._call

        def arrive() -> None:
            coordinator = self._reachable()
            answer: session.Event
            if coordinator is None:
                answer = session.StreamBroke(CoordinatorUnavailableError("nothing listens"), self.rng.random())
            else:
                answer = session.Described(coordinator.specification)
            self._around.timeline.after(self._around.network.delay(), lambda: self.do(lambda: back(answer)))

        def back(answer: session.Event) -> None:
            if number == self._call:
                self.post(answer)

        self._around.timeline.after(self._around.network.delay(), arrive)

    def _reachable(self) -> CoordinatorProcess | None:
        coordinator = self._around.coordinator()
        return None if self._around.network.parted or coordinator is None or coordinator.stalled else coordinator

    def _connect(self) -> None:
        number = self._call

        def arrive() -> None:
            if not self.alive or number != self._call:
                return
            coordinator = self._reachable()
            if coordinator is None:
                self.do(refused)
                return
            stream = coordinator.next_stream()
            self.connection = Connection(self._around.network, stream, (self, coordinator), (self, coordinator))
            self.connection.lied = self.lied
            self.do(lambda: self.post(session.Connected()))

        def refused() -> None:
            if number == self._call:
                error = CoordinatorUnavailableError("nothing listens")
                self.post(session.StreamBroke(error, self.rng.random()))

        self._around.timeline.after(self._around.network.delay(), arrive)

    def received(self, connection: Connection, message: Any) -> None:
        """A message of the coordinator."""
        if connection is self.connection:
            if isinstance(message, Welcome):
                self._transmitted = self.clock()
                self._unknown_tokens.discard(message.session_token)  # its end was lost in a restart
            self.post(session.Received(message))
            if self.repeats and (self._is_welcome_again or isinstance(message, Welcome)):
                self._is_welcome_again = True
                self._repeat()

    def broke(self, connection: Connection, error: CospanError) -> None:
        """The stream is over."""
        if connection is self.connection:
            self.connection = None
            if isinstance(error, SessionUnknownError) and self.state.token is not None:
                self._unknown_tokens.add(self.state.token)
            self.post(session.StreamBroke(error, self.rng.random()))

    def _transmit(self, message: AgentMessage) -> None:
        self._transmitted = self.clock()
        if isinstance(message, Join) and message.resumption is not None:
            unknown = message.resumption.session_token in self._unknown_tokens
            assert not unknown, "an agent resumes a session that it was told is gone"
        if not isinstance(message, GradientUpload):
            if self.connection is not None:
                self.connection.send(0, message)
        elif self.holds_back and self._held_back is None:
            self.holds_back, self._held_back = False, message
            connection = self.connection
            self.later(_HOLDS_BACK_SECONDS, lambda: self._send_held_back(connection))
        else:
            self.upload(message)
            self._send_held_back(self.connection)

    def upload(self, message: GradientUpload) -> None:
        """Sends a gradient over the open connection."""
        self.sent.append(message)
        self._around.witness.uploads(message.agent_ids or self.agents, message)
        if self.connection is not None:
            self.connection.send(0, message)

    def _repeat(self) -> None:
        """Sends everything again that a coordinator takes from it, once a round is open."""
        state = self.state
        if self.alive and state.phase is session.Phase.ACTIVE and state.is_open and state.stamp is not None:
            self.repeats = self._is_welcome_again = False
            for message in [each for each in self.sent if each.round <= state.stamp.round]:
                self.upload(message)

    def _send_held_back(self, connection: Connection | None) -> None:
        """A gradient that was held back follows, unless its stream is over: then it is kept, and sent again."""
        held, self._held_back = self._held_back, None
        state = self.state
        in_turn = held and state.is_open and state.stamp is not None and held.round <= state.stamp.round
        if held is not None and in_turn and connection is not None and connection is self.connection:
            self.upload(held)

    def _ask(self, seconds: float) -> None:
        connection = self.connection
        timeline, network = self._around.timeline, self._around.network
        coordinator = self._around.coordinator()
        answered: list[bool] = []

        def answer(event: session.Event) -> None:
            if connection is self.connection and connection is not None and not answered:
                answered.append(True)
                self.post(event)

        def reach() -> None:
            if coordinator is not None and coordinator.alive and connection is not None and connection.works:
                coordinator.do(respond)

        def respond() -> None:
            assert coordinator is not None
            stamp = coordinator.stamp
            timeline.after(network.delay(), lambda: self.do(lambda: answer(session.Answered(stamp))))

        timeline.after(network.delay(), reach)
        late = CoordinatorUnavailableError("no answer came in time")
        self.later(seconds, lambda: answer(session.Unanswered(late)))
