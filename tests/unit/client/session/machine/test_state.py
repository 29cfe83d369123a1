"""The head covariance that comes to an agent with every basis, which its state holds."""

import numpy as np
import pytest
from agent_sessions import active, broke
from runs import AgentDriver
from values import same

from cospan.client.session import machine as session
from cospan.core.method import Method
from cospan.wire import errors
from cospan.wire import messages as m


def test_a_basis_without_the_head_covariance_of_the_method_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Method, "has_head_covariance", True)
    for kind in ("update", "finish"):
        agent = AgentDriver()
        agent.activate(head_covariance=np.eye(2))
        stamp = agent.stamp(1)
        finish = m.Finish(stamp, m.FinishCause.STOPPED, "", agent.basis)
        update = m.BasisUpdate(stamp, agent.basis)
        assert agent.receive(update if kind == "update" else finish) == ["Fail"]
        assert isinstance(agent.commands[0].error, errors.InvalidMessageError)
        assert "the head covariance is missing" in str(agent.commands[0].error)


def test_a_head_covariance_that_the_method_has_not_is_refused() -> None:
    agent = active()
    assert agent.receive(m.BasisUpdate(agent.stamp(1), agent.basis, np.eye(2))) == ["Fail"]
    assert "a head covariance came with the basis" in str(agent.commands[0].error)


def test_a_gradient_is_sent_again_only_at_the_head_covariance_it_was_learnt_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Method, "has_head_covariance", True)
    agent = AgentDriver()
    agent.activate(head_covariance=np.eye(2))
    assert same(agent.commands[-1].head_covariance, np.eye(2))
    agent.learn()
    for covariance, expected in ((np.eye(2), "Transmit GradientUpload"), (2.0 * np.eye(2), "Learn")):
        agent.step(broke())
        agent.step(session.Connected())
        assert agent.receive(agent.welcome(head_covariance=covariance)) == [expected]
    assert same(agent.commands[-1].head_covariance, 2.0 * np.eye(2))
    stamp = agent.stamp(1)
    assert agent.receive(m.Finish(stamp, m.FinishCause.STOPPED, "", agent.basis, np.zeros((2, 2)))) == ["Conclude"]
    assert same(agent.commands[0].head_covariance, np.zeros((2, 2)))
