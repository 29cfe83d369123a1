"""The coordinator's machine: every transition, every refusal, and the bounds of every wait."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from runs import ROUND, SESSION_TIMEOUT, START, CoordinatorDriver, D, R, join, moved, upload

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.method import Method
from cospan.server import machine
from cospan.server.machine import events
from cospan.server.machine.snapshot import SavedRun
from cospan.server.runtime.basis_arithmetic import computed_basis
from cospan.wire import errors
from cospan.wire.messages import AgentPhase, Disposition, Finish, FinishCause, GradientUpload, Resumption, RunPhase

WAITING, COLLECTING, CLOSING, FINISHED, DRAINING = RunPhase


def waiting() -> CoordinatorDriver:
    return CoordinatorDriver()


def collecting(**changes: object) -> tuple[CoordinatorDriver, str, str]:
    """Two agents, a and b, in round 0."""
    run = CoordinatorDriver(**changes)
    return run, run.join("a"), run.join("b")


def closing(**changes: object) -> tuple[CoordinatorDriver, str, str]:
    """Round 0 has both gradients, and its basis is being computed."""
    run, a, b = collecting(**changes)
    run.gradient(a)
    run.gradient(b)
    return run, a, b


def finished() -> tuple[CoordinatorDriver, str, str]:
    run, a, b = collecting()
    run.step(events.StopRequested("enough"))
    return run, a, b


# Joining ------------------------------------------------------------------------------------------------


def test_a_run_starts_when_enough_agents_are_there() -> None:
    run = waiting()
    assert run.step(run.joining("a")) == ["Send Welcome", "agent-joined"]
    welcome = run.welcome()
    assert (welcome.started, welcome.first_round, welcome.stamp.round) == (False, 0, 0)
    assert welcome.specification.feature_fingerprint == "map-1"
    assert run.state.phase is WAITING
    assert run.step(run.joining("b")) == ["Send Welcome", "agent-joined", "Broadcast BasisUpdate", "run-started"]
    assert run.welcome().started is False
    assert run.state.phase is COLLECTING
    assert run.state.open_round.awaited == {"a", "b"}


def test_a_group_counts_as_its_agents() -> None:
    run = CoordinatorDriver(agents=3)
    run.join("a", "b")
    assert run.state.phase is WAITING
    run.join("c")
    assert run.state.open_round.awaited == {"a", "b", "c"}


def test_the_first_to_join_fixes_the_feature_map() -> None:
    run = waiting()
    run.join("a")
    run.refuse(run.joining("b", feature_fingerprint="map-2"), errors.FeatureMismatchError, "'map-2'.*'map-1'")
    run.join("b")


def test_a_fixed_feature_map_binds_the_first_too() -> None:
    run = CoordinatorDriver(feature_fingerprint="map-0")
    run.refuse(run.joining("a"), errors.FeatureMismatchError, "'map-1'.*'map-0'")
    assert run.state.specification.feature_fingerprint == "map-0"


def test_another_dimension_is_refused_with_both_values() -> None:
    run = waiting()
    run.refuse(run.joining("a", feature_dim=17), errors.FeatureMismatchError, "dimension 17.*run 4")
    assert not run.state.specification.feature_fingerprint, "a refused join fixes nothing"


def test_features_without_a_name_are_refused() -> None:
    """Else the agent could join first, and not come back once a second one has fixed the fingerprint."""
    run = waiting()
    run.refuse(run.joining("a", feature_fingerprint=""), errors.InvalidMessageError, "feature_fingerprint is empty")


def test_nobody_joins_a_finished_run() -> None:
    run, a, _ = finished()
    run.refuse(run.joining("c"), errors.RunFinishedError, "run-1 is over after 0 rounds")
    run.refuse(run.resuming(a), errors.RunFinishedError)


def test_who_joins_an_open_round_takes_part_in_it() -> None:
    run, a, b = collecting()
    run.gradient(a)
    c = run.join("c")
    assert (run.welcome().started, run.welcome().first_round) == (True, 0)
    assert run.state.open_round.awaited == {"b", "c"}
    run.gradient(b)
    assert run.state.phase is COLLECTING, "the round waits for c as well"
    assert run.gradient(c) == ["ComputeBasis"]


def test_who_joins_while_a_round_closes_takes_part_in_the_next() -> None:
    run, *_ = closing()
    c = run.join("c")
    assert (run.welcome().started, run.welcome().first_round, run.welcome().stamp.round) == (True, 1, 0)
    run.gradient(c)
    assert run.receipt().disposition is Disposition.LATE
    run.compute()
    assert run.state.open_round.awaited == {"a", "b", "c"}


def test_joining_twice_under_one_instance_is_joining_once() -> None:
    """The first welcome was lost: the second stream gets it again, and the first one is ended."""
    run = waiting()
    first = run.join("a")
    stream = run.stream(first)
    assert run.step(run.joining("a")) == ["CloseStream", "Send Welcome", "agent-back"]
    assert run.commands[0] == events.CloseStream(stream, None)
    assert run.welcome().session_token == first
    assert len(run.state.members.sessions) == 1


@pytest.mark.parametrize("also", [(), ("b",)])
def test_a_live_process_keeps_its_agents(also: tuple[str, ...]) -> None:
    run = waiting()
    run.join("a")
    run.refuse(run.joining("a", *also, instance="another"), errors.AgentIdTakenError, "agent 'a'.*5 s")
    run.refuse(run.joining("a", "c"), errors.AgentIdTakenError)


def test_a_group_with_one_live_agent_displaces_nobody() -> None:
    """Both lost and live agents are named: the lost one stays, as nothing changes where a join is refused."""
    run, a, b = collecting()
    run.step(events.StreamClosed(a, run.stream(a)))
    run.refuse(run.joining("a", "b", instance="group"), errors.AgentIdTakenError, "agent 'b'")
    run.refuse(run.joining("b", "a", "c", instance="group"), errors.AgentIdTakenError, "agent 'b'")
    assert set(run.state.members.sessions) == {a, b}


def test_a_new_process_takes_the_place_of_a_lost_one() -> None:
    run, a, b = collecting()
    run.step(events.StreamClosed(a, run.stream(a)))
    kinds = run.step(run.joining("a", instance="started again"))
    assert kinds == ["agent-gone", "Send Welcome", "agent-joined"]
    again = run.welcome().session_token
    assert (a in run.state.members.sessions, run.welcome().first_round) == (False, 0)
    assert run.state.members.sessions[again].reconnects == 1
    assert (run.state.open_round.awaited, dict(run.state.members.departures)) == ({"a", "b"}, {})
    run.refuse(events.HeartbeatArrived(a), errors.SessionUnknownError)
    run.gradient(b)
    run.gradient(again)
    run.compute()
    report = next(c.report for c in run.commands if isinstance(c, events.ReportRound))
    assert (report.contributors, report.departed_agent_ids) == (2, ("a",))


def test_a_new_process_of_an_agent_that_has_counted_waits_for_the_next_round() -> None:
    run, a, b = collecting()
    run.gradient(a)
    run.step(events.StreamClosed(a, run.stream(a)))
    again = run.join("a", instance="started again")
    assert run.welcome().first_round == 1
    assert run.state.open_round.awaited == {"b"}
    run.gradient(again)
    assert run.receipt().disposition is Disposition.DUPLICATE
    assert run.gradient(b) == ["ComputeBasis"]
    run.compute()
    assert dict(run.state.history.rounds_counted) == {"a": 1, "b": 1}


def test_a_lost_group_that_comes_back_smaller_holds_nothing_up() -> None:
    run = CoordinatorDriver(agents=3)
    group, c = run.join("a", "b"), run.join("c")
    run.gradient(group, 0, "b")
    run.gradient(c)
    run.step(events.StreamClosed(group, run.stream(group)))
    assert run.state.open_round.awaited == {"a"}
    kinds = run.step(run.joining("b", instance="smaller"))
    assert kinds == ["agent-gone", "Send Welcome", "agent-joined", "ComputeBasis"], "a is gone: no agent is awaited"
    assert set(run.state.members.departures) == {"a"}


def test_a_group_put_together_anew_does_not_count_an_agent_twice() -> None:
    """b has counted in its old group: the sum over b and c comes in the next round, and is not awaited in this."""
    run = CoordinatorDriver(agents=3)
    group, c = run.join("a", "b"), run.join("c")
    run.gradient(group)
    for token in (group, c):
        run.step(events.StreamClosed(token, run.stream(token)))
    kinds = run.step(run.joining("b", "c", instance="another"))
    assert kinds[-1] == "ComputeBasis", "a and b have counted, and c is not awaited"
    assert run.welcome().first_round == 1
    run.compute()
    assert run.state.open_round.awaited == {"b", "c"}
    run.gradient(run.state.members.hosts["b"])
    assert run.state.phase is CLOSING


# Coming back --------------------------------------------------------------------------------------------


def test_a_broken_stream_loses_nothing_when_it_comes_back() -> None:
    run, a, _ = collecting()
    assert run.step(events.StreamClosed(a, run.stream(a))) == ["agent-lost"]
    assert run.state.members.sessions[a].phase is AgentPhase.LOST
    assert run.state.open_round.awaited == {"a", "b"}, "it is waited for"
    run.now = SESSION_TIMEOUT - 1.0
    assert run.step(run.resuming(a)) == ["Send Welcome", "agent-back"]
    assert (run.welcome().session_token, run.welcome().first_round) == (a, 0)
    session = run.state.members.sessions[a]
    assert (session.phase, session.reconnects, session.last_seen) == (AgentPhase.CONNECTED, 1, run.now)


def test_coming_back_over_a_stream_that_is_not_known_to_be_broken_ends_it() -> None:
    run, a, _ = collecting()
    old = run.stream(a)
    run.step(run.resuming(a))
    assert run.commands[0] == events.CloseStream(old, None)
    assert run.step(events.StreamClosed(a, old)) == [], "the end of a stale stream says nothing"
    assert run.state.members.sessions[a].phase is AgentPhase.CONNECTED
    run.step(events.StreamClosed(a, run.stream(a)))
    assert run.state.members.sessions[a].phase is AgentPhase.LOST


def test_who_comes_back_learns_whether_the_open_round_has_its_gradient() -> None:
    run, a, b = collecting()
    run.gradient(a)
    run.step(run.resuming(a))
    assert run.welcome().first_round == 1
    run.gradient(b)
    run.step(run.resuming(b))
    assert run.welcome().first_round == 1, "the round closes"
    run.compute()
    run.step(run.resuming(b))
    assert run.welcome().first_round == 1


def test_a_group_that_has_sent_a_part_comes_back_to_the_open_round() -> None:
    run = CoordinatorDriver()
    group = run.join("a", "b")
    run.gradient(group, 0, "a")
    run.step(run.resuming(group))
    assert run.welcome().first_round == 0


def test_resuming_before_the_start() -> None:
    run = waiting()
    a = run.join("a")
    run.step(run.resuming(a))
    assert (run.welcome().started, run.welcome().first_round) == (False, 0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"resumption": Resumption("token-9", "run-1", 0)}, "not one of run run-1"),
        ({"resumption": Resumption("token-1", "run-0", 0)}, "not one of run run-1"),
        ({"instance": "another", "resumption": Resumption("token-1", "run-1", 0)}, "another process"),
        ({"agent_ids": ("a", "c"), "resumption": Resumption("token-1", "run-1", 0)}, "another process"),
    ],
)
def test_a_session_that_is_not_the_callers_cannot_be_resumed(changes: dict[str, object], text: str) -> None:
    run, *_ = collecting()
    run.refuse(run.joining("a", **changes), errors.SessionUnknownError, text)


# Gradients ----------------------------------------------------------------------------------------------


def test_a_round_closes_when_all_gradients_are_there() -> None:
    run, a, b = collecting()
    assert run.gradient(a) == []
    assert (run.state.open_round.awaited, run.state.open_round.counted) == ({"b"}, {"a"})
    assert run.gradient(b) == ["ComputeBasis"]
    assert run.state.phase is CLOSING
    run.now = 2.5
    assert run.compute() == ["Broadcast BasisUpdate", "ReportRound"]
    assert run.state.durability.durable_round == 1
    assert (run.state.phase, run.state.round, run.state.open_round.awaited) == (COLLECTING, 1, {"a", "b"})
    assert (run.state.open_round.counted, dict(run.state.history.accepted)) == (frozenset(), {0: {"a", "b"}})
    update, report = run.sent()[0], run.report()
    assert update.stamp == report.stamp == run.state.stamp
    assert update.basis is report.basis is run.state.basis
    assert (report.closed_round, report.seconds, report.contributors, report.finished) == (0, 2.5, 2, False)


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


def test_the_sum_goes_in_agent_order_whoever_comes_first() -> None:
    names = ["a", "b", "c", "d"]
    orders = list(itertools.permutations(names))
    for order in random.Random(1).sample(orders, 12):
        run = CoordinatorDriver(agents=4)
        tokens = {name: run.join(name) for name in order}
        for name in order:
            run.gradient(tokens[name], value=float(names.index(name)))
        (command,) = run.commands
        assert isinstance(command, events.ComputeBasis)
        assert command.basis is run.state.basis
        values = [contribution.gradient.values[0, 0] for contribution in command.contributions]
        assert values == [0.0, 1.0, 2.0, 3.0]


def test_groups_and_parts_of_groups_are_summed_in_order() -> None:
    run = CoordinatorDriver(agents=5)
    group, other, single = run.join("a", "c", "e"), run.join("b"), run.join("d")
    run.gradient(single, value=3.0)
    run.gradient(group, 0, "e", value=4.0)
    assert run.state.open_round.awaited == {"a", "b", "c"}
    run.gradient(group, 0, "c", "a", value=0.0)
    run.gradient(other, value=1.0)
    (command,) = run.commands
    assert isinstance(command, events.ComputeBasis)
    assert [c.gradient.values[0, 0] for c in command.contributions] == [0.0, 1.0, 3.0, 4.0]
    assert [c.weight for c in command.contributions] == [2.0, 1.0, 1.0, 1.0]
    run.compute()
    assert dict(run.state.history.rounds_counted) == dict.fromkeys("abcde", 1), "two uploads, but one round"


def test_no_agent_ids_means_all_of_the_session() -> None:
    run = CoordinatorDriver()
    group = run.join("a", "b")
    assert run.step(events.GradientArrived(group, upload(0, weight=2.0))) == ["ComputeBasis"]


def test_a_duplicate_changes_nothing_but_when_it_was_heard() -> None:
    run, a, b = collecting()
    run.gradient(a, value=1.0)
    run.now = 1.0
    assert run.gradient(a, value=9.0) == ["Send Receipt"]
    assert run.receipt().disposition is Disposition.DUPLICATE
    assert run.receipt().gradient_round == 0
    assert run.state.members.sessions[a].last_seen == 1.0
    run.gradient(b)
    assert run.commands[0].contributions[0].gradient.values[0, 0] == 1.0, "the first counts"


def test_a_duplicate_is_known_while_the_round_closes_and_in_the_next() -> None:
    run, a, _ = closing()
    run.gradient(a)
    assert run.receipt().disposition is Disposition.DUPLICATE
    run.compute()
    run.gradient(a, 0)
    assert run.receipt().disposition is Disposition.DUPLICATE
    assert run.receipt().stamp.round == 1
    assert run.state.open_round.counted == frozenset()


def test_a_late_gradient_is_told_so() -> None:
    run, a, b = collecting()
    c = run.join("c")
    run.gradient(a)
    run.gradient(b)
    run.wait(ROUND)
    run.compute()
    late = run.join("c", instance="again")
    run.gradient(late, 0)
    assert run.receipt().disposition is Disposition.LATE
    assert c not in run.state.members.sessions


def test_a_gradient_of_long_ago_is_late() -> None:
    run, a, b = collecting()
    for _ in range(2):
        run.gradient(a)
        run.gradient(b)
        run.compute()
    run.gradient(a, 0)
    assert run.receipt().disposition is Disposition.LATE


def test_a_gradient_after_the_end_is_late() -> None:
    run, a, b = collecting(rounds=1)
    run.gradient(a)
    run.gradient(b)
    run.compute()
    run.gradient(a, 0)
    assert run.receipt().disposition is Disposition.DUPLICATE
    run, a, _ = finished()
    run.gradient(a)
    assert run.receipt().disposition is Disposition.LATE
    assert run.state.phase is FINISHED


def gradient(token: str, round_number: int, *agents: str, weight: float = 1.0) -> events.GradientArrived:
    return events.GradientArrived(token, upload(round_number, *agents, weight=weight))


def test_gradients_out_of_turn_are_refused() -> None:
    run = waiting()
    a = run.join("a")
    run.refuse(gradient(a, 0), errors.OutOfTurnError, "round 0.*not open yet")
    run, a, _ = collecting()
    run.refuse(gradient(a, 1), errors.OutOfTurnError, "a gradient of round 1 came while round 0 is open")
    run, a, _ = closing()
    run.refuse(gradient(a, 1), errors.OutOfTurnError)
    run, a, _ = finished()
    run.refuse(gradient(a, 1), errors.OutOfTurnError)


def test_gradients_of_nobody_are_refused() -> None:
    run, *_ = collecting()
    run.refuse(gradient("token-9", 0), errors.SessionUnknownError, "run run-1")


def test_gradients_for_others_are_refused() -> None:
    run, a, _ = collecting()
    run.refuse(gradient(a, 0, "a", "b", weight=2.0), errors.InvalidMessageError, "'b', which this process does not")


@pytest.mark.parametrize("weight", [2.0, 0.5, 1.0 + 1e-9])
def test_the_weight_is_the_number_of_agents(weight: float) -> None:
    run, a, _ = collecting()
    run.refuse(gradient(a, 0, weight=weight), errors.InvalidMessageError, "weight is .*over 1 agents")


def test_a_sum_over_an_agent_that_has_counted_is_refused() -> None:
    run = CoordinatorDriver()
    group = run.join("a", "b")
    run.gradient(group, 0, "b")
    run.refuse(
        gradient(group, 0, "a", "b", weight=2.0), errors.InvalidMessageError, "'b', whose gradient has counted"
    )


def test_nothing_of_an_upload_is_copied() -> None:
    """The coordinator keeps what arrives by reference, and does the arithmetic once."""
    run, a, b = collecting()
    contribution = Contribution(DenseMatrix(np.ones((D, R))))
    run.step(events.GradientArrived(a, GradientUpload(0, contribution)))
    run.gradient(b)
    assert run.commands[0].contributions[0] is contribution


# Closing ------------------------------------------------------------------------------------------------


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


# Time ---------------------------------------------------------------------------------------------------


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


def test_the_process_of_a_join_is_as_it_says() -> None:
    """The driver's own joins carry sorted names, as the codec gives them."""
    assert join("b", "a").agent_ids == ("a", "b")


# What comes with a basis -----------------------------------------------------------------------------------------


def test_a_head_covariance_is_announced_with_every_basis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Method, "has_head_covariance", True)
    run = CoordinatorDriver(agents=1, rounds=2)
    token = run.join("a")
    announced = [run.welcome().head_covariance]
    changed = np.diag([2.0, 0.5])
    for number in range(2):
        run.gradient(token, number)
        (command,) = (each for each in run.commands if isinstance(each, events.ComputeBasis))
        assert command.head_covariance is run.state.head_covariance
        event = moved(run.state, number)
        run.step(replace(event, move=replace(event.move, head_covariance=changed)))
        (store,) = (each for each in run.commands if isinstance(each, events.StoreRound))
        run.step(events.RoundsStored((store.record,)))
        (told,) = (each.message for each in run.commands if isinstance(each, events.Broadcast))
        announced.append(told.head_covariance)
    assert isinstance(told, Finish)
    np.testing.assert_array_equal(announced, [np.eye(R), changed, changed])


def test_a_coordinator_that_resumes_announces_the_stored_head_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Method, "has_head_covariance", True)
    run = CoordinatorDriver(agents=1)
    spec, basis, changed, memory = run.state.specification, run.state.basis, np.diag([2.0, 0.5]), np.ones(9)
    saved = SavedRun("run-1", spec, 3, basis=basis, head_covariance=changed, step_memory=memory)
    run.restart(saved)
    run.join("a")
    assert run.welcome().head_covariance is changed
    assert run.state.history.step_memory is memory
    run.restart(SavedRun("run-1", spec))
    np.testing.assert_array_equal(run.state.head_covariance, np.eye(R))


def test_a_head_covariance_that_a_round_does_not_change_stays() -> None:
    run = CoordinatorDriver(agents=1)
    sent, covariance = (Contribution(DenseMatrix(np.ones((D, R)))),), np.eye(R)
    command = events.ComputeBasis(0, run.state.basis, sent, None, covariance)
    found = computed_basis(command, run.state.specification.method)
    assert isinstance(found, events.BasisComputed)
    assert found.move.head_covariance is covariance
