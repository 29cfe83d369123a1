"""Agent statistics that are not part of the machine's state; no result depends on them."""

import heapq
from collections.abc import Sequence

from cospan.server.machine.state import CoordinatorState


class AgentStats:
    """Statistics by agent id, for agents that the run knows.

    Written on the event loop only; other threads read one agent at a time.
    """

    def __init__(self) -> None:
        self.td_errors: dict[str, float] = {}
        """Newest root mean square TD error of each agent that shares it, in units of reward."""
        self.bounded: dict[str, bool] = {}
        """Agents whose heads have reached the bound `head_radius` → True."""
        self.improved: dict[str, bool] = {}
        """Agents that hold an improved policy → True."""
        self.feeds_silent_since: dict[str, float] = {}
        """When the last step of a feed came, of each agent that waits for the next one for longer than usual."""
        self.rejected: dict[str, int] = {}
        """Number of messages of each agent that were rejected after it had joined; only agents with any."""

    def note_td_error(self, state: CoordinatorState, token: str, td_error: float) -> None:
        """Records the TD error that a session reports; of one agent only, because a group's has no single owner."""
        session = state.members.sessions.get(token)
        if session is not None and len(session.agent_ids) == 1:
            self.td_errors[session.agent_ids[0]] = td_error
            _forget(self.td_errors, state)

    def note_bounded(self, state: CoordinatorState, token: str, names: Sequence[str]) -> None:
        """Records which of a session's agents report a bounded head; other names are ignored."""
        session = state.members.sessions.get(token)
        own = set() if session is None else set(session.agent_ids)
        self.bounded.update(dict.fromkeys(own.intersection(names), True))
        _forget(self.bounded, state)

    def note_improved(self, state: CoordinatorState, token: str, names: Sequence[str]) -> None:
        """Records which of a session's agents hold an improved policy; other names are ignored."""
        session = state.members.sessions.get(token)
        own = set() if session is None else set(session.agent_ids)
        self.improved.update(dict.fromkeys(own.intersection(names), True))
        _forget(self.improved, state)

    def note_feed(self, state: CoordinatorState, token: str, silent_seconds: float, now: float) -> None:
        """Records that the feed of a session is silent; 0 seconds that it is not any more."""
        session = state.members.sessions.get(token)
        for agent in session.agent_ids if session is not None else ():
            if silent_seconds:
                self.feeds_silent_since[agent] = now - silent_seconds
            else:
                self.feeds_silent_since.pop(agent, None)
        _forget(self.feeds_silent_since, state)

    def silent_feeds(self, state: CoordinatorState, now: float, most: int) -> list[tuple[float, str]]:
        """Seconds and agent of the feeds of present agents that have been silent longest, descending."""
        hosts = state.members.hosts
        found = [(max(0.0, now - since), agent) for agent, since in list(self.feeds_silent_since.items())]
        return heapq.nlargest(most, [each for each in found if each[1] in hosts])

    def note_rejection(self, state: CoordinatorState, token: str | None) -> None:
        """Counts a rejected message of a session; without a session the claimed name is not trusted."""
        session = state.members.sessions.get(token or "")
        for agent in session.agent_ids if session is not None else ():
            self.rejected[agent] = self.rejected.get(agent, 0) + 1
        _forget(self.rejected, state)


def _forget(stats: dict[str, float] | dict[str, int] | dict[str, bool], state: CoordinatorState) -> None:
    """Drops the agents that the run has forgotten, once they are half of the entries."""
    hosts, departures = state.members.hosts, state.members.departures
    if len(stats) > 2 * (len(hosts) + len(departures)):
        for agent in [agent for agent in stats if agent not in hosts and agent not in departures]:
            del stats[agent]
