"""Counting gradients: which of them count in the open round, in which order; late, stale and repeated ones."""

import itertools
import random

import numpy as np
import pytest
from coordinator_runs import (
    CLOSING,
    COLLECTING,
    FINISHED,
    QUORUM,
    closing,
    collecting,
    finished,
    gradient,
    quorum_of_three,
    waiting,
)
from runs import ROUND, CoordinatorDriver, D, R, moved, upload

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, to_dense
from cospan.server.machine import events
from cospan.server.machine.opening import restrict_to_replay
from cospan.wire import errors
from cospan.wire.messages import Disposition, GradientUpload

# Order ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replayed", [False, True])
def test_a_complete_round_has_one_order_of_agents_whatever_order_its_gradients_came_in(replayed: bool) -> None:
    orders = []
    for together in (False, True):
        for order in (range(3), reversed(range(3))):
            run = CoordinatorDriver(agents=4, rounds=9)
            tokens = [run.join(*names) for names in ("c", "ab", "d")]
            if replayed:  # only two of the three sessions are awaited
                durability = run.state.durability.evolve(replay_agents=frozenset("abd"))
                run.state = restrict_to_replay(run.state.evolve(durability=durability))
            senders = [tokens[place] for place in order if not (replayed and place == 0)]
            if together:
                names = {token: run.state.members.sessions[token].agent_ids for token in senders}
                sent = {token: upload(0, *names[token], weight=float(len(names[token]))) for token in senders}
                run.step(events.GradientsArrived(sent))
            else:
                for token in senders:
                    run.gradient(token)
            orders.append(list(run.state.open_round.counted.blocks))
    assert all(order == orders[0] for order in orders)


@pytest.mark.parametrize("illegal", ["none", "unknown", "earlier", "part", "weight", "counted"])
def test_gradients_that_cannot_be_counted_together_are_refused_and_change_nothing(illegal: str) -> None:
    run = CoordinatorDriver(agents=4, rounds=9)
    a, bc, d = run.join("a"), run.join("b", "c"), run.join("d")
    run.gradient(d)
    legal = {a: upload(0)}
    uploads = {
        "none": {},
        "unknown": legal | {"token": upload(0)},
        "earlier": legal | {bc: upload(1, weight=2.0)},
        "part": legal | {bc: upload(0, "b")},
        "weight": legal | {bc: upload(0, weight=1.0)},
        "counted": legal | {d: upload(0)},
    }[illegal]
    before = run.state
    with pytest.raises(ValueError, match="batch"):
        run.step(events.GradientsArrived(uploads))
    assert run.state is before


def test_gradients_are_counted_together_only_while_a_round_collects() -> None:
    run = CoordinatorDriver(agents=2)
    a = run.join("a")
    with pytest.raises(ValueError, match="waiting"):
        run.step(events.GradientsArrived({a: upload(0)}))
    run.join("b")
    run.step(events.StopRequested("stop"))
    with pytest.raises(ValueError, match="finished"):
        run.step(events.GradientsArrived({a: upload(0)}))


# Stale gradients --------------------------------------------------------------------------------------------


def test_a_stale_gradient_counts_in_the_open_round_where_that_is_allowed() -> None:
    run, (a, b, c) = quorum_of_three(max_staleness=1)
    run.gradient(a)
    run.gradient(b)
    run.wait(2.0)
    run.compute()
    assert run.gradient(c, 0) == []
    assert run.state.open_round.stale == {("c",): 0}
    run.gradient(a)
    assert run.gradient(b) == ["ComputeBasis"]
    (record,) = stored_records(run)
    assert record.contributors == {"a": 1, "b": 1, "c": 0}


def stored_records(run: CoordinatorDriver) -> list[events.RoundRecord]:
    run.step(moved(run.state, run.state.round))
    return [command.record for command in run.commands if isinstance(command, events.StoreRound)]


def test_a_newer_gradient_takes_the_place_of_a_stale_one() -> None:
    run, (a, b, c) = quorum_of_three(max_staleness=1)
    run.gradient(a)
    run.gradient(b)
    run.wait(2.0)
    run.compute()
    run.gradient(c, 0)
    run.gradient(c)
    assert run.state.open_round.counted == {"c"}
    assert run.state.open_round.stale == {}
    run.gradient(c, 0)
    assert run.receipt().disposition is Disposition.LATE


def test_a_newer_gradient_of_some_takes_the_place_of_a_stale_sum_and_the_others_are_awaited_again() -> None:
    run = CoordinatorDriver(agents=4, rounds=9, max_staleness=1, **QUORUM)
    a, b, group = run.join("a"), run.join("b"), run.join("c", "d")
    run.gradient(a)
    run.gradient(b)
    run.wait(2.0)
    run.compute()
    run.gradient(group, 0)
    assert run.state.open_round.awaited == {"a", "b"}
    run.gradient(group, None, "c")
    assert (run.state.open_round.counted, run.state.open_round.awaited) == ({"c"}, {"a", "b", "d"})
    run.gradient(a)
    run.gradient(b)
    assert run.gradient(group, None, "d") == ["ComputeBasis"]
    (record,) = stored_records(run)
    assert record.contributors == dict.fromkeys("abcd", 1)


def test_whatever_part_of_a_group_counts_the_round_is_summed_in_the_order_of_the_names() -> None:
    run = CoordinatorDriver(agents=4, rounds=9)
    group, b = run.join("a", "c", "d"), run.join("b")
    run.gradient(group, None, "d", value=4.0)
    run.gradient(b, value=2.0)
    run.gradient(group, None, "a", "c", value=3.0)
    (command,) = (command for command in run.commands if isinstance(command, events.ComputeBasis))
    assert [each.weight for each in command.contributions] == [2.0, 1.0, 1.0]
    assert [float(to_dense(each.gradient)[0, 0]) for each in command.contributions] == [3.0, 2.0, 4.0]


def test_a_gradient_that_has_counted_does_not_count_again_as_a_stale_one() -> None:
    run, tokens = quorum_of_three(max_staleness=2)
    for token in tokens:
        run.gradient(token)
    run.compute()
    run.gradient(tokens[0], 0)
    assert run.receipt().disposition is Disposition.DUPLICATE
    assert run.state.open_round.counted == set()


def test_a_stale_gradient_that_counted_late_is_known_in_the_round_after() -> None:
    run, (a, b, c) = quorum_of_three(max_staleness=2)
    run.gradient(a)
    run.gradient(b)
    run.wait(2.0)
    run.compute()
    run.gradient(c, 0)
    run.gradient(a)
    run.gradient(b)
    run.compute()
    run.gradient(c, 0)
    assert run.receipt().disposition is Disposition.DUPLICATE


def test_what_is_older_than_allowed_is_late() -> None:
    run, (a, b, c) = quorum_of_three(max_staleness=1)
    for _ in range(2):
        run.gradient(a)
        run.gradient(b)
        run.step(events.HeartbeatArrived(c))
        run.wait(2.0)
        run.compute()
    run.gradient(c, 0)
    assert run.receipt().disposition is Disposition.LATE


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
