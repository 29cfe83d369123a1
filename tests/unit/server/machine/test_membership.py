"""Joining and coming back: which agents a process hosts, the sites that are given out, and who is refused."""

import pytest
from coordinator_runs import CLOSING, COLLECTING, closing, collecting, finished, waiting
from runs import SESSION_TIMEOUT, CoordinatorDriver, join

from cospan.server.machine import events, membership
from cospan.wire import errors
from cospan.wire.messages import AgentPhase, Disposition, Resumption, RunPhase


def test_each_claim_gets_the_first_free_site() -> None:
    run = CoordinatorDriver(agents=4)
    run.join("site-1")
    assert [run.claim_site(site_claim_id).site_index for site_claim_id in ("x", "y", "z")] == [0, 2, 3]
    assert run.welcome().agent_ids == ("site-3",)
    assert run.state.phase is RunPhase.COLLECTING
    assert run.state.open_round.awaited == {"site-0", "site-1", "site-2", "site-3"}


def test_who_brings_a_name_is_given_no_site() -> None:
    run = CoordinatorDriver()
    run.join("site-7")
    assert (run.welcome().agent_ids, run.welcome().site_index) == (("site-7",), None)


def test_a_process_that_lost_its_welcome_has_joined_once() -> None:
    run = CoordinatorDriver(agents=3)
    first, second = run.claim_site("x"), run.claim_site("x")
    assert (first.session_token, first.site_index) == (second.session_token, 0)
    assert second.site_index == 0
    assert len(run.state.members.sessions) == 1


def test_a_claim_of_a_process_that_is_started_again_gets_its_site_at_once() -> None:
    """The stream of the older process may look alive for long: its host may have died with it."""
    run = CoordinatorDriver()
    run.claim_site("x")
    old = run.claim_site("y")
    stream = run.stream(old.session_token)
    kinds = run.step(run.claiming("y", instance="another process of y"))
    assert kinds == ["agent-gone", "CloseStream", "Send Welcome", "agent-joined"]
    closed = next(command for command in run.commands if isinstance(command, events.CloseStream))
    assert (closed.stream, type(closed.error)) == (stream, errors.SessionUnknownError)
    assert (run.welcome().site_index, old.session_token in run.state.members.sessions) == (1, False)
    assert run.state.open_round.awaited == {"site-0", "site-1"}


def test_a_claim_that_comes_back_gets_its_former_site() -> None:
    run = CoordinatorDriver()
    x, _ = run.claim_site("x"), run.claim_site("y")
    run.step(events.LeaveArrived(x.session_token, "its container stops"))
    assert run.claim_site("y", instance="another").site_index == 1, "the first free one would be 0"
    assert run.claim_site("x", instance="another").site_index == 0


def test_a_site_that_somebody_else_has_meanwhile_is_not_taken_away() -> None:
    run = CoordinatorDriver()
    x, _ = run.claim_site("x"), run.claim_site("y")
    run.step(events.LeaveArrived(x.session_token, "its container stops"))
    assert run.claim_site("z").site_index == 0
    assert run.claim_site("x", instance="another").site_index == 2


def test_there_are_no_more_sites_than_there_are() -> None:
    run = CoordinatorDriver(site_limit=2)
    x, y = run.claim_site("x"), run.claim_site("y")
    run.refuse(run.claiming("z"), errors.NoFreeSiteError, "all 2 sites of workload 'tests' have their agents")
    run.step(events.StreamClosed(y.session_token, run.stream(y.session_token)))
    run.refuse(run.claiming("z"), errors.NoFreeSiteError)
    run.now += SESSION_TIMEOUT
    run.step(events.HeartbeatArrived(x.session_token))
    run.wait(0.0)
    assert run.claim_site("z").site_index == 1


def test_a_broken_stream_of_a_given_site_is_resumed_by_its_token() -> None:
    run = CoordinatorDriver()
    x, _ = run.claim_site("x"), run.claim_site("y")
    run.step(events.StreamClosed(x.session_token, run.stream(x.session_token)))
    resumption = Resumption(x.session_token, "run-1", 0)
    again = run.joining("site-0", instance="process of x", resumption=resumption)
    assert run.step(again) == ["Send Welcome", "agent-back"]
    assert (run.welcome().session_token, run.welcome().site_index) == (x.session_token, 0)


def test_a_claim_whose_process_was_given_up_and_came_back_still_has_its_site() -> None:
    """It comes back under its name; when its container is started again after that, it gets the same site."""
    run = CoordinatorDriver(agents=3)
    x, y = run.claim_site("x"), run.claim_site("y")
    run.now += SESSION_TIMEOUT
    run.step(events.HeartbeatArrived(x.session_token))
    run.wait(0.0)
    assert y.session_token not in run.state.members.sessions
    run.join("site-1", instance="process of y")
    assert (run.welcome().site_index, run.state.members.sessions[run.welcome().session_token].site_claim_id) == (
        1,
        "y",
    )
    assert run.claim_site("y", instance="another process of y").site_index == 1
    assert len(run.state.members.sessions) == 2


def test_who_brings_the_name_of_a_given_site_does_not_claim_it() -> None:
    """Another process under the same name: the site_claim_id gets another site and displaces no agent."""
    run = CoordinatorDriver(agents=3)
    x = run.claim_site("x")
    run.step(events.LeaveArrived(x.session_token, "its container stops"))
    run.join("site-0", instance="another process")
    assert run.welcome().site_index is None
    assert run.claim_site("x", instance="another process of x").site_index == 1


# How many are remembered ----------------------------------------------------------------------------------------


def test_a_run_knows_only_so_many_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those it knows may come back; to one more it says no, also where the others have gone."""
    monkeypatch.setattr(membership, "most_known_agents", lambda agents: 4 * agents + 1)  # with two agents: 9
    run = CoordinatorDriver()
    tokens = [run.join(f"a-{number}") for number in range(8)]
    run.step(events.LeaveArrived(tokens[0], "enough"))
    run.refuse(run.joining("new", "newer"), errors.TooManyAgentsError, "has had 8 agents, and with 2 more")
    run.join("new")
    run.refuse(run.joining("newest"), errors.TooManyAgentsError, "above 9")
    run.join("a-0")
    assert len(run.state.members.hosts) == 9


def test_of_the_oldest_claims_the_site_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "most_known_agents", lambda agents: 4 * agents - 5)  # with two agents: 3
    run = CoordinatorDriver()
    for site_claim_id in ("first", "second", "first", "third", "fourth"):
        token = run.claim_site(site_claim_id, instance=f"process of {site_claim_id}").session_token
        run.step(events.LeaveArrived(token, "", returning=True))
    assert list(run.state.members.site_claims) == ["first", "third", "fourth"]


# A process that hosts other agents than before ---------------------------------------------------------------


def relayed(*agents: str) -> tuple[CoordinatorDriver, str]:
    """A round that awaits an agent of its own, z, and a process that hosts these."""
    run = CoordinatorDriver(agents=1 + len(agents))
    run.join("z")
    return run, run.join(*agents, instance="relay")


def test_a_process_that_loses_an_agent_keeps_the_others_in_the_round() -> None:
    run, token = relayed("a", "b", "c")
    run.gradient("token-1")
    old = run.stream(token)
    kinds = run.step(run.joining("a", "b", instance="relay"))
    assert "CloseStream" in kinds
    assert [each.stream for each in run.commands if isinstance(each, events.CloseStream)] == [old]
    assert run.state.phase is RunPhase.COLLECTING, "the round did not close without them in between"
    assert run.state.open_round.awaited == {"a", "b"}
    assert run.state.members.departures["c"].cause == "its process joined again without c"
    assert run.welcome().first_round == 0


def test_what_had_counted_counts_and_closes_the_round() -> None:
    run, token = relayed("a", "b", "c")
    run.gradient("token-1")
    run.gradient(token, 0, "a", "b")
    assert run.state.open_round.awaited == {"c"}
    assert "ComputeBasis" in run.step(run.joining("a", "b", instance="relay"))
    assert run.welcome().first_round == 1
    assert run.state.open_round.counted == {"a", "b", "z"}


def test_a_process_that_gains_an_agent_has_it_in_the_open_round() -> None:
    run, _ = relayed("a", "b")
    run.gradient("token-1")
    run.step(run.joining("a", "b", "c", instance="relay"))
    assert run.state.open_round.awaited == {"a", "b", "c"}
    assert run.state.members.departures == {}


def test_another_process_takes_no_agent_of_one_that_is_connected() -> None:
    run, _ = relayed("a", "b")
    run.refuse(run.joining("a", instance="another"), errors.AgentIdTakenError)


# Joining ------------------------------------------------------------------------------------------------


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


def test_a_group_that_has_sent_a_part_and_knows_nothing_of_it_waits_for_the_next_round() -> None:
    """As a relay that has left, and whose leave was lost: with its instance id, and without its session."""
    run = CoordinatorDriver(agents=3)
    group, c = run.join("a", "b"), run.join("c")
    run.gradient(group, 0, "a")
    run.step(events.StreamClosed(group, run.stream(group)))
    again = run.join("a", "b")
    assert (again != group, run.welcome().first_round) == (True, 1)
    assert run.gradient(c) == ["ComputeBasis"], "a and c have counted, and b is not awaited"
    run.compute()
    assert run.state.open_round.awaited == {"a", "b", "c"}


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


def test_the_process_of_a_join_is_as_it_says() -> None:
    """The driver's own joins carry sorted names, as the codec gives them."""
    assert join("b", "a").agent_ids == ("a", "b")
