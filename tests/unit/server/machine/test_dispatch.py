"""The coordinator's table of transitions: agents that leave, a run that is stopped, and unknown streams."""

import pytest
from coordinator_runs import FINISHED, WAITING, closing, collecting, finished, waiting
from runs import moved

from cospan.server.machine import events
from cospan.wire import errors
from cospan.wire.messages import FinishCause

# Leaving ------------------------------------------------------------------------------------------------


def test_nobody_waits_for_who_has_left() -> None:
    run, a, b = collecting()
    run.gradient(b)
    assert run.step(events.LeaveArrived(a, "its shift is over")) == ["agent-gone", "ComputeBasis"]
    gone = run.state.members.departures["a"]
    assert (gone.round, gone.cause) == (0, "it left: its shift is over")
    run.compute()
    assert run.report().departed_agent_ids == ("a",)
    assert run.state.open_round.awaited == {"b"}
    run.refuse(events.LeaveArrived(a, ""), errors.SessionUnknownError)


def test_what_an_agent_gave_before_it_left_counts() -> None:
    run, a, b = collecting()
    run.gradient(a)
    run.step(events.LeaveArrived(a, ""))
    assert run.state.members.departures["a"].cause == "it left: no cause given"
    run.gradient(b)
    assert len(run.commands[0].contributions) == 2
    run.compute()
    assert dict(run.state.history.rounds_counted) == {"a": 1, "b": 1}


def test_the_last_to_leave_ends_the_run() -> None:
    run, a, b = collecting()
    run.step(events.LeaveArrived(a, ""))
    assert run.step(events.LeaveArrived(b, "")) == ["agent-gone", "Broadcast Finish", "run-finished", "EndRun"]
    assert run.state.finish_cause is FinishCause.NO_AGENTS


def test_leaving_before_the_start_and_after_the_end() -> None:
    run = waiting()
    a = run.join("a")
    run.step(events.LeaveArrived(a, ""))
    assert (run.state.phase, dict(run.state.members.hosts)) == (WAITING, {})
    run.join("b")
    assert run.state.phase is WAITING, "a is not there any more"
    run.join("a")
    assert dict(run.state.members.departures) == {}
    run, a, _ = finished()
    state = run.state
    assert run.step(events.LeaveArrived(a, "")) == []
    assert run.state is state, "the run ended while it was there"


def test_who_has_left_may_come_back() -> None:
    run, a, _ = collecting()
    run.step(events.LeaveArrived(a, ""))
    again = run.join("a")
    assert run.state.open_round.awaited == {"a", "b"}
    assert run.state.members.sessions[again].reconnects == 1


# Stopping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [waiting, lambda: collecting()[0], lambda: closing()[0]])
def test_a_run_can_be_stopped_at_any_time(made: object) -> None:
    run = made()  # type: ignore[operator]
    basis = run.state.basis
    assert run.step(events.StopRequested("Ctrl-C")) == ["Broadcast Finish", "run-finished", "EndRun"]
    finish = run.sent()[0]
    assert (finish.cause, finish.message, finish.stamp) == (FinishCause.STOPPED, "Ctrl-C", run.state.stamp)
    assert finish.basis is basis


def test_finished_stays_finished() -> None:
    run, a, _ = finished()
    state = run.state
    run.now = 1e6
    for event in (
        events.StopRequested("again"),
        events.Tick(),
        moved(state, 0),
        events.BasisFailed(0, ""),
        events.StreamClosed(a, run.stream(a)),
        events.LeaveArrived(a, ""),
    ):
        assert run.step(event) == []
        assert run.state is state
    assert run.step(events.HeartbeatArrived(a)) == []
    assert run.state.phase is FINISHED


# Streams and stamps ------------------------------------------------------------------------------------


def test_an_unknown_stream_that_ends_says_nothing() -> None:
    run, *_ = collecting()
    state = run.state
    assert run.step(events.StreamClosed("token-9", 1)) == []
    assert run.state is state


def test_the_stamp_names_the_open_round() -> None:
    run, *_ = closing()
    assert (run.state.stamp.run_id, run.state.stamp.incarnation, run.state.stamp.round) == ("run-1", 1, 0)
    run.compute()
    assert (run.state.stamp.round, run.state.stamp.durable_round) == (1, 1)
