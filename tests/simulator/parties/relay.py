"""A relay process: the machine that ships, its session with the coordinator, and the streams of its agents."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from cospan.client.session import machine as session
from cospan.core.aggregation.basis_update import Contribution, sum_of_contributions
from cospan.core.specification import RunSpecification
from cospan.relay import machine
from cospan.relay.events import (
    Command,
    DeclineUp,
    Event,
    HostAgents,
    Refused,
    RoundOpened,
    RunFinished,
    SumUp,
    Welcomed,
)
from cospan.relay.members import partial_sum
from cospan.relay.state import RelayState
from cospan.relay.vectors import VectorsBelow
from cospan.server.machine import events
from cospan.server.machine.secure_sums.epochs import Offer
from cospan.server.runtime.machine_loop import MachineLoop
from cospan.wire import errors
from cospan.wire.messages import (
    AgentMessage,
    BasisUpdate,
    Finish,
    GradientUpload,
    Join,
    MaskedVector,
    Stamp,
    Welcome,
)
from simulator import toy
from simulator.duties.relaying import Relaying
from simulator.parties.listener import Listener
from simulator.parties.session_process import SessionProcess, Surroundings

_OF_SOME = (errors.AgentIdTakenError, errors.IdentityMismatchError, errors.TooManyAgentsError)
_STALLED_SECONDS = 1.0
_MOST_SUMS = 30
"""That it may send again."""


class RelayProcess(SessionProcess):
    """Serves its agents once it knows the run, until the run or its life is over."""

    passes_on = True

    def __init__(self, around: Surroundings, rng: random.Random, generation: int) -> None:
        self.generation = generation
        self.repeats = 0
        """Openings of rounds at which it sends its sums again."""
        self.on_back: Callable[[], None] | None = None
        """Called once, when a round opens that is before the one that it has opened."""
        self._sums: deque[tuple[GradientUpload, str, bytes]] = deque(maxlen=_MOST_SUMS)
        """What it has sent, in which run, and at which basis."""
        self.loop: MachineLoop[RelayState, Event, Command] | None = None
        self._names: tuple[str, ...] = ()
        self._welcomed: frozenset[str] = frozenset()
        self._failure: errors.CospanError | None = None
        self._vectors = VectorsBelow()
        super().__init__(around, rng)
        self.listener = Listener(
            self,
            around.witness,
            handle=self.handle,
            take=self._take_gradient,
            sessions=lambda: self.fleet_sessions,
            check_refused=lambda token, upload, error: None,
        )
        self._wakes_at = self.clock()
        self.later(machine.GATHER_SECONDS, self._keep_time)

    @property
    def relay(self) -> RelayState:
        """Of its machine."""
        assert self.loop is not None, "it listens once it knows the run"
        return self.loop.state

    @property
    def fleet_sessions(self):  # type: ignore[no-untyped-def]
        """Of its agents."""
        return self.relay.fleet.members.sessions

    @property
    def specification(self) -> RunSpecification:
        """Of the run, as it is described to agents."""
        return self.relay.shown.specification

    @property
    def stamp(self) -> Stamp:
        """The answer to whether it is there."""
        return self.relay.shown.stamp

    # Downstream ----------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Hands the machine an event."""
        assert self.loop is not None
        self.loop.handle(event)

    def _take_gradient(self, token: str, upload: GradientUpload) -> None:
        self.handle(events.GradientArrived(token, upload))

    def _checked_step(self, state: RelayState, event: Event, now: float):  # type: ignore[no-untyped-def]
        after, commands = machine.step(state, event, now)
        after.check()
        self._duties.stepped(state, event, after, commands, now)
        assert (machine.next_deadline(after) is None) == bool(after.fleet.end), "every wait of a relay has an end"
        return after, commands

    def _execute(self, command: Command) -> None:
        self.boundary()
        sessions = self.fleet_sessions
        match command:
            case events.Broadcast(message=message):
                known = [each for token, each in sessions.items() if token not in self.relay.unwelcomed]
                self.listener.broadcast(known, message)
            case events.Send(token=token, message=message):
                self.listener.send(token, message)
            case events.CloseStream(stream=number, error=error):
                self.listener.close_stream(number, error)
            case HostAgents(agent_ids=agent_ids, offer=offer):
                self._host(agent_ids, offer)
            case SumUp():
                if self.state.learning == command.round:
                    upload = GradientUpload(command.round, self._sum_of(command), command.agent_ids)
                    self.post(session.GradientReady(upload))
            case DeclineUp(round=number):
                self.post(session.Unsummed(number))
            case events.EndRun() | events.Suspend():
                self.later(0.0, self._stop)
            case _:
                pass

    def _sum_of(self, command: SumUp) -> Contribution | MaskedVector:
        masked = partial_sum(command.contributions)
        if masked is None:
            return sum_of_contributions([each for each in command.contributions if isinstance(each, Contribution)])
        vectors = [each for each in command.contributions if isinstance(each, MaskedVector)]
        self._around.witness.secure_sums.added(masked, vectors)
        return masked

    def _stop(self) -> None:
        self._hang_up()
        self.alive = False
        self.ended()

    def ended(self) -> None:
        """Its connections end with it."""
        self.listener.ended(in_order=self.loop is not None and self.relay.fleet.end is not None)
        super().ended()

    def _keep_time(self) -> None:
        if self.loop is not None and self.clock() - self._wakes_at < _STALLED_SECONDS:
            deadline = machine.next_deadline(self.relay)
            if deadline is not None and self.clock() >= deadline:
                self.handle(events.Tick())
        self._wakes_at = self.clock() + machine.GATHER_SECONDS
        self.later(machine.GATHER_SECONDS, self._keep_time)

    # Upstream, as `cospan.relay.upstream` ------------------------------------------------------------------------

    def offered(self, join: Join) -> Join:
        """With secure sums with the keys of the processes below it."""
        return self._vectors.offered(join) if self._is_secure else join

    def agree(self, command: session.Agree) -> bytes:
        """What none of the members could accept is refused."""
        return self._vectors.agree(command.members, self.state)

    def masked(self, command: session.TransmitMasked, specification: RunSpecification) -> GradientUpload:
        """Those below have masked it."""
        return self._vectors.masked(command, specification)

    def declines(self, number: int) -> None:
        """A member below it has no vector for the round, or has sent one in another epoch."""

    @property
    def _is_secure(self) -> bool:
        return self.loop is not None and self.relay.specification.secure_sums

    def _host(self, agent_ids: tuple[str, ...], offer: Offer | None) -> None:
        if offer is not None:
            known = set(self._vectors.offer.members)
            new = {agent for member in offer.members if member not in known for agent in member.agent_ids}
            self._welcomed -= new
            self._vectors.offer = offer
        self._names = agent_ids
        self._welcomed = self._welcomed.intersection(agent_ids)
        if not agent_ids:
            self._inbox.clear()
            self._take(session.StopRequested("the last of its agents is gone", returning=True))
            self._hang_up()
            self._welcomed = frozenset()
            self._begin_session()
        elif self.state.phase is session.Phase.PREPARING:
            self.post(session.Prepared(self._join()))
        elif self.state.join is not None:
            self.post(session.Regrouped(agent_ids))

    def _join(self) -> Join:
        described = self.state.described
        assert described is not None
        return Join(
            instance_id=f"relay {self.generation}",
            agent_ids=self._names,
            feature_dim=toy.D,
            feature_fingerprint=self.relay.fleet.specification.feature_fingerprint,
        )

    def prepare(self, specification: RunSpecification) -> None:
        """Listens once it knows the run, and joins once it has agents."""
        if self.loop is None:
            machine.check_relayable(specification)
            settings = self._around.settings
            expected = sum(settings.processes[: settings.relayed])
            self._duties = Relaying(expected)
            state = machine.initial_state(specification, gather_agents=expected, level=1, now=self.clock())
            self.loop = MachineLoop[RelayState, Event, Command](machine, state, self._execute, clock=self.clock)
            self.loop._step = self._checked_step
        elif not _is_same(self.relay.specification, specification):
            self.post(session.LearningFailed(errors.ForeignRunError("the coordinator now holds another run")))
            return
        if self._names:
            self.post(session.Prepared(self._join()))

    def took(self, message: object) -> None:
        """A welcome confirms its agents."""
        if isinstance(message, Welcome) and self.state.phase is session.Phase.ACTIVE:
            self._welcomed = frozenset(message.agent_ids)
            self._tell(Welcomed(message))
        if isinstance(message, BasisUpdate) or (isinstance(message, Welcome) and message.started):
            self._repeat()

    def _repeat(self) -> None:
        """Sends its sums again, but for those of another run, or at a basis that a coordinator has taken back."""
        state = self.state
        if state.stamp is None or state.basis is None or state.join is None:
            return
        run, number, basis = state.stamp.run_id, state.stamp.round, state.basis.tobytes()
        self._sums = deque(
            (
                (each, of, at)
                for each, of, at in self._sums
                if of == run and (each.round < number or (each.round == number and at == basis))
            ),
            maxlen=_MOST_SUMS,
        )
        if self.repeats and state.phase is session.Phase.ACTIVE and self.connection is not None:
            self.repeats -= 1
            for again, *_ in self._sums:
                if set(again.agent_ids) <= set(state.join.agent_ids):
                    self.connection.send(0, self._as_joined(again))

    def learn(self, command: session.Learn) -> None:
        """Opens the round for its agents; their sum is the gradient."""
        assert self.state.stamp is not None
        epoch = self._vectors.epoch if self._is_secure else None
        is_back = self.loop is not None and self.relay.fleet.round > command.round
        self._tell(RoundOpened(self.state.stamp, command.round, command.basis, command.head_covariance, epoch))
        happens = self.on_back
        if is_back and happens is not None:
            self.on_back = None
            happens()

    def outgoing(self, message: AgentMessage) -> AgentMessage | None:
        """An upload over all agents names none."""
        if not isinstance(message, GradientUpload):
            return message
        if self.state.basis is not None and self.state.stamp is not None:
            self._sums.append((message, self.state.stamp.run_id, self.state.basis.tobytes()))
        return self._as_joined(message)

    def _as_joined(self, message: GradientUpload) -> GradientUpload:
        joined = self.state.join
        whole = joined is not None and message.agent_ids == joined.agent_ids
        return replace(message, agent_ids=()) if whole else message

    def takes_over(self, error: errors.CospanError) -> bool:
        """Whether a join failed because of its new agents."""
        if isinstance(error, _OF_SOME) and self._welcomed and not self._welcomed.issuperset(self._names):
            self._tell(Refused(error))
            return True
        return False

    def end(self, command: session.Conclude | session.Fail) -> None:
        """The run is over, or its part in it."""
        match command:
            case session.Conclude(left=True):
                pass
            case session.Conclude(cause=cause, message=message, basis=basis) if (
                self.state.stamp and basis is not None
            ):
                self._tell(RunFinished(Finish(self.state.stamp, cause, message, basis, command.head_covariance)))
            case session.Conclude():
                pass
            case session.Fail(error=error):
                self._around.witness.agent_ended(error, lied=self.lied, exhausted=self.waited_in_vain)
                if self.loop is None:
                    self._stop()
                else:
                    self._tell(events.DrainRequested(str(error), 0.0))

    def _tell(self, event: Event) -> None:
        if self.loop is not None and self.alive:
            self.loop.post(event)


def _is_same(before: RunSpecification, after: RunSpecification) -> bool:
    return replace(before, feature_fingerprint=after.feature_fingerprint) == after
