"""Closing rounds: when a round is complete, its basis, its storage, and the end of the run."""

from dataclasses import replace
from typing import Any

import pytest
from coordinator_runs import CLOSING, COLLECTING, FINISHED, WAITING, close, closing, collecting, quorum_of_three
from runs import ROUND, CoordinatorDriver, Disk, moved

from cospan.server import machine
from cospan.server.machine import events
from cospan.wire import errors
from cospan.wire.messages import (
    BasisUpdate,
    Drain,
    FinishCause,
)


def all_of_two(**changes: Any) -> tuple[CoordinatorDriver, Disk, str, str]:
    """Agents a and b in round 0, which waits for both; and a disk that holds what was stored so far."""
    run = CoordinatorDriver(**{"rounds": 9} | changes)
    disk = Disk(run.state.specification)
    tokens = []
    for name in "ab":
        tokens.append(run.join(name))
        disk.write(run.commands)
    return run, disk, tokens[0], tokens[1]


# Outliers -----------------------------------------------------------------------------------------------------


def test_agents_whose_gradients_are_outliers_are_named_and_news_of_it_is_told_once() -> None:
    run = CoordinatorDriver(agents=3, rounds=9)
    tokens = [run.join(*names) for names in ("a", "bc", "d")]  # a group has one gradient for both
    told = []
    for outliers in ((1,), (1, 2), (), (1,)):
        for token in tokens:
            run.gradient(token)
        event = moved(run.state, run.state.round)
        told.append(run.step(replace(event, move=replace(event.move, outliers=outliers))))
        run.stored(next(command for command in run.commands if isinstance(command, events.StoreRound)))
    assert ["agent-outlier" in kinds for kinds in told] == [True, True, False, True]
    assert run.report().outlier_agent_ids == ("b", "c")
    assert run.state.history.outlier_rounds == {"b": 3, "c": 3, "d": 1}
    for token in tokens:
        run.gradient(token)
    run.compute()
    assert run.report().outlier_agent_ids == ()
    assert run.state.history.outlier_rounds == {"b": 3, "c": 3, "d": 1}


# Running ahead of the disk ----------------------------------------------------------------------------------


def test_the_first_round_is_stored_before_anybody_is_told() -> None:
    run, _, a, b = all_of_two()
    run.gradient(a)
    run.gradient(b)
    assert run.step(moved(run.state, 0)) == ["StoreRound"]
    assert run.state.phase is CLOSING
    store = run.commands[0]
    assert isinstance(store, events.StoreRound)
    assert run.stored(store) == ["Broadcast BasisUpdate", "ReportRound"]
    assert (run.state.round, run.state.durability.durable_round) == (1, 1)


def test_rounds_with_the_same_contributors_run_ahead_and_in_the_end_one_waits_for_the_disk() -> None:
    run, disk, a, b = all_of_two(max_inflight_rounds=2)
    run.gradient(a)
    run.gradient(b)
    close(run, disk)
    run.gradient(a)
    run.gradient(b)
    assert run.step(moved(run.state, 1)) == ["Broadcast BasisUpdate", "StoreRound"]
    (_, first) = run.commands
    assert (run.state.round, run.state.durability.durable_round) == (2, 1)
    run.gradient(a)
    assert run.gradient(b) == ["ComputeBasis"]
    assert run.step(moved(run.state, 2)) == ["Broadcast BasisUpdate", "StoreRound"]
    (_, second) = run.commands
    assert (run.state.round, run.state.durability.durable_round) == (3, 1)
    run.gradient(a)
    assert run.gradient(b) == [], "round 3 is complete, and rounds 1 and 2 are not on the disk"
    assert isinstance(first, events.StoreRound)
    assert isinstance(second, events.StoreRound)
    assert first.announced
    assert run.stored(first) == ["ReportRound", "ComputeBasis"]
    assert run.stored(second) == ["ReportRound"]
    assert (run.state.round, run.state.durability.durable_round, run.state.phase) == (3, 3, CLOSING)


def test_a_round_that_may_not_run_ahead_is_told_when_those_before_it_are_stored_too() -> None:
    run, disk, a, b = all_of_two(max_inflight_rounds=2, rounds=9)
    run.gradient(a)
    run.gradient(b)
    close(run, disk)
    run.gradient(a)
    run.gradient(b)
    run.step(moved(run.state, 1))
    (_, first) = run.commands
    run.gradient(run.join("c"))
    run.gradient(a)
    run.gradient(b)
    assert run.step(moved(run.state, 2)) == ["StoreRound"]
    (second,) = run.commands
    assert isinstance(first, events.StoreRound)
    assert isinstance(second, events.StoreRound)
    assert not second.announced
    assert run.stored(first) == ["ReportRound"]
    assert (run.state.round, run.state.durability.durable_round, run.state.phase) == (2, 2, CLOSING)
    assert run.stored(second) == ["Broadcast BasisUpdate", "ReportRound"]


@pytest.mark.parametrize("what", ["a new agent", "a broken stream", "the last round"])
def test_a_round_does_not_run_ahead_where_a_restart_might_come_to_something_else(what: str) -> None:
    run, disk, a, b = all_of_two(rounds=2 if what == "the last round" else 9)
    run.gradient(a)
    run.gradient(b)
    close(run, disk)
    if what == "a new agent":
        run.gradient(run.join("c"))
    run.gradient(a)
    run.gradient(b)
    if what == "a broken stream":
        run.step(events.StreamClosed(b, run.stream(b)))
    assert run.step(moved(run.state, 1)) == ["StoreRound"]


def test_with_a_quorum_every_round_is_stored_before_it_is_told() -> None:
    run, tokens = quorum_of_three()
    for number in range(3):
        for token in tokens:
            run.gradient(token)
        assert run.step(moved(run.state, number)) == ["StoreRound"]
        (store,) = run.commands
        assert isinstance(store, events.StoreRound)
        assert not store.announced
        assert "Broadcast BasisUpdate" in run.stored(store)


def test_a_round_does_not_run_ahead_where_a_part_of_a_group_has_come_back() -> None:
    run = CoordinatorDriver(rounds=9, agents=3)
    disk = Disk(run.state.specification)
    alone, group = run.join("a"), run.join("b", "c")
    for token in (alone, group):
        run.gradient(token)
    close(run, disk)
    for token in (alone, group):
        run.gradient(token)
    run.step(events.StreamClosed(group, run.stream(group)))
    run.join("b", instance="another")
    assert run.step(moved(run.state, 1)) == ["StoreRound"]


def test_a_run_that_was_stopped_while_its_round_was_stored_does_not_tell_of_it() -> None:
    run, _, a, b = all_of_two()
    run.gradient(a)
    run.gradient(b)
    run.step(moved(run.state, 0))
    store = run.commands[0]
    assert isinstance(store, events.StoreRound)
    run.step(events.StopRequested("enough"))
    assert run.stored(store) == []
    assert (run.state.round, run.state.durability.durable_round) == (0, 0)


# Going down -------------------------------------------------------------------------------------------------


def test_who_is_drained_is_told_when_to_come_back_and_nobody_is_let_in() -> None:
    run, _, a, _ = all_of_two()
    assert run.step(events.DrainRequested("an update", 3.0)) == ["Broadcast Drain", "run-suspended", "Suspend"]
    (told,) = [message for message in run.sent() if isinstance(message, Drain)]
    assert told.resume_after_seconds == 3.0
    assert run.commands[-1] == events.Suspend("an update", False)
    run.refuse(run.joining("c"), errors.DrainingError, "an update")
    assert run.gradient(a) == [], "the agent keeps it"
    assert run.step(events.DrainRequested("twice", 1.0)) == []
    assert run.step(events.StopRequested("too late")) == []


def test_a_coordinator_that_cannot_store_goes_down_and_the_run_can_go_on() -> None:
    run, disk, a, b = all_of_two()
    run.gradient(a)
    run.gradient(b)
    run.step(moved(run.state, 0))
    assert run.step(events.StoreFailed("the disk is full")) == ["Broadcast Drain", "run-suspended", "Suspend"]
    assert run.commands[-1] == events.Suspend("the disk is full", True)
    run.restart(disk.saved())
    assert (run.state.round, run.state.phase) == (0, WAITING)


def test_a_round_that_was_stored_while_the_coordinator_went_down_is_not_told_of_and_not_lost() -> None:
    run, disk, a, b = all_of_two()
    run.gradient(a)
    run.gradient(b)
    run.step(moved(run.state, 0))
    (store,) = run.commands
    run.step(events.DrainRequested("an update", 1.0))
    disk.write([store])
    assert isinstance(store, events.StoreRound)
    assert run.stored(store) == []
    assert not any(isinstance(message, BasisUpdate) for message in run.sent())
    run.restart(disk.saved())
    assert run.state.round == 1


# The end of a round ----------------------------------------------------------------------------------------------


def test_the_last_round_ends_the_run() -> None:
    run, a, b = collecting(rounds=2)
    for expected in (["Broadcast BasisUpdate", "ReportRound"], ["ReportRound", "Broadcast Finish", "run-finished"]):
        run.gradient(a)
        run.gradient(b)
        assert run.compute()[: len(expected)] == expected
    assert isinstance(run.commands[-1], events.EndRun)
    assert run.commands[-1].cause is FinishCause.ROUNDS_REACHED
    report, finish = run.report(), run.sent()[0]
    assert (report.finished, report.closed_round, finish.stamp.round) == (True, 1, 2)
    assert finish.basis is run.state.basis
    assert run.state.phase is FINISHED
    assert machine.next_deadline(run.state) is None


def test_a_run_without_a_number_of_rounds_goes_on() -> None:
    run, a, b = collecting(rounds=0)
    for _ in range(5):
        run.gradient(a)
        run.gradient(b)
        run.compute()
    assert (run.state.phase, run.state.round) == (COLLECTING, 5)


def test_the_arithmetic_of_another_round_is_void() -> None:
    run, a, b = closing()
    first = moved(run.state, 0)
    run.compute()
    assert run.step(first) == [], "it comes a second time"
    assert run.step(events.BasisFailed(0, "overflow")) == []
    run.gradient(a)
    run.gradient(b)
    assert run.step(first) == []
    assert (run.state.phase, run.state.round) == (CLOSING, 1)


def test_a_round_without_a_finite_basis_ends_the_run() -> None:
    run, *_ = closing()
    basis = run.state.basis
    assert run.step(events.BasisFailed(0, "no finite basis")) == ["Broadcast Finish", "run-finished", "EndRun"]
    assert run.sent()[0].message == "no finite basis"
    assert (run.state.finish_cause, run.state.round) == (FinishCause.FAILED, 0)
    assert run.state.basis is basis


def test_stopped_while_a_round_closes() -> None:
    run, *_ = closing()
    late = moved(run.state, 0)
    run.step(events.StopRequested("enough"))
    assert (run.step(late), run.step(events.BasisFailed(0, ""))) == ([], [])
    assert (run.state.phase, run.state.round) == (FINISHED, 0)


def test_everybody_leaves_while_a_round_closes() -> None:
    """The round is complete, so it counts; then the run ends, since no agent comes back."""
    run, a, b = closing()
    run.step(events.LeaveArrived(a, ""))
    run.step(events.LeaveArrived(b, ""))
    assert run.state.phase is CLOSING
    run.compute()
    assert (run.state.phase, run.state.round, run.state.open_round.awaited) == (COLLECTING, 1, frozenset())
    run.wait(ROUND)
    assert run.state.finish_cause is FinishCause.NO_AGENTS
    run, a, b = closing(rounds=1)
    run.step(events.LeaveArrived(a, ""))
    run.step(events.LeaveArrived(b, ""))
    run.compute()
    assert run.state.finish_cause is FinishCause.ROUNDS_REACHED
