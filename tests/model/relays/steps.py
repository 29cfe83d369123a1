"""The relay that ships, one step at a time: its machine, its session, and the `Upstream` that connects them.

Only what takes time or a socket is left out of `Upstream`: its driver is one without them.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from cospan.client.session import machine as session
from cospan.client.session.run_checks import Demands
from cospan.core.aggregation.basis_update import Contribution, sum_of_contributions
from cospan.core.linalg.matrices import DenseMatrix
from cospan.relay import machine
from cospan.relay.events import Command, Event, HostAgents, RoundOpened, SumUp
from cospan.relay.state import RelayState
from cospan.relay.upstream import Upstream
from cospan.relay.vectors import VectorsBelow
from cospan.server.machine import events
from cospan.server.machine.opening import is_connected
from cospan.server.runtime.machine_loop import MachineLoop
from cospan.wire.errors import (
    CoordinatorUnavailableError,
    CospanError,
    InvalidMessageError,
    OutOfTurnError,
    RemoteError,
)
from cospan.wire.messages import BasisUpdate, GradientUpload, Welcome
from model.clocks import moved_back, without_times
from model.parties import Effect, Parties, Settings
from model.terms import NAMES, RELAY, STREAMS_PER_AGENT, Table

_LATER = 1.0
"""When the relay joins with others: a time that has not come, whichever it is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an event leads to: the relay after it, and its effects below and above; or the error of a refusal.

    Attributes:
        relay: number of its machine's state.
        session: number of its session's state.
        welcomed: as of `Hub`.
        below: what its agents notice, each with the agent.
        above: what its session does: ("transmit", message) and ("hang up",).
        is_over: whether its process ends.
        refusal: of what an agent has sent; None if it was taken.
    """

    relay: int
    session: int
    welcomed: frozenset[str]
    below: tuple[tuple[int, Effect], ...] = ()
    above: tuple[Effect, ...] = ()
    is_over: bool = False
    refusal: type[CospanError] | None = None


class _Described:
    """The specification of the run, which is there."""

    def __init__(self, specification: Any) -> None:
        self._specification = specification

    def done(self) -> bool:
        """Whether it is there."""
        return True

    def result(self) -> Any:
        """It."""
        return self._specification


class _Driver:
    """`cospan.client.session.driver.SessionDriver` without time and connections: what it would do is an effect."""

    def __init__(self, parties: Parties, state: Any, effects: list[Effect]) -> None:
        self.state, self.is_over = state, False
        self.upstream: _Upstream
        self._parties, self._effects = parties, effects
        self._inbox: deque[session.Event] = deque()
        self._is_stepping = False

    def start(self) -> None:
        """Another session, which has asked what the run is."""
        self.state, _ = session.initial_state(
            progress_timeout_seconds=1e6, now=0.0, demands=Demands(min_steps_per_round=1), passes_on=True
        )
        self.post(session.Described(self._parties.specification))

    def post(self, event: session.Event) -> None:
        """Lets an event happen, now or after the one that is happening."""
        self._inbox.append(event)
        if self._is_stepping:
            return
        self._is_stepping = True
        while self._inbox:
            self._take(self._inbox.popleft())
        self._is_stepping = False

    def leave(self, cause: str, *, returning: bool) -> None:
        """Ends the session at once."""
        self._inbox.clear()
        self._take(session.StopRequested(cause, returning))
        self._effects.append(("hang up",))

    def _take(self, event: session.Event) -> None:
        self.state, commands = session.step(self.state, event, 0.0)
        self.state.check()
        message = event.message if isinstance(event, session.Received) else None
        if isinstance(message, Welcome) and self.state.phase is session.Phase.ACTIVE:
            self.upstream._on_welcomed(message)
        for command in commands:
            self._execute(command)

    def _execute(self, command: session.Command) -> None:
        match command:
            case session.Transmit(message=message):
                sent = self.upstream._shortened(message)
                self._effects.append(("transmit", self._parties.messages.number(sent)))
            case session.Connect() | session.Inquire():
                self._effects.append(("hang up",))
                if isinstance(command, session.Inquire):
                    self.post(session.Described(self._parties.specification))
            case session.Prepare(specification=specification):
                self.upstream._prepare(specification)
            case session.Learn():
                self.upstream._open_round(command)
            case session.Conclude():
                self.upstream._conclude(command)
                if not command.left:
                    self._effects.append(("hang up",))
            case session.Begin():
                pass
            case _:
                raise AssertionError(f"a relay was ended: {command}")


class _Upstream(Upstream):
    """`Upstream` as a relay process has it between two events."""

    def __init__(self, driver: _Driver, relay: RelayState, welcomed: frozenset[str], instance: str) -> None:
        self.specification: Any = _Described(driver._parties.specification)
        self._names, self._welcomed = relay.names, welcomed
        self._fingerprint = relay.fleet.specification.feature_fingerprint
        self._instance, self._vectors, self._driver = instance, VectorsBelow(), driver  # type: ignore[assignment]
        driver.upstream = self

    def attach(self, loop: MachineLoop[RelayState, Event, Command]) -> None:
        """Its events go to this loop."""
        self._tell = loop.post
        self._failed = _fails

    def _open_round(self, command: session.Learn) -> None:
        """As in `Upstream`, without the check of the basis: the toy's are no bases of a subspace."""
        assert self._state.stamp is not None
        self._tell(RoundOpened(self._state.stamp, command.round, command.basis, command.head_covariance, None))


def _fails(failure: CospanError) -> None:
    raise AssertionError(f"a relay fails: {failure!r}")


class RelaySteps:
    """All states of the relay by number, and the steps between them."""

    def __init__(self, settings: Settings, parties: Parties) -> None:
        self._settings, self._parties = settings, parties
        self.table = Table[RelayState](
            parties.symbols.term, lambda _, base, i: parties.rename(base, i), parties.renamings
        )
        self._answers: dict[tuple[Any, ...], Answer] = {}
        self._session_numbers: dict[int, int] = {}

    def started(self) -> Answer:
        """A relay process that knows the run, and has no agents."""
        specification = self._parties.specification
        machine.check_relayable(specification)
        state = machine.initial_state(specification, gather_agents=self._settings.relayed, level=1, now=0.0)
        above, _ = session.initial_state(
            progress_timeout_seconds=1e6, now=0.0, demands=Demands(min_steps_per_round=1), passes_on=True
        )
        above, _ = session.step(above, session.Described(specification), 0.0)
        return Answer(self.table.number(_plain(state)), self._parties.sessions.number(above), frozenset())

    def answer(self, relay: int, above: int, welcomed: frozenset[str], generation: int, event: Effect) -> Answer:
        """What the relay does with an event of an agent, of its session, or of time."""
        key = (relay, above, welcomed, generation, event)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = self._step(relay, above, welcomed, generation, event)
        return answer

    def _step(self, relay: int, above: int, welcomed: frozenset[str], generation: int, event: Effect) -> Answer:
        before, up, below = self.table.values[relay], list[Effect](), list[tuple[int, Effect]]()
        driver = _Driver(self._parties, self._parties.sessions.values[above], up)
        upstream = _Upstream(driver, before, welcomed, f"{NAMES[RELAY]} {generation}")
        over: list[bool] = []
        loop: MachineLoop[RelayState, Event, Command] = MachineLoop(
            machine, _due(before, event), lambda command: self._execute(loop.state, upstream, command, below, over)
        )
        loop.clock = lambda: 0.0
        loop._step = self._checked
        upstream.attach(loop)
        try:
            self._handle(loop, driver, before, event)
        except RemoteError as refusal:
            if isinstance(refusal, InvalidMessageError | OutOfTurnError):
                raise AssertionError(f"an honest agent was refused by the relay: {refusal!r}") from refusal
            assert not up, "a refusal changes nothing above"
            return Answer(relay, above, welcomed, refusal=type(refusal))
        assert upstream._names == loop.state.names, "the session joins with the agents that the relay hosts"
        after, number = self.table.number(_plain(loop.state)), self._parties.sessions.number(driver.state)
        return Answer(after, number, upstream._welcomed, tuple(below), tuple(up), bool(over))

    def _checked(self, state: RelayState, event: Event, now: float) -> tuple[RelayState, tuple[Command, ...]]:
        after, commands = machine.step(state, event, now)
        after.check()
        assert (machine.next_deadline(after) is None) == bool(after.fleet.end), "every wait of a relay has an end"
        self.table.number(_plain(after))  # one that passes at once is a state as well, to `model.traces`
        return after, commands

    def _handle(
        self, loop: MachineLoop[RelayState, Event, Command], driver: _Driver, before: RelayState, event: Effect
    ) -> None:
        match event:
            case ("join", message, stream, token):
                loop.handle(events.JoinRequested(self._parties.messages.values[message], stream, token))
            case ("gradient", token, message):
                loop.handle(events.GradientArrived(token, self._parties.messages.values[message]))
            case ("closed", token, stream):
                loop.handle(events.StreamClosed(token, stream))
            case ("tick", *_):
                loop.handle(events.Tick())
            case ("drain",):
                loop.handle(events.DrainRequested("it is asked to", 0.0))
            case ("connected",):
                driver.post(session.Connected())
            case ("received", message) if message >= 0:
                driver.post(session.Received(self._parties.messages.values[message]))
            case ("received", end):
                kind = self._parties.refusals[-1 - end]
                error = CoordinatorUnavailableError("it was reset") if kind is None else kind("refused")
                if not driver.upstream._takes_over(error):
                    driver.post(session.StreamBroke(error, 0.5))
            case _:
                raise AssertionError(f"no event {event}")

    # As `cospan.relay.engine` ------------------------------------------------------------------------------------

    def _execute(
        self,
        state: RelayState,
        upstream: _Upstream,
        command: Command,
        below: list[tuple[int, Effect]],
        over: list[bool],
    ) -> None:
        sessions = state.fleet.members.sessions
        match command:
            case events.Broadcast(message=message):
                for token, each in sessions.items():
                    if token not in state.unwelcomed and is_connected(each):
                        below.append(self._sent(upstream, each.stream, "", message))
                        if not isinstance(message, BasisUpdate):
                            below.append(_closed(each.stream, self._parties.refusal(None)))
            case events.Send(token=token, message=message):
                below.append(self._sent(upstream, sessions[token].stream, token, message))
            case events.CloseStream(stream=stream, error=error):
                below.append(_closed(stream, self._parties.refusal(error)))
            case HostAgents(agent_ids=agent_ids, feature_fingerprint=fingerprint, offer=offer):
                upstream.host(agent_ids, fingerprint, offer)
            case SumUp():
                upstream.upload(self._sum(state, command))
            case events.EndRun() | events.Suspend():
                over.append(True)
            case _:
                pass

    def _sum(self, state: RelayState, command: SumUp) -> GradientUpload:
        """The sum that goes up, over one gradient of each agent, all of its round and computed at one basis."""
        agents, bases = list[str](), set[Any]()
        for each in command.contributions:
            assert isinstance(each, Contribution)
            assert isinstance(each.gradient, DenseMatrix)
            kind, of_agents, of, at = self._parties.symbols.of(each.gradient.values)
            assert kind == "gradient"
            assert of == command.round, "a relay sums gradients of its round alone"
            assert each.weight == len(of_agents), "every gradient is in a sum once"
            agents += of_agents
            bases.add(at)
        assert sorted(agents) == list(command.agent_ids), "a sum names the agents that are in it, each once"
        assert len(bases) == 1, "a sum is of gradients at one basis"
        total = sum_of_contributions([each for each in command.contributions if isinstance(each, Contribution)])
        self._parties.name_sum(total, frozenset(agents), command.round, bases.pop())
        return GradientUpload(command.round, total, command.agent_ids)

    def _sent(self, upstream: _Upstream, stream: int, token: str, message: Any) -> tuple[int, Effect]:
        stamp, basis = message.stamp, self._parties.basis_in(message)
        assert basis is None or len(basis) == stamp.round, "a basis that a relay announces is that of its round"
        known = upstream._state.stamp
        assert known is not None, "a relay says nothing before it knows the run"
        assert stamp.durable_round <= known.durable_round, "a relay calls durable what it was told is"
        number = self._parties.messages.number(message)
        return stream // STREAMS_PER_AGENT, ("message", stream, token, number)


def _closed(stream: int, end: int) -> tuple[int, Effect]:
    return stream // STREAMS_PER_AGENT, ("close", stream, end)


def _due(state: RelayState, event: Effect) -> RelayState:
    """The state in which what a tick is due for lies in the past."""
    if event == ("tick", "gathered"):
        return replace(state, asking_at=0.0)
    return replace(state, fleet=moved_back(state.fleet, event))


def _plain(state: RelayState) -> RelayState:
    """The state without its times."""
    return replace(state, fleet=without_times(state.fleet), asking_at=None if state.asking_at is None else _LATER)
