"""What must hold in every simulated run, checked after every event of a coordinator and after every write.

* What anyone is told to be durable is on the disk, and stays there through every restart.
* A gradient of (agent, round) is in one stored round at most, its agent has sent it, and it was hosted by the
  session that sent it.
* The basis of every round is that of the model for its contributors: the bits of a run without faults.
* A basis that is announced is the stored one; always with a quorum, and with full participation while the
  contributors of the rounds that run ahead of the disk are all there.
* What the machines keep is bounded, and every wait of a coordinator has an end.
* With secure sums: what `simulator.duties.secure_sums` says, and a void round changes nothing.
* No agent is ended by an error that a peer without faults of its own must not cause.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from runs import Disk

from cospan.core.run_fields import Participation
from cospan.server import machine
from cospan.server.machine import events
from cospan.server.machine.opening import is_connected
from cospan.server.machine.state import OVER, CoordinatorState
from cospan.wire.errors import (
    AgentIdTakenError,
    CoordinatorUnavailableError,
    CospanError,
    DrainingError,
    ForeignRunError,
    InvalidMessageError,
    OutOfTurnError,
    RemoteError,
    RunFinishedError,
    SessionUnknownError,
    StaleCoordinatorError,
    WorkloadBehaviourError,
)
from cospan.wire.limits import most_known_agents
from cospan.wire.messages import BasisUpdate, Finish, GradientUpload, RunPhase, Stamp, Welcome
from simulator import toy
from simulator.duties.counting import Counting
from simulator.duties.membership import check_membership
from simulator.duties.opening import Opening
from simulator.duties.secure_sums import SecureSums
from simulator.duties.time_limits import TimeLimits

if TYPE_CHECKING:
    from simulator.parties.agent import AgentProcess

_EXPECTED_ENDS = (
    CoordinatorUnavailableError,  # given up after the progress timeout
    StaleCoordinatorError,
    ForeignRunError,  # the store was lost
    WorkloadBehaviourError,  # a round that is too slow
    RunFinishedError,
)
_PASSING = (AgentIdTakenError, DrainingError, SessionUnknownError)
"""They end an agent only where its progress timeout has run out."""


def _is_given_up(before: CoordinatorState, state: CoordinatorState) -> bool:
    """Whether a replay no longer awaits an agent whose session is over, though another has taken its place.

    Of a process that has sent a sum over a part of its agents the others cannot follow alone; and one that joins
    again with other agents, as a relay, has no sum over its former ones.
    """
    hosts, sessions = before.members.hosts, state.members.sessions
    return before.open_round.replaying and any(
        hosts[agent] not in sessions and agent not in state.open_round.awaited
        for agent in before.open_round.awaited
    )


def is_refusal(error: CospanError | None) -> bool:
    """Whether a message was refused for what it is: no honest process is ended so."""
    return isinstance(error, InvalidMessageError | OutOfTurnError)


class Witness:
    """Sees all that happens, and raises AssertionError where it must not."""

    def __init__(self) -> None:
        self.store = Disk.__new__(Disk)
        self.uploaded: set[tuple[str, int]] = set()
        self.commits = 0
        """Stored rounds that were not void."""
        self.secure_sums = SecureSums()
        self.on_replay: Callable[[], None] = lambda: None
        self.begin(self.store)

    def begin(self, store: Disk) -> None:
        """A new run, on a new store."""
        self.store = store
        self._durable = 0
        self._taken_back = 0
        """Rounds that were stored before the run was continued from an older copy of its store."""
        self._early: dict[int, np.ndarray] = {}
        self._bases: dict[int, np.ndarray] = {}
        self._stored: dict[int, np.ndarray] = {}
        self._counted: dict[tuple[str, int], int] = {}
        self._learnt: set[tuple[tuple[str, ...], int, int, bytes]] = set()
        self._contributors: dict[int, frozenset[str]] = {}
        self._announced_ahead: set[int] = set()
        self._computed: set[int] = set()
        self._counting = Counting()
        self._opening = Opening(frozenset(), 0.0, {})
        self._limits = TimeLimits(0.0)
        self.uploaded = set()

    def begin_again(self, store: Disk) -> None:
        """The run continues from an older copy of its store: what was stored since is lost with it."""
        uploaded, taken_back = self.uploaded, max(self._taken_back, len(self.store.rounds))
        self.begin(store)
        self.uploaded, self._durable, self._taken_back = uploaded, len(store.rounds), taken_back
        self._stored = {0: store.specification.initial_basis()}
        for number, record in enumerate(store.rounds):
            self._stored[number + 1] = record.move.basis
            self._counted |= dict.fromkeys(record.contributors.items(), number)
        self.secure_sums.has_copies = True

    # The coordinator -----------------------------------------------------------------------------------------

    def restarted(self, state: CoordinatorState, now: float) -> None:
        """A coordinator process resumes from the store."""
        state.check()
        assert state.round == len(self.store.rounds) >= self._durable, "a durable round is lost"
        self._announced_ahead = set()
        self._computed = set()
        self._counting.restarted(self._counted)
        self.secure_sums.restarted()
        self._opening = Opening(self._repeating, now, self.secure_sums.offers)
        self._limits = TimeLimits(now)
        if not state.round:
            self._stored[0] = state.basis
        assert np.array_equal(state.basis, self._stored[state.round]), "the stored basis is resumed"
        self._bases = dict(self._stored)

    def stepped(
        self,
        before: CoordinatorState,
        event: events.Event,
        state: CoordinatorState,
        commands: Sequence[events.Command],
        now: float,
    ) -> None:
        """The machine has taken a step."""
        if state is before:
            return
        state.check()
        assert state.round - before.round in (0, 1), "rounds neither skip nor go back"
        assert (machine.next_deadline(state) is None) == (state.phase in OVER), "every wait has an end"
        if isinstance(event, events.GradientArrived):
            self._check_member(before, state, event)
        check_membership(before, event, state, commands)
        if _is_given_up(before, state):
            self.forget()
        self._counting.stepped(before, event, state, commands)
        is_over = isinstance(event, events.Tick) and self._limits.is_over(before, now)
        self.secure_sums.stepped(before, event, state, commands, is_over=is_over)
        self._limits.stepped(before, event, state, commands, now)
        waits = state.phase is RunPhase.COLLECTING and bool(state.members.sessions)
        held = state.open_round.awaited or state.open_round.counted or state.at_inflight_limit
        assert held or not waits, "a round waits for no agent"
        if state.open_round.replaying and not before.open_round.replaying:
            self.on_replay()
        if self._opening.stepped(before, event, state, commands, now):
            self.forget()
        # A round that runs ahead of the disk is announced before it is handed to the store.
        for command in sorted(commands, key=lambda command: not isinstance(command, events.StoreRound)):
            self._check_command(state, command)
        self._check_memory(state)

    def _check_member(
        self, before: CoordinatorState, state: CoordinatorState, event: events.GradientArrived
    ) -> None:
        if state.round != before.round:
            return
        added = set(state.open_round.counted) - set(before.open_round.counted)
        session = before.members.sessions.get(event.token)
        assert not added or (session is not None and added <= set(session.agent_ids)), "who counts is a member"

    def _check_command(self, state: CoordinatorState, command: events.Command) -> None:
        match command:
            case events.ComputeBasis(round=number, contributions=contributions):
                held = state.open_round.contributions
                ordered = [held[name] for name in sorted(held)]
                assert list(map(id, contributions)) == list(map(id, ordered)), "sums are in the order of names"
                assert number == state.round
                assert number not in self._computed, "a round is computed once"
                self._computed.add(number)
                ahead = number - len(self.store.rounds)
                assert ahead < state.config.max_inflight_rounds, "no round runs too far ahead of the disk"
            case events.StoreRound(record=record):
                self._check_record(state, record)
            case events.ReportRound(report=report):
                self._promise(report.closed_round + 1)
            case events.DropMember(departures=departures):
                if any(gone.agent_id not in state.members.hosts for gone in departures):
                    self.forget()
            case events.Broadcast(message=BasisUpdate() as update):
                self._check_announced(state, update)
                self._check_ahead(state)
            case events.Send(message=Welcome() as welcome):
                self._check_announced(state, welcome)
            case events.Broadcast(message=Finish() as finish):
                self._promise(finish.stamp.durable_round)
            case _:
                pass

    def _check_announced(self, state: CoordinatorState, message: BasisUpdate | Welcome) -> None:
        number = message.stamp.round
        self._promise(message.stamp.durable_round)
        assert np.array_equal(message.basis, self._bases[number]), "the announced basis is that of its round"
        if number > len(self.store.rounds):
            full = state.specification.participation is Participation.ALL
            assert full, "with a quorum, rounds are stored before they are announced"
            told = self._early.get(number)
            assert told is None or np.array_equal(told, message.basis), "an announced basis has changed"
            self._early[number] = message.basis

    def _check_ahead(self, state: CoordinatorState) -> None:
        """Rounds run ahead of the disk only with the contributors of the last stored one, who are connected."""
        durable = len(self.store.rounds)
        if state.round == durable:
            return
        stored = self.last_contributors
        sessions, hosts = state.members.sessions, state.members.hosts
        assert all(self._contributors[number] == stored for number in range(durable, state.round)), (
            "a round runs ahead of the disk with other contributors than are stored"
        )
        there = {name for name in stored if name in hosts and is_connected(sessions[hosts[name]])}
        newly = state.round - 1 not in self._announced_ahead
        self._announced_ahead.add(state.round - 1)
        assert not newly or there == stored, "a round runs ahead of the disk, and a contributor is not there"

    def _promise(self, durable: int) -> None:
        assert durable <= len(self.store.rounds), "a round is called durable that is not stored"
        self._durable = max(self._durable, durable)

    def _check_record(self, state: CoordinatorState, record: events.RoundRecord) -> None:
        number = record.closed_round
        if state.specification.secure_sums and not record.contributors:
            self._check_void(record)
            return
        assert record.contributors, "a closed round has contributors"
        assert record.weight == len(record.contributors), "every gradient counts once"
        assert not set(record.absent_agent_ids) & record.contributors.keys(), "who counts is not absent"
        oldest = number - state.specification.max_staleness
        for agent, of in record.contributors.items():
            assert (agent, of) in self.uploaded, "an agent counts that has not sent this gradient"
            assert self._counted.get((agent, of), number) == number, "a gradient counts in two rounds"
            assert oldest <= of <= number, "a gradient counts that is too old"
        expected = toy.model(self._bases, number, record.contributors)
        assert np.array_equal(record.move.basis, expected), "the basis is not that of its contributors"
        self._counting.closed(record)
        self._bases[number + 1] = record.move.basis
        self._contributors[number] = frozenset(record.contributors)

    def _check_void(self, record: events.RoundRecord) -> None:
        """A void round changes nothing. Its members cannot repeat it, so what was announced of it is taken back."""
        number = record.closed_round
        assert np.array_equal(record.move.basis, self._bases[number]), "a void round changes the basis"
        assert record.weight == 0.0, "a void round has a weight"
        self._bases[number + 1] = record.move.basis
        self._contributors[number] = frozenset()
        self.forget()

    def _check_memory(self, state: CoordinatorState) -> None:
        spec, most = state.specification, most_known_agents(state.specification.agents)
        assert len(state.members.departures) <= most, "departures are bounded"
        assert len(state.members.hosts) <= most, "members are bounded"
        assert len(state.history.accepted) <= max(1, spec.max_staleness) + 1, "what has counted is bounded"
        assert len(state.open_round.departed) <= most * most, "departures of a round are bounded"

    def kept_time(self, state: CoordinatorState, now: float) -> None:
        """A coordinator has looked at its clock, and has not stood still before."""
        self._limits.kept_time(state, now)

    def refused(self, error: RemoteError, *, lied: bool) -> None:
        """A coordinator has refused a message of a peer that has lied, or has not."""
        if is_refusal(error):
            assert lied, f"an honest peer was refused: {error}"
        else:
            kinds = (SessionUnknownError, AgentIdTakenError, DrainingError, RunFinishedError)
            assert isinstance(error, kinds), f"an unexpected refusal: {error!r}"

    # The disk ------------------------------------------------------------------------------------------------

    def committed(self, operations: Sequence[events.StoreCommand]) -> None:
        """Operations are on the disk."""
        for operation in operations:
            if isinstance(operation, events.StoreRound):
                record, number = operation.record, operation.record.closed_round
                told = self._early.pop(number + 1, None)
                assert told is None or np.array_equal(told, record.move.basis), "another basis was announced"
                for agent, of in record.contributors.items():
                    assert (agent, of) not in self._counted, "a gradient counts in two stored rounds"
                    self._counted[agent, of] = number
                self._stored[number + 1] = record.move.basis
                self.commits += bool(record.contributors)

    def forget(self) -> None:
        """A contributor is gone: what ran ahead of the disk may come to another result."""
        self._early = {}

    # Agents --------------------------------------------------------------------------------------------------

    def uploads(self, agents: tuple[str, ...], upload: GradientUpload) -> None:
        """An agent process sends a gradient."""
        self.uploaded.update((agent, upload.round) for agent in agents)

    def told(self, stamp: Stamp) -> None:
        """A process has received a message with this stamp."""
        # What an earlier coordinator has sent may arrive after an older copy has taken its store's place.
        if stamp.run_id == self.store.run_id and stamp.durable_round > self._taken_back:
            self._promise(stamp.durable_round)

    def learns(self, process: "AgentProcess", number: int, basis: np.ndarray) -> None:
        """An agent process begins a round; it keeps what it may need again."""
        key = (process.agents, process.generation, number, basis.tobytes())
        assert key not in self._learnt, "a process learns the same round at the same basis twice"
        self._learnt.add(key)

    def agent_ended(self, error: CospanError | None, *, lied: bool, exhausted: bool) -> None:
        """An agent process is over, with this error."""
        deserved = lied and is_refusal(error)
        deserved = deserved or (exhausted and isinstance(error, _PASSING))
        assert error is None or deserved or isinstance(error, _EXPECTED_ENDS), f"an agent was ended by {error!r}"

    @property
    def last_contributors(self) -> frozenset[str]:
        """Of the newest stored round."""
        return frozenset(self.store.rounds[-1].contributors) if self.store.rounds else frozenset()

    @property
    def _repeating(self) -> frozenset[str]:
        """Who has to repeat rounds after a restart: who contributed to the newest, or was there if it was void."""
        if not self.store.rounds or self.last_contributors:
            return self.last_contributors
        return frozenset(agent for each in self.store.sessions.values() for agent in each.agent_ids)
