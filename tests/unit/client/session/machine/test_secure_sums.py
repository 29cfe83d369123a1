"""Secure sums in an agent's session: one vector for a round, in one epoch, or none."""

from dataclasses import replace

import numpy as np
import pytest
from agent_sessions import broke, reconnect
from private_runs import PROMISE
from runs import AgentDriver, announced

from cospan.client.session import machine as session
from cospan.client.session.machine import Phase
from cospan.client.session.machine.secure_sums import epoch_id_of
from cospan.core.method import practical
from cospan.core.secure_sums.membership import Member
from cospan.wire import messages as m
from cospan.wire.errors import BudgetSpentError, MembershipRefusedError, OutOfTurnError, SessionUnknownError

MEMBERS = tuple(Member(bytes([number]) * 32, (name,)) for number, name in enumerate("abc", 1))
FEWER = MEMBERS[:2]


def named(agent: AgentDriver, members: tuple[Member, ...] = MEMBERS, number: int = 0) -> m.SumMembers:
    return m.SumMembers(agent.stamp(number), members)


def agreed(agent: AgentDriver, members: tuple[Member, ...] = MEMBERS) -> bytes:
    """The members are named and found in order."""
    agent.receive(named(agent, members))
    (command,) = agent.commands
    assert isinstance(command, session.Agree)
    epoch_id = epoch_id_of(command.members)
    agent.step(session.Agreed(epoch_id))
    return epoch_id


def opened(agent: AgentDriver, number: int, epoch_id: bytes) -> tuple[session.Command, ...]:
    covariance = announced(agent.specification)[1]
    agent.receive(m.BasisUpdate(agent.stamp(number), agent.basis, covariance, epoch_id))
    return agent.commands


def member() -> tuple[AgentDriver, bytes]:
    """Welcomed, and in the epoch of round 0, which it learns."""
    agent = AgentDriver(secure_sums=True, min_cohort=2)
    agent.activate(started=False)
    epoch_id = agreed(agent)
    (learn,) = opened(agent, 0, epoch_id)
    assert isinstance(learn, session.Learn)
    return agent, epoch_id


def messages(commands: tuple[session.Command, ...]) -> list[m.AgentMessage]:
    """The commands are all messages to send."""
    sent = [each.message for each in commands if isinstance(each, session.Transmit)]
    assert len(sent) == len(commands)
    return sent


def only(agent: AgentDriver) -> session.TransmitMasked:
    (command,) = agent.commands
    assert isinstance(command, session.TransmitMasked)
    return command


def test_a_vector_is_masked_in_the_epoch_of_its_round() -> None:
    agent, epoch_id = member()
    agent.learn()
    sent = only(agent)
    assert (sent.upload.round, sent.epoch_id) == (0, epoch_id)
    assert sent.basis is agent.basis
    assert agent.state.masked_until == 1


def test_the_same_vector_is_sent_again() -> None:
    agent, epoch_id = member()
    agent.learn()
    first = only(agent)
    welcome = agent.welcome(membership=named(agent))
    reconnect(agent, welcome)
    again = only(agent)
    assert (again.upload, again.epoch_id) == (first.upload, epoch_id)


def test_a_round_is_declined_in_another_epoch() -> None:
    agent, _ = member()
    agent.learn()
    other = agreed(agent, FEWER)
    assert messages(opened(agent, 0, other)) == [m.RoundDeclined(0)]
    assert isinstance(opened(agent, 1, other)[0], session.Learn)


def test_a_round_is_declined_at_another_basis() -> None:
    agent, epoch_id = member()
    agent.learn()
    agent.basis = np.ascontiguousarray(agent.basis[:, ::-1])
    assert messages(opened(agent, 0, epoch_id)) == [m.RoundDeclined(0)]
    assert agent.state.learning is None


def test_an_earlier_round_is_declined() -> None:
    agent, epoch_id = member()
    for number in range(3):
        agent.learn()
        opened(agent, number + 1, epoch_id)
    stamp = m.Stamp("run-1", 2, 1, 0)
    agent.receive(m.BasisUpdate(stamp, agent.basis[:, ::-1].copy(), epoch_id=epoch_id))
    assert messages(agent.commands) == [m.RoundDeclined(1)]


def test_what_was_not_sent_is_sent_in_the_epoch_that_opens_its_round() -> None:
    """It was computed while the stream was broken, and meanwhile the members have changed."""
    agent, _ = member()
    agent.step(broke())
    agent.learn()
    assert agent.commands == ()
    agent.step(session.Connected())
    agent.receive(agent.welcome(membership=named(agent, FEWER)))
    (agree,) = agent.commands
    assert isinstance(agree, session.Agree)
    agent.step(session.Agreed(epoch_id_of(agree.members)))
    assert only(agent).epoch_id == epoch_id_of(agree.members)


def test_a_vector_that_is_late_is_not_sent() -> None:
    agent, epoch_id = member()
    opened(agent, 1, epoch_id)  # round 0 was void
    agent.learn()
    (learn,) = agent.commands
    assert isinstance(learn, session.Learn)
    assert learn.round == 1


def test_who_is_no_member_waits() -> None:
    agent = AgentDriver(secure_sums=True, min_cohort=2)
    agent.activate()
    assert agent.state.phase is Phase.ACTIVE
    assert not any(isinstance(each, session.Learn) for each in agent.commands)
    assert opened(agent, 1, bytes(32)) == ()
    assert opened(agent, 2, b"") == ()


def test_members_that_are_refused_end_the_session() -> None:
    agent, _ = member()
    agent.receive(named(agent, FEWER))
    agent.step(session.LearningFailed(MembershipRefusedError("too few")))
    assert agent.state.phase is Phase.FAILED


def test_members_in_a_run_without_secure_sums_are_out_of_turn() -> None:
    agent = AgentDriver()
    agent.activate()
    agent.receive(named(agent))
    assert isinstance(agent.commands[-1], session.Fail)
    assert isinstance(agent.commands[-1].error, OutOfTurnError)


# Differential privacy -------------------------------------------------------------------------------------------


def private_member() -> tuple[AgentDriver, bytes]:
    agent = AgentDriver(
        **{"agents": 3, "rounds": 9, "secure_sums": True, "min_cohort": 2, "method": practical(3)} | PROMISE
    )
    agent.activate(started=False)
    epoch_id = agreed(agent)
    (learn,) = opened(agent, 0, epoch_id)
    assert isinstance(learn, session.Learn)
    return agent, epoch_id


def test_a_vector_is_counted_before_it_is_sent() -> None:
    agent, epoch_id = private_member()
    agent.learn()
    assert agent.commands == (session.Count(),)
    assert agent.state.masked_until == 0
    agent.step(session.Counted())
    assert (only(agent).upload.round, only(agent).epoch_id) == (0, epoch_id)
    opened(agent, 1, epoch_id)
    agent.learn()
    assert agent.commands == (session.Count(),), "each by itself"


def test_what_is_sent_again_is_not_counted_again() -> None:
    agent, _ = private_member()
    agent.learn()
    agent.step(session.Counted())
    first = only(agent)
    reconnect(agent, agent.welcome(membership=named(agent)))
    assert only(agent).upload is first.upload


def test_it_waits_for_its_count_and_counts_once() -> None:
    agent, epoch_id = private_member()
    agent.learn()
    assert opened(agent, 0, epoch_id) == ()
    agent.step(session.Counted())
    assert only(agent).upload.round == 0


def test_what_was_counted_and_not_sent_stands_for_the_next() -> None:
    agent, epoch_id = private_member()
    agent.learn()
    opened(agent, 1, epoch_id)  # round 0 is void, while its vector is being counted
    agent.step(session.Counted())
    agent.learn()
    assert only(agent).upload.round == 1
    assert not agent.state.counted


def test_a_budget_that_is_spent_ends_the_session() -> None:
    agent, _ = private_member()
    agent.learn()
    agent.step(session.LearningFailed(BudgetSpentError("all have been sent")))
    assert agent.state.phase is Phase.FAILED
    assert not any(isinstance(each, session.TransmitMasked) for each in agent.commands)


def test_the_invariant_is_checked() -> None:
    agent, _ = member()
    agent.learn()
    (kept,) = agent.state.kept
    with pytest.raises(AssertionError, match="one vector is masked for a round"):
        replace(agent.state, kept=(kept, kept)).check()
    with pytest.raises(AssertionError, match="what was masked is known"):
        replace(agent.state, masked_until=0).check()


# A process that passes rounds on --------------------------------------------------------------------------------


def passing() -> tuple[AgentDriver, bytes]:
    """A relay's session, which has passed round 0 on."""
    agent, epoch_id = member()
    agent.state = replace(agent.state, passes_on=True)
    return agent, epoch_id


def summed(agent: AgentDriver, number: int, epoch_id: bytes) -> tuple[session.Command, ...]:
    vector = m.MaskedVector(np.ones(3, np.uint64), epoch_id, 2.0)
    agent.step(session.GradientReady(m.GradientUpload(number, vector, ("a", "b"))))
    return agent.commands


def test_a_round_is_passed_on_though_the_one_before_has_no_sum() -> None:
    agent, epoch_id = passing()
    (learn,) = opened(agent, 1, epoch_id)
    assert isinstance(learn, session.Learn)
    assert (learn.round, agent.state.learning) == (1, 1)


def test_a_sum_that_comes_masked_is_sent_in_its_epoch_and_again_on_request() -> None:
    agent, epoch_id = passing()
    (sent,) = summed(agent, 0, epoch_id)
    assert isinstance(sent, session.TransmitMasked)
    assert (sent.epoch_id, agent.state.masked_until) == (epoch_id, 1)
    (again,) = opened(agent, 0, epoch_id)
    assert isinstance(again, session.TransmitMasked)
    assert again.upload is sent.upload


def test_a_sum_of_another_epoch_is_declined() -> None:
    agent, epoch_id = passing()
    summed(agent, 0, epoch_id)
    fewer = agreed(agent, FEWER)
    assert messages(opened(agent, 0, fewer)) == [m.RoundDeclined(0)]


def test_a_round_without_a_sum_is_declined_once_and_may_be_asked_for_again() -> None:
    agent, epoch_id = passing()
    agent.step(session.Unsummed(0))
    assert messages(agent.commands) == [m.RoundDeclined(0)]
    agent.step(session.Unsummed(0))
    assert agent.commands == ()
    (learn,) = opened(agent, 0, epoch_id)
    assert isinstance(learn, session.Learn)


def test_of_a_round_that_is_over_nothing_is_declined() -> None:
    agent, epoch_id = passing()
    opened(agent, 1, epoch_id)
    agent.step(session.Unsummed(0))
    assert agent.commands == ()
    assert agent.state.learning == 1


def test_a_session_that_was_given_up_is_joined_again_at_once() -> None:
    """Its round is void without it, so nothing is to be finished first."""
    agent, _ = passing()
    agent.step(broke(SessionUnknownError("given up")))
    assert agent.state.phase is Phase.OFFLINE
    assert isinstance(agent.commands[-1], session.Connect)
