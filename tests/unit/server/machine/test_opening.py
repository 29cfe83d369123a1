"""Opening rounds: the first one, and after a restart the one that has to be repeated."""

from dataclasses import replace
from typing import Any

import pytest
from coordinator_runs import CLOSING, COLLECTING, QUORUM, WAITING, close, waiting
from runs import RETURN, SESSION_TIMEOUT, START, CoordinatorDriver, Disk, moved

from cospan.server.machine import events
from cospan.wire.messages import AgentPhase, Disposition, FinishCause, Resumption

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


def test_a_process_that_has_summed_over_others_too_ends_the_replay() -> None:
    """As a relay that an agent has joined since the last stored round: it has no sum of the others alone."""
    run, _, tokens = restarted()
    run.step(run.resuming(tokens["a"]))
    relay = run.join("b", "c")
    assert run.state.open_round.replaying
    assert run.state.open_round.awaited == {"a", "b"}
    run.gradient(tokens["a"])
    assert run.gradient(relay) == ["Broadcast BasisUpdate", "run-resumed"]
    assert not run.state.open_round.replaying
    assert (set(run.state.open_round.counted), set(run.state.open_round.awaited)) == ({"b", "c"}, {"a"})
    assert run.gradient(tokens["a"]) == ["ComputeBasis"]


def test_a_process_that_still_has_the_sum_of_a_replay_repeats_it() -> None:
    run, _, tokens = restarted()
    run.step(run.resuming(tokens["a"]))
    relay = run.join("b", "c")
    run.gradient(tokens["a"])
    assert run.gradient(relay, 1, "b") == ["ComputeBasis"]
    assert run.state.open_round.replaying


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


@pytest.mark.parametrize(("told", "frozen_until"), [(0, 2), (1, 2), (2, 3), (3, 3), (10**9, 3), (None, 3)], ids=str)
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


def test_a_round_that_only_a_late_agent_was_told_of_comes_to_the_same_result() -> None:
    """Its session is not stored, so it joins as a new one, and cannot say what it was told."""
    run, disk, tokens = restarted(names="a", max_inflight_rounds=2)
    saved = disk.saved()
    run.step(run.resuming(tokens["a"], resumption=None))
    for number in (1, 2):  # of these the disk has nothing
        run.gradient(tokens["a"])
        assert run.step(moved(run.state, number)) == ["Broadcast BasisUpdate", "StoreRound"]
    run.join("c")
    assert run.welcome().stamp.round == 3
    run.restart(saved)
    run.step(run.joining("c", resumption=None))
    run.step(run.resuming(tokens["a"], resumption=Resumption(tokens["a"], "run-1", 2)))  # and its stream broke
    for number in (1, 2):
        assert (run.state.round, run.state.open_round.awaited) == (number, {"a"})
        run.gradient(tokens["a"])
        close(run, disk)
    assert (run.state.round, run.state.open_round.awaited) == (3, {"a", "c"})


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


def test_a_run_that_was_killed_between_its_last_round_and_its_end_ends_when_its_agents_are_back() -> None:
    run, _, tokens = restarted(rounds=2)
    run.state = run.state.evolve(specification=replace(run.state.specification, rounds=2))
    run.step(run.resuming(tokens["a"]))
    assert run.state.phase is WAITING
    kinds = run.step(run.resuming(tokens["b"]))
    assert kinds[2:] == ["Broadcast Finish", "run-finished", "EndRun"], "no round is opened after the last one"
    assert run.state.finish_cause is FinishCause.ROUNDS_REACHED


@pytest.mark.parametrize("back", ["a", ""])
def test_such_a_run_waits_no_longer_for_its_agents_than_any_other(back: str) -> None:
    run, _, tokens = restarted(rounds=2)
    run.state = run.state.evolve(specification=replace(run.state.specification, rounds=2))
    for name in back:
        run.step(run.resuming(tokens[name]))
    longest = RETURN if back else START
    run.now = longest - 1.0
    for token in list(run.state.members.sessions):
        run.step(events.HeartbeatArrived(token))
    assert run.state.phase is WAITING
    assert "EndRun" in run.wait(1.0)
    assert run.state.finish_cause is FinishCause.ROUNDS_REACHED


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
