"""Rounds with a quorum, stale gradients, running ahead of the disk, and going on after a restart."""

from dataclasses import replace
from typing import Any

import pytest
from runs import RETURN, ROUND, SESSION_TIMEOUT, START, CoordinatorDriver, Disk, moved, specification, upload

from cospan.core.linalg.matrices import to_dense
from cospan.core.run_fields import Participation
from cospan.server.machine import events
from cospan.server.machine import quorum as quorum_rules
from cospan.server.machine.opening import restrict_to_replay
from cospan.wire import errors
from cospan.wire.messages import AgentPhase, BasisUpdate, Disposition, Drain, FinishCause, Resumption, RunPhase

WAITING, COLLECTING, CLOSING, FINISHED, DRAINING = RunPhase
QUORUM: dict[str, Any] = {"participation": Participation.QUORUM, "quorum": 0.5, "deadline_seconds": 2.0}


def quorum_of_three(**changes: Any) -> tuple[CoordinatorDriver, list[str]]:
    """Agents a, b and c in round 0; two are a quorum, and after 2 s no one else is waited for."""
    run = CoordinatorDriver(**{"agents": 3, "rounds": 9} | QUORUM | changes)
    return run, [run.join(name) for name in "abc"]


def all_of_two(**changes: Any) -> tuple[CoordinatorDriver, Disk, str, str]:
    """Agents a and b in round 0, which waits for both; and a disk that holds what was stored so far."""
    run = CoordinatorDriver(**{"rounds": 9} | changes)
    disk = Disk(run.state.specification)
    tokens = []
    for name in "ab":
        tokens.append(run.join(name))
        disk.write(run.commands)
    return run, disk, tokens[0], tokens[1]


def close(run: CoordinatorDriver, disk: Disk) -> list[str]:
    """The open round is computed and stored."""
    told = run.step(moved(run.state, run.state.round))
    for command in (commands := run.commands):
        if isinstance(command, events.StoreRound):
            disk.write([command])
            told += run.stored(command)
    run.commands = (*commands, *run.commands)
    return told


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


# A quorum ---------------------------------------------------------------------------------------------------


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


# A smaller start --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("here", "starts"), [("ab", True), ("a", False)])
def test_a_fleet_that_is_not_complete_in_time_starts_with_its_least_number(here: str, starts: bool) -> None:
    run = CoordinatorDriver(agents=3, min_agents=2)
    for name in here:
        run.join(name)
    run.now = START
    for token in list(run.state.members.sessions):
        run.step(events.HeartbeatArrived(token))
    kinds = run.wait(0.0)
    assert ("run-started" in kinds) == starts
    if not starts:
        assert run.state.finish_cause is FinishCause.NOT_STARTED
        assert "only 1 of at least 2 agents joined" in run.commands[1].text  # type: ignore[union-attr]


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


# After a restart --------------------------------------------------------------------------------------------


def restarted(rounds: int = 1, names: str = "ab", **changes: Any) -> tuple[CoordinatorDriver, Disk, dict[str, str]]:
    """A coordinator that was killed after that many rounds and resumes from the disk; the agents' tokens."""
    run = CoordinatorDriver(**{"rounds": 9, "agents": len(names)} | changes)
    disk = Disk(run.state.specification)
    tokens = {}
    for name in names:
        tokens[name] = run.join(name)
        disk.write(run.commands)
    for _ in range(rounds):
        for token in tokens.values():
            run.gradient(token)
        close(run, disk)
    run.restart(disk.saved())
    return run, disk, tokens


def test_a_restarted_run_waits_for_those_who_took_part_and_goes_on_with_them_alone() -> None:
    run, _, tokens = restarted()
    assert (run.state.phase, run.state.round, run.state.config.incarnation) == (WAITING, 1, 2)
    assert run.state.durability.replay_agents == {"a", "b"}
    assert run.step(run.resuming(tokens["a"])) == ["Send Welcome", "agent-back"]
    assert run.step(run.joining("c")) == ["Send Welcome", "agent-joined"]
    assert run.step(run.resuming(tokens["b"])) == [
        *("Send Welcome", "agent-back"),
        *("Broadcast BasisUpdate", "run-resumed"),
    ]
    assert run.state.open_round.replaying
    assert run.state.open_round.awaited == {"a", "b"}
    late = run.state.members.hosts["c"]
    run.gradient(late)
    assert run.receipt().disposition is Disposition.LATE
    run.gradient(tokens["a"])
    assert run.gradient(tokens["b"]) == ["ComputeBasis"]


def test_who_is_new_takes_part_in_the_round_after() -> None:
    run, disk, tokens = restarted()
    run.step(run.joining("c"))
    for token in tokens.values():
        run.step(run.resuming(token))
        assert run.state.members.hosts.keys() >= {"c"}
    for token in tokens.values():
        run.gradient(token)
    close(run, disk)
    assert run.state.open_round.awaited == {"a", "b", "c"}


@pytest.mark.parametrize(("told", "frozen_until"), [(1, 2), (2, 2), (3, 3), (10**9, 3), (None, 3)], ids=str)
def test_nobody_else_takes_part_in_rounds_that_were_told_before_the_restart(
    told: int | None, frozen_until: int
) -> None:
    """A contributor that does not say which round it was told of may have been told of the latest."""
    run, disk, tokens = restarted(max_inflight_rounds=2)
    last = {"a": 0, "b": told}
    for name, token in tokens.items():
        number = last[name]
        resumption = None if number is None else Resumption(token, "run-1", number)
        run.step(run.resuming(token, resumption=resumption))
    run.join("c", resumption=None)
    for number in range(1, 4):
        assert run.state.open_round.replaying == (number < frozen_until)
        assert run.state.open_round.awaited == ({"a", "b"} if number < frozen_until else {"a", "b", "c"})
        for token in tokens.values():
            run.gradient(token)
        if run.state.open_round.awaited:
            run.gradient(run.state.members.hosts["c"])
        close(run, disk)


def test_a_round_to_repeat_opens_for_all_when_nobody_is_left_who_knows_it() -> None:
    """The agents that have to repeat it left while the round before closed: no later event would open it."""
    run, disk, tokens = restarted(max_inflight_rounds=2)
    for token in tokens.values():
        run.step(run.resuming(token, resumption=None))
    c = run.join("c", resumption=None)
    for token in tokens.values():
        run.gradient(token)
    for token in tokens.values():
        run.step(events.LeaveArrived(token, "to come back", returning=True))
    close(run, disk)
    assert run.state.round == 2
    assert not run.state.open_round.replaying
    assert run.state.open_round.awaited == {"c"}
    assert run.gradient(c) == ["ComputeBasis"]


def test_a_restarted_run_does_not_wait_for_long_for_who_does_not_come_back() -> None:
    run, _, tokens = restarted()
    run.step(run.resuming(tokens["a"]))
    assert run.wait(RETURN - 0.125) == []
    run.step(events.HeartbeatArrived(tokens["a"]))
    kinds = run.wait(0.125)
    assert "run-resumed" in kinds
    assert not run.state.open_round.replaying
    run.gradient(tokens["a"])
    run.now += SESSION_TIMEOUT
    run.step(events.HeartbeatArrived(tokens["a"]))
    run.step(events.Tick())
    assert run.state.phase is CLOSING


def test_who_is_back_has_time_to_be_joined_by_the_others_however_short_the_wait_for_a_first_agent_is() -> None:
    run, _, tokens = restarted()
    run.state = run.state.evolve(config=run.state.config.evolve(start_seconds=RETURN / 3.0))
    run.step(run.resuming(tokens["a"]))
    assert run.wait(RETURN - 0.125) == []
    run.step(events.HeartbeatArrived(tokens["a"]))
    assert "run-resumed" in run.wait(0.125)


def test_a_restarted_run_with_a_quorum_resumes_with_a_quorum_of_its_last_contributors() -> None:
    run, disk, tokens = restarted(names="abc", **QUORUM)
    assert "run-resumed" not in run.step(run.resuming(tokens["a"]))
    assert "run-resumed" in run.step(run.resuming(tokens["b"]))
    assert not run.state.open_round.replaying, "no round was told that is not on the disk"
    assert "c" in run.state.open_round.awaited, "c may come back before the deadline"
    run.gradient(tokens["a"])
    run.gradient(tokens["b"])
    run.wait(2.0)
    assert run.state.phase is CLOSING
    close(run, disk)
    assert run.state.durability.durable_round == run.state.round == 2


def test_a_restart_that_nobody_comes_back_to_ends_in_time_and_can_be_repeated() -> None:
    run, disk, _ = restarted()
    kinds = run.wait(RETURN) + run.wait(START - RETURN)
    assert "EndRun" in kinds
    assert run.state.finish_cause is FinishCause.NO_AGENTS
    run.restart(disk.saved())
    assert run.state.phase is WAITING


def test_before_its_first_round_a_restarted_run_waits_for_its_streams() -> None:
    run, _, tokens = restarted(rounds=0)
    assert run.state.members.hosts.keys() == {"a", "b"}
    assert run.wait(1.0) == [], "the sessions are known, but none is connected"
    run.step(run.resuming(tokens["a"]))
    assert "run-started" in run.step(run.resuming(tokens["b"]))


def test_a_gradient_of_a_stored_round_is_a_duplicate_after_the_restart() -> None:
    run, _, tokens = restarted()
    for token in tokens.values():
        run.step(run.resuming(token))
    run.gradient(tokens["a"], 0)
    assert run.receipt().disposition is Disposition.DUPLICATE


def test_where_those_who_were_expected_are_gone_the_round_goes_on_with_whoever_is_there() -> None:
    run, _, tokens = restarted()
    run.step(run.joining("c"))
    for token in tokens.values():
        run.step(run.resuming(token))
    for token in tokens.values():
        kinds = run.step(events.LeaveArrived(token, "for a test"))
    assert kinds[-2:] == ["Broadcast BasisUpdate", "run-resumed"]
    assert run.state.open_round.awaited == {"c"}


def test_counts_of_rounds_go_on() -> None:
    run, _, _ = restarted(rounds=3)
    assert run.state.history.rounds_counted == {"a": 3, "b": 3}
    assert run.state.last_rounds == {"a": 2, "b": 2}
    assert {session.phase for session in run.state.members.sessions.values()} == {AgentPhase.LOST}


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
