"""What a server has seen of its agents beside the machine's state: for onlookers, no result depends on it."""

from collections.abc import Sequence

from cospan.server.machine.state import CoordinatorState


class AgentStats:
    """By the names of agents that have joined, and as bounded as those: who is forgotten by the run is so here.

    Written on the event loop alone; a reader in another thread asks for one agent at a time.
    """

    def __init__(self) -> None:
        self.td_errors: dict[str, float] = {}
        """The newest root mean square TD error of each agent that shares it, in the workload's unit of reward."""
        self.bounded: dict[str, bool] = {}
        """Agents whose heads have reached the bound `head_radius`; the others are left out."""
        self.rejected: dict[str, int] = {}
        """How many messages of each agent were refused after it had joined; agents without any are left out."""

    def note_td_error(self, state: CoordinatorState, token: str, td_error: float) -> None:
        """A session has told it: of one agent, for in a group nobody could say whose it is."""
        session = state.members.sessions.get(token)
        if session is not None and len(session.agent_ids) == 1:
            self.td_errors[session.agent_ids[0]] = td_error
            _forget(self.td_errors, state)

    def note_bounded(self, state: CoordinatorState, token: str, names: Sequence[str]) -> None:
        """Agents of a session have told it of their heads; names of others are ignored."""
        session = state.members.sessions.get(token)
        own = set() if session is None else set(session.agent_ids)
        self.bounded.update(dict.fromkeys(own.intersection(names), True))
        _forget(self.bounded, state)

    def note_rejection(self, state: CoordinatorState, token: str | None) -> None:
        """A message of a session was refused; where there is none, the name is only what a newcomer claims."""
        session = state.members.sessions.get(token or "")
        for agent in session.agent_ids if session is not None else ():
            self.rejected[agent] = self.rejected.get(agent, 0) + 1
        _forget(self.rejected, state)


def _forget(seen: dict[str, float] | dict[str, int] | dict[str, bool], state: CoordinatorState) -> None:
    """Drops the names that the run has forgotten, once half of them or more are such."""
    hosts, departures = state.members.hosts, state.members.departures
    if len(seen) > 2 * (len(hosts) + len(departures)):
        for agent in [agent for agent in seen if agent not in hosts and agent not in departures]:
            del seen[agent]
