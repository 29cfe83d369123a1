"""An open stream on which nothing comes: when the coordinator is asked, what is an answer, and when it ends."""

from collections import Counter

import pytest
from runs import SESSION_TIMEOUT, AgentDriver, join

from cospan.client.session import machine as session
from cospan.client.session.machine import Phase, idle_check
from cospan.server.admission.peer_limits import Account, Kind, closed, limit_of_all, limit_of_peer, opened
from cospan.wire import errors
from cospan.wire import messages as m

PROGRESS_TIMEOUT = 60.0
HOUR = 3600.0
NO_ANSWER = session.Unanswered(errors.CoordinatorUnavailableError("no answer came"))


def active(progress_timeout_seconds: float = PROGRESS_TIMEOUT) -> AgentDriver:
    agent = AgentDriver(progress_timeout_seconds)
    agent.activate()
    return agent


def wait_for_question(agent: AgentDriver, longest: float, tick: float = 0.25) -> session.Ask:
    """Ticks until a question is asked."""
    end = agent.now + longest
    while agent.now < end:
        agent.wait(tick)
        for command in agent.commands:
            if isinstance(command, session.Ask):
                return command
    raise AssertionError(f"no question came within {longest} s")


def let_fail(agent: AgentDriver, question: session.Ask) -> list[str]:
    """The question's time passes without an answer."""
    agent.now += question.within_seconds
    return agent.step(NO_ANSWER)


def ended(agent: AgentDriver) -> float:
    """Lets every question fail; how long the silence lasted until the agent ended."""
    begun = agent.now
    for _ in range(100):
        let_fail(agent, wait_for_question(agent, 200.0))
        if agent.state.phase is not Phase.ACTIVE:
            break
    return agent.now - begun


def test_a_silent_coordinator_is_asked_after_a_quarter_of_the_progress_timeout() -> None:
    agent = active()
    begun = agent.now
    question = wait_for_question(agent, PROGRESS_TIMEOUT)
    assert agent.now - begun == PROGRESS_TIMEOUT / 4
    assert question.within_seconds == idle_check.LONGEST_ANSWER_SECONDS
    for _ in range(100):
        assert "Ask" not in agent.wait(0.05), "one question at a time"


def test_a_coordinator_that_sends_something_is_not_asked() -> None:
    agent = active()
    for number in range(100):
        assert "Ask" not in agent.wait(PROGRESS_TIMEOUT / 4 - 1.0)
        agent.update(number)


@pytest.mark.parametrize("progress_timeout_seconds", [0.0, 2.0, 5.0, 60.0, 600.0])
def test_a_coordinator_that_never_answers_ends_the_agent_at_its_progress_timeout(
    progress_timeout_seconds: float,
) -> None:
    agent = active(progress_timeout_seconds)
    waited = ended(agent)
    late = (
        0.5 if progress_timeout_seconds > idle_check.SHORTEST_SECONDS else 2.0 * idle_check.SHORTEST_SECONDS + 0.5
    )
    assert progress_timeout_seconds <= waited <= progress_timeout_seconds + late
    failure = agent.commands[0].error
    assert isinstance(failure, errors.CoordinatorUnavailableError)
    assert "the stream to the coordinator is open, but the coordinator does not answer" in str(failure)
    assert f"given up after {progress_timeout_seconds:g} s" in str(failure)


def test_a_slow_round_of_a_coordinator_that_answers_has_no_bound() -> None:
    agent = active()
    begun, questions = agent.now, 0
    while agent.now < begun + 2 * HOUR:
        wait_for_question(agent, PROGRESS_TIMEOUT, tick=3.0)
        agent.now += 0.5
        assert agent.step(session.Answered(agent.stamp(0))) == []
        questions += 1
    assert agent.state.phase is Phase.ACTIVE
    assert questions < 2 * HOUR / (PROGRESS_TIMEOUT / 4)
    assert agent.learn() == ["Transmit GradientUpload"]


def test_an_answer_and_a_message_restart_the_progress_timeout() -> None:
    agent = active()
    for number in range(10):
        for _ in range(2):
            assert let_fail(agent, wait_for_question(agent, PROGRESS_TIMEOUT)) == []
        if number % 2:
            agent.update(number)
        else:
            wait_for_question(agent, PROGRESS_TIMEOUT)
            agent.step(session.Answered(agent.stamp(0)))
    assert PROGRESS_TIMEOUT <= ended(agent) <= PROGRESS_TIMEOUT + idle_check.SHORTEST_SECONDS + 1.0


@pytest.mark.parametrize("stamp", [m.Stamp("run-2", 1, 0, 0), m.Stamp("run-1", 0, 0, 0)])
def test_another_run_and_a_coordinator_of_the_past_do_not_answer_for_this_one(stamp: m.Stamp) -> None:
    agent = active()
    begun, questions = agent.now, 0
    while agent.state.phase is Phase.ACTIVE and questions < 30:
        wait_for_question(agent, PROGRESS_TIMEOUT)
        agent.step(session.Answered(stamp))
        questions += 1
    assert questions < 30, "it ends, and answers that come at once do not lead to a question at once"
    assert PROGRESS_TIMEOUT <= agent.now - begun <= PROGRESS_TIMEOUT + 2.0
    assert agent.commands[0].error.reason == "COORDINATOR_UNAVAILABLE"


def test_a_coordinator_that_was_replaced_is_connected_to_again() -> None:
    agent = active()
    wait_for_question(agent, PROGRESS_TIMEOUT)
    assert agent.step(session.Answered(m.Stamp("run-1", 2, 0, 0))) == ["Connect"]
    assert (agent.state.phase, agent.commands[0].after_seconds <= 1.0) == (Phase.OFFLINE, True)


@pytest.mark.parametrize("error", [errors.RateLimitedError, errors.TooManyStreamsError, errors.DrainingError])
def test_a_refusal_for_the_moment_is_a_sign_of_life(error: type[errors.RemoteError]) -> None:
    agent = active()
    begun = agent.now
    while agent.now < begun + 5 * PROGRESS_TIMEOUT:
        wait_for_question(agent, PROGRESS_TIMEOUT)
        assert agent.step(session.Unanswered(error("later"))) == []
    assert agent.state.phase is Phase.ACTIVE


def test_an_agent_that_stood_still_itself_asks_again_before_it_gives_up() -> None:
    agent = active()
    question = wait_for_question(agent, PROGRESS_TIMEOUT)
    agent.now += question.within_seconds + HOUR
    assert agent.step(NO_ANSWER) == []
    again = wait_for_question(agent, 1.0)
    assert again.within_seconds == idle_check.LONGEST_ANSWER_SECONDS
    assert agent.step(session.Answered(agent.stamp(0))) == []
    assert agent.state.phase is Phase.ACTIVE


def test_an_agent_that_is_always_late_gives_up_too() -> None:
    agent = active()
    for _ in range(2):
        question = wait_for_question(agent, PROGRESS_TIMEOUT)
        agent.now += question.within_seconds + HOUR
        agent.step(NO_ANSWER)
    assert agent.state.phase is Phase.FAILED


def test_a_drain_excuses_the_silence_that_it_announces() -> None:
    agent = active()
    agent.receive(m.Drain(agent.stamp(0), 100.0))
    assert PROGRESS_TIMEOUT + 100.0 <= ended(agent) <= PROGRESS_TIMEOUT + 100.0 + 3.0


def test_the_progress_timeout_of_a_broken_stream_counts_from_the_last_sign_of_life() -> None:
    """A stopped process: keepalive breaks the stream 30 s later, and the silence before is part of the wait."""
    agent = active()
    begun = agent.now
    let_fail(agent, wait_for_question(agent, PROGRESS_TIMEOUT))
    agent.now = begun + 30.0
    broke = session.StreamBroke(errors.CoordinatorUnavailableError("keepalive"), 0.0)
    while agent.step(broke) == ["Connect"] and agent.now < begun + 10 * PROGRESS_TIMEOUT:
        agent.now += 1.0
    assert agent.state.phase is Phase.FAILED
    assert agent.now - begun == PROGRESS_TIMEOUT


def test_the_answer_to_a_question_of_a_former_stream_changes_nothing() -> None:
    agent = active()
    wait_for_question(agent, PROGRESS_TIMEOUT)
    agent.step(session.StreamBroke(errors.CoordinatorUnavailableError("gone"), 0.0))
    for event in (session.Answered(agent.stamp(0)), NO_ANSWER):
        before = agent.state
        assert agent.step(event) == []
        assert agent.state is before
    agent.step(session.Connected())
    agent.receive(agent.welcome())
    assert agent.step(NO_ANSWER) == []
    assert agent.state.hearing.unanswered == 0


def test_no_question_without_a_session() -> None:
    agent = AgentDriver()
    agent.prepare()
    agent.step(session.Connected())
    for _ in range(50):
        assert agent.wait(1.0) == []
    agent.receive(agent.welcome())
    agent.step(session.StreamBroke(errors.SessionUnknownError("given up"), 0.0))
    assert agent.state.phase is Phase.LAGGING
    assert agent.wait(PROGRESS_TIMEOUT / 2) == []


# What a fleet asks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("progress_timeout_seconds", [0.0, 60.0])
def test_the_questions_of_1000_agents_come_apart_and_within_what_one_host_may_ask(
    progress_timeout_seconds: float,
) -> None:
    agents, until = 1000, 40.0
    limit, of_all = limit_of_peer(Kind.CALL, agents), limit_of_all(Kind.CALL, agents)
    times: list[float] = []
    for number in range(agents):
        own_times = idle_check.times_of(progress_timeout_seconds, agents, number / agents)
        hearing = idle_check.heard(idle_check.Silence(), own_times, 0.0)  # all are told of a round at once
        while hearing.ask_at < until:
            times.append(hearing.ask_at)
            now = hearing.ask_at
            hearing = idle_check.answered(idle_check.asked(hearing, own_times, now), own_times, now)
    account = everyone = Account()
    for now in sorted(times):
        account = closed(opened(account, Kind.CALL, limit, now, "one host"), unjoined=False)
        everyone = closed(opened(everyone, Kind.CALL, of_all, now, "this run"), unjoined=False)
    assert len(times) / until <= 100.0
    assert max(Counter(map(int, times)).values()) <= 201


def test_a_group_asks_as_one_process() -> None:
    alone = AgentDriver(progress_timeout_seconds=0.0, agents=10_000)
    alone.activate()
    group = AgentDriver(progress_timeout_seconds=0.0, agents=10_000)
    group.step(session.Described(group.specification))
    names = tuple(f"site-{index}" for index in range(1000))
    group.step(session.Prepared(join(*names)))
    group.step(session.Connected())
    group.receive(group.welcome(agent_ids=tuple(sorted(names))))
    for agent, seconds in ((alone, 100.0), (group, idle_check.SHORTEST_SECONDS)):
        begun = agent.now
        wait_for_question(agent, 200.0)
        assert agent.now - begun == pytest.approx(seconds, abs=SESSION_TIMEOUT / 8)
