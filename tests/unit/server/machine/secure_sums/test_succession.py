"""A session that takes the place of another in an open round, as a relay's does when its agents change."""

from typing import Any

import numpy as np
import pytest
from coordinator_runs import CLOSING, COLLECTING
from runs import SESSION_TIMEOUT, CoordinatorDriver, join

from cospan.core.secure_sums.membership import Member
from cospan.server.machine import events
from cospan.wire import messages as m
from cospan.wire.errors import AgentIdTakenError, InvalidMessageError

KEYS = {name: bytes([number]) * 32 for number, name in enumerate("abcdefgh", 1)}
SECURE: dict[str, Any] = {"agents": 4, "rounds": 9, "secure_sums": True, "min_cohort": 3}


class Run(CoordinatorDriver):
    """A relay of a and b, and c and d beside it; round 0 is open."""

    def __init__(self) -> None:
        super().__init__(**SECURE)
        self.streams = 0
        self.voids = 0
        self.brings("ab")
        for name in "cd":
            self.brings(name, instance=name)
        assert self.state.phase is COLLECTING

    def step(self, event: events.Event) -> list[str]:
        kinds = super().step(event)
        self.voids += kinds.count("round-void")
        return kinds

    def brings(self, names: str, instance: str = "relay", **keys: bytes) -> None:
        self.streams += 1
        members = tuple(Member(keys.get(name, KEYS[name]), (name,)) for name in names)
        joining = join(*names, instance=instance, sum_members=members)
        self.step(events.JoinRequested(joining, self.streams, f"token-{self.streams}"))

    def welcome(self) -> m.Welcome:
        return next(
            each.message
            for each in self.commands
            if isinstance(each, events.Send) and isinstance(each.message, m.Welcome)
        )

    def sends(self, token: str, *names: str, number: int = 0) -> None:
        epoch = self.state.open_round.epoch
        assert epoch is not None
        vector = m.MaskedVector(np.zeros(1, np.uint64), epoch.id, float(len(names)))
        self.step(events.GradientArrived(token, m.GradientUpload(number, vector, names)))


def test_a_relay_that_brings_one_more_agent_keeps_its_place_in_the_round() -> None:
    run = Run()
    epoch = run.state.open_round.epoch
    run.brings("abe")
    assert run.voids == 0
    assert run.state.open_round.awaited == set("abcd")
    welcome = run.welcome()
    assert epoch is not None
    assert welcome.membership is not None
    assert welcome.membership.members == epoch.membership.members
    assert (welcome.first_round, welcome.started) == (0, True)
    for token, *names in (("token-4", "a", "b"), ("token-2", "c"), ("token-3", "d")):
        run.sends(token, *names)
    assert (run.state.phase, run.voids) == (CLOSING, 0)
    (closing,) = [each for each in run.commands if isinstance(each, events.ComputeBasis)]
    assert [each.weight for each in closing.contributions] == [2.0, 1.0, 1.0]


def test_a_relay_that_brings_agents_twice_in_a_round_keeps_its_place() -> None:
    run = Run()
    run.brings("abe")
    run.brings("abef")
    assert run.voids == 0
    assert run.state.open_round.awaited == set("abcd")
    for token, *names in (("token-5", "a", "b"), ("token-2", "c"), ("token-3", "d")):
        run.sends(token, *names)
    assert (run.state.phase, run.voids) == (CLOSING, 0)


def test_a_sum_with_an_agent_that_is_not_in_the_round_is_refused() -> None:
    run = Run()
    run.brings("abe")
    with pytest.raises(InvalidMessageError, match="must be all agents of the process"):
        run.sends("token-4", "a")
    assert run.state.open_round.awaited == set("abcd")


def test_a_vector_that_has_counted_stays() -> None:
    run = Run()
    run.sends("token-1", "a", "b")
    run.brings("abe")
    assert run.voids == 0
    assert run.state.open_round.counted == set("ab")
    assert run.welcome().first_round == 1


def test_a_relay_that_was_started_again_takes_the_place_of_the_lost_one() -> None:
    run = Run()
    with pytest.raises(AgentIdTakenError):
        run.brings("ab", instance="another")
    run.step(events.StreamClosed("token-1", 1))
    run.brings("ab", instance="another")
    assert run.voids == 0
    assert run.state.open_round.awaited == set("abcd")
    assert run.state.open_round.departed == ()


@pytest.mark.parametrize(("names", "keys"), [("a", {}), ("ab", {"b": KEYS["h"]}), ("aeb", {"a": KEYS["g"]})])
def test_a_member_that_is_missing_or_has_another_key_voids_the_round(names: str, keys: dict[str, bytes]) -> None:
    run = Run()
    run.brings("".join(sorted(names)), **keys)
    assert run.voids == 1


def test_one_join_takes_the_place_of_one_session_alone() -> None:
    """Its vector would be over the agents of both, and no vector of the round is."""
    run = Run()
    for number, token in ((1, "token-1"), (2, "token-2")):
        run.step(events.StreamClosed(token, number))
    run.brings("abc", instance="another")
    assert run.voids == 1


def test_a_key_of_a_session_that_stays_is_refused() -> None:
    run = Run()
    before = run.state
    with pytest.raises(InvalidMessageError, match="a key of another session"):
        run.brings("abe", e=KEYS["c"])
    assert run.state is before


def test_a_round_is_declined_for_the_members_that_it_awaits() -> None:
    run = Run()
    run.brings("abe")
    run.step(events.DeclineArrived("token-4", 0))
    assert run.voids == 1


def test_a_successor_that_falls_silent_is_dropped_as_any_session() -> None:
    run = Run()
    run.brings("abe")
    for _ in range(2):
        run.now += SESSION_TIMEOUT / 2
        for token in ("token-2", "token-3"):
            run.step(events.HeartbeatArrived(token))
    run.step(events.Tick())
    assert run.voids == 1
    assert set(run.state.members.hosts) == set("cd")
