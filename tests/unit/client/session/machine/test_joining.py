"""Joining: from the specification to the welcome, what is kept from the session before, and other agents."""

from dataclasses import replace

import numpy as np
import pytest
from agent_sessions import active, broke, reconnect, sent
from runs import AgentDriver, join, upload

from cospan.client.session import machine as session
from cospan.client.session.machine import Phase
from cospan.wire import errors
from cospan.wire import messages as m

# The way in ---------------------------------------------------------------------------------------------


def test_who_was_given_a_site_comes_back_under_its_name() -> None:
    agent = AgentDriver()
    agent.step(session.Described(agent.specification))
    agent.step(session.Prepared(join(site_claim_id="container-1", instance="i")))
    agent.step(session.Connected())
    assert (agent.commands[0].message.agent_ids, agent.commands[0].message.site_claim_id) == ((), "container-1")
    agent.receive(replace(agent.welcome(0), agent_ids=("site-4",), site_index=4))
    agent.step(session.StreamBroke(errors.CoordinatorUnavailableError("gone"), jitter=0.0))
    agent.step(session.Connected())
    again = agent.commands[0].message
    assert (again.agent_ids, again.site_claim_id, again.resumption.session_token) == (
        ("site-4",),
        "",
        agent.state.token,
    )


def test_a_run_that_has_started_is_joined_at_once() -> None:
    agent = AgentDriver()
    assert agent.activate(round_number=7) == ["Begin", "Learn"]
    assert (agent.commands[1].round, agent.state.learning) == (7, 7)


def test_a_run_that_closes_a_round_is_joined_with_the_next() -> None:
    agent = AgentDriver()
    assert agent.activate(round_number=7, first_round=8) == ["Begin"]
    assert agent.update(8) == ["Learn"]
    assert agent.commands[0].round == 8


def test_the_site_must_be_made_before_a_stream_is_opened() -> None:
    agent = AgentDriver()
    with pytest.raises(errors.OutOfTurnError, match="before the site"):
        agent.step(session.Connected())
    assert agent.state.phase is Phase.OFFLINE


@pytest.mark.parametrize("is_summed", [True, False])
def test_a_relay_forgets_its_sum_where_the_run_waits_for_its_first_round(*, is_summed: bool) -> None:
    """Other agents may have joined it since; an agent has one gradient of the round, and keeps it."""
    agent, relay = (sent(), sent()) if is_summed else (active(), active())
    relay.state = replace(relay.state, passes_on=True)
    for each in (agent, relay):
        assert reconnect(each, replace(each.welcome(0), started=False)) == []
    assert len(agent.state.kept) == is_summed
    assert (relay.state.kept, relay.state.learning) == ((), None)
    assert relay.update(0) == ["Learn"]


def test_a_relay_keeps_the_sum_of_a_round_that_may_be_repeated() -> None:
    relay = sent()
    relay.state = replace(relay.state, passes_on=True)
    relay.update(1)
    relay.learn()
    assert reconnect(relay, replace(relay.welcome(1), started=False)) == []
    assert [each.upload.round for each in relay.state.kept] == [1]
    assert relay.update(1) == ["Transmit GradientUpload"]


# Another run --------------------------------------------------------------------------------------------


def test_a_run_of_another_specification_than_the_site_was_made_for_is_foreign() -> None:
    """The coordinator was restarted, with another seed, between the question and the welcome."""
    agent = AgentDriver()
    agent.prepare()
    agent.step(session.Connected())
    other = AgentDriver(seed=2).welcome().specification
    assert agent.receive(agent.welcome(specification=other)) == ["Fail"]
    assert isinstance(agent.commands[0].error, errors.ForeignRunError)


def test_a_specification_that_changes_under_a_running_session_is_foreign() -> None:
    """Its learner would be handed bases of another shape."""
    agent = active()
    agent.step(broke())
    agent.step(session.Connected())
    other = AgentDriver(feature_dim=7).welcome().specification
    assert agent.receive(agent.welcome(specification=other, basis=np.zeros((7, 2)))) == ["Fail"]
    assert isinstance(agent.commands[0].error, errors.ForeignRunError)


def test_the_fingerprint_may_be_fixed_between_the_question_and_the_welcome() -> None:
    agent = AgentDriver()
    assert agent.specification.feature_fingerprint == ""
    assert agent.activate() == ["Begin", "Learn"]
    assert agent.state.specification is not None
    assert agent.state.specification.feature_fingerprint == "map-1"


# Resumption ---------------------------------------------------------------------------------------------


def test_it_comes_back_with_its_token_and_its_round() -> None:
    agent = active()
    agent.update(0)
    agent.learn()
    agent.update(1)
    agent.step(broke())
    assert agent.step(session.Connected()) == ["Transmit Join"]
    resumption = agent.commands[0].message.resumption
    assert resumption == m.Resumption("token-1", "run-1", 1)
    agent.receive(agent.welcome(1))
    assert agent.state.reconnects == 1


def test_what_is_not_acknowledged_is_sent_again() -> None:
    agent = sent()
    (kept,) = agent.state.kept
    assert reconnect(agent, agent.welcome(0)) == ["Transmit GradientUpload"]
    assert agent.commands[0].message is kept.upload
    assert agent.state.learning is None, "the round is not learnt a second time"
    assert agent.update(1) == ["Learn"]


def test_what_the_run_has_gone_past_is_dropped() -> None:
    agent = sent()
    assert reconnect(agent, agent.welcome(1)) == ["Learn"]
    assert (agent.state.kept, agent.commands[0].round) == ((), 1)


def test_a_gradient_that_was_done_offline_is_sent_when_the_stream_is_back() -> None:
    agent = active()
    agent.step(broke())
    assert agent.learn() == []
    agent.step(session.Connected())
    assert agent.receive(agent.welcome(0)) == ["Transmit GradientUpload"]


def test_a_round_that_is_being_learnt_goes_on_over_a_broken_stream() -> None:
    agent = active()
    assert reconnect(agent, agent.welcome(0)) == []
    assert agent.learn() == ["Transmit GradientUpload"]


def test_coming_back_before_the_start() -> None:
    agent = active(started=False)
    assert reconnect(agent, agent.welcome(started=False)) == []
    assert agent.update(0) == ["Learn"]


def test_who_was_given_up_joins_anew() -> None:
    agent = sent()
    assert agent.step(broke(errors.SessionUnknownError("given up"))) == ["Connect"]
    agent.step(session.Connected())
    assert agent.commands[0].message.resumption is None
    assert agent.receive(agent.welcome(5, session_token="token-2")) == ["Learn"]
    assert (agent.state.token, agent.state.reconnects) == ("token-2", 1)


def test_who_was_given_up_and_joins_the_same_round_sends_its_gradient_again() -> None:
    agent = sent()
    agent.step(broke(errors.SessionUnknownError("given up")))
    agent.step(session.Connected())
    assert agent.receive(agent.welcome(0, session_token="token-2")) == ["Transmit GradientUpload"]


# Other agents ---------------------------------------------------------------------------------------------


def kept_sum(agent: AgentDriver, *agents: str) -> m.GradientUpload:
    """A sum of round 0 over these agents, handed over and sent."""
    total = upload(0, *agents, weight=float(len(agents)))
    assert agent.step(session.GradientReady(total)) == ["Transmit GradientUpload"]
    return total


def rejoined(agent: AgentDriver, *agents: str) -> list[str]:
    """The process hosts these agents now, and is welcomed as such; what follows from the welcome."""
    assert agent.step(session.Regrouped(agents)) == ["Connect"]
    assert agent.step(session.Connected()) == ["Transmit Join"]
    (said,) = agent.commands
    assert isinstance(said, session.Transmit)
    assert isinstance(said.message, m.Join)
    assert (said.message.agent_ids, said.message.resumption) == (agents, None)
    return agent.receive(agent.welcome(0, session_token="token-2", agent_ids=agents))


def test_a_process_that_hosts_other_agents_joins_anew_and_sends_again_what_is_still_its_own() -> None:
    agent = active()
    kept_sum(agent, "a", "b")
    assert rejoined(agent, "a", "b", "c") == ["Transmit GradientUpload"]


def test_a_sum_over_somebody_who_is_gone_is_made_anew() -> None:
    agent = active()
    kept_sum(agent, "a", "b")
    assert rejoined(agent, "b") == ["Learn"]


def test_a_sum_that_names_nobody_is_one_over_all_that_had_joined() -> None:
    """As a group's is: without the member that it has dropped, it is made again."""
    agent = active()
    assert agent.step(session.GradientReady(upload(0))) == ["Transmit GradientUpload"]
    before = agent.state.join
    assert before is not None
    assert rejoined(agent, *before.agent_ids[:-1], "z") == ["Learn"]


def test_a_sum_without_the_dropped_member_is_sent_once_it_is_out() -> None:
    """A group regroups first, and then hands over what the others have learnt in the round."""
    agent = active()
    assert agent.step(session.Regrouped(("a",))) == ["Connect"]
    assert agent.step(session.GradientReady(upload(0))) == []
    agent.step(session.Connected())
    assert agent.receive(agent.welcome(0, session_token="token-2", agent_ids=("a",))) == ["Transmit GradientUpload"]


def test_a_round_that_is_being_learnt_goes_on_while_the_group_changes() -> None:
    agent = active()
    assert rejoined(agent, "a", "b") == []
    assert agent.learn() == ["Transmit GradientUpload"]


def test_nobody_regroups_before_the_site_is_made() -> None:
    agent = AgentDriver()
    with pytest.raises(errors.OutOfTurnError):
        agent.step(session.Regrouped(("a",)))
