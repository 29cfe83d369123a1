"""The relay's machine with secure sums: what it offers, whose vectors it adds, and when its round is void."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from runs import SESSION_TIMEOUT, join, kinds, specification
from snapshots import snapshot

from cospan.core.secure_sums.membership import Member, Membership
from cospan.relay import machine
from cospan.relay.events import DeclineUp, EpochAbove, Event, HostAgents, Refused, RoundOpened, SumUp, Welcomed
from cospan.relay.members import partial_sum
from cospan.server.machine import events
from cospan.wire import errors
from cospan.wire import messages as m
from cospan.wire.secure_sums.proof import KeyProof

KEYS = {name: bytes([number]) * 32 for number, name in enumerate("abcdefgh", 1)}
OTHERS = tuple(Member(bytes([200 + number]) * 32, (f"other-{number}",)) for number in range(3))
SECURE: dict[str, Any] = {"agents": 5, "secure_sums": True, "min_cohort": 3}


def member(name: str, key: bytes | None = None) -> Member:
    return Member(key or KEYS[name], (name,))


class SecureRelay:
    """Steps the machine of a relay with a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.specification = specification(**SECURE)
        self.fixed = replace(self.specification, feature_fingerprint="map-1")
        self.basis = self.specification.initial_basis()
        self.state = machine.initial_state(self.specification, gather_agents=2, level=1, now=0.0)
        self.commands: tuple[Any, ...] = ()
        self.tokens: dict[str, str] = {}
        self.epoch: EpochAbove
        self._numbers = itertools.count(1)

    def step(self, event: Event) -> list[str]:
        before, held = self.state.fleet, snapshot(self.state.fleet)
        self.state, self.commands = machine.step(self.state, event, self.now)
        assert snapshot(before) == held, "a step wrote to the state that it was given"
        self.state.check()
        return kinds(self.commands)

    def join(self, name: str, key: bytes | None = None, **changes: Any) -> list[str]:
        number = next(self._numbers)
        own = key or KEYS[name]
        offered = {"sum_members": (Member(own, ()),), "key_proofs": {own: KeyProof(name.encode(), b"signed")}}
        said = self.step(events.JoinRequested(join(name, **(offered | changes)), number, f"token-{number}"))
        self.tokens[name] = self.state.fleet.members.hosts[name]
        return said

    def stamp(self, number: int) -> m.Stamp:
        return m.Stamp("run-1", 1, number, number)

    def welcomed(self, number: int = 0, *, started: bool = False) -> list[str]:
        names = self.state.names
        return self.step(
            Welcomed(m.Welcome(self.stamp(number), "up", self.fixed, self.basis, number, started, names))
        )

    def named(self, *own: Member) -> EpochAbove:
        """The coordinator names an epoch of these members and of the others."""
        membership = Membership.of("run-1", (*own, *OTHERS))
        proofs = {each.public_key: KeyProof(each.agent_ids[0].encode(), b"signed") for each in membership.members}
        self.epoch = EpochAbove(membership, proofs, len(set(own) & set(self.state.offered.offer.members)))
        return self.epoch

    def opened(self, number: int) -> list[str]:
        return self.step(RoundOpened(self.stamp(number), number, self.basis, None, self.epoch))

    def vector(self, name: str, number: int, words: int = 1) -> list[str]:
        masked = m.MaskedVector(np.full(3, words, np.uint64), self.epoch.membership.epoch_id, 1.0)
        return self.step(events.GradientArrived(self.tokens[name], m.GradientUpload(number, masked)))

    def hosted(self) -> HostAgents:
        return next(each for each in self.commands if isinstance(each, HostAgents))


def collecting() -> SecureRelay:
    """A relay of a and b, with round 0 open."""
    relay = SecureRelay()
    relay.join("a")
    assert relay.join("b") == ["agent-joined", "HostAgents"]
    relay.welcomed()
    relay.named(member("a"), member("b"))
    relay.opened(0)
    return relay


def test_keys_and_proofs_go_up_as_they_came() -> None:
    relay = SecureRelay()
    relay.join("b")
    relay.join("a")
    offer = relay.hosted().offer
    assert offer is not None
    assert offer.members == (member("a"), member("b"))
    assert offer.key_proofs == {KEYS[name]: KeyProof(name.encode(), b"signed") for name in "ab"}


def test_members_and_the_proofs_of_neighbours_go_down_as_they_came() -> None:
    relay = collecting()
    told = [each for each in relay.commands if isinstance(each, events.Send)]
    assert {each.token for each in told} == set(relay.tokens.values())
    for each in told:
        assert isinstance(each.message, m.SumMembers)
        assert each.message.members == relay.epoch.membership.members
        assert set(each.message.key_proofs) == {
            neighbour.public_key
            for neighbour in relay.epoch.membership.members
            if relay.tokens.get(neighbour.agent_ids[0]) != each.token
        }
    (announced,) = [each.message for each in relay.commands if isinstance(each, events.Broadcast)]
    assert isinstance(announced, m.BasisUpdate)
    assert announced.epoch_id == relay.epoch.membership.epoch_id


def test_members_are_told_once() -> None:
    relay = collecting()
    relay.vector("a", 0)
    relay.vector("b", 0)
    assert relay.opened(1) == ["Broadcast BasisUpdate"]


def test_vectors_are_added_modulo_2_64() -> None:
    relay = collecting()
    assert relay.vector("b", 0, words=2**64 - 1) == []
    assert relay.vector("a", 0, words=3) == ["SumUp"]
    (up,) = [each for each in relay.commands if isinstance(each, SumUp)]
    assert (up.round, up.agent_ids) == (0, ("a", "b"))
    total = partial_sum(up.contributions)
    assert total is not None
    assert (total.words.tolist(), total.weight) == ([2, 2, 2], 2.0)
    assert total.epoch_id == relay.epoch.membership.epoch_id


def test_a_vector_of_another_epoch_is_not_added() -> None:
    relay = collecting()
    relay.vector("a", 0)
    relay.epoch = replace(relay.epoch, membership=Membership.of("run-1", OTHERS))
    assert relay.vector("b", 0) == ["Send Receipt"]
    assert relay.state.fleet.open_round.awaited == {"b"}


def test_a_round_that_opens_again_in_the_same_epoch_is_not_asked_for_again() -> None:
    relay = collecting()
    relay.vector("a", 0)
    assert relay.opened(0) == []
    assert relay.vector("b", 0) == ["SumUp"]
    assert relay.opened(0) == ["Broadcast BasisUpdate"], "the coordinator asks, and the sum was lost"


def test_a_member_that_declines_declines_for_all() -> None:
    relay = collecting()
    relay.vector("a", 0)
    said = relay.step(events.DeclineArrived(relay.tokens["b"], 0))
    assert said == ["DeclineUp", "round-void"]
    assert relay.commands[0] == DeclineUp(0)
    assert relay.opened(1) == ["Broadcast BasisUpdate"]
    assert relay.state.fleet.open_round.awaited == {"a", "b"}


def test_a_member_that_departs_is_left_out_of_the_next_join_at_once() -> None:
    """The join voids the round as well, and says who is gone."""
    relay = collecting()
    relay.vector("a", 0)
    said = relay.step(events.LeaveArrived(relay.tokens["b"], "enough"))
    assert said == ["agent-gone", "round-void", "HostAgents"]
    assert relay.hosted().agent_ids == ("a",)
    offer = relay.hosted().offer
    assert offer is not None
    assert offer.members == (member("a"),)


def test_a_member_that_departs_after_its_vector_is_in_the_sum_and_voids_the_next_round() -> None:
    relay = collecting()
    relay.vector("a", 0)
    assert relay.step(events.LeaveArrived(relay.tokens["a"], "enough")) == ["agent-gone"]
    assert relay.vector("b", 0) == ["SumUp"]
    said = relay.opened(1)
    assert "round-void" in said
    assert said[-1] == "HostAgents"
    assert relay.hosted().agent_ids == ("b",)


def test_an_agent_that_comes_while_a_round_collects_is_not_awaited_in_it() -> None:
    relay = collecting()
    relay.join("c")
    assert relay.state.fleet.open_round.awaited == {"a", "b"}
    relay.now += machine.GATHER_SECONDS
    assert relay.step(events.Tick()) == ["HostAgents"]
    assert relay.hosted().agent_ids == ("a", "b", "c")
    assert relay.welcomed(0, started=True) == ["Send Welcome"]
    (welcome,) = [each.message for each in relay.commands if isinstance(each, events.Send)]
    assert isinstance(welcome, m.Welcome)
    assert (welcome.membership, welcome.first_round) == (None, 1)
    relay.vector("a", 0)
    assert relay.vector("b", 0) == ["SumUp"]
    relay.named(member("a"), member("b"), member("c"))
    assert relay.opened(1) == ["Send SumMembers"] * 3 + ["Broadcast BasisUpdate"]


def test_an_agent_that_comes_after_the_sum_is_brought_before_the_next_round() -> None:
    relay = collecting()
    relay.vector("a", 0)
    relay.vector("b", 0)
    relay.join("c")
    relay.now += machine.GATHER_SECONDS
    assert relay.step(events.Tick()) == ["HostAgents"]
    assert relay.hosted().agent_ids == ("a", "b", "c")


def test_a_process_that_was_started_again_is_brought_at_once_with_its_new_key() -> None:
    relay = collecting()
    relay.step(events.StreamClosed(relay.tokens["b"], 2))
    said = relay.join("b", KEYS["h"], instance="another")
    assert said[-1] == "HostAgents"
    assert "Send Welcome" not in said, "the coordinator does not know the key yet"
    offer = relay.hosted().offer
    assert offer is not None
    assert set(offer.members) == {member("a"), member("b", KEYS["h"])}
    assert relay.welcomed(0, started=True) == ["Send Welcome"]


def test_a_key_that_the_coordinator_refuses_does_not_keep_the_others_out() -> None:
    relay = collecting()
    relay.step(events.StreamClosed(relay.tokens["b"], 2))
    relay.join("b", KEYS["h"], instance="another")
    assert relay.step(Refused(errors.IdentityMismatchError("not proven"))) == [
        "agent-gone",
        "CloseStream",
        "HostAgents",
    ]
    assert relay.hosted().agent_ids == ("a",)


def test_a_silent_member_voids_the_round_before_the_relay_is_dropped() -> None:
    relay = collecting()
    relay.vector("a", 0)
    relay.step(events.StreamClosed(relay.tokens["b"], 2))
    relay.now += SESSION_TIMEOUT / 2
    relay.step(events.HeartbeatArrived(relay.tokens["a"]))
    relay.now += SESSION_TIMEOUT / 2
    assert relay.step(events.Tick()) == ["agent-gone", "round-void", "HostAgents"]


@pytest.mark.parametrize("gone", ["a", "b"])
def test_an_epoch_that_has_a_member_which_is_gone_is_void_from_its_start(gone: str) -> None:
    """As when it departs while the round before is closed: the coordinator does not know of it yet."""
    relay = collecting()
    relay.vector("a", 0)
    relay.vector("b", 0)
    relay.step(events.LeaveArrived(relay.tokens[gone], "enough"))
    assert relay.opened(1)[-1] == "HostAgents"
    assert relay.state.fleet.phase is m.RunPhase.CLOSING


def test_a_relay_without_agents_waits_without_a_deadline() -> None:
    """It opens no rounds, so a smallest cohort that is not there is no matter of its own."""
    relay = collecting()
    for name in "ab":
        relay.step(events.LeaveArrived(relay.tokens[name], "", True))
    assert relay.state.fleet.phase is m.RunPhase.WAITING
    deadline = machine.next_deadline(relay.state)
    assert deadline is None or deadline == float("inf")
