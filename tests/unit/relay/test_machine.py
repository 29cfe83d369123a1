"""The relay's machine: whom the coordinator is told of, what is summed, and what agents are told."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from runs import ROUND, SESSION_TIMEOUT, join, kinds, specification, upload
from snapshots import snapshot

from cospan.core.method import full_history
from cospan.core.run_fields import Participation
from cospan.relay import machine
from cospan.relay.events import Event, HostAgents, Refused, RoundOpened, RunFinished, SumUp, Welcomed
from cospan.server.machine import events
from cospan.wire import errors
from cospan.wire import messages as m


class RelayDriver:
    """Steps the relay's machine with a clock of its own, and checks after every event what always holds."""

    def __init__(self, gather_agents: int = 2) -> None:
        self.now = 0.0
        self.specification = specification()
        self.fixed = replace(self.specification, feature_fingerprint="map-1")
        """As it is once the first agent has joined."""
        self.basis = self.specification.initial_basis()
        self.state = machine.initial_state(self.specification, gather_agents=gather_agents, level=1, now=0.0)
        self.commands: tuple[Any, ...] = ()
        self.tokens: dict[str, str] = {}
        self._numbers = itertools.count(1)

    def step(self, event: Event) -> list[str]:
        before, held = self.state.fleet, snapshot(self.state.fleet)
        self.state, self.commands = machine.step(self.state, event, self.now)
        assert snapshot(before) == held, "a step wrote to the state that it was given"
        self.state.check()
        return kinds(self.commands)

    def join(self, *agents: str, **changes: Any) -> list[str]:
        number = next(self._numbers)
        said = self.step(events.JoinRequested(join(*agents, **changes), number, f"token-{number}"))
        self.tokens |= dict.fromkeys(agents, self.state.fleet.members.hosts[agents[0]])
        return said

    def stamp(self, round_number: int, durable: int | None = None, incarnation: int = 1) -> m.Stamp:
        return m.Stamp("run-1", incarnation, round_number, round_number if durable is None else durable)

    def welcomed(self, round_number: int = 0, *, started: bool = False, agents: tuple[str, ...] = ()) -> list[str]:
        names = agents or self.state.names
        welcome = m.Welcome(self.stamp(round_number), "up", self.fixed, self.basis, round_number, started, names)
        return self.step(Welcomed(welcome))

    def opened(self, round_number: int, durable: int | None = None) -> list[str]:
        return self.step(RoundOpened(self.stamp(round_number, durable), round_number, self.basis))

    def gradient(self, agent: str, round_number: int, value: float = 1.0) -> list[str]:
        return self.step(events.GradientArrived(self.tokens[agent], upload(round_number, value=value)))

    def wait(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.step(events.Tick())

    def hosted(self) -> tuple[str, ...]:
        """Whom the coordinator is told of by the last commands."""
        return next(command.agent_ids for command in self.commands if isinstance(command, HostAgents))

    def summed(self) -> SumUp:
        return next(command for command in self.commands if isinstance(command, SumUp))

    def sent(self, kind: type[Any]) -> Any:
        messages = (each.message for each in self.commands if isinstance(each, events.Send | events.Broadcast))
        return next(message for message in messages if isinstance(message, kind))


def collecting() -> RelayDriver:
    """A relay of a and b with round 0 open."""
    relay = RelayDriver()
    relay.join("a")
    relay.join("b")
    relay.welcomed()
    relay.opened(0)
    return relay


def closing() -> RelayDriver:
    """The same after both have sent."""
    relay = collecting()
    relay.gradient("a", 0)
    relay.gradient("b", 0)
    return relay


# The way in ---------------------------------------------------------------------------------------------------


def test_nobody_is_welcomed_before_the_coordinator_knows_of_it() -> None:
    relay = RelayDriver()
    assert relay.join("b") == ["agent-joined"]
    assert relay.join("a") == ["agent-joined", "HostAgents"]
    assert relay.hosted() == ("a", "b")
    assert relay.welcomed() == ["Send Welcome", "Send Welcome"]
    welcome = relay.sent(m.Welcome)
    assert (welcome.stamp, welcome.started) == (relay.stamp(0), False)
    assert relay.opened(0) == ["Broadcast BasisUpdate"]
    assert relay.state.fleet.open_round.awaited == {"a", "b"}


def test_who_comes_first_waits_for_others_and_not_for_ever() -> None:
    relay = RelayDriver(gather_agents=3)
    relay.join("a")
    assert relay.wait(2.0) == []
    relay.join("b")
    assert relay.wait(0.5) == ["HostAgents"]
    assert relay.hosted() == ("a", "b")


def test_a_round_is_shorter_at_every_level() -> None:
    relay = collecting()
    assert relay.state.fleet.specification.round_timeout_seconds == pytest.approx(0.9 * ROUND)
    lower = machine.initial_state(relay.specification, gather_agents=1, level=2, now=0.0)
    assert lower.fleet.specification.round_timeout_seconds == pytest.approx(0.8 * ROUND)


def test_agents_are_given_the_specification_of_the_run() -> None:
    """Their files say which run they are of by its digest: they may go on with them elsewhere in the tree."""
    relay = RelayDriver()
    relay.join("a", "b")
    assert relay.state.shown.specification == relay.fixed
    relay.welcomed()
    assert relay.sent(m.Welcome).specification == relay.fixed
    assert relay.state.fleet.specification.round_timeout_seconds < relay.fixed.round_timeout_seconds


def test_a_relay_gives_out_no_sites() -> None:
    with pytest.raises(errors.InvalidMessageError, match="a relay assigns no sites"):
        RelayDriver().join(site_claim_id="x", instance="p")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"participation": Participation.QUORUM, "quorum": 0.5}, "participation is quorum"),
        ({"method": replace(full_history(3), warm_up_rounds=2)}, "warm_up_rounds is 2"),
    ],
)
def test_runs_that_no_sum_can_stand_for_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(errors.InvalidValueError, match=text):
        machine.check_relayable(specification(**changes))


# Rounds -------------------------------------------------------------------------------------------------------


def test_a_round_goes_up_as_one_sum_in_the_order_of_the_names() -> None:
    relay = collecting()
    assert relay.gradient("b", 0, value=2.0) == []
    assert relay.gradient("a", 0, value=1.0) == ["SumUp"]
    total = relay.summed()
    assert (total.round, total.agent_ids) == (0, ("a", "b"))
    assert [float(np.asarray(each.gradient.values)[0, 0]) for each in total.contributions] == [1.0, 2.0]
    assert relay.opened(1) == ["Broadcast BasisUpdate"]
    assert relay.state.fleet.history.rounds_counted == {"a": 1, "b": 1}


def test_agents_are_told_what_is_durable_at_the_coordinator() -> None:
    relay = closing()
    relay.opened(1, durable=0)
    assert relay.sent(m.BasisUpdate).stamp == relay.stamp(1, durable=0)
    relay.gradient("a", 0)
    assert relay.sent(m.Receipt).stamp == relay.stamp(1, durable=0)
    assert relay.sent(m.Receipt).disposition is m.Disposition.DUPLICATE


def test_a_round_that_is_asked_for_again_is_asked_of_the_agents_again() -> None:
    relay = closing()
    assert relay.opened(0) == ["Broadcast BasisUpdate"]
    relay.gradient("a", 0)
    assert relay.gradient("b", 0) == ["SumUp"]


def test_a_gradient_of_a_round_that_was_taken_back_is_no_fault_of_its_agent() -> None:
    relay = closing()
    relay.opened(1)
    relay.opened(0)
    assert relay.state.fleet.history.rounds_counted == {}
    assert relay.gradient("a", 1) == []
    assert relay.state.fleet.open_round.contributions == {}


def test_rounds_that_were_taken_back_while_it_had_no_agents_have_not_counted() -> None:
    relay = closing()
    relay.opened(1)
    for name in "ab":
        relay.step(events.LeaveArrived(relay.tokens[name], "for a test", returning=True))
    assert relay.state.fleet.phase is m.RunPhase.WAITING
    assert relay.state.fleet.history.rounds_counted == {"a": 1, "b": 1}
    relay.join("a")
    relay.wait(3.0)
    relay.welcomed(0)
    assert (relay.state.fleet.round, relay.state.fleet.history.rounds_counted) == (0, {})


def test_a_head_covariance_is_passed_on_with_its_basis() -> None:
    relay, covariance = collecting(), np.diag([2.0, 0.5])
    relay.step(RoundOpened(relay.stamp(1), 1, relay.basis, covariance))
    assert relay.sent(m.BasisUpdate).head_covariance is covariance
    relay.step(RunFinished(m.Finish(relay.stamp(3), m.FinishCause.STOPPED, "", relay.basis, 2.0 * covariance)))
    assert np.array_equal(relay.sent(m.Finish).head_covariance, 2.0 * covariance)


def test_the_end_is_the_coordinators() -> None:
    relay = closing()
    finish = m.Finish(relay.stamp(3), m.FinishCause.ROUNDS_REACHED, "all done", relay.basis)
    assert relay.step(RunFinished(finish)) == ["Broadcast Finish", "run-finished", "EndRun"]
    told = relay.sent(m.Finish)
    assert (told.stamp, told.cause, told.message) == (relay.stamp(3), m.FinishCause.ROUNDS_REACHED, "all done")
    with pytest.raises(errors.RunFinishedError):
        relay.join("c")


def test_a_relay_that_goes_down_asks_its_agents_to_come_back() -> None:
    relay = collecting()
    relay.join("c")
    told = relay.step(events.StopRequested("enough"))
    assert told == ["CloseStream", "Broadcast Drain", "run-suspended", "Suspend"]


# Who comes ----------------------------------------------------------------------------------------------------


def test_who_comes_while_a_round_collects_is_in_it_at_both_ends() -> None:
    relay = collecting()
    relay.gradient("a", 0)
    relay.join("c")
    assert relay.gradient("b", 0) == [], "the round waits for c"
    assert relay.wait(machine.GATHER_SECONDS) == ["HostAgents"]
    assert relay.hosted() == ("a", "b", "c")
    assert relay.welcomed(0, started=True) == ["Send Welcome"]
    assert relay.sent(m.Welcome).first_round == 0
    assert relay.gradient("c", 0) == ["SumUp"]
    assert relay.summed().agent_ids == ("a", "b", "c")


def test_who_comes_after_the_sum_is_in_the_next_round_at_both_ends() -> None:
    relay = closing()
    relay.join("c")
    assert relay.wait(1.0) == [], "the coordinator would await c in this round"
    assert relay.opened(1) == ["Broadcast BasisUpdate"]
    assert relay.wait(machine.GATHER_SECONDS) == ["HostAgents"]
    relay.welcomed(1, started=True)
    assert relay.sent(m.Welcome).first_round == 1
    assert relay.state.fleet.open_round.awaited == {"a", "b", "c"}


def test_who_waits_for_its_welcome_is_not_given_up_for_its_silence() -> None:
    relay = RelayDriver(gather_agents=1)
    relay.join("a")
    for _ in range(3):
        assert relay.wait(SESSION_TIMEOUT) == []
    assert relay.welcomed() == ["Send Welcome"]


def test_who_is_not_welcomed_sends_nothing() -> None:
    relay = collecting()
    relay.join("c")
    with pytest.raises(errors.OutOfTurnError):
        relay.gradient("c", 0)


def test_whom_the_coordinator_refuses_does_not_keep_the_others_out() -> None:
    relay = collecting()
    relay.gradient("a", 0)
    relay.join("c")
    relay.wait(machine.GATHER_SECONDS)
    refusal = errors.AgentIdTakenError("agent 'c' is hosted by another process")
    assert relay.step(Refused(refusal)) == ["agent-gone", "CloseStream", "HostAgents"]
    assert relay.hosted() == ("a", "b")
    assert relay.gradient("b", 0) == ["SumUp"]


def test_an_agent_that_is_known_is_welcomed_at_once_when_it_comes_back() -> None:
    relay = collecting()
    relay.step(events.StreamClosed(relay.tokens["a"], 1))
    resumption = m.Resumption(relay.tokens["a"], "run-1", 0)
    assert relay.join("a", resumption=resumption) == ["Send Welcome", "agent-back"]


# Who goes -----------------------------------------------------------------------------------------------------


def test_the_coordinator_is_told_at_once_who_is_gone_and_the_round_goes_up_without_it() -> None:
    relay = collecting()
    relay.gradient("a", 0)
    relay.step(events.StreamClosed(relay.tokens["b"], 2))
    relay.now += SESSION_TIMEOUT / 2
    relay.step(events.HeartbeatArrived(relay.tokens["a"]))
    assert relay.wait(SESSION_TIMEOUT / 2) == ["agent-gone", "SumUp", "HostAgents"]
    assert relay.summed().agent_ids == ("a",)
    assert relay.hosted() == ("a",)
    assert "did not come back" in relay.state.fleet.members.departures["b"].cause


def test_who_goes_after_its_gradient_counted_is_in_the_sum() -> None:
    relay = collecting()
    relay.gradient("a", 0)
    assert relay.step(events.LeaveArrived(relay.tokens["a"], "enough")) == ["agent-gone"]
    assert relay.gradient("b", 0) == ["SumUp"]
    assert relay.summed().agent_ids == ("a", "b")
    assert relay.opened(1) == ["Broadcast BasisUpdate", "HostAgents"]
    assert relay.hosted() == ("b",)


def test_who_is_gone_is_not_asked_again_for_a_round_that_is_asked_for_again() -> None:
    relay = collecting()
    relay.gradient("a", 0)
    relay.step(events.LeaveArrived(relay.tokens["a"], "enough"))
    assert relay.opened(0) == ["Broadcast BasisUpdate", "HostAgents"]
    assert relay.hosted() == ("b",)


def test_who_comes_when_all_others_are_gone_takes_their_place() -> None:
    relay = closing()
    relay.join("c")
    for agent in "ab":
        relay.step(events.LeaveArrived(relay.tokens[agent], "enough"))
    assert relay.opened(1) == ["Broadcast BasisUpdate"]
    assert relay.wait(machine.GATHER_SECONDS) == ["HostAgents"]
    assert relay.hosted() == ("c",)


def test_with_its_last_agent_a_relay_leaves_and_comes_back_with_the_next() -> None:
    relay = collecting()
    relay.step(events.LeaveArrived(relay.tokens["a"], ""))
    assert relay.step(events.LeaveArrived(relay.tokens["b"], "")) == ["agent-gone", "HostAgents"]
    assert relay.hosted() == ()
    relay.join("c")
    assert relay.wait(3.0) == ["HostAgents"]
    assert relay.welcomed(7) == ["Send Welcome"]
    assert relay.sent(m.Welcome).stamp == relay.stamp(7)


def test_a_straggler_is_given_up_before_the_relay_is() -> None:
    relay = collecting()
    relay.gradient("a", 0)
    while relay.state.fleet.open_round.awaited and relay.now < ROUND:
        relay.now += SESSION_TIMEOUT / 2
        for agent in "ab":
            relay.step(events.HeartbeatArrived(relay.tokens[agent]))
        relay.step(events.Tick())
    assert relay.summed().agent_ids == ("a",)
    assert relay.now < ROUND
    assert relay.state.fleet.members.departures["b"].cause == "it sent no gradient for 54 s"


def test_a_process_that_comes_back_smaller_takes_nobody_with_it() -> None:
    relay = RelayDriver()
    relay.join("a", "b", instance="group")
    relay.welcomed()
    relay.opened(0)
    relay.join("a", instance="group")
    assert relay.hosted() == ("a",)
    relay.welcomed(0, started=True)
    assert relay.gradient("a", 0) == ["SumUp"]
