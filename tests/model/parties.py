"""The machines that ship, one step at a time: each pair of a state and an event is stepped once and remembered.

Time is left out: every event happens at time 0, and the times in a state are moved to 0 after each step. A timeout
is an event of its own: what it measures is moved into the past, and the machine gets its tick.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from runs import ROUND, START, Disk, join, specification, with_inflight_rounds
from simulator import toy

from cospan.client.session import machine as session
from cospan.client.session.machine.state import SessionState
from cospan.client.session.run_checks import Demands
from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.run_fields import Participation
from cospan.server import machine
from cospan.server.machine import events
from cospan.server.machine.opening import connected_agents, is_connected
from cospan.server.machine.state import OVER, CoordinatorConfig, CoordinatorState
from cospan.server.runtime.machine_loop import MachineLoop
from cospan.wire.errors import (
    CoordinatorUnavailableError,
    CospanError,
    InvalidMessageError,
    OutOfTurnError,
    RemoteError,
    RunFinishedError,
)
from cospan.wire.messages import BasisUpdate, Drain, Finish, FinishCause, GradientUpload, RunPhase, Welcome
from model.clocks import RETURN_SECONDS, moved_back, plain_departure, plain_record, without_times
from model.terms import NAMES, STREAMS_PER_AGENT, Symbols, Table, renamed

_LEFT_OUT_OF_SESSIONS = (
    *("progress_timeout_seconds", "near", "described", "specification", "learnt_at"),
    *("demands", "last_sent", "lost_since", "open_since", "has_progressed"),
    *("lagging_since", "coordinator_started", "drained_at", "resume_at", "attempts"),
    *("reconnects", "not_counted", "hearing", "spread"),
)
"""Times, counts for observers, and what is the same in all states."""
_SESSION_FIELDS = tuple(each.name for each in fields(SessionState) if each.name not in _LEFT_OUT_OF_SESSIONS)


@dataclass(frozen=True, slots=True)
class Settings:
    """What is searched.

    Attributes:
        agents: number of them, 1 to 3.
        relayed: how many of them are behind a relay: the first ones.
        rounds: of the run.
        inflight_rounds: most rounds that run ahead of the disk.
        learns_at_once: whether an agent has its gradient at once, so that nothing happens while it learns.
        computes_at_once: whether a coordinator has its result at once.
        quorum: gradients that a round needs; 0 for full participation.
        max_staleness: with a quorum.
        faults: most faults of one path, of all kinds together.
        coordinator_stops: most kills and drains of coordinators among them.
        agent_stops: most kills of agents among them.
        cuts: most connections that break among them.
        timeouts: most timeouts among them.
        relay_stops: most kills and drains of relays among them.
    """

    agents: int = 3
    relayed: int = 0
    rounds: int = 3
    inflight_rounds: int = 2
    learns_at_once: bool = False
    computes_at_once: bool = True
    quorum: int = 0
    max_staleness: int = 0
    faults: int = 2
    coordinator_stops: int = 2
    agent_stops: int = 2
    cuts: int = 2
    timeouts: int = 2
    relay_stops: int = 2


Effect: TypeAlias = tuple[Any, ...]
"""What a step leads to, for `model.moves`."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """What an event leads to: the number of the state after it, and its effects; or the error of a refusal."""

    state: int
    effects: tuple[Effect, ...] = ()
    refusal: type[CospanError] | None = None


class Parties:
    """All states, messages and stored operations by number, and the steps between them."""

    def __init__(self, settings: Settings, renamings: Sequence[dict[int, int]]) -> None:
        self.settings, self.symbols = settings, Symbols()
        self._renamings = renamings
        quorum: dict[str, Any] = {}
        if settings.quorum:
            quorum = {
                "participation": Participation.QUORUM,
                "quorum": float(settings.quorum),
                "deadline_seconds": 1.0,
                "max_staleness": settings.max_staleness,
            }
        self.specification = specification(
            agents=settings.agents,
            rounds=settings.rounds,
            feature_dim=toy.D,
            rank=toy.R,
            feature_fingerprint="map-1",
            round_timeout_seconds=ROUND,
            **quorum,
        )
        assert self.specification.problems() == []
        self.symbols.name(self.specification.initial_basis(), ("basis", ()))
        self.messages = self._table()
        self.operations = self._table()
        self.coordinators = self._table()
        self.sessions = self._table(self._session_term)
        self.disks = self._table(self._disk_term)
        self.refusals: list[type[CospanError] | None] = [None]
        self._resumed: dict[tuple[int, int], int] = {}
        self._reactions: dict[tuple[int, Effect], Reaction] = {}
        self._session_reactions: dict[tuple[int, Effect], Reaction] = {}

    def _table(self, term: Callable[[Any], Any] | None = None) -> Table[Any]:
        return Table(term or self.symbols.term, lambda _, base, i: self.rename(base, i), len(self._renamings))

    @property
    def renamings(self) -> int:
        """How many ways there are to name the agents."""
        return len(self._renamings)

    def rename(self, term: Any, renaming: int) -> Any:
        """A term under a renaming."""
        return renamed(term, self._renamings[renaming]) if renaming else term

    def _session_term(self, state: SessionState) -> Any:
        return tuple(self.symbols.term(getattr(state, name)) for name in _SESSION_FIELDS)

    def _disk_term(self, disk: Disk) -> Any:
        rounds = tuple((each.contributors, each.move.basis) for each in disk.rounds)
        return self.symbols.term((disk.sessions, disk.departures, rounds))

    def refusal(self, error: CospanError | None) -> int:
        """The number of the end of a stream: of none of its messages, so it is negative."""
        kind = None if error is None else type(error)
        if kind not in self.refusals:
            self.refusals.append(kind)
        return -1 - self.refusals.index(kind)

    def said(self, message: int) -> str:
        """A message, or the end of a stream, in words."""
        if message < 0:
            kind = self.refusals[-1 - message]
            return "the end" + (f" ({kind.__name__})" if kind else "")
        said = self.messages.values[message]
        stamp = getattr(said, "stamp", None)
        number = stamp.round if stamp is not None else getattr(said, "round", None)
        return type(said).__name__ + ("" if number is None else f" {number}")

    def basis_code(self, array: Float[np.ndarray, "d r"]) -> Any:
        """The rounds that a basis is made of: of each, its gradients as pairs of agent and round."""
        kind, rounds = self.symbols.of(array)
        assert kind == "basis"
        return rounds

    def basis_in(self, message: Any) -> Any:
        """The rounds of the basis that a message announces; None if it announces none."""
        return self.basis_code(message.basis) if isinstance(message, BasisUpdate | Welcome | Finish) else None

    # The disk ------------------------------------------------------------------------------------------------

    def new_disk(self) -> int:
        """One without rounds."""
        return self.disks.number(Disk(self.specification, "run-1"))

    def written(self, number: int, operations: Sequence[int]) -> int:
        """The disk after a write."""
        disk = copy.copy(self.disks.values[number])
        disk.rounds, disk.sessions = list(disk.rounds), dict(disk.sessions)
        disk.departures = dict(disk.departures)
        disk.write([self.operations.values[each] for each in operations])
        counted = [pair for record in disk.rounds for pair in record.contributors.items()]
        assert len(counted) == len(set(counted)), "no gradient counts in two stored rounds"
        return self.disks.number(disk)

    # Coordinators --------------------------------------------------------------------------------------------

    def resumed(self, disk: int, incarnation: int) -> int:
        """The state of a coordinator that resumes what is stored."""
        known = self._resumed.get((disk, incarnation))
        if known is not None:
            return known
        stored = self.disks.values[disk]
        config = CoordinatorConfig(stored.run_id, incarnation, START, RETURN_SECONDS)
        state = machine.restored_state(stored.saved(), config, 0.0)
        state = with_inflight_rounds(state, self.settings.inflight_rounds)
        state.check()
        assert state.round == len(stored.rounds), "every stored round is resumed"
        number = self._resumed[disk, incarnation] = self.coordinators.number(without_times(state))
        return number

    def react(self, number: int, event: Effect) -> Reaction:
        """What a coordinator does with an event, a tuple of its kind and its arguments."""
        reaction = self._reactions.get((number, event))
        if reaction is None:
            reaction = self._reactions[number, event] = self._react(number, event)
        return reaction

    def _react(self, number: int, event: Effect) -> Reaction:
        before = self.coordinators.values[number]
        effects: list[Effect] = []
        loop: MachineLoop[CoordinatorState, events.Event, events.Command] = MachineLoop(
            machine, moved_back(before, event), lambda command: self._execute(loop.state, command, effects)
        )
        loop.clock = lambda: 0.0
        step = loop._step

        def checked(state: CoordinatorState, each: events.Event, now: float):  # type: ignore[no-untyped-def]
            after, commands = step(state, each, now)
            after.check()
            assert (machine.next_deadline(after) is None) == (after.phase in OVER), "every wait has an end"
            assert after.round - state.round in (0, 1), "rounds neither skip nor go back"
            if state.phase is RunPhase.COLLECTING and after.phase is RunPhase.CLOSING and after.history.absent:
                counted = len(after.open_round.counted)
                assert counted >= self.settings.quorum > 0, "a round closes without agents, and has no quorum"
            _check_member(state, each, after)
            late = state.phase is RunPhase.WAITING and state.phase_since < 0.0
            if late and after.phase is RunPhase.COLLECTING:
                effects.append(("forget",))
            return after, commands

        loop._step = checked
        try:
            loop.handle(self._event(before, event))
        except RemoteError as refusal:
            if isinstance(refusal, InvalidMessageError | OutOfTurnError):
                raise AssertionError(f"an honest agent was refused: {refusal!r}") from refusal
            return Reaction(number, (), type(refusal))
        return Reaction(self.coordinators.number(without_times(loop.state)), tuple(effects))

    def _event(self, state: CoordinatorState, event: Effect) -> events.Event:
        match event:
            case ("join", message, stream, token):
                return events.JoinRequested(self.messages.values[message], stream, token)
            case ("gradient", token, message):
                return events.GradientArrived(token, self.messages.values[message])
            case ("closed", token, stream):
                return events.StreamClosed(token, stream)
            case ("leave", token, message):
                left = self.messages.values[message]
                return events.LeaveArrived(token, left.cause, left.returning)
            case ("stored", *operations):
                return events.RoundsStored([self.operations.values[each].record for each in operations])
            case ("compute",):
                return self._computed(state, _computation(state))
            case ("drain",):
                return events.DrainRequested("it is asked to", 0.0)
            case ("tick", *_):
                return events.Tick()
        raise AssertionError(f"no event {event}")

    def _computed(self, state: CoordinatorState, command: events.ComputeBasis) -> events.BasisComputed:
        """The result of a round; names what it is made of."""
        rounds = self.basis_code(command.basis)
        assert len(rounds) == command.round == state.round, "a round is computed at its own basis"
        held = state.open_round.contributions
        assert [id(held[name]) for name in sorted(held)] == list(map(id, command.contributions)), (
            "sums are in order"
        )
        counted: set[tuple[str, int]] = set()
        for contribution in command.contributions:
            assert isinstance(contribution.gradient, DenseMatrix)
            kind, agents, of, at = self.symbols.of(contribution.gradient.values)
            assert kind == "gradient"
            assert at == rounds[:of], "a gradient counts at the basis that it was computed at"
            assert command.round - self.settings.max_staleness <= of <= command.round, "no gradient is too old"
            assert contribution.weight == len(agents), "every gradient counts once"
            assert agents.isdisjoint(agent for agent, _ in counted), "no agent counts twice in a round"
            counted |= {(agent, of) for agent in agents}
        assert not any(pairs & counted for pairs in rounds), "a gradient counts in two rounds"
        result = toy.computed(command, self.specification)
        self.symbols.name(result.move.basis, ("basis", (*rounds, frozenset(counted))))
        return result

    def _execute(
        self, state: CoordinatorState, command: events.Command, effects: list[Effect]
    ) -> events.Event | None:
        match command:
            case events.ComputeBasis():
                return self._computed(state, command) if self.settings.computes_at_once else None
            case events.StoreRound(record=record):
                assert record.contributors, "a stored round has contributors"
                stored = self.operations.number(replace(command, record=plain_record(record)))
                effects.append(("store", stored))
            case events.StoreMember(session=member):
                plain = replace(member, last_seen=0.0, opened=0.0, reconnects=0)
                effects.append(("store", self.operations.number(events.StoreMember(plain))))
            case events.DropMember(token=token, departures=departures):
                if any(gone.agent_id not in state.members.hosts for gone in departures):
                    effects.append(("forget",))
                plain_departures = tuple(map(plain_departure, departures))
                effects.append(("store", self.operations.number(events.DropMember(token, plain_departures))))
            case events.ReportRound(report=report):
                effects.append(("durable", report.closed_round + 1))
            case events.Send(token=token, message=message):
                stream = state.members.sessions[token].stream
                effects.append(self._sent(stream, token, message))
            case events.Broadcast(message=message):
                self._broadcast(state, message, effects)
            case events.CloseStream(stream=stream, error=error):
                effects.append(("close", stream // STREAMS_PER_AGENT, stream, self.refusal(error)))
            case events.EndRun(cause=cause):
                assert cause is FinishCause.ROUNDS_REACHED, f"the run has ended: {cause}"
                effects.append(("end",))
            case _:
                pass
        return None

    def _broadcast(
        self, state: CoordinatorState, message: BasisUpdate | Finish | Drain, effects: list[Effect]
    ) -> None:
        if isinstance(message, BasisUpdate) and not state.open_round.replaying:
            effects.append(("ahead", self.basis_code(message.basis), connected_agents(state)))
        for each in state.members.sessions.values():
            if is_connected(each):
                effects.append(self._sent(each.stream, "", message))
                if not isinstance(message, BasisUpdate):
                    effects.append(("close", each.stream // STREAMS_PER_AGENT, each.stream, self.refusal(None)))

    def _sent(self, stream: int, token: str, message: Any) -> Effect:
        stamp = message.stamp
        basis = self.basis_in(message)
        assert basis is None or len(basis) == stamp.round, "an announced basis is that of its round"
        number = self.messages.number(message)
        return ("send", stream // STREAMS_PER_AGENT, stream, token, number, stamp.durable_round, basis)

    # Agents --------------------------------------------------------------------------------------------------

    def started(self, agent: int, generation: int) -> Reaction:
        """An agent process that has prepared, and is about to connect."""
        name = NAMES[agent]
        state, _ = session.initial_state(
            progress_timeout_seconds=1e6, now=0.0, demands=Demands(min_steps_per_round=1)
        )
        state, _ = session.step(state, session.Described(self.specification), 0.0)
        joining = join(name, instance=f"{name} {generation}", feature_dim=toy.D)
        state, _ = session.step(state, session.Prepared(joining), 0.0)
        state.check()
        return Reaction(self.sessions.number(state))

    def session_reacts(self, number: int, event: Effect) -> Reaction:
        """What an agent does with an event."""
        reaction = self._session_reactions.get((number, event))
        if reaction is None:
            reaction = self._session_reactions[number, event] = self._session_reacts(number, event)
        return reaction

    def _session_reacts(self, number: int, event: Effect) -> Reaction:
        state, effects = self.sessions.values[number], list[Effect]()
        pending = [self._session_event(state, event)]
        while pending:
            state, commands = session.step(state, pending.pop(0), 0.0)
            state.check()
            for command in commands:
                match command:
                    case session.Transmit(message=message):
                        effects.append(("transmit", self.messages.number(message)))
                    case session.Connect():
                        effects.append(("hang up",))
                    case session.Learn(round=of, basis=basis):
                        effects.append(("learn", of, self.basis_code(basis)))
                        if self.settings.learns_at_once:
                            pending.append(self._gradient(state))
                    case session.Begin():
                        pass
                    case session.Conclude(left=False) | session.Fail(error=RunFinishedError()):
                        effects.append(("hang up",))
                    case _:
                        raise AssertionError(f"an agent was ended: {command}")
        return Reaction(self.sessions.number(state), tuple(effects))

    def _session_event(self, state: SessionState, event: Effect) -> session.Event:
        match event:
            case ("connected",):
                return session.Connected()
            case ("ready",):
                return self._gradient(state)
            case ("received", message) if message >= 0:
                return session.Received(self.messages.values[message])
            case ("received", end):
                kind = self.refusals[-1 - end]
                error = CoordinatorUnavailableError("it was reset") if kind is None else kind("refused")
                return session.StreamBroke(error, 0.5)
        raise AssertionError(f"no event {event}")

    def _gradient(self, state: SessionState) -> session.GradientReady:
        assert state.learning is not None
        assert state.learning_at is not None
        assert state.join is not None
        agents, basis = state.join.agent_ids, state.learning_at[0]
        contribution = toy.contribution(agents, state.learning, basis)
        self.name_sum(contribution, frozenset(agents), state.learning, self.basis_code(basis))
        return session.GradientReady(GradientUpload(state.learning, contribution))

    def name_sum(self, contribution: Contribution, agents: frozenset[str], of: int, at: Any) -> None:
        """Says whose gradients a contribution sums, of which round and at which basis."""
        assert isinstance(contribution.gradient, DenseMatrix)
        self.symbols.name(contribution.gradient.values, ("gradient", agents, of, at))


def _computation(state: CoordinatorState) -> events.ComputeBasis:
    """The command that a closing round has given, again."""
    held = state.open_round.contributions
    return events.ComputeBasis(state.round, state.basis, tuple(held[name] for name in sorted(held)))


def _check_member(before: CoordinatorState, event: events.Event, after: CoordinatorState) -> None:
    if not isinstance(event, events.GradientArrived) or after.round != before.round:
        return
    added = set(after.open_round.counted) - set(before.open_round.counted)
    known = before.members.sessions.get(event.token)
    assert not added or (known is not None and added <= set(known.agent_ids)), "who counts is a member"
