"""The agent's session from the first question to the end: out of turn, another run, stopped, failed, and over."""

import itertools

import numpy as np
import pytest
from agent_sessions import active, broke
from runs import AgentDriver, join, upload

from cospan.client.session import machine as session
from cospan.client.session.machine import Phase
from cospan.wire import errors
from cospan.wire import messages as m

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


@pytest.mark.parametrize("shape", [(4, 3), (5, 2), (2, 4), (1, 1)])
def test_a_basis_of_another_shape_never_reaches_the_learner(shape: tuple[int, int]) -> None:
    for kind in ("update", "finish"):
        agent = active()
        stamp, basis = agent.stamp(1), np.ones(shape)
        finish = m.Finish(stamp, m.FinishCause.STOPPED, "", basis)
        assert agent.receive(m.BasisUpdate(stamp, basis) if kind == "update" else finish) == ["Fail"]
        assert isinstance(agent.commands[0].error, errors.InvalidMessageError)
        assert f"{shape[0]} × {shape[1]}, and this run has 4 × 2" in str(agent.commands[0].error)


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
