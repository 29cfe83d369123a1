"""Where the time of a round goes, and when each agent's gradient arrives.

The coordinator's event loop only leaves what it has at hand when a round closes; the dashboard's thread computes.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from cospan.server.machine.collections.agent_set import AgentSet
from cospan.server.machine.sessions import Session
from cospan.server.machine.state import CoordinatorState

_MOST_CLOSINGS = 4_096
_MOST_UNREPORTED = 1_024
"""Closed rounds that are not stored yet; many more than may be in flight."""
_SMOOTHING = 0.2
"""Weight of the newest of some rounds that are looked at."""


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A round at the moment at which it has all of its gradients; seconds on the machine's clock.

    Attributes:
        opened: when it was announced.
        closing: when its last gradient was counted.
        sessions: of the run, with the time of their last message.
        counted: agents whose gradients are in it.
    """

    opened: float
    closing: float
    sessions: Mapping[str, Session]
    counted: AgentSet


@dataclass(slots=True)
class RoundParts:
    """The parts of rounds; `leave` on the event loop's thread, the rest on the dashboard's."""

    arrivals: dict[str, float] = field(default_factory=dict)
    """Agent id → seconds from a round's opening to its gradient, smoothed; exact to 10 ms."""
    _closings: deque[tuple[int, float, float]] = field(default_factory=lambda: deque(maxlen=_MOST_CLOSINGS))
    """Round, opened, closing."""
    _arrived: _Arrived | None = None
    """The newest round; others hold no state, which may be large."""
    _times: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Round → opened, closing."""
    _closed: float | None = None
    """When the newest reported round was closed."""

    def leave(self, state: CoordinatorState, now: float) -> None:
        """Leaves a closing round; O(1)."""
        self._closings.append((state.round, state.phase_since, now))
        self._arrived = _Arrived(state.phase_since, now, state.members.sessions, state.open_round.counted)

    def gather(self) -> None:
        """Takes in what was left; looks at the arrivals of the newest round only."""
        while self._closings:
            number, opened, closing = self._closings.popleft()
            self._times[number] = opened, closing
        while len(self._times) > _MOST_UNREPORTED:
            del self._times[next(iter(self._times))]
        newest, self._arrived = self._arrived, None
        if newest is not None:
            self._see_arrivals(newest)

    def _see_arrivals(self, closing: _Arrived) -> None:
        before, self.arrivals = self.arrivals, {}
        for session in closing.sessions.values():
            known = before.get(session.agent_ids[0])
            if session.agent_ids[0] in closing.counted:
                seconds = min(max(0.0, session.last_seen - closing.opened), closing.closing - closing.opened)
                known = seconds if known is None else known + _SMOOTHING * (seconds - known)
            if known is not None:
                self.arrivals.update(dict.fromkeys(session.agent_ids, known))

    def of(self, number: int, closed: float, seconds: float, learning: float | None) -> dict[str, float]:
        """The parts of a round in seconds, in columns of `RoundSeries`; empty if they are unknown.

        Args:
            number: of the round; to be asked once, in order.
            closed: when its result was known.
            seconds: from its opening to that moment.
            learning: what the slowest agent takes to learn a round; None if unknown. Then `agents` holds the
                network's part too.
        """
        before, self._closed = self._closed, closed
        times = self._times.pop(number, None)
        if times is None:
            return {}
        opened, closing = times
        gathering = max(0.0, closing - opened)
        agents = gathering if learning is None else min(gathering, learning)
        parts = {
            "agents": agents,
            "aggregation": max(0.0, seconds - gathering),
            # Until its opening it waited for the round before to be stored, where that was not announced earlier.
            "disk": 0.0 if before is None else max(0.0, opened - before),
        }
        return parts if learning is None else parts | {"network": gathering - agents}
