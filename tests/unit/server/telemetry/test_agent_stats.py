"""What observers may know of agents: by name, for those that have joined, and forgotten with them."""

from runs import CoordinatorDriver

from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.server.machine.state import Members
from cospan.server.runtime.recent_rounds import RecentRounds
from cospan.server.telemetry.agent_stats import AgentStats
from cospan.server.telemetry.run_status import run_report


def test_only_those_who_have_joined_are_noted_and_a_group_has_no_td_error() -> None:
    run, seen = CoordinatorDriver(agents=3), AgentStats()
    one, group = run.join("a"), run.join("b", "c")
    for token in (one, group, None, "of no agent"):
        seen.note_rejection(run.state, token)
        seen.note_td_error(run.state, token or "", 2.0)
    assert seen.rejected == {"a": 1, "b": 1, "c": 1}
    assert seen.td_errors == {"a": 2.0}


def test_bounded_heads_are_those_of_the_sessions_own_agents() -> None:
    run, seen = CoordinatorDriver(agents=3), AgentStats()
    group, other = run.join("b", "c"), run.join("a")
    seen.note_bounded(run.state, group, ("a", "c", "unknown"))
    seen.note_bounded(run.state, "of no agent", ("a",))
    assert set(seen.bounded) == {"c"}
    report = run_report(run.state, RecentRounds(), 0.0, seen)
    assert [agent.head_bounded for agent in report.agents] == [False, False, True]
    assert other


def test_a_silent_feed_is_named_until_steps_come_again() -> None:
    run, seen = CoordinatorDriver(agents=3), AgentStats()
    one, other = run.join("a"), run.join("b")
    seen.note_feed(run.state, one, 100.0, 1000.0)
    seen.note_feed(run.state, other, 300.0, 1000.0)
    seen.note_feed(run.state, "of no agent", 5.0, 1000.0)
    assert seen.silent_feeds(run.state, 1010.0, 8) == [(310.0, "b"), (110.0, "a")]
    assert seen.silent_feeds(run.state, 1010.0, 1) == [(310.0, "b")]
    report = run_report(run.state, RecentRounds(), 1010.0, seen)
    assert [agent.feed_silent_seconds for agent in report.agents] == [110.0, 310.0]
    seen.note_feed(run.state, one, 0.0, 1020.0)
    seen.note_feed(run.state, one, 0.0, 1020.0)
    assert seen.silent_feeds(run.state, 1020.0, 8) == [(320.0, "b")]


def test_who_is_forgotten_by_the_run_is_forgotten_here() -> None:
    run, seen = CoordinatorDriver(agents=9), AgentStats()
    for name in "abcde":
        token = run.join(name)
        seen.note_td_error(run.state, token, 1.0)
        seen.note_rejection(run.state, token)
    last = run.join("f")
    sessions = PersistentMap({last: run.state.members.sessions[last]})
    forgotten = run.state.evolve(members=Members(sessions=sessions, hosts=PersistentMap({"f": last})))
    seen.note_td_error(forgotten, last, 3.0)
    seen.note_rejection(forgotten, last)
    assert seen.td_errors == {"f": 3.0}
    assert seen.rejected == {"f": 1}
