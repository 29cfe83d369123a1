"""What the coordinator knows: plain frozen values, written only by `machine.step`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation import Contribution
from cospan.core.specification import RunSpecification
from cospan.wire.messages import AgentPhase, FinishCause, RunPhase, Stamp


@dataclass(frozen=True, slots=True)
class Session:
    """One agent process in the run.

    Attributes:
        token: the session's secret name.
        instance_id: the process' own random name.
        agent_ids: the agents it hosts, sorted.
        stream: number of the stream it speaks through; an event of an older stream is void.
        phase: CONNECTED, or LOST when the stream has broken.
        last_seen: when it was last heard.
        opened: when it joined; no round waits for it since before that.
        reconnects: how often it came back.
        holder: who asked for the site that was given out; empty where the process brought its own names.
        site_index: of that site.
    """

    token: str
    instance_id: str
    agent_ids: tuple[str, ...]
    stream: int
    phase: AgentPhase
    last_seen: float
    opened: float = 0.0
    reconnects: int = 0
    holder: str = ""
    site_index: int | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """A site that was given out.

    Attributes:
        index: of the site.
        instance_id: of its holder's newest process.
    """

    index: int
    instance_id: str


@dataclass(frozen=True, slots=True)
class Departure:
    """An agent that is gone.

    Attributes:
        agent_id: its name.
        round: the round that was open.
        cause: one sentence.
        last_seen: when it was last heard.
        reconnects: how often it had come back.
    """

    agent_id: str
    round: int
    cause: str
    last_seen: float
    reconnects: int


@dataclass(frozen=True, eq=False, slots=True)
class CoordinatorState:
    """The whole state of a run.

    Attributes:
        specification: of the run; its fingerprint is fixed by the first join where it was empty.
        run_id: name of the run.
        incarnation: of the coordinator.
        basis: B_t, shape (d, r).
        row_squares: what the basis' step remembers (`cospan.core.aggregation.BasisMove`).
        round: t.
        phase: where the run stands.
        phase_since: when that began.
        sessions: by token.
        hosts: agent id → token of the session that hosts it.
        awaited: agents whose gradients the open round still lacks.
        contributions: of the open round, by the agents that they sum over.
        counted: agents whose gradients the open round has.
        counted_before: agents whose gradients the previous round had.
        rounds_counted: agent id → number of closed rounds that had its gradient.
        departures: agents that are gone, by name.
        departed_in_round: those that went while this round was open.
        deserted_since: when the last session went, if there is none.
        finish_cause: why the run is over, if it is.
        start_seconds: the longest time to wait for the first round's agents.
        sites: how many sites can be given out; None where there is no limit.
        seats: holder → the site that was given to it.
    """

    specification: RunSpecification
    run_id: str
    incarnation: int
    basis: Float[np.ndarray, "d r"]
    start_seconds: float
    round: int = 0
    phase: RunPhase = RunPhase.WAITING
    phase_since: float = 0.0
    sessions: Mapping[str, Session] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    awaited: frozenset[str] = frozenset()
    contributions: Mapping[tuple[str, ...], Contribution] = field(default_factory=dict)
    counted: frozenset[str] = frozenset()
    counted_before: frozenset[str] = frozenset()
    rounds_counted: Mapping[str, int] = field(default_factory=dict)
    departures: Mapping[str, Departure] = field(default_factory=dict)
    departed_in_round: tuple[str, ...] = ()
    deserted_since: float | None = None
    finish_cause: FinishCause | None = None
    row_squares: Float[np.ndarray, " d"] | None = None
    sites: int | None = None
    seats: Mapping[str, Seat] = field(default_factory=dict)

    @property
    def stamp(self) -> Stamp:
        """Names this state. Nothing is stored yet, so every closed round counts as durable."""
        return Stamp(self.run_id, self.incarnation, self.round, durable_round=self.round)

    def with_session(self, session: Session) -> "CoordinatorState":
        """The state with one session added or replaced."""
        return replace(self, sessions={**self.sessions, session.token: session})

    def check(self) -> None:
        """Raises AssertionError where an invariant does not hold; called by tests after every event."""
        hosted = {agent: token for token, session in self.sessions.items() for agent in session.agent_ids}
        assert hosted == dict(self.hosts), "every agent is hosted by exactly one session"
        assert not self.awaited & self.counted, "nobody is both awaited and counted"
        assert self.awaited <= set(self.hosts), "only agents that are here are awaited"
        listed = [agent for agents in self.contributions for agent in agents]
        assert len(listed) == len(set(listed)), "no agent counts twice in a round"
        assert set(listed) == self.counted, "counted agents are those of the contributions"
        assert not set(self.departures) & set(self.hosts), "nobody is both here and gone"
        assert (self.phase is RunPhase.FINISHED) == (self.finish_cause is not None), "a finished run has a cause"
        assert self.phase is not RunPhase.WAITING or not (self.awaited or self.counted or self.round), "not begun"
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
        assert not gradients_complete, "a complete round does not stay open"
