"""What the coordinator knows: plain frozen values, written only by `machine.step`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import BasisMove, Contribution
from cospan.core.specification import RunSpecification
from cospan.server.machine.collections.agent_set import NOBODY, AgentSet
from cospan.server.machine.collections.participation_counts import ParticipationCounts
from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.server.machine.quorum import Pace
from cospan.server.machine.sessions import Departure, Seat, Session
from cospan.wire.messages import FinishCause, RunPhase, Stamp


@dataclass(frozen=True, eq=False)
class CoordinatorState:
    """The whole state of a run.

    Attributes:
        specification: of the run; its fingerprint is fixed by the first join where it was empty.
        run_id: name of the run.
        incarnation: of the coordinator.
        basis: B_t, shape (d, r).
        row_squares: what the basis' step remembers (`cospan.core.aggregation.basis_update.BasisMove`).
        round: t.
        phase: where the run stands.
        phase_since: when that began.
        sessions: by token.
        hosts: agent id → token of the session that hosts it.
        everybody: the agents that are here, a block for each session.
        awaited: agents whose gradients the open round still lacks.
        contributions: of the open round, by the first name of the agents that each sums over: a block of `counted`.
        counted: agents whose gradients the open round has; a block for each contribution.
        stale: the contributions of earlier rounds among them, each with its round; a newer one takes its place.
        accepted: round → agents whose gradients of that round have counted in a round that is closed; the newest.
        quorum_seconds: how long the open round took to have its quorum, once it has.
        pace: how long rounds take to have it; None where no deadline is learnt from that.
        computed: what the closing round has come to, while it is stored before anybody is told.
        last_contributors: of the round that closed last; empty before there is one.
        expected: after a restart, who has to be back before the open round goes on: those same contributors.
        frozen: whether nobody else may take part in the open round.
        most_ahead: so many closed rounds that were told, at most, are not on the disk.
        told: after a restart, the newest round that those who come back were told of before it.
        frozen_until: the rounds before this one may have been told then, and have those contributors.
        absent: agents that were here and whose gradients the round that closes, or closed last, does without.
        rounds_counted: agent id → number of closed rounds that had its gradient; and the newest of them.
        absent_rounds: agent id → number of closed rounds that did without it.
        outliers: agents whose gradients were outliers in the round that closed last.
        outlier_rounds: agent id → number of closed rounds in which its gradient was one.
        departures: agents that are gone, by name.
        departed_in_round: those that went while this round was open.
        deserted_since: when the last session went, if there is none.
        finish_cause: why the run is over, if it is.
        start_seconds: the longest time to wait for the first round's agents.
        return_seconds: after a restart, the longest time to wait for all that took part before.
        durable_round: every round below it is stored.
        started: whether the first round was ever opened.
        suspended: why the coordinator goes down, while the run is not over; else empty.
        sites: how many sites can be given out; None where there is no limit.
        seats: holder → the site that was given to it.
        silent_seconds: the longest that a round waits for its first gradient, where agents are alive; up to
            `round_timeout_seconds` it has no effect.
        first_seconds: how long the open round took to have its first gradient, once it has.
        slowest_first: the longest that a round of this coordinator took to have it; 0 where none has.
        slow_round: the newest round that was said to have no gradient after `round_timeout_seconds`; -1 for none.
        coordinator_started: when this coordinator was started, in seconds since 1970; 0 where it does not say.
    """

    specification: RunSpecification
    run_id: str
    incarnation: int
    basis: Float[np.ndarray, "d r"]
    start_seconds: float
    round: int = 0
    phase: RunPhase = RunPhase.WAITING
    phase_since: float = 0.0
    sessions: PersistentMap[str, Session] = field(default_factory=PersistentMap)
    hosts: PersistentMap[str, str] = field(default_factory=PersistentMap)
    everybody: AgentSet = NOBODY
    awaited: AgentSet = NOBODY
    contributions: PersistentMap[str, Contribution] = field(default_factory=PersistentMap)
    counted: AgentSet = NOBODY
    stale: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    accepted: Mapping[int, AgentSet] = field(default_factory=dict)
    quorum_seconds: float | None = None
    pace: Pace | None = None
    computed: BasisMove | None = None
    last_contributors: AgentSet = NOBODY
    expected: frozenset[str] = frozenset()
    frozen: bool = False
    most_ahead: int = 1
    told: int = 0
    frozen_until: int = 0
    absent: AgentSet = NOBODY
    rounds_counted: ParticipationCounts = field(default_factory=ParticipationCounts)
    absent_rounds: ParticipationCounts = field(default_factory=ParticipationCounts)
    outliers: AgentSet = NOBODY
    outlier_rounds: ParticipationCounts = field(default_factory=ParticipationCounts)
    departures: PersistentMap[str, Departure] = field(default_factory=PersistentMap)
    departed_in_round: tuple[str, ...] = ()
    deserted_since: float | None = None
    finish_cause: FinishCause | None = None
    row_squares: Float[np.ndarray, " d"] | None = None
    sites: int | None = None
    seats: PersistentMap[str, Seat] = field(default_factory=PersistentMap)
    return_seconds: float = 15.0
    durable_round: int = 0
    started: bool = False
    suspended: str = ""
    silent_seconds: float = 0.0
    first_seconds: float = 0.0
    slowest_first: float = 0.0
    slow_round: int = -1
    coordinator_started: float = 0.0

    @property
    def stamp(self) -> Stamp:
        """Names this state."""
        return Stamp(self.run_id, self.incarnation, self.round, self.durable_round)

    @property
    def last_rounds(self) -> Mapping[str, int]:
        """Agent id → the newest closed round that had its gradient."""
        return self.rounds_counted.newest

    @property
    def is_ahead(self) -> bool:
        """Whether the open round is as far ahead of the disk as it may be; then it stays open."""
        return self.round - self.durable_round >= self.most_ahead

    def evolve(self, **changes: Any) -> "CoordinatorState":
        """What `dataclasses.replace` gives, in a twelfth of the time: gradients and rounds make new states."""
        after = object.__new__(type(self))
        after.__dict__.update(self.__dict__, **changes)
        return after

    def with_session(self, session: Session) -> "CoordinatorState":
        """The state with one session added or replaced."""
        return self.evolve(sessions=self.sessions.set(session.token, session))

    def check(self) -> None:
        """Raises AssertionError where an invariant does not hold; called by tests after every event."""
        assert vars(self).keys() == {each.name for each in fields(self)}, "what was changed are fields"
        hosted = {agent: token for token, session in self.sessions.items() for agent in session.agent_ids}
        assert hosted == dict(self.hosts), "every agent is hosted by exactly one session"
        processes = [session.agent_ids for session in self.sessions.values()]
        assert list(self.everybody.blocks) == processes, "everybody is who is here, by process"
        assert not self.awaited & self.counted, "nobody is both awaited and counted"
        assert self.awaited <= set(self.hosts), "only agents that are here are awaited"
        listed = list(self.counted)
        assert len(listed) == len(set(listed)), "no agent counts twice in a round"
        agent_sets = (self.awaited, self.absent, self.outliers, self.last_contributors, *self.accepted.values())
        assert all(len(each) == len(each.names) for each in agent_sets), "a set names nobody twice"
        firsts = {agents[0] for agents in self.counted.blocks}
        assert firsts == self.contributions.keys(), "counted agents are those of the contributions"
        awaited = [{self.hosts[agent] for agent in agents} for agents in self.awaited.blocks]
        assert all(len(tokens) == 1 for tokens in awaited), "who is awaited together has the same host"
        assert not set(self.departures) & set(self.hosts), "nobody is both here and gone"
        assert (self.phase is RunPhase.FINISHED) == (self.finish_cause is not None), "a finished run has a cause"
        waiting = self.phase is RunPhase.WAITING
        assert not waiting or not (self.awaited or self.counted), (
            "nothing is collected from a fleet that is awaited"
        )
        assert self.started or not self.round, "no round closes before the first was opened"
        assert 0 <= self.round - self.durable_round <= self.most_ahead, "so many rounds at most are not stored yet"
        assert self.phase is not RunPhase.CLOSING or not self.is_ahead, (
            "the next one closes when an older is stored"
        )
        assert self.computed is None or self.phase is RunPhase.CLOSING, "only what closes is stored first"
        assert set(self.stale) <= set(self.counted.blocks), "stale gradients are among those that count"
        assert all(number < self.round for number in self.stale.values()), "stale is what is of an earlier round"
        assert not self.frozen or self.awaited | self.counted <= self.expected, "nobody else takes part"
        assert (self.phase is RunPhase.DRAINING) == bool(self.suspended), "a coordinator that goes down says why"
        assert self.phase is not RunPhase.CLOSING or not self.awaited, "a round closes when all are counted"
        assert self.phase is not RunPhase.CLOSING or self.counted, "a round closes with somebody's gradient"
        assert (self.deserted_since is None) or not self.sessions, "deserted means that nobody is here"
        running = self.phase in (RunPhase.COLLECTING, RunPhase.CLOSING)
        assert not running or self.sessions or self.deserted_since is not None, "a deserted run ends some time"
        given = [session.site_index for session in self.sessions.values() if session.site_index is not None]
        assert len(given) == len(set(given)), "no site is given out twice"
        assert self.sites is None or all(index < self.sites for index in given), "only sites that exist"
        counts = self.rounds_counted.values()
        assert all(0 < count <= self.round for count in counts), "an agent counts once a round at most"
        assert set(self.rounds_counted) <= set(self.hosts) | set(self.departures), "only agents that joined count"
        gradients_complete = self.phase is RunPhase.COLLECTING and self.counted and not self.awaited
        assert self.is_ahead or not gradients_complete, (
            "a complete round does not stay open, but for those before it"
        )
