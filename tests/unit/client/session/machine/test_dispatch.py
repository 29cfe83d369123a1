"""The agent's side of the conversation: every transition, every bound, and what it does about each error."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from runs import SESSION_TIMEOUT, AgentDriver, join, upload
from values import same

from cospan.client.session import machine as session
from cospan.client.session.machine import Phase
from cospan.core.method import Method
from cospan.wire import errors
from cospan.wire import messages as m
from cospan.wire.limits import LONGEST_DRAIN_SECONDS

PROGRESS_TIMEOUT = 60.0


def broke(error: errors.CospanError | None = None, jitter: float = 0.0) -> session.StreamBroke:
    return session.StreamBroke(error or errors.CoordinatorUnavailableError("the connection was refused"), jitter)


def active(**changes: object) -> AgentDriver:
    """Welcomed, and learning round 0."""
    agent = AgentDriver()
    agent.activate(**changes)
    return agent


def sent() -> AgentDriver:
    """It has sent the gradient of round 0."""
    agent = active()
    agent.learn()
    return agent


def reconnect(agent: AgentDriver, welcome: m.Welcome) -> list[str]:
    """The stream breaks, and comes back with this welcome; what the welcome leads to."""
    agent.step(broke())
    agent.step(session.Connected())
    return agent.receive(welcome)


# The way in ---------------------------------------------------------------------------------------------


def test_from_the_first_question_to_the_last_basis() -> None:
    agent = AgentDriver()
    assert agent.commands == (session.Inquire(0.0),)
    assert agent.step(session.Described(agent.specification)) == ["Prepare"]
    assert agent.state.phase is Phase.PREPARING
    assert agent.step(session.Prepared(join("a"))) == ["Connect"]
    assert agent.commands == (session.Connect(0.0),)
    assert agent.state.phase is Phase.OFFLINE
    assert agent.step(session.Connected()) == ["Transmit Join"]
    assert agent.commands[0].message == join("a")
    assert agent.state.phase is Phase.JOINING
    assert agent.receive(agent.welcome(started=False)) == ["Begin"]
    assert agent.state.phase is Phase.ACTIVE
    assert agent.update(0) == ["Learn"]
    assert agent.learn() == ["Transmit GradientUpload"]
    assert agent.update(1) == ["Learn"]
    assert (agent.state.kept, agent.commands[0].round) == ((), 1)
    assert agent.learn() == ["Transmit GradientUpload"]
    basis = np.zeros((4, 2))
    finish = m.Finish(agent.stamp(2), m.FinishCause.ROUNDS_REACHED, "all 2 rounds are done", basis)
    assert agent.receive(finish) == ["Conclude"]
    assert (agent.commands[0].message, agent.commands[0].basis is basis) == ("all 2 rounds are done", True)
    assert agent.state.phase is Phase.DONE


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


def test_the_same_basis_twice_is_learnt_once() -> None:
    agent = active()
    assert agent.update(0) == []
    agent.learn()
    assert agent.update(0) == ["Transmit GradientUpload"], "who opens a round again has lost what came before"
    assert agent.state.learning is None


@pytest.mark.parametrize(
    "message",
    [
        m.BasisUpdate(m.Stamp("run-1", 1, 0, 0), np.zeros((4, 2))),
        m.Receipt(m.Stamp("run-1", 1, 0, 0), 0, m.Disposition.LATE),
        m.Finish(m.Stamp("run-1", 1, 0, 0), m.FinishCause.STOPPED, "", np.zeros((4, 2))),
        m.Drain(m.Stamp("run-1", 1, 0, 0), 1.0),
    ],
)
def test_nobody_speaks_before_the_welcome(message: m.CoordinatorMessage) -> None:
    agent = AgentDriver()
    agent.prepare()
    agent.step(session.Connected())
    assert agent.receive(message) == ["Fail"]
    assert isinstance(agent.commands[0].error, errors.OutOfTurnError)
    assert type(message).__name__ in str(agent.commands[0].error)
    assert agent.state.phase is Phase.FAILED


def test_a_second_welcome_on_one_stream_is_an_error() -> None:
    agent = active()
    assert agent.receive(agent.welcome()) == ["Fail"]
    assert isinstance(agent.commands[0].error, errors.OutOfTurnError)


# Another run --------------------------------------------------------------------------------------------


def test_another_run_on_the_same_address_is_foreign() -> None:
    agent = active()
    agent.step(broke())
    agent.step(session.Connected())
    assert agent.receive(agent.welcome(stamp=agent.stamp(0, "run-2"))) == ["Fail"]
    assert isinstance(agent.commands[0].error, errors.ForeignRunError)
    assert "run-1" in str(agent.commands[0].error)
    assert "run-2" in str(agent.commands[0].error)


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


@pytest.mark.parametrize("shape", [(4, 3), (5, 2), (2, 4), (1, 1)])
def test_a_basis_of_another_shape_never_reaches_the_learner(shape: tuple[int, int]) -> None:
    for kind in ("update", "finish"):
        agent = active()
        stamp, basis = agent.stamp(1), np.ones(shape)
        finish = m.Finish(stamp, m.FinishCause.STOPPED, "", basis)
        assert agent.receive(m.BasisUpdate(stamp, basis) if kind == "update" else finish) == ["Fail"]
        assert isinstance(agent.commands[0].error, errors.InvalidMessageError)
        assert f"{shape[0]} × {shape[1]}, and this run has 4 × 2" in str(agent.commands[0].error)


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


def test_the_fingerprint_may_be_fixed_between_the_question_and_the_welcome() -> None:
    agent = AgentDriver()
    assert agent.specification.feature_fingerprint == ""
    assert agent.activate() == ["Begin", "Learn"]
    assert agent.state.specification is not None
    assert agent.state.specification.feature_fingerprint == "map-1"


# Broken streams -----------------------------------------------------------------------------------------


def test_the_pause_doubles_up_to_one_second_and_is_jittered_by_half() -> None:
    for jitter, pauses in (
        (0.0, [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]),
        (1.0, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
    ):
        agent = active()
        for pause in pauses:
            assert agent.step(broke(jitter=jitter)) == ["Connect"]
            assert agent.commands[0].after_seconds == pytest.approx(pause)
            assert agent.state.phase is Phase.OFFLINE


def test_a_coordinator_on_the_same_machine_is_asked_more_often() -> None:
    agent = AgentDriver(near=True)
    agent.activate()
    for pause in (0.1, 0.2, 0.25, 0.25):
        agent.step(broke(jitter=1.0))
        assert agent.commands[0].after_seconds == pytest.approx(pause)


def test_before_the_fleet_is_known_no_coordinator_is_asked_more_often() -> None:
    agent = AgentDriver(near=True)
    for pause in (0.1, 0.2, 0.4, 0.8, 1.0):
        assert agent.step(broke(jitter=1.0)) == ["Inquire"]
        assert agent.commands[0].after_seconds == pytest.approx(pause)


def test_a_message_ends_the_doubling() -> None:
    agent = active()
    for _ in range(5):
        agent.step(broke())
    agent.step(session.Connected())
    agent.receive(agent.welcome())
    agent.step(broke())
    assert agent.commands[0].after_seconds == pytest.approx(0.05)


def test_the_question_is_asked_again_until_the_progress_timeout() -> None:
    agent = AgentDriver()
    agent.now += PROGRESS_TIMEOUT - 0.5
    assert agent.step(broke()) == ["Inquire"]
    agent.now += 0.5
    assert agent.step(broke()) == ["Fail"]
    assert isinstance(agent.commands[0].error, errors.CoordinatorUnavailableError)
    assert "the connection was refused (given up after 60 s)" in str(agent.commands[0].error)


def test_the_progress_timeout_counts_from_when_the_stream_broke() -> None:
    """A coordinator may be silent for as long as it waits for others: that costs no progress_timeout_seconds."""
    agent = active(started=False)
    agent.now += 10 * PROGRESS_TIMEOUT
    assert agent.step(broke()) == ["Connect"]
    agent.now += PROGRESS_TIMEOUT - 0.5
    assert agent.step(broke()) == ["Connect"]
    agent.now += 0.5
    assert agent.step(broke()) == ["Fail"]


def test_making_the_site_does_not_use_up_the_progress_timeout() -> None:
    agent = AgentDriver()
    agent.step(session.Described(agent.specification))
    agent.now += 10 * PROGRESS_TIMEOUT
    agent.step(session.Prepared(join("a")))
    assert agent.step(broke()) == ["Connect"]


def test_a_coordinator_that_does_not_answer_the_join() -> None:
    agent = AgentDriver()
    agent.prepare()
    agent.step(session.Connected())
    assert agent.wait(PROGRESS_TIMEOUT - 0.5) == []
    assert agent.wait(0.5) == ["Fail"]
    assert "has not answered the join for 60 s" in str(agent.commands[0].error)


def test_a_name_that_is_taken_may_be_free_later() -> None:
    agent = AgentDriver()
    agent.prepare()
    agent.step(session.Connected())
    taken = errors.AgentIdTakenError("agent 'a' is hosted by another process")
    assert agent.step(broke(taken)) == ["Connect"]
    agent.step(session.Connected())
    agent.now += PROGRESS_TIMEOUT
    assert agent.step(broke(taken)) == ["Fail"]
    assert agent.commands[0].error is taken


@pytest.mark.parametrize(
    "error",
    [
        kind("no")
        for kind in errors.REASONS.values()
        if not kind.retryable and kind is not errors.SessionUnknownError
    ],
)
def test_a_refusal_is_final(error: errors.RemoteError) -> None:
    agent = AgentDriver()
    agent.prepare()
    agent.step(session.Connected())
    assert agent.step(broke(error)) == ["Fail"]
    assert agent.commands[0].error is error
    assert agent.state.phase is Phase.FAILED


def test_a_run_that_ended_while_the_stream_was_broken() -> None:
    agent = active()
    agent.step(broke())
    assert agent.step(broke(errors.RunFinishedError("run run-1 is over after 3 rounds"))) == ["Conclude"]
    assert agent.commands[0].message == "run run-1 is over after 3 rounds"
    assert agent.commands[0].basis is agent.basis


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


def from_a_copy(agent: AgentDriver, started: float) -> m.Welcome:
    """The welcome of a coordinator whose store was brought back: its incarnation is lower, its round is too."""
    stamp = replace(agent.stamp(1), incarnation=1)
    return agent.welcome(stamp=stamp, first_round=1, session_token="another", coordinator_started=started)


def ahead_of_a_copy() -> AgentDriver:
    """It has met incarnation 4, started at 2000 s, and its round 9."""
    agent = active()
    stamp = replace(agent.stamp(9), incarnation=4)
    reconnect(agent, agent.welcome(stamp=stamp, first_round=9, coordinator_started=2000.0))
    agent.learn()
    return agent


def test_a_store_that_was_brought_back_from_a_copy_is_gone_on_with() -> None:
    agent = ahead_of_a_copy()
    assert agent.state.learning == 9
    agent.learn()
    assert reconnect(agent, from_a_copy(agent, 3000.0)) == ["Learn"]
    assert (agent.commands[0].round, agent.state.phase, agent.state.last_announced_round) == (1, Phase.ACTIVE, 9)
    assert agent.learn() == ["Transmit GradientUpload"]
    stamp = replace(agent.stamp(2), incarnation=1)
    assert agent.receive(m.BasisUpdate(stamp, agent.basis)) == ["Learn"]


@pytest.mark.parametrize("started", [0.0, 1000.0, 2000.0])
def test_a_coordinator_of_the_past_ends_the_agent_after_its_progress_timeout(started: float) -> None:
    """It always answers and never helps: it was started earlier, or its clock is behind, or it does not say."""
    agent = ahead_of_a_copy()
    agent.step(broke())
    begun = agent.now
    while agent.state.phase is not Phase.FAILED:
        agent.now += agent.commands[0].after_seconds + 0.01
        agent.step(session.Connected())
        agent.receive(from_a_copy(agent, started))
        assert agent.now - begun < PROGRESS_TIMEOUT + 2.0
    assert agent.now - begun >= PROGRESS_TIMEOUT
    error = agent.commands[0].error
    assert isinstance(error, errors.StaleCoordinatorError)
    assert error.reason == "STALE_COORDINATOR"
    assert "incarnation 1 of the coordinator of run run-1 answers" in str(error)
    assert "start the agents again" in str(error)


# Every wait has an end ------------------------------------------------------------------------------------


def broken_off(agent: AgentDriver) -> None:
    agent.step(broke(jitter=1.0))


def drained(agent: AgentDriver) -> None:
    agent.receive(m.Drain(agent.stamp(0), 20.0))
    agent.step(broke(jitter=1.0))


def forgotten(agent: AgentDriver) -> None:
    """Given up in the middle of a round, which it then finishes at once."""
    agent.step(broke(errors.SessionUnknownError("you were given up")))
    if agent.state.phase is Phase.LAGGING:
        agent.learn()


@pytest.mark.parametrize("end", [broken_off, drained, forgotten])
def test_sessions_that_break_at_once_end_the_agent_after_its_progress_timeout(
    end: Callable[[AgentDriver], None],
) -> None:
    """Connected, welcomed, asked for a round, and cut off again and again: nothing of it is progress."""
    agent, longest = active(), PROGRESS_TIMEOUT + 2.0 + (LONGEST_DRAIN_SECONDS if end is drained else 0.0)
    begun = agent.now
    while agent.state.phase is not Phase.FAILED:
        agent.now += SESSION_TIMEOUT / 20.0
        end(agent)
        if agent.state.phase is not Phase.FAILED:
            agent.now += agent.commands[0].after_seconds
            agent.step(session.Connected())
            agent.receive(agent.welcome(0, session_token=f"at {agent.now}"))
        assert agent.now - begun < longest
    assert agent.now - begun >= PROGRESS_TIMEOUT
    assert isinstance(agent.commands[0].error, errors.CospanError)


def test_a_session_that_lasts_does_not_use_up_the_progress_timeout_and_a_finished_round_gives_it_back() -> None:
    agent = active(started=False)
    for _ in range(10):
        agent.now += SESSION_TIMEOUT  # as behind a proxy that cuts idle streams off while the fleet is waited for
        agent.step(broke())
        agent.now += PROGRESS_TIMEOUT / 20.0
        agent.step(session.Connected())
        agent.receive(agent.welcome(0, started=False))
    assert agent.state.phase is Phase.ACTIVE
    agent.update(0)
    agent.update(1)
    agent.step(broke())
    agent.now += PROGRESS_TIMEOUT - 0.5
    assert agent.step(broke()) == ["Connect"]


@pytest.mark.parametrize("seconds", [1e308, 1e9, LONGEST_DRAIN_SECONDS + 1.0])
def test_a_drain_excuses_an_absence_up_to_a_bound_however_often_it_is_said(seconds: float) -> None:
    agent = active()
    begun = agent.now
    for _ in range(3):
        agent.receive(m.Drain(agent.stamp(0), seconds))
        agent.now += 10.0
    agent.step(broke())
    assert 0.0 < agent.commands[0].after_seconds <= LONGEST_DRAIN_SECONDS
    agent.now = begun + LONGEST_DRAIN_SECONDS + PROGRESS_TIMEOUT
    assert agent.step(broke()) == ["Fail"]


def test_a_tiny_session_timeout_asks_for_no_more_ticks_than_a_clock_has() -> None:
    assert session.tick_seconds(active_with(session_timeout_seconds=1e-300).state) >= 0.01


def test_a_group_that_changes_often_before_the_run_starts_keeps_its_progress_timeout() -> None:
    """As of a relay whose agents come one after another."""
    agent = active(started=False)
    for number in range(int(2 * PROGRESS_TIMEOUT)):
        agent.now += 1.0
        agent.step(session.Regrouped(tuple(f"a{each:03d}" for each in range(number + 1))))
        agent.step(session.Connected())
        assert agent.step(session.Tick()) == []
        agent.receive(agent.welcome(started=False, session_token=f"of {number}"))
    agent.step(broke())
    assert agent.state.phase is Phase.OFFLINE


def active_with(**changes: Any) -> AgentDriver:
    """Welcomed to a run of this specification."""
    agent = AgentDriver(**changes)
    agent.activate()
    return agent


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


def test_who_is_given_up_in_mid_round_does_not_come_back_before_its_round_is_done() -> None:
    """Else the fleet would wait for it a second time, and a third: for a learner that hangs, in every round."""
    agent = active()
    agent.now += 30.0
    assert agent.step(broke(errors.SessionUnknownError("it sent no gradient for 60 s"))) == []
    assert agent.state.phase is Phase.LAGGING
    assert agent.wait(PROGRESS_TIMEOUT - 0.5) == []
    assert agent.learn() == ["Connect"]
    assert agent.commands[0].after_seconds == 0.0
    agent.step(session.Connected())
    assert agent.commands[0].message.resumption is None
    assert agent.receive(agent.welcome(3, session_token="token-2")) == ["Learn"]
    assert agent.commands[0].round == 3


def test_a_learner_that_hangs_is_an_error() -> None:
    agent = active()
    agent.step(broke(errors.SessionUnknownError("it sent no gradient for 60 s")))
    assert agent.wait(PROGRESS_TIMEOUT) == ["Fail"]
    assert isinstance(agent.commands[0].error, errors.WorkloadBehaviourError)
    assert "round 0 is not done 60 s after" in str(agent.commands[0].error)


# Heartbeats ---------------------------------------------------------------------------------------------


def test_a_heartbeat_goes_out_four_times_in_the_session_timeout() -> None:
    agent = active()
    assert session.tick_seconds(agent.state) == SESSION_TIMEOUT / 8
    assert agent.wait(SESSION_TIMEOUT / 4 - 0.25) == []
    assert agent.wait(0.25) == ["Transmit Heartbeat"]
    assert agent.wait(SESSION_TIMEOUT / 8) == []
    agent.learn()
    assert agent.wait(SESSION_TIMEOUT / 8) == [], "a gradient is a sign of life as well"
    assert agent.wait(SESSION_TIMEOUT / 8) == ["Transmit Heartbeat"]


def test_no_heartbeat_without_a_session() -> None:
    agent = AgentDriver()
    assert session.tick_seconds(agent.state) == 1.0
    assert agent.wait(SESSION_TIMEOUT) == []
    agent.prepare()
    agent.step(session.Connected())
    assert agent.wait(SESSION_TIMEOUT) == []
    agent.receive(agent.welcome())
    agent.step(broke())
    assert agent.wait(SESSION_TIMEOUT) == []


def test_ticks_come_once_a_second_at_least() -> None:
    agent = AgentDriver(session_timeout_seconds=3600.0)
    agent.activate()
    assert session.tick_seconds(agent.state) == 1.0


# The end ------------------------------------------------------------------------------------------------


def in_phase(phase: Phase) -> AgentDriver:
    agent = AgentDriver()
    steps = {
        Phase.OFFLINE: [],
        Phase.PREPARING: [session.Described(agent.specification)],
        Phase.JOINING: [
            session.Described(agent.specification),
            session.Prepared(join("a")),
            session.Connected(),
        ],
    }
    if phase in (Phase.ACTIVE, Phase.LAGGING):
        agent.activate()
    for event in steps.get(phase, []):
        agent.step(event)
    if phase is Phase.LAGGING:
        agent.step(broke(errors.SessionUnknownError("given up")))
    assert agent.state.phase is phase
    return agent


LIVING = [Phase.OFFLINE, Phase.PREPARING, Phase.JOINING, Phase.ACTIVE, Phase.LAGGING]


@pytest.mark.parametrize("phase", LIVING)
def test_it_can_be_stopped_at_any_time(phase: Phase) -> None:
    """Where a stream is open it says good-bye, so that no round waits for it."""
    agent = in_phase(phase)
    farewell = ["Transmit Leave"] if phase in (Phase.JOINING, Phase.ACTIVE) else []
    assert agent.step(session.StopRequested("Ctrl-C")) == [*farewell, "Conclude"]
    assert agent.commands[-1].message == "Ctrl-C"
    assert agent.state.phase is Phase.DONE
    if farewell:
        assert agent.commands[0].message == m.Leave("Ctrl-C")


@pytest.mark.parametrize("phase", LIVING)
def test_an_environment_that_fails_ends_it(phase: Phase) -> None:
    agent = in_phase(phase)
    error = errors.WorkloadBehaviourError("the environment raised ZeroDivisionError")
    farewell = ["Transmit Leave"] if phase in (Phase.JOINING, Phase.ACTIVE) else []
    assert agent.step(session.LearningFailed(error)) == [*farewell, "Fail"]
    assert agent.commands[-1].error is error
    assert agent.state.phase is Phase.FAILED


@pytest.mark.parametrize("phase", [Phase.DONE, Phase.FAILED])
def test_over_is_over(phase: Phase) -> None:
    agent = active()
    error = errors.WorkloadBehaviourError("no")
    agent.step(session.StopRequested("") if phase is Phase.DONE else session.LearningFailed(error))
    assert agent.state.phase is phase
    state = agent.state
    agent.now += 1e6
    for event in (
        session.Described(agent.specification),
        session.Prepared(join("a")),
        session.Connected(),
        session.Received(agent.welcome()),
        broke(),
        session.GradientReady(upload(0)),
        session.LearningFailed(error),
        session.StopRequested(""),
        session.Tick(),
    ):
        assert agent.step(event) == []
        assert agent.state is state


# A coordinator that goes down ---------------------------------------------------------------------------


def test_it_comes_back_when_the_coordinator_asks_it_to() -> None:
    agent = active()
    assert agent.receive(m.Drain(agent.stamp(0), 20.0)) == []
    assert agent.learn() == ["Transmit GradientUpload"], "the conversation continues until the stream ends"
    agent.now += 5.0
    assert agent.step(broke()) == ["Connect"]
    assert agent.commands[0].after_seconds == 15.0
    agent.now += 15.0
    assert agent.step(broke(jitter=1.0)) == ["Connect"]
    assert agent.commands[0].after_seconds == pytest.approx(0.2)


def test_the_progress_timeout_counts_from_when_the_coordinator_wants_to_be_back() -> None:
    agent = active()
    agent.receive(m.Drain(agent.stamp(0), 2 * PROGRESS_TIMEOUT))
    agent.step(broke())
    agent.now += 3 * PROGRESS_TIMEOUT - 0.5
    assert agent.step(broke()) == ["Connect"]
    agent.now += 0.5
    assert agent.step(broke()) == ["Fail"]


def test_a_join_after_a_long_absence_that_was_asked_for_has_its_own_progress_timeout() -> None:
    agent = active()
    agent.receive(m.Drain(agent.stamp(0), 2 * PROGRESS_TIMEOUT))
    agent.step(broke())
    agent.now += 2 * PROGRESS_TIMEOUT
    agent.step(session.Connected())
    assert agent.step(session.Tick()) == []
    agent.now += PROGRESS_TIMEOUT
    assert agent.step(session.Tick()) == ["Fail"]


# Order --------------------------------------------------------------------------------------------------


def test_every_order_of_a_break_and_a_gradient_sends_the_gradient_once_it_can() -> None:
    """Break, gradient and welcome in every order that can happen: round 0 is learnt once, and sent."""
    for order in itertools.permutations(["gradient", "break", "back"]):
        if order.index("back") < order.index("break"):
            continue
        agent = active()
        uploads = 0
        for what in order:
            if what == "gradient":
                kinds = agent.learn()
            elif what == "break":
                kinds = agent.step(broke())
            else:
                agent.step(session.Connected())
                kinds = agent.receive(agent.welcome(0))
            assert "Learn" not in kinds
            uploads += kinds.count("Transmit GradientUpload")
        assert uploads == (2 if order[0] == "gradient" else 1)
        assert [each.upload.round for each in agent.state.kept] == [0]


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
