"""An agent process: the session machine that ships, with a simulated connection, learner and clock."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runs import join

from cospan.client.session import machine as session
from cospan.wire.errors import CoordinatorUnavailableError, CospanError
from cospan.wire.messages import AgentMessage, FinishCause, GradientUpload
from simulator import toy
from simulator.parties.coordinator import CoordinatorProcess
from simulator.parties.network import Connection, Network
from simulator.parties.processes import Process, Timeline
from simulator.plan import Settings
from simulator.witness import Witness

PROGRESS_SECONDS = 30.0


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
        self.sent: deque[GradientUpload] = deque(maxlen=4)
        self.cause: FinishCause | None = None
        self.left = self.lied = False
        self.connection: Connection | None = None
        self._around = around
        self._inbox: deque[session.Event] = deque()
        self._is_stepping = False
        self._call = 0
        self._learning = False
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
        self._tick_later()

    # Learning ------------------------------------------------------------------------------------------------

    def _learn(self, command: session.Learn) -> None:
        assert not self._learning, "one round is learnt at a time"
        self._learning = True
        mean = self._around.settings.learn_seconds * self.learning_slowness
        number, basis = command.round, command.basis
        self._around.witness.learns(self, number, basis)

        def ready() -> None:
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
            self.do(lambda: self.post(session.Connected()))

        def refused() -> None:
            if number == self._call:
                error = CoordinatorUnavailableError("nothing listens")
                self.post(session.StreamBroke(error, self.rng.random()))

        self._around.timeline.after(self._around.network.delay(), arrive)

    def received(self, connection: Connection, message: Any) -> None:
        """A message of the coordinator."""
        if connection is self.connection:
            self.post(session.Received(message))

    def broke(self, connection: Connection, error: CospanError) -> None:
        """The stream is over."""
        if connection is self.connection:
            self.connection = None
            self.post(session.StreamBroke(error, self.rng.random()))

    def _transmit(self, message: AgentMessage) -> None:
        if isinstance(message, GradientUpload):
            self.sent.append(message)
            self._around.witness.uploads(self.agents, message)
        if self.connection is not None:
            self.connection.send(0, message)

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
