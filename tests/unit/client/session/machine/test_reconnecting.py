"""Whether the coordinator is there: broken streams, heartbeats, pauses, and the end of every wait."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from agent_sessions import active, broke, reconnect
from runs import SESSION_TIMEOUT, AgentDriver, join

from cospan.client.session import machine as session
from cospan.client.session.machine import Phase
from cospan.wire import errors
from cospan.wire import messages as m
from cospan.wire.limits import LONGEST_DRAIN_SECONDS

PROGRESS_TIMEOUT = 60.0


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


# A coordinator that was started again -------------------------------------------------------------------


def from_a_copy(agent: AgentDriver, started: float, incarnation: int = 1) -> m.Welcome:
    """The welcome of a coordinator whose store was brought back: its incarnation is lower, its round is too."""
    stamp = replace(agent.stamp(1), incarnation=incarnation)
    return agent.welcome(stamp=stamp, first_round=1, session_token="another", coordinator_started=started)


def ahead_of_a_copy() -> AgentDriver:
    """It has met incarnation 4, started at 2000 s, and its round 9."""
    agent = active()
    stamp = replace(agent.stamp(9), incarnation=4)
    reconnect(agent, agent.welcome(stamp=stamp, first_round=9, coordinator_started=2000.0))
    agent.learn()
    return agent


@pytest.mark.parametrize("incarnation", [1, 4])
def test_a_store_that_was_brought_back_from_a_copy_is_gone_on_with(incarnation: int) -> None:
    """Also where the coordinator was started again between the copy and its return: then both have one number."""
    agent = ahead_of_a_copy()
    assert agent.state.learning == 9
    agent.learn()
    assert reconnect(agent, from_a_copy(agent, 3000.0, incarnation)) == ["Learn"]
    assert (agent.commands[0].round, agent.state.phase, agent.state.last_announced_round) == (1, Phase.ACTIVE, 9)
    assert agent.learn() == ["Transmit GradientUpload"]
    stamp = replace(agent.stamp(2), incarnation=incarnation)
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


def test_a_join_that_an_older_one_has_overtaken_is_tried_again_in_mid_round() -> None:
    """As of a relay that has joined with other agents: its round may wait for those that this join confirms."""
    agent = active()
    agent.step(session.Regrouped(("a", "b")))
    agent.step(session.Connected())
    assert agent.state.learning == 0
    assert agent.step(broke(errors.SessionUnknownError("the agent was started again"))) == ["Connect"]
    agent.step(session.Connected())
    assert agent.commands[0].message.agent_ids == ("a", "b")
    assert agent.commands[0].message.resumption is None


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


def test_a_silent_feed_is_reported_within_a_session() -> None:
    agent = active()
    agent.step(session.FeedSilent(120.0))
    (told,) = agent.commands
    assert told.message == m.Heartbeat(feed_silent_seconds=120.0)
    assert agent.wait(SESSION_TIMEOUT / 8) == [], "it is a sign of life as well"
    agent.step(broke())
    agent.step(session.FeedSilent(150.0))
    assert agent.commands == ()


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
