"""Sites that the coordinator gives out to processes that bring none, and how many agents it remembers."""

import pytest
from runs import SESSION_TIMEOUT, CoordinatorDriver

from cospan.server.machine import events, membership
from cospan.wire import errors
from cospan.wire.messages import Resumption, RunPhase


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
