"""What a process does with a round: it learns it once, keeps its gradient until it is durable, or skips it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from agent_sessions import active, broke, reconnect, sent
from runs import AgentDriver, upload

from cospan.client.session import machine as session
from cospan.client.session.machine import Phase
from cospan.wire import messages as m

# One round ---------------------------------------------------------------------------------------------


def test_the_same_basis_twice_is_learnt_once() -> None:
    agent = active()
    assert agent.update(0) == []
    agent.learn()
    assert agent.update(0) == ["Transmit GradientUpload"], "who opens a round again has lost what came before"
    assert agent.state.learning is None


# A coordinator that was started again -------------------------------------------------------------------


def ahead() -> AgentDriver:
    """An agent that has sent its gradient of round 1, while only round 0 is known to be durable."""
    agent = sent()
    agent.receive(m.BasisUpdate(replace(agent.stamp(1), durable_round=0), agent.basis))
    agent.learn()
    assert [each.upload.round for each in agent.state.kept] == [0, 1]
    return agent


def restarted(agent: AgentDriver, round_number: int, **changes: Any) -> m.Welcome:
    stamp = replace(agent.stamp(round_number), incarnation=2)
    return agent.welcome(round_number, stamp=stamp, started=False, **changes)


def reopened(agent: AgentDriver, round_number: int, basis: np.ndarray | None = None) -> list[str]:
    stamp = replace(agent.stamp(round_number), incarnation=2)
    return agent.receive(m.BasisUpdate(stamp, agent.basis if basis is None else basis))


def test_a_gradient_is_kept_until_its_round_is_durable() -> None:
    agent = ahead()
    agent.receive(m.BasisUpdate(replace(agent.stamp(2), durable_round=1), agent.basis))
    assert [each.upload.round for each in agent.state.kept] == [1]


def test_a_coordinator_that_was_started_again_gets_what_it_has_lost() -> None:
    """In the order of the rounds, when it opens them; and nothing is learnt a second time."""
    agent = ahead()
    assert reconnect(agent, restarted(agent, 0)) == [], "it waits for the fleet"
    assert reopened(agent, 0) == ["Transmit GradientUpload"]
    assert agent.commands[0].message.round == 0
    assert reopened(agent, 1) == ["Transmit GradientUpload"]
    assert agent.commands[0].message.round == 1
    assert reopened(agent, 2) == ["Learn"]


def test_it_says_what_it_was_told_also_to_a_coordinator_that_has_gone_back_twice() -> None:
    """What the rounds come to that it was told of is to be the same again, however often that is interrupted."""
    agent = ahead()
    agent.receive(m.BasisUpdate(replace(agent.stamp(2), durable_round=0), agent.basis))
    for _ in range(2):
        reconnect(agent, restarted(agent, 0))
        agent.step(broke())
        assert agent.step(session.Connected()) == ["Transmit Join"]
        assert agent.commands[0].message.resumption.last_round == 2
        agent.step(broke())


def test_who_is_learning_when_the_coordinator_goes_back_goes_on() -> None:
    agent = ahead()
    agent.receive(m.BasisUpdate(replace(agent.stamp(2), durable_round=1), agent.basis))
    assert reconnect(agent, restarted(agent, 1)) == []
    assert reopened(agent, 1) == ["Transmit GradientUpload"]
    assert agent.learn() == [], "round 2 is not open yet"
    assert reopened(agent, 2) == ["Transmit GradientUpload"]


def test_a_round_that_came_to_another_basis_is_learnt_anew() -> None:
    agent = ahead()
    reconnect(agent, restarted(agent, 0))
    reopened(agent, 0)
    assert reopened(agent, 1, np.negative(agent.basis)) == ["Learn"]
    assert (agent.commands[0].round, agent.commands[0].basis[0, 0]) == (1, -agent.basis[0, 0])
    assert agent.learn() == ["Transmit GradientUpload"]


def test_a_gradient_of_a_basis_that_is_no_more_is_not_sent() -> None:
    agent = sent()
    agent.receive(m.BasisUpdate(replace(agent.stamp(1), durable_round=0), agent.basis))
    reconnect(agent, restarted(agent, 0))
    reopened(agent, 0)
    assert reopened(agent, 1, np.negative(agent.basis)) == [], "the learner is busy with the other one"
    assert agent.learn() == ["Learn"]
    assert agent.learn() == ["Transmit GradientUpload"]


def test_nothing_is_sent_while_the_coordinator_waits_for_the_fleet() -> None:
    agent = active()
    assert reconnect(agent, restarted(agent, 0)) == []
    assert agent.learn() == []
    assert reopened(agent, 0) == ["Transmit GradientUpload"]


def test_a_coordinator_of_the_past_is_left_alone() -> None:
    """It was replaced while it stood still: the agent hangs up, and tries again."""
    agent = active()
    reconnect(agent, restarted(agent, 0))
    assert agent.update(0) == ["Connect"]
    assert agent.state.phase is Phase.OFFLINE


# A learner that is slow ---------------------------------------------------------------------------------


def test_rounds_that_pass_while_the_learner_is_busy_are_skipped() -> None:
    agent = active()
    for number in (1, 2, 3):
        assert agent.update(number) == []
    assert agent.learn() == ["Transmit GradientUpload", "Learn"]
    assert (agent.commands[0].message.round, agent.commands[1].round) == (0, 3)
    assert agent.state.kept == ()
    late = m.Receipt(agent.stamp(3), 0, m.Disposition.LATE)
    assert agent.receive(late) == []
    assert agent.state.not_counted == 1
    assert agent.learn() == ["Transmit GradientUpload"]


def test_a_duplicate_has_counted() -> None:
    agent = sent()
    agent.receive(m.Receipt(agent.stamp(0), 0, m.Disposition.DUPLICATE))
    assert agent.state.not_counted == 0


def test_rounds_that_pass_over_a_broken_stream_are_skipped() -> None:
    agent = active()
    assert reconnect(agent, agent.welcome(4)) == [], "the learner is busy with round 0"
    assert agent.learn() == ["Transmit GradientUpload", "Learn"]
    assert agent.commands[1].round == 4


# A relay -----------------------------------------------------------------------------------------------


def relaying(agents: tuple[str, ...]) -> AgentDriver:
    """The session of a relay that has sent its sum of round 2, and has more agents when it meets round 1 again."""
    relay = active(started=True)
    relay.state = relay.state.evolve(passes_on=True)
    relay.step(session.GradientReady(upload(0, "a")))
    relay.receive(m.BasisUpdate(replace(relay.stamp(2), durable_round=1), relay.basis))
    relay.step(session.GradientReady(upload(2, "a")))
    relay.step(session.Regrouped(agents))
    relay.step(session.Connected())
    again = relay.welcome(1, stamp=replace(relay.stamp(1), incarnation=2), agent_ids=agents)
    assert relay.receive(again) == ["Learn"]
    return relay


@pytest.mark.parametrize(("agents", "told"), [(("a", "b"), "Learn"), (("a",), "Transmit GradientUpload")])
def test_a_sum_of_a_later_round_answers_it_only_for_all_who_were_summed_since(
    agents: tuple[str, ...], told: str
) -> None:
    """Else the relay does not ask its new agent for the round, and the coordinator waits for it."""
    relay = relaying(agents)
    sent_up = relay.step(session.GradientReady(upload(1, *agents, weight=float(len(agents)))))
    assert sent_up == ["Transmit GradientUpload"]
    update = m.BasisUpdate(replace(relay.stamp(2), incarnation=2), relay.basis)
    assert relay.receive(update) == [told]
