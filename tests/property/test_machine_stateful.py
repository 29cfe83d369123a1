"""The coordinator's machine under random histories: processes that join, break, come back, leave and lie, and a
coordinator that is killed or drained at any moment and resumes from what was stored."""

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from property.book import OVER, ROUNDS, Book, Process
from runs import RETURN, ROUND, SESSION_TIMEOUT, START, CoordinatorDriver, Disk, moved, upload
from snapshots import snapshot

from cospan.core.run_fields import Participation
from cospan.server import machine
from cospan.server.machine import events
from cospan.server.machine.counting import is_batchable
from cospan.wire.errors import (
    AgentIdTakenError,
    SessionUnknownError,
)
from cospan.wire.messages import (
    AgentPhase,
    FinishCause,
    Receipt,
    Resumption,
    RunPhase,
)

AGENTS = ("a", "b", "c", "d")
GROUPS = [("a",), ("b",), ("c",), ("d",), ("a", "b"), ("c", "d"), ("b", "c", "d")]
QUORUM = {"participation": Participation.QUORUM, "quorum": 0.5}
PARTICIPATIONS: list[dict[str, Any]] = [
    {},
    {"min_agents": 2},
    QUORUM | {"deadline_seconds": 2.0},
    QUORUM | {"deadline_seconds": 2.0, "max_staleness": 2, "min_agents": 1},
    QUORUM | {"quorum": 2.0, "max_staleness": 1},
]
STORES = events.StoreRound | events.StoreMember | events.DropMember | events.StoreSpecification
GOES_ON = (FinishCause.NO_AGENTS, FinishCause.NOT_STARTED)


class CoordinatorHistories(Book, RuleBasedStateMachine):
    """Draws events, and keeps a book of its own of what should have come of them."""

    gathers = True
    """Whether gradients come together too, as with the fast path; without it each is an event."""

    @initialize(
        missing=st.sampled_from([0, 0, 0, 3]),
        rounds=st.integers(0, 3),
        chatty=st.booleans(),
        participation=st.sampled_from(PARTICIPATIONS),
    )
    def begin(self, missing: int, rounds: int, chatty: bool, participation: dict[str, Any]) -> None:
        """Most histories begin with a run that has started; half of them end with processes that only chat."""
        self.run = CoordinatorDriver(agents=3, rounds=ROUNDS, **participation)
        self.disk = Disk(self.run.state.specification)
        self.chatty = chatty
        for agents in (("a",), ("b",), ("c", "d"))[missing:]:
            self.join_as(agents)
        for _ in range(0 if missing else rounds):
            for process in self.processes:
                self.send(process.token or "", process.agents)
            self.computed(False)
            self.stored()

    # Joining ---------------------------------------------------------------------------------------------

    @rule(agents=st.sampled_from(GROUPS))
    def join_as(self, agents: tuple[str, ...]) -> None:
        """A new process. It is refused exactly where a live one has one of its agents."""
        hosts, sessions = self.run.state.members.hosts, self.run.state.members.sessions
        live = any(sessions[hosts[name]].phase is AgentPhase.CONNECTED for name in agents if name in hosts)
        process = Process(f"process {len(self.processes)}", agents)
        self.processes.append(process)
        self.attempt(process, None, AgentIdTakenError if live else None)

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def join_twice(self, data: st.DataObject) -> None:
        """A process that has joined, or tried to, joins again under its instance id."""
        process = data.draw(st.sampled_from(self.processes))
        hosts, sessions = self.run.state.members.hosts, self.run.state.members.sessions
        others = [sessions[hosts[name]] for name in process.agents if name in hosts]
        live = any(
            other.phase is AgentPhase.CONNECTED and other.instance_id != process.instance for other in others
        )
        self.attempt(process, None, AgentIdTakenError if live else None)

    @precondition(lambda self: self.run.state.members.sessions)
    @rule(agents=st.sampled_from(GROUPS))
    def restart(self, agents: tuple[str, ...]) -> None:
        """The processes of these agents die, and a new one takes their place at once."""
        hosts = self.run.state.members.hosts
        for token in {hosts[agent] for agent in agents if agent in hosts}:
            self.step(events.StreamClosed(token, self.run.stream(token)))
        self.join_as(agents)

    @precondition(lambda self: any(process.token for process in self.processes))
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        process = self.draw_member(data)
        known = process.token in self.run.state.members.sessions
        resumption = Resumption(process.token or "", self.run.state.config.run_id, 0)
        self.attempt(process, resumption, None if known else SessionUnknownError)

    # Speaking --------------------------------------------------------------------------------------------

    @precondition(lambda self: any(process.token for process in self.processes))
    @rule(data=st.data(), lag=st.sampled_from([0, 0, 0, 0, 1, 2, -1]))
    def gradient(self, data: st.DataObject, lag: int) -> None:
        """A gradient of this round, of one before, or of the next; of all its agents, or of some of them."""
        process = self.draw_member(data)
        chosen = data.draw(st.sets(st.sampled_from(process.agents), min_size=1))
        agents = tuple(sorted(chosen)) if data.draw(st.booleans()) else process.agents
        number = max(0, self.run.state.round - lag)
        before = self.run.state
        event = events.GradientArrived(process.token or "", upload(number, *agents, weight=float(len(agents))))
        error = self.expected_refusal(process, number, agents)
        if error is not None:
            self.run.refuse(event, error)
            return
        known = self.known()
        self.step(event)
        receipts = [message.disposition for message in self.run.sent() if isinstance(message, Receipt)]
        if before.phase is RunPhase.DRAINING:
            assert (receipts, self.run.state.open_round.counted) == ([], before.open_round.counted)
            return
        counts = self.counts(before, known, number, agents)
        assert receipts == ([] if counts is None else [counts])
        if counts is None:
            self.count(before, number, agents)

    @precondition(lambda self: self.run.state.phase is RunPhase.COLLECTING)
    @rule(data=st.data(), but=st.integers(0, 1))
    def everybody_sends(self, data: st.DataObject, but: int) -> None:
        """All gradients that the round waits for come in, in any order; or all but one."""
        state = self.run.state
        tokens = data.draw(
            st.permutations(sorted({state.members.hosts[agent] for agent in state.open_round.awaited}))
        )
        for token in tokens[but:]:
            awaited = self.run.state.open_round.awaited.intersection(state.members.sessions[token].agent_ids)
            if awaited:  # a quorum whose deadline is over waits for no one else
                self.send(token, tuple(sorted(awaited)))

    @precondition(lambda self: self.run.state.phase is RunPhase.COLLECTING)
    @rule(data=st.data(), but=st.integers(0, 1))
    def some_send_together(self, data: st.DataObject, but: int) -> None:
        """Batchable gradients come in as one event: the result is that of one event for each."""
        before = self.run.state
        uploads = {
            token: upload(before.round, weight=float(len(session.agent_ids)))
            for token, session in before.members.sessions.items()
        }
        batchable = [token for token, sent in uploads.items() if is_batchable(before, token, sent)]
        chosen = data.draw(st.permutations(batchable))[but:]
        if not chosen:
            return
        one_by_one, commands = before, tuple[events.Command, ...]()
        for token in chosen:
            one_by_one, more = machine.step(one_by_one, events.GradientArrived(token, uploads[token]), self.run.now)
            commands += more
        if not self.gathers:
            for token in chosen:
                self.send(token, before.members.sessions[token].agent_ids)
            return
        self.step(events.GradientsArrived({token: uploads[token] for token in chosen}))
        assert snapshot(self.run.state) == snapshot(one_by_one)
        assert list(map(repr, self.run.commands)) == list(map(repr, commands))
        for token in chosen:
            self.count(before, before.round, before.members.sessions[token].agent_ids)

    @precondition(lambda self: any(process.token for process in self.processes))
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        process = self.draw_member(data)
        event = events.HeartbeatArrived(process.token or "")
        if process.token in self.run.state.members.sessions:
            self.step(event)
        else:
            self.run.refuse(event, SessionUnknownError)

    @precondition(lambda self: any(process.token for process in self.processes))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        process = self.draw_member(data)
        event = events.LeaveArrived(process.token or "", "for a test")
        if process.token in self.run.state.members.sessions:
            self.step(event)
            assert self.run.state.phase in OVER or process.token not in self.run.state.members.sessions
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
        session = before.members.sessions.get(process.token or "")
        if session is None or session.stream != number or before.phase in OVER:
            assert self.run.state is before

    # Time and arithmetic ---------------------------------------------------------------------------------

    @rule(
        seconds=st.sampled_from([0.125, 1.0, SESSION_TIMEOUT - 0.125, SESSION_TIMEOUT, ROUND - 4.0]),
        chatty=st.booleans(),
    )
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
        if before.phase in OVER:
            assert self.run.state is before
        elif fails:
            assert self.run.state.finish_cause is FinishCause.FAILED
        else:
            ahead = self.run.state.round == number + 1
            assert ahead == (self.run.state.phase is RunPhase.COLLECTING)
            assert isinstance(self.to_store[-1], events.StoreRound)

    @precondition(lambda self: any(isinstance(each, events.StoreRound) for each in self.to_store))
    @rule(together=st.integers(1, 3))
    def stored(self, together: int = 1) -> None:
        """The oldest rounds that wait for the disk are on it, and whatever was to be stored before them."""
        records: list[events.RoundRecord] = []
        while self.to_store and len(records) < together:
            operation = self.to_store.pop(0)
            self.disk.write([operation])
            if isinstance(operation, events.StoreRound):
                records.append(operation.record)
        self.step(events.RoundsStored(records))
        assert (
            self.run.state.phase in OVER or self.run.state.durability.durable_round == records[-1].closed_round + 1
        )

    @precondition(lambda self: self.run.state.round > 0)
    @rule(number=st.integers(0, ROUNDS))
    def computed_out_of_turn(self, number: int) -> None:
        """The arithmetic of a round that does not close."""
        if self.run.state.phase is not RunPhase.CLOSING or number != self.run.state.round:
            before = self.run.state
            self.step(moved(before, number))
            self.step(events.BasisFailed(number, "no basis"))
            assert self.run.state is before

    @precondition(lambda self: self.run.state.round > 1 and len(self.processes) > 5)
    @rule()
    def stop(self) -> None:
        over = self.run.state.phase in OVER
        self.step(events.StopRequested("for a test"))
        assert over or self.run.state.finish_cause is FinishCause.STOPPED

    # Restarts --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.run.state.round > 0)
    @rule(drained=st.booleans())
    def goes_down(self, drained: bool) -> None:
        """The coordinator is asked to go down, or has to, because it cannot store anything any more."""
        event = events.DrainRequested("for a test", 1.0) if drained else events.StoreFailed("the disk is full")
        before = self.run.state
        self.step(event)
        assert before.phase in OVER or self.run.state.phase is RunPhase.DRAINING
        if not drained:
            self.to_store = []

    @precondition(lambda self: self.run.state.finish_cause in (None, *GOES_ON))
    @rule(data=st.data())
    def killed(self, data: st.DataObject) -> None:
        """The coordinator dies. Of what it wanted stored, the disk has the first `count`."""
        self.come_back(data.draw(st.integers(0, len(self.to_store))))

    @precondition(lambda self: self.run.state.finish_cause is None and any(p.token for p in self.processes))
    @rule(data=st.data(), on_disk=st.booleans())
    def killed_and_all_come_back(self, data: st.DataObject, on_disk: bool) -> None:
        """Everybody who was there resumes, and sends again: the open round continues with the same contributors."""
        before, records = self.run.state.round, dict(self.records)
        promised, told = self.promised, max((before, *(number + 1 for number in self.promised)))
        self.come_back(len(self.to_store) if on_disk else 0)
        tokens = data.draw(st.permutations(sorted(self.run.state.members.sessions)))
        for process in sorted(
            self.processes, key=lambda process: tokens.index(process.token or "") if process.token in tokens else -1
        ):
            if process.token in self.run.state.members.sessions:
                state = self.run.state
                self.attempt(process, Resumption(process.token or "", state.config.run_id, told), None)
        state = self.run.state
        back = [session for session in state.members.sessions.values() if session.phase is AgentPhase.CONNECTED]
        replay_agents = state.durability.replay_agents
        if replay_agents and replay_agents <= {agent for session in back for agent in session.agent_ids}:
            assert state.open_round.replaying
            assert state.open_round.awaited == replay_agents == set(self.disk.rounds[-1].contributors)
            kept = {number: names for number, names in promised.items() if number >= state.round}
            newest = {each: frozenset(records[each].contributors) for each in range(state.round, before)}
            self.promised = kept | newest

    # What always holds -----------------------------------------------------------------------------------

    @invariant()
    def rounds_close_one_after_another(self) -> None:
        state = self.run.state
        assert self.closed == list(range(len(self.disk.rounds)))[: len(self.closed)]
        if state.phase not in OVER:
            assert self.closed == list(range(state.durability.durable_round))
            assert state.durability.durable_round == len(self.disk.rounds)
            assert self.opened == list(range(state.round + (0 if state.phase is RunPhase.WAITING else 1)))

    @invariant()
    def nobody_counts_twice(self) -> None:
        state = self.run.state
        in_closed = Counter(agent for record in self.all_records() for agent in record.contributors)
        if state.phase not in OVER:
            assert in_closed == Counter(dict(state.history.rounds_counted))
        if state.phase in (RunPhase.COLLECTING, RunPhase.CLOSING):
            assert (
                dict.fromkeys(agent for agents in self.open for agent in agents).keys() == state.open_round.counted
            )
            stale = {agents: number for agents, number in self.open.items() if number < state.round}
            assert stale == state.open_round.stale

    @invariant()
    def a_round_closes_exactly_while_its_basis_is_computed_or_stored(self) -> None:
        if self.run.state.phase is RunPhase.CLOSING:
            computing = self.computing is not None and self.computing.round == self.run.state.round
            assert computing == (self.run.state.open_round.pending_basis is None)
            assert computing or isinstance(self.to_store[-1], STORES)

    @invariant()
    def it_ends_once(self) -> None:
        assert self.ends == (1 if self.run.state.phase in OVER else 0)

    def teardown(self) -> None:
        """Without learners every run ends, and soon: nothing is waited for without a bound."""
        most = self.run.now + START + RETURN + SESSION_TIMEOUT + 3 * ROUND
        while self.run.state.phase is not RunPhase.FINISHED:
            if self.computing is not None:
                self.computed(False)
                continue
            if any(isinstance(each, events.StoreRound) for each in self.to_store):
                self.stored()
                continue
            if self.run.state.phase is RunPhase.DRAINING:
                self.come_back(len(self.to_store))
            deadline = machine.next_deadline(self.run.state)
            assert deadline is not None
            self.run.now = max(self.run.now, deadline)
            if self.chatty:
                self.chat()
            self.step(events.Tick())
            assert self.run.now <= most
        self.it_ends_once()


class CoordinatorHistoriesOneByOne(CoordinatorHistories):
    gathers = False


TestCoordinatorHistories = CoordinatorHistories.TestCase
TestCoordinatorHistoriesOneByOne = CoordinatorHistoriesOneByOne.TestCase
TestCoordinatorHistories.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# The same rules but for one, which the histories above leave out often enough.
TestCoordinatorHistoriesOneByOne.settings = settings(TestCoordinatorHistories.settings, max_examples=20)
