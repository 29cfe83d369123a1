"""The coordinator's state: frozen values, which `machine.step` replaces and never writes to.

`CoordinatorState` holds the specification, the phase, the round number and the basis; its five parts hold the rest.
`check` states the invariants that tie the parts together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import BasisMove, Contribution, initial_head_covariance
from cospan.core.evolving import Evolving
from cospan.core.specification import RunSpecification
from cospan.server.machine.collections.agent_set import EMPTY_SET, AgentSet, Block
from cospan.server.machine.collections.participation_counts import ParticipationCounts
from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.server.machine.events import Command, EndRun, Suspend
from cospan.server.machine.quorum import QuorumPace
from cospan.server.machine.secure_sums.epochs import Epoch, Offers
from cospan.server.machine.sessions import Departure, Session, SiteClaim
from cospan.wire.errors import SessionUnknownError
from cospan.wire.limits import rounds_ahead
from cospan.wire.messages import FinishCause, MaskedVector, RunPhase, Stamp

OVER = (RunPhase.FINISHED, RunPhase.DRAINING)
"""The phases in which this process opens no further round."""


@dataclass(frozen=True, eq=False)
class CoordinatorConfig(Evolving):
    """What this coordinator process was started with."""

    run_id: str
    """Name of the run."""
    incarnation: int
    """Number of coordinator processes that have served the run, this one included."""
    start_seconds: float
    """Longest wait for the agents of the first round."""
    return_seconds: float = 15.0
    """After a restart, longest wait for the agents that have to repeat the open round."""
    first_gradient_timeout_seconds: float = 0.0
    """Longest wait for a round's first gradient while agents are alive. No effect up to `round_timeout_seconds`."""
    max_inflight_rounds: int = 1
    """Most rounds that may be closed and announced before they are durable."""
    site_limit: int | None = None
    """Number of sites that can be assigned; None for no limit."""
    coordinator_started: float = 0.0
    """Start of the process, in seconds since 1970; 0 if unknown."""


@dataclass(frozen=True, eq=False)
class Members(Evolving):
    """The agents of the run: those that are present, and those that have departed."""

    sessions: PersistentMap[str, Session] = field(default_factory=PersistentMap)
    """Token → session."""
    hosts: PersistentMap[str, str] = field(default_factory=PersistentMap)
    """Agent id → token of the session that hosts it."""
    present: AgentSet = EMPTY_SET
    """The agents of all sessions, one block per session."""
    departures: PersistentMap[str, Departure] = field(default_factory=PersistentMap)
    """Agent id → how it left; none of these is present."""
    site_claims: PersistentMap[str, SiteClaim] = field(default_factory=PersistentMap)
    """Site claim id → the site assigned to it, oldest claim first."""
    deserted_since: float | None = None
    """When the last session ended; None while there is one, and before the first round."""
    offers: Offers = field(default_factory=PersistentMap)
    """With secure sums: what the sessions offer. One that has not come back after a restart has no offer."""
    keys: PersistentMap[bytes, str] = field(default_factory=PersistentMap)
    """With secure sums: public key of a member → token of its session."""


@dataclass(frozen=True, eq=False)
class OpenRound(Evolving):
    """The round that collects gradients or is being closed; replaced as a whole when the next one opens."""

    awaited: AgentSet = EMPTY_SET
    """Agents whose gradients are missing."""
    contributions: PersistentMap[str, Contribution | MaskedVector] = field(default_factory=PersistentMap)
    """First agent id of a block of `counted` → the sum of that block's gradients."""
    counted: AgentSet = EMPTY_SET
    """Agents whose gradients have been counted, one block per contribution."""
    stale: Mapping[Block, int] = field(default_factory=dict)
    """Blocks of `counted` whose gradients are of an earlier round → that round. Newer gradients replace them."""
    quorum_seconds: float | None = None
    """Time from the round's opening to its quorum; None before that, and with full participation."""
    first_gradient_seconds: float = 0.0
    """Time from the round's opening to its first counted gradient; 0 before that."""
    replaying: bool = False
    """Whether the round repeats one that was announced before a restart: only `replay_agents` take part."""
    pending_basis: BasisMove | None = None
    """Result of the closing round, while it is stored before it is announced."""
    departed: tuple[str, ...] = ()
    """Agents that departed since the round opened."""
    epoch: Epoch | None = None
    """With secure sums: whose vectors have one sum in this round."""
    void_cause: str = ""
    """With secure sums: why the round is void, in one sentence; empty while it is not."""


@dataclass(frozen=True, eq=False)
class History(Evolving):
    """What the machine remembers of closed rounds."""

    started: bool = False
    """Whether a round was ever opened, by this process or an earlier one."""
    last_contributors: AgentSet = EMPTY_SET
    """Agents counted in the last closed round."""
    accepted: Mapping[int, AgentSet] = field(default_factory=dict)
    """Round → agents whose gradients of that round have been counted in a closed round; recent rounds only."""
    absent: AgentSet = EMPTY_SET
    """Agents that were present and not counted in the last closed round, or in the round being closed."""
    outliers: AgentSet = EMPTY_SET
    """Agents whose gradients were outliers in the last closed round."""
    rounds_counted: ParticipationCounts = field(default_factory=ParticipationCounts)
    """Agent id → number of closed rounds that counted its gradient, and the newest of them."""
    absent_rounds: ParticipationCounts = field(default_factory=ParticipationCounts)
    """Agent id → number of closed rounds in which it was absent."""
    outlier_rounds: ParticipationCounts = field(default_factory=ParticipationCounts)
    """Agent id → number of closed rounds in which its gradient was an outlier."""
    step_memory: Float[np.ndarray, " m"] | None = None
    """What the basis step remembers (`cospan.core.aggregation.basis_update.BasisMove`)."""
    quorum_pace: QuorumPace | None = None
    """Smoothed time to quorum; None while no deadline is derived from it."""
    slowest_first_gradient_seconds: float = 0.0
    """Longest time to the first gradient of any round of this process; 0 before there is one."""
    last_slow_round: int = -1
    """Newest round that was reported to have no gradient after `round_timeout_seconds`; -1 for none."""


@dataclass(frozen=True, eq=False)
class Durability(Evolving):
    """What is stored, and what a restarted coordinator repeats because it may have been announced before."""

    durable_round: int = 0
    """Every round below this one is stored."""
    replay_agents: frozenset[str] = frozenset()
    """After a restart, the contributors of the last stored round; empty once no round has to be repeated."""
    last_announced_round: int = 0
    """After a restart, the newest round that a returning contributor knows of; others may know the next one."""
    replay_until: int = 0
    """Rounds below this one may have been announced before the restart; `replay_agents` repeat them."""


@dataclass(frozen=True, eq=False)
class CoordinatorState(Evolving):
    """The whole state of a run."""

    specification: RunSpecification
    """Of the run. The first join sets its feature fingerprint if that is empty."""
    config: CoordinatorConfig
    """What this process was started with."""
    basis: Float[np.ndarray, "d r"]
    """B_t."""
    head_covariance: Float[np.ndarray, "r r"] | None = None
    """W_t; None where the method has none."""
    round: int = 0
    """t, the number of the open round."""
    phase: RunPhase = RunPhase.WAITING
    """Where the run stands; `cospan.server.machine.dispatch` has the table of transitions."""
    phase_since: float = 0.0
    """When WAITING, FINISHED or DRAINING began; in COLLECTING and CLOSING, when the round opened."""
    end: EndRun | Suspend | None = None
    """Why the run is FINISHED, or the process DRAINING; None in the other phases."""
    members: Members = field(default_factory=Members)
    """The agents of the run."""
    open_round: OpenRound = field(default_factory=OpenRound)
    """The round that collects gradients or is being closed."""
    history: History = field(default_factory=History)
    """What is remembered of closed rounds."""
    durability: Durability = field(default_factory=Durability)
    """What is stored, and what has to be repeated after a restart."""

    @property
    def stamp(self) -> Stamp:
        """Identifies this state in messages."""
        config = self.config
        return Stamp(config.run_id, config.incarnation, self.round, self.durability.durable_round)

    @property
    def last_rounds(self) -> Mapping[str, int]:
        """Agent id → the newest closed round that counted its gradient."""
        return self.history.rounds_counted.newest

    @property
    def finish_cause(self) -> FinishCause | None:
        """Why the run is over; None while it is not."""
        return self.end.cause if isinstance(self.end, EndRun) else None

    @property
    def at_inflight_limit(self) -> bool:
        """Whether the open round must stay open until an older round is durable."""
        return self.round - self.durability.durable_round >= self.config.max_inflight_rounds

    def session(self, token: str) -> Session:
        """The session of a token.

        Raises:
            SessionUnknownError: there is none; it may have been dropped.
        """
        session = self.members.sessions.get(token)
        if session is None:
            raise SessionUnknownError(f"the session is not one of run {self.config.run_id} any more; join again")
        return session

    def with_session(self, session: Session) -> "CoordinatorState":
        """The state with one session added or replaced."""
        sessions = self.members.sessions.set(session.token, session)
        return self.evolve(members=self.members.evolve(sessions=sessions))

    def check(self) -> None:
        """Raises AssertionError if an invariant is violated; tests call it after every event."""
        for part in (self, self.config, self.members, self.open_round, self.history, self.durability):
            assert vars(part).keys() == part.__dataclass_fields__.keys(), "evolve sets declared fields only"
        _check_members(self)
        _check_open_round(self)
        _check_phase(self)
        _check_history(self)


Outcome: TypeAlias = tuple[CoordinatorState, tuple[Command, ...]]
"""What a transition returns: the state after it, and the commands for the shell."""


def initial_state(specification: RunSpecification, config: CoordinatorConfig, now: float) -> CoordinatorState:
    """A run that waits for its agents; its `max_inflight_rounds` follows from the size of its basis."""
    ahead = rounds_ahead(specification.feature_dim, specification.rank)
    config = config.evolve(max_inflight_rounds=ahead)
    covariance = initial_head_covariance(specification.method, specification.rank)
    return CoordinatorState(specification, config, specification.initial_basis(), covariance, phase_since=now)


def _check_members(state: CoordinatorState) -> None:
    members = state.members
    sessions = members.sessions.values()
    hosted = {agent: session.token for session in sessions for agent in session.agent_ids}
    assert members.hosts == hosted, "every agent is hosted by exactly one session"
    assert all(token == session.token for token, session in members.sessions.items()), "sessions are keyed by token"
    assert list(members.present.blocks) == [session.agent_ids for session in sessions], "a block per session"
    assert not set(members.departures) & set(members.hosts), "a departed agent is not present"
    assert members.deserted_since is None or not sessions, "a deserted run has no session"
    running = state.phase in (RunPhase.COLLECTING, RunPhase.CLOSING)
    assert not running or sessions or members.deserted_since is not None, "a deserted run has a deadline"
    sites = [session.site_index for session in sessions if session.site_index is not None]
    assert len(sites) == len(set(sites)), "no site is assigned twice"
    limit = state.config.site_limit
    assert limit is None or all(index < limit for index in sites), "only existing sites are assigned"


def _check_open_round(state: CoordinatorState) -> None:
    current, hosts = state.open_round, state.members.hosts
    assert not current.awaited & current.counted, "no agent is both awaited and counted"
    assert current.awaited <= set(hosts), "only agents that are present are awaited"
    counted = list(current.counted)
    assert len(counted) == len(set(counted)), "no agent counts twice in a round"
    firsts = {agents[0] for agents in current.counted.blocks}
    assert firsts == current.contributions.keys(), "one contribution per counted block"
    awaited = [{hosts[agent] for agent in agents} for agents in current.awaited.blocks]
    assert all(len(tokens) == 1 for tokens in awaited), "an awaited block has one host"
    assert set(current.stale) <= set(current.counted.blocks), "stale gradients are counted"
    assert all(number < state.round for number in current.stale.values()), "stale gradients are of earlier rounds"
    allowed = state.durability.replay_agents
    assert not current.replaying or current.awaited | current.counted <= allowed, (
        "only replay agents take part in a replay"
    )
    _check_epoch(state)


def _check_epoch(state: CoordinatorState) -> None:
    current, members, spec = state.open_round, state.members, state.specification
    epoch = current.epoch
    running = state.phase in (RunPhase.COLLECTING, RunPhase.CLOSING)
    assert epoch is None or spec.secure_sums, "only secure sums have epochs"
    assert epoch is not None or not (spec.secure_sums and running), "with secure sums a round has an epoch"
    assert members.keys == {key: token for token, offer in members.offers.items() for key in offer.keys}, (
        "every key has one session"
    )
    assert set(members.offers) <= set(members.sessions), "only sessions offer keys"
    assert not current.void_cause or epoch is not None, "only rounds of secure sums are void"
    if epoch is None:
        return
    assert current.awaited | current.counted <= epoch.awaited.names, "only members of the epoch take part"
    assert len(epoch.membership.members) >= spec.min_cohort, "no epoch is smaller than the smallest cohort"
    vectors = current.contributions.values()
    assert all(isinstance(each, MaskedVector) and each.epoch_id == epoch.id for each in vectors), (
        "all vectors of a round are of its epoch"
    )


def _check_phase(state: CoordinatorState) -> None:
    current, phase = state.open_round, state.phase
    assert (phase is RunPhase.FINISHED) == isinstance(state.end, EndRun), "a finished run has a cause"
    assert (phase is RunPhase.DRAINING) == isinstance(state.end, Suspend), "a draining coordinator has a reason"
    assert phase is not RunPhase.WAITING or not (current.awaited or current.counted), (
        "WAITING collects no gradients"
    )
    if phase is RunPhase.CLOSING:
        assert not current.awaited, "a closing round awaits no gradient"
        assert current.counted or current.void_cause, "a closing round has a gradient, or is void"
        assert not state.at_inflight_limit, "no round closes at the in-flight limit"
    assert current.pending_basis is None or phase is RunPhase.CLOSING, "only a closing round has a pending basis"
    complete = phase is RunPhase.COLLECTING and current.counted and not current.awaited
    assert state.at_inflight_limit or not complete, "only the in-flight limit keeps a complete round open"


def _check_history(state: CoordinatorState) -> None:
    history, members = state.history, state.members
    known = (history.absent, history.outliers, history.last_contributors, *history.accepted.values())
    assert all(len(each) == len(each.names) for each in (state.open_round.awaited, *known)), "sets hold a name once"
    assert history.started or not state.round, "no round closes before the first one has opened"
    inflight = state.round - state.durability.durable_round
    assert 0 <= inflight <= state.config.max_inflight_rounds, "rounds in flight are limited"
    counts = history.rounds_counted.by_name
    assert all(0 < count <= state.round for count, _ in counts.values()), "an agent counts at most once a round"
    assert set(counts) <= set(members.hosts) | set(members.departures), "only agents that have joined are counted"
