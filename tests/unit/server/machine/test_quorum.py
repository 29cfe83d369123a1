"""Rounds with a quorum: how many gradients a round needs, and how long it waits for the others."""

import pytest
from coordinator_runs import CLOSING, COLLECTING, QUORUM, quorum_of_three
from runs import ROUND, SESSION_TIMEOUT, CoordinatorDriver, specification

from cospan.core.run_fields import Participation
from cospan.server.machine import events
from cospan.server.machine import quorum as quorum_rules
from cospan.wire.messages import Disposition


def test_a_round_with_its_quorum_waits_until_the_deadline_and_no_longer() -> None:
    run, (a, b, _) = quorum_of_three()
    run.gradient(a)
    run.now += 1.0
    assert run.gradient(b) == []
    assert run.wait(0.875) == []
    assert run.wait(0.125) == ["ComputeBasis", "agent-absent"]
    assert run.commands[1].agent_ids == ("c",)  # type: ignore[union-attr]
    run.compute()
    report = run.report()
    assert (report.contributors, report.absent_agent_ids) == (2, ("c",))
    assert run.state.history.absent_rounds == {"c": 1}


def test_all_gradients_close_a_round_before_its_deadline() -> None:
    run, tokens = quorum_of_three()
    assert [run.gradient(token) for token in tokens] == [[], [], ["ComputeBasis"]]
    run.compute()
    assert run.report().absent_agent_ids == ()


def test_without_its_quorum_a_round_waits_on_and_its_last_gradient_closes_it() -> None:
    run, (a, b, _) = quorum_of_three()
    run.gradient(a)
    assert run.wait(4.0) == []
    assert run.gradient(b) == ["ComputeBasis", "agent-absent"]


def test_a_quorum_never_waits_longer_than_a_round_may_take() -> None:
    run, (a, _b, _c) = quorum_of_three(deadline_seconds=1e9)
    run.gradient(a)
    while run.state.phase is COLLECTING and run.now < 2 * ROUND:
        for token in list(run.state.members.sessions):
            run.step(events.HeartbeatArrived(token))
        run.wait(SESSION_TIMEOUT / 2)
    assert run.state.phase is CLOSING
    assert run.now <= ROUND


def test_who_is_absent_again_is_named_once() -> None:
    run, (a, b, c) = quorum_of_three()
    for number in range(2):
        run.gradient(a)
        run.gradient(b)
        run.step(events.HeartbeatArrived(c))
        kinds = run.wait(2.0)
        assert ("agent-absent" in kinds) == (number == 0)
        run.compute()
    assert run.state.history.absent_rounds == {"c": 2}
    assert run.report().absent_agent_ids == ("c",)


def test_a_gradient_after_the_deadline_is_late() -> None:
    run, (a, b, c) = quorum_of_three()
    run.gradient(a)
    run.gradient(b)
    run.wait(2.0)
    run.compute()
    run.gradient(c, 0)
    assert run.receipt().disposition is Disposition.LATE
    assert run.gradient(c) == []
    assert run.state.open_round.counted == {"c"}


@pytest.mark.parametrize(
    ("quorum", "agents", "needed"), [(0.5, 3, 2), (0.5, 4, 2), (0.01, 9, 1), (3, 9, 3), (7, 2, 2)]
)
def test_a_quorum_is_a_share_or_a_number(quorum: float, agents: int, needed: int) -> None:
    spec = specification(participation=Participation.QUORUM, quorum=quorum)
    assert quorum_rules.required_gradients(spec, agents) == needed


def test_without_a_quorum_all_are_needed() -> None:
    assert quorum_rules.required_gradients(specification(), 7) == 7


def test_a_deadline_is_learnt_from_how_long_the_quorum_takes() -> None:
    run, (a, b, c) = quorum_of_three(deadline_seconds=0.0)
    for _ in range(6):  # nothing is known of the pace before the first round, so that one waits for all
        run.gradient(a)
        run.now += 0.5
        run.gradient(b)
        run.gradient(c)
        run.compute()
    assert run.state.history.quorum_pace is not None
    assert run.state.history.quorum_pace.mean == pytest.approx(0.5)
    run.gradient(a)
    run.now += 0.5
    run.gradient(b)
    assert run.wait(0.25) == []
    assert run.wait(1.75) == ["ComputeBasis", "agent-absent"]


def test_a_slower_fleet_makes_a_learnt_deadline_longer() -> None:
    spec = specification(participation=Participation.QUORUM, quorum=0.5)
    pace = None
    for _ in range(50):
        pace = quorum_rules.update_pace(pace, 0.1)
    fast = quorum_rules.deadline_seconds(spec, pace)
    for _ in range(50):
        pace = quorum_rules.update_pace(pace, 1.0)
    assert 0.2 <= fast < 0.3
    assert 1.9 < quorum_rules.deadline_seconds(spec, pace) < 3.0
    assert quorum_rules.deadline_seconds(spec, None) == ROUND


def test_who_joins_may_take_the_quorum_from_a_round() -> None:
    run, (a, b, _c) = quorum_of_three()
    run.gradient(a)
    run.gradient(b)
    run.join("d")
    run.join("e")
    assert run.wait(2.0) == [], "two of five are no quorum of a half"


def test_who_departs_may_make_a_quorum_of_those_that_have_counted() -> None:
    run = CoordinatorDriver(**{"agents": 5, "rounds": 9} | QUORUM)
    a, b, _c, d, _e = (run.join(name) for name in "abcde")
    run.gradient(a)
    run.gradient(b)
    assert run.wait(1.0) == [], "two of five are no quorum of a half"
    run.step(events.LeaveArrived(d, "for a test"))
    assert run.wait(0.875) == []
    assert run.wait(0.125) == ["ComputeBasis", "agent-absent"], "two of four are, and the deadline is over"


def test_a_round_closes_at_once_where_a_departure_makes_a_quorum_after_the_deadline() -> None:
    run = CoordinatorDriver(**{"agents": 5, "rounds": 9} | QUORUM)
    a, b, _c, d, _e = (run.join(name) for name in "abcde")
    run.gradient(a)
    run.gradient(b)
    assert run.wait(3.0) == []
    assert run.step(events.LeaveArrived(d, "for a test"))[-2:] == ["ComputeBasis", "agent-absent"]
