"""Where the time of a round goes, and when gradients arrive."""

from typing import Any, cast

import pytest

from cospan.dashboard.analysis.round_parts import RoundParts
from cospan.server.machine.collections.agent_set import AgentSet
from cospan.server.machine.sessions import Session
from cospan.server.machine.state import CoordinatorState, Members, OpenRound
from cospan.wire.messages import AgentPhase


def session(token: str, seen: float, *agents: str) -> Session:
    return Session(token, token, agents, 1, AgentPhase.CONNECTED, seen)


class State:
    """What `leave` reads of a state."""

    def __init__(self, number: int, opened: float, *sessions: Session) -> None:
        from cospan.server.machine.collections.persistent_map import PersistentMap

        self.round, self.phase_since = number, opened
        self.members = Members(sessions=PersistentMap({each.token: each for each in sessions}))
        self.open_round = OpenRound(counted=AgentSet(each.agent_ids for each in sessions))


def leave(parts: RoundParts, state: Any, now: float) -> None:
    parts.leave(cast("CoordinatorState", state), now)
    parts.gather()


def test_the_parts_of_a_round_add_up_to_its_time() -> None:
    parts = RoundParts()
    leave(parts, State(0, 10.0, session("a", 10.2, "a")), 10.5)
    leave(parts, State(1, 10.9, session("a", 11.0, "a")), 11.0)
    first = parts.of(0, closed=10.6, seconds=0.6, learning=None)
    assert first == pytest.approx({"agents": 0.5, "aggregation": 0.1, "disk": 0.0})
    second = parts.of(1, closed=11.02, seconds=0.12, learning=0.04)
    assert second == pytest.approx({"agents": 0.04, "network": 0.06, "aggregation": 0.02, "disk": 0.3})
    assert sum(second.values()) == pytest.approx(11.02 - 10.6), "from close to close"
    assert parts.of(7, closed=12.0, seconds=0.1, learning=None) == {}, "another process closed it"


def test_a_gradient_arrives_when_its_session_was_last_heard() -> None:
    parts = RoundParts()
    slow, group = session("s", 10.9, "slow"), session("g", 10.1, "a", "b")
    leave(parts, State(0, 10.0, slow, group), 11.0)
    assert parts.arrivals == pytest.approx({"slow": 0.9, "a": 0.1, "b": 0.1})
    late = session("s", 14.0, "slow")  # a heartbeat after the round, and an old message in it
    leave(parts, State(1, 12.0, late, session("g", 10.1, "a", "b")), 13.0)
    assert parts.arrivals["slow"] == pytest.approx(0.9 + 0.2 * 0.1), "within the round, and smoothed"
    assert parts.arrivals["a"] == pytest.approx(0.08)
    leave(parts, State(2, 15.0, group), 15.5)
    assert "slow" not in parts.arrivals, "it is gone"


def test_what_is_not_gathered_stays_bounded() -> None:
    parts = RoundParts()
    for number in range(10_000):
        parts.leave(cast("CoordinatorState", State(number, 0.0)), 0.1)
    parts.gather()
    assert len(parts._times) <= 1_024
