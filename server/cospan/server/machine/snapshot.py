"""A stored run, and the state of a coordinator that resumes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from cospan.core.specification import RunSpecification
from cospan.server.machine.collections.agent_set import AgentSet
from cospan.server.machine.collections.participation_counts import ParticipationCounts
from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.server.machine.sessions import Departure, Session, SiteClaim
from cospan.server.machine.state import (
    CoordinatorConfig,
    CoordinatorState,
    Durability,
    History,
    Members,
    initial_state,
)


@dataclass(frozen=True, eq=False, slots=True)
class SavedRun:
    """A run as it was stored."""

    run_id: str
    """Its name."""
    specification: RunSpecification
    """Of the run."""
    round: int = 0
    """t, the round that was open; every round below it is stored."""
    basis: Float[np.ndarray, "d r"] | None = None
    """B_t; None before the first round has closed."""
    head_covariance: Float[np.ndarray, "r r"] | None = None
    """W_t; None before the first round has closed, and where the method has none."""
    step_memory: Float[np.ndarray, " m"] | None = None
    """See `cospan.core.aggregation.basis_update.BasisMove`."""
    sessions: tuple[Session, ...] = ()
    """The open sessions."""
    site_claims: Mapping[str, SiteClaim] = field(default_factory=dict)
    """Site claim id → the site assigned to it."""
    departures: tuple[Departure, ...] = ()
    """Agents that had departed."""
    last_contributors: frozenset[str] = frozenset()
    """Agents counted in round t − 1."""
    accepted: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Round → agents whose gradients of that round have been counted; recent rounds only."""
    rounds_counted: ParticipationCounts = field(default_factory=ParticipationCounts)
    """Agent id → number of closed rounds that counted its gradient, and the newest of them."""


def restored_state(saved: SavedRun, config: CoordinatorConfig, now: float) -> CoordinatorState:
    """The state of a coordinator that resumes a stored run, and waits for its agents to return.

    If any agent may know the result of the open round, the round has to be repeated to the same bits: it waits up
    to `config.return_seconds` for the contributors of the round before, and admits no others
    (see `cospan.server.machine.opening`).
    """
    state = initial_state(saved.specification, config, now)
    # The agents' saved rounds are not stored: until they return no basis is dropped that they may need.
    sessions = {
        session.token: replace(session, last_seen=now, opened=now, needs_from=0) for session in saved.sessions
    }
    members = Members(
        sessions=PersistentMap(sessions),
        hosts=PersistentMap({agent: token for token, session in sessions.items() for agent in session.agent_ids}),
        present=AgentSet(session.agent_ids for session in saved.sessions),
        departures=PersistentMap({departure.agent_id: departure for departure in saved.departures}),
        site_claims=PersistentMap(saved.site_claims),
    )
    history = History(
        started=saved.round > 0,
        last_contributors=AgentSet.of_names(saved.last_contributors),
        accepted={number: AgentSet.of_names(names) for number, names in saved.accepted.items()},
        step_memory=saved.step_memory,
        rounds_counted=saved.rounds_counted,
    )
    if saved.basis is not None:
        state = state.evolve(basis=saved.basis, head_covariance=saved.head_covariance)
    return state.evolve(
        round=saved.round,
        members=members,
        history=history,
        durability=Durability(durable_round=saved.round, replay_agents=_replay_agents(saved)),
    )


def _replay_agents(saved: SavedRun) -> frozenset[str]:
    """Who has to repeat the open round: the contributors of the last one; after a void one all that are present."""
    if saved.round and not saved.last_contributors:
        return frozenset(agent for session in saved.sessions for agent in session.agent_ids)
    return saved.last_contributors
