"""Keys and masks of one process: what it offers, what it agrees to, and what it sends."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from runs import AgentDriver, join, specification, upload

from cospan.client.session.machine import SessionState, TransmitMasked, most_kept_rounds
from cospan.client.session.machine.secure_sums import epoch_id_of
from cospan.client.session.masking import Masking
from cospan.core.secure_sums.fixed_point import added, encode, sum_problem
from cospan.core.secure_sums.layout import layout_of
from cospan.core.secure_sums.membership import Member
from cospan.core.specification import RunSpecification
from cospan.wire import messages as m
from cospan.wire.errors import MembershipRefusedError, WorkloadBehaviourError


def secure() -> RunSpecification:
    return specification(agents=3, rounds=0, secure_sums=True, min_cohort=3)


def processes(*names: str) -> dict[str, Masking]:
    return {name: Masking(None) for name in names}


def state_of(name: str) -> SessionState:
    agent = AgentDriver(agents=3, secure_sums=True, min_cohort=3)
    agent.activate()
    return replace(agent.state, join=join(name))


def named(hosted: dict[str, Masking], number: int = 0) -> m.SumMembers:
    members = [Member(each.offered(join(name)).sum_members[0].public_key, (name,)) for name, each in hosted.items()]
    return m.SumMembers(m.Stamp("run-1", 1, number, number), tuple(sorted(members)))


def agreed(hosted: dict[str, Masking], number: int = 0) -> bytes:
    members = named(hosted, number)
    ids = {each.agree(members, state_of(name)) for name, each in hosted.items()}
    assert ids == {epoch_id_of(members)}
    return ids.pop()


def command(epoch_id: bytes, number: int = 0, value: float = 1.0) -> TransmitMasked:
    basis = secure().initial_basis()
    return TransmitMasked(upload(number, value=value), epoch_id, basis)


def words(sent: m.GradientUpload) -> np.ndarray:
    assert isinstance(sent.contribution, m.MaskedVector)
    return sent.contribution.words


def test_a_key_is_offered_and_is_another_in_each_process() -> None:
    one, other = Masking(None), Masking(None)
    (member,) = one.offered(join("a")).sum_members
    assert one.offered(join("a")).sum_members == (member,)
    assert (len(member.public_key), member.agent_ids) == (32, ())
    assert other.offered(join("a")).sum_members != (member,)


def test_the_masks_of_an_epoch_cancel() -> None:
    hosted, spec = processes("a", "b", "c"), secure()
    epoch_id = agreed(hosted)
    sent = [each.masked(command(epoch_id), spec) for each in hosted.values()]
    plain = encode(upload(0).plain, layout_of(spec, 0)).words
    assert all(np.all(words(each) != plain) for each in sent)
    total = added(words(each) for each in sent)
    assert not sum_problem(total, layout_of(spec, 0), 3)
    np.testing.assert_array_equal(total, added([plain] * 3))


def test_a_round_is_sent_again_to_the_same_bytes_and_kept_as_long_as_it_may_be_asked_for() -> None:
    hosted, spec = processes("a", "b", "c"), secure()
    epoch_id = agreed(hosted)
    one = hosted["a"]
    sent = [one.masked(command(epoch_id, number), spec) for number in range(most_kept_rounds(spec) + 2)]
    assert one.masked(command(epoch_id, 5), spec) is sent[5]
    assert len(one._sent) == most_kept_rounds(spec)


def test_members_that_cannot_be_are_refused() -> None:
    hosted = processes("a", "b")
    with pytest.raises(MembershipRefusedError, match="the epoch has 2 members"):
        hosted["a"].agree(named(hosted), state_of("a"))
    with pytest.raises(MembershipRefusedError, match="is not among the members"):
        hosted["a"].agree(named(processes("a", "b", "c")), state_of("a"))


def test_a_change_of_the_members_is_told(caplog: pytest.LogCaptureFixture) -> None:
    hosted = processes("a", "b", "c", "d")
    with caplog.at_level(logging.WARNING):
        agreed(hosted)
        assert caplog.messages == []
        hosted["a"].agree(named({name: each for name, each in hosted.items() if name != "d"}, 7), state_of("a"))
        hosted["a"].agree(named(hosted | processes("d"), 9), state_of("a"))
        hosted["a"].agree(named(hosted, 10), state_of("a"))
    assert caplog.messages == [
        "round 7: the sum is over 3 processes from now on: d left",
        "round 9: the sum is over 4 processes from now on: d came",
        "round 10: the sum is over 4 processes from now on: a process was started again",
    ]


def test_numbers_out_of_range_weigh_less_and_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    hosted, spec = processes("a", "b", "c"), secure()
    epoch_id = agreed(hosted)
    with caplog.at_level(logging.WARNING):
        for number in range(2):
            hosted["a"].masked(command(epoch_id, number, 1e30), spec)
    assert len([each for each in caplog.messages if "out of the range of secure sums" in each]) == 1


def test_numbers_that_are_not_finite_end_the_session() -> None:
    hosted, spec = processes("a", "b", "c"), secure()
    with pytest.raises(WorkloadBehaviourError, match="has no fixed point"):
        hosted["a"].masked(command(agreed(hosted), 0, float("nan")), spec)
