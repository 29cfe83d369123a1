"""The history of each agent's numbers."""

import json

from cospan.dashboard.analysis import agent_history
from cospan.dashboard.analysis.agent_history import HISTORY_COLUMNS, AgentHistories


def test_a_history_keeps_its_beginning_and_its_end() -> None:
    histories = AgentHistories()
    for number in range(10_000):
        histories.note("a", (number, 1.0 / (number + 1), None, 0.5, None))
    found = histories.of("a")
    assert found is not None
    rounds = [point[0] for point in found["points"]]
    assert (rounds[0], rounds[-1]) == (0, 9_999)
    assert rounds == sorted(set(rounds))
    assert 100 < len(rounds) <= 240
    assert found["points"][0] == [0, 1.0, None, 0.5, None]
    assert tuple(found["columns"]) == HISTORY_COLUMNS
    json.dumps(found, allow_nan=False)
    assert histories.of("b") is None


def test_old_rounds_are_ignored_and_forgotten_agents_dropped() -> None:
    histories = AgentHistories()
    for number in (5, 5, 3):
        histories.note("a", (number, 1.0, None, None, None))
    histories.note("b", (1, 1.0, None, None, None))
    assert [point[0] for point in (histories.of("a") or {})["points"]] == [5]
    histories.keep({"b": []})
    assert histories.of("a") is None
    assert histories.of("b") is not None


def test_all_histories_together_are_bounded() -> None:
    histories = AgentHistories()
    for number in range(200):
        for agent in range(1_000):
            histories.note(str(agent), (number, 1.0, 1.0, 1.0, 1.0))
    sizes = [len(points) for points in histories._points.values()]
    assert sum(sizes) <= len(HISTORY_COLUMNS) * (agent_history._MOST_POINTS + 1_000)
    for agent in range(10_000):
        histories.note(f"more {agent}", (0, 1.0, 1.0, 1.0, 1.0))
    assert len(histories._points) == agent_history._MOST_AGENTS
