"""How long the coordinator waits: for a message, for gradients, for agents to come back, and for the start."""

from coordinator_runs import CLOSING, COLLECTING, WAITING, collecting, gradient, waiting
from runs import ROUND, SESSION_TIMEOUT, START, CoordinatorDriver

from cospan.server import machine
from cospan.server.machine import events
from cospan.wire import errors
from cospan.wire.messages import FinishCause


def test_a_heartbeat_is_heard() -> None:
    run, a, _ = collecting()
    run.now = 3.0
    run.step(events.HeartbeatArrived(a))
    assert run.state.members.sessions[a].last_seen == 3.0
    run.refuse(events.HeartbeatArrived("token-9"), errors.SessionUnknownError)


def test_who_is_heard_again_at_once_was_heard_at_the_same_time() -> None:
    """Of a thousand gradients a second each would change its session."""
    run, a, _ = collecting()
    for run.now, heard in ((0.009, 0.0), (0.01, 0.01), (0.019, 0.01), (0.021, 0.021)):
        run.step(events.HeartbeatArrived(a))
        assert run.state.members.sessions[a].last_seen == heard


def test_no_round_waits_longer_than_the_session_timeout_for_a_silent_process() -> None:
    run, a, b = collecting()
    run.gradient(a)
    assert machine.next_deadline(run.state) == SESSION_TIMEOUT
    run.now = 3.0
    run.step(events.HeartbeatArrived(a))
    assert run.wait(SESSION_TIMEOUT - 3.25) == []
    assert run.wait(0.25) == ["agent-gone", "CloseStream", "ComputeBasis"]
    assert run.state.members.departures["b"].cause == "it was silent for 5 s"
    (closed,) = [command for command in run.commands if isinstance(command, events.CloseStream)]
    assert isinstance(closed.error, errors.SessionUnknownError)
    run.refuse(gradient(b, 0), errors.SessionUnknownError)


def test_a_lost_stream_counts_from_when_it_broke() -> None:
    run, a, b = collecting()
    run.now = 3.0
    run.step(events.StreamClosed(a, run.stream(a)))
    run.step(events.HeartbeatArrived(b))
    assert run.wait(SESSION_TIMEOUT - 0.25) == []
    run.step(events.HeartbeatArrived(b))
    assert run.wait(0.25) == ["agent-gone"], "there is no stream to close"
    assert run.state.members.departures["a"].cause == "its stream broke and did not come back for 5 s"


def alive(run: CoordinatorDriver, seconds: float, *tokens: str) -> list[str]:
    """Time passes while these processes send heartbeats; the kinds of the last tick's commands."""
    kinds: list[str] = []
    end = run.now + seconds
    while run.now < end:
        kinds = run.wait(min(4.0, end - run.now))
        for token in tokens:
            if token in run.state.members.sessions:
                run.step(events.HeartbeatArrived(token))
    return kinds


def test_a_round_waits_for_a_live_agent_for_its_bound_only() -> None:
    run, a, b = collecting()
    run.gradient(a)
    alive(run, ROUND - 1.0, a, b)
    assert machine.next_deadline(run.state) == ROUND
    assert run.wait(1.0) == ["agent-gone", "CloseStream", "ComputeBasis"]
    assert run.state.members.departures["b"].cause == "it sent no gradient for 60 s"
    assert run.state.open_round.counted == {"a"}


def test_a_round_with_nobodys_gradient_gives_all_up() -> None:
    run, a, b = collecting()
    alive(run, ROUND, a, b)
    assert dict(run.state.members.sessions) == {}
    assert (run.state.phase, run.state.members.deserted_since) == (COLLECTING, ROUND)


HOUR, DAY = 3600.0, 86400.0


def with_a_feed(first_gradient_timeout_seconds: float = DAY) -> tuple[CoordinatorDriver, str, str]:
    """Two agents in round 0, whose silence is not looked at here."""
    return collecting(
        first_gradient_timeout_seconds=first_gradient_timeout_seconds, session_timeout_seconds=10 * DAY
    )


def hourly(run: CoordinatorDriver, *tokens: str) -> None:
    """A value an hour: every agent of the round sends its gradient a minute after the other."""
    run.wait(HOUR)
    for token in tokens:
        run.wait(60.0)
        run.gradient(token)


def test_a_fleet_with_an_hourly_feed_keeps_its_agents_by_the_default_bound() -> None:
    run, a, b = with_a_feed()
    for number in range(3):
        hourly(run, a, b)
        run.compute()
        assert (run.state.round, set(run.state.members.sessions), dict(run.state.members.departures)) == (
            number + 1,
            {a, b},
            {},
        )


def test_a_round_without_a_gradient_is_said_to_be_slow_once() -> None:
    run, _, _ = with_a_feed()
    run.wait(ROUND - 1.0)
    assert run.wait(1.0) == ["round-slow"]
    text = run.commands[0].text
    assert "no agent has sent a gradient for 60 s, and they are alive; the round waits" in text
    assert "86400 s at the most" in text
    assert run.wait(HOUR) == []


def test_after_the_first_gradient_of_a_slow_round_the_others_have_as_long_again() -> None:
    run, a, b = with_a_feed()
    run.wait(HOUR)
    run.gradient(a)
    run.wait(HOUR - 1.0)
    assert set(run.state.members.sessions) == {a, b}
    assert run.wait(1.0) == ["agent-gone", "CloseStream", "ComputeBasis"]
    assert run.state.members.departures["b"].cause == "it sent no gradient for 7200 s"


def test_a_round_whose_first_gradient_is_in_time_has_the_bound_that_was_said() -> None:
    run, a, b = with_a_feed()
    hourly(run, a, b)
    run.compute()
    run.wait(ROUND - 2.0)
    run.gradient(a)
    run.wait(1.0)
    assert set(run.state.members.sessions) == {a, b}
    assert run.wait(1.0) == ["agent-gone", "CloseStream", "ComputeBasis"]


def test_a_fleet_whose_pace_is_known_and_that_hangs_is_given_up() -> None:
    run, a, b = with_a_feed()
    run.wait(100.0)
    run.gradient(a)
    run.gradient(b)
    run.compute()
    run.wait(999.0)
    assert set(run.state.members.sessions) == {a, b}
    run.wait(1.0)
    assert dict(run.state.members.sessions) == {}


def test_a_fleet_that_never_sends_anything_is_given_up_in_the_end() -> None:
    run, _, _ = with_a_feed(HOUR)
    run.wait(HOUR)
    assert dict(run.state.members.sessions) == {}


def test_a_part_of_a_group_is_awaited_as_well() -> None:
    run = CoordinatorDriver()
    group = run.join("a", "b")
    run.gradient(group, 0, "a")
    alive(run, ROUND - 1.0, group)
    assert run.wait(1.0) == ["agent-gone", "CloseStream", "ComputeBasis"]
    assert run.state.open_round.counted == {"a"}


def test_who_joins_late_is_not_blamed_for_a_round_that_waits_for_others() -> None:
    """The round ends after its 60 s without the two: b has had them, c has had 2 and stays."""
    run, a, b = collecting()
    run.gradient(a)
    alive(run, ROUND - 2.0, a, b)
    c = run.join("c")
    run.wait(2.0)
    assert (set(run.state.members.sessions), run.state.phase) == ({a, c}, CLOSING)
    run.compute()
    assert run.state.open_round.awaited == {"a", "c"}


def test_no_row_of_joiners_holds_a_round_up() -> None:
    run, a, b = collecting()
    run.gradient(a)
    for number in range(7):
        alive(run, 8.0, *run.state.members.sessions)
        run.join(f"n{number}")
        if b in run.state.members.sessions:
            run.step(events.LeaveArrived(b, ""))
    alive(run, 3.0, *run.state.members.sessions)
    assert machine.next_deadline(run.state) == ROUND
    run.wait(1.0)
    assert (run.now, run.state.phase, run.state.open_round.counted) == (ROUND, CLOSING, {"a"})


def test_a_joiner_alone_has_its_own_bound() -> None:
    """Everybody else is gone, so it is the only one that anybody could wait for."""
    run, a, b = collecting()
    alive(run, ROUND - 8.0, a, b)
    c = run.join("c")
    for token in (a, b):
        run.step(events.StreamClosed(token, run.stream(token)))
    alive(run, 40.0, c)
    assert set(run.state.members.sessions) == {c}
    assert machine.next_deadline(run.state) == min(run.now + SESSION_TIMEOUT, 2 * ROUND - 8.0)
    alive(run, ROUND - 40.0, c)
    assert (run.now, dict(run.state.members.sessions)) == (2 * ROUND - 8.0, {})


def test_a_deserted_run_waits_a_while_and_ends() -> None:
    run, a, b = collecting()
    for token in (a, b):
        run.step(events.StreamClosed(token, run.stream(token)))
    assert run.wait(SESSION_TIMEOUT) == ["agent-gone", "agent-gone"]
    assert run.state.members.deserted_since == SESSION_TIMEOUT
    assert machine.next_deadline(run.state) == SESSION_TIMEOUT + ROUND
    assert run.wait(ROUND - 1.0) == []
    assert run.wait(1.0) == ["Broadcast Finish", "run-finished", "EndRun"]
    assert (run.state.finish_cause, run.sent()[0].message) == (
        FinishCause.NO_AGENTS,
        "every agent is gone, and none came back within 60 s",
    )


def test_who_comes_back_to_a_deserted_run_goes_on_with_it() -> None:
    run, *_ = collecting()
    run.wait(SESSION_TIMEOUT)
    a = run.join("a", instance="another")
    assert (run.state.members.deserted_since, run.state.open_round.awaited, run.welcome().started) == (
        None,
        {"a"},
        True,
    )
    run.gradient(a)
    run.compute()
    assert run.state.round == 1


def test_a_gradient_counts_though_everybody_is_gone() -> None:
    run, a, _ = collecting()
    run.gradient(a)
    assert run.wait(SESSION_TIMEOUT)[-1] == "ComputeBasis"
    run.compute()
    assert (run.state.round, run.state.open_round.awaited, run.state.members.deserted_since) == (
        1,
        frozenset(),
        SESSION_TIMEOUT,
    )
    run.wait(ROUND)
    assert run.state.finish_cause is FinishCause.NO_AGENTS


def test_a_run_that_does_not_start_ends() -> None:
    run = waiting()
    a = run.join("a")
    assert machine.next_deadline(run.state) == SESSION_TIMEOUT
    alive(run, START - 1.0, a)
    assert machine.next_deadline(run.state) == START
    run.wait(1.0)
    assert (run.state.finish_cause, run.sent()[0].message) == (
        FinishCause.NOT_STARTED,
        "only 1 of 2 agents joined within 600 s",
    )


def test_a_silent_process_is_given_up_before_the_start_too() -> None:
    run = waiting()
    run.join("a")
    assert run.wait(SESSION_TIMEOUT) == ["agent-gone", "CloseStream"]
    assert (run.state.phase, run.state.members.deserted_since) == (WAITING, None)
    assert machine.next_deadline(run.state) == START
