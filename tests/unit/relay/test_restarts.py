"""A coordinator that is started again behind a relay: what the relay's agents are told, and which round is left."""

from dataclasses import replace

import pytest
from unit.relay.test_machine import RelayDriver, closing, collecting

from cospan.relay.events import Welcomed
from cospan.server.machine import events
from cospan.wire import errors
from cospan.wire import messages as m


def welcomed(
    relay: RelayDriver, incarnation: int, round_number: int, *, run_id: str = "run-1", begun: float, started: bool
) -> list[str]:
    stamp = replace(relay.stamp(round_number, incarnation=incarnation), run_id=run_id)
    welcome = m.Welcome(
        stamp, "up", relay.fixed, relay.basis, round_number, started, relay.state.names, coordinator_started=begun
    )
    return relay.step(Welcomed(welcome))


def running(relay: RelayDriver) -> RelayDriver:
    """With the second process of the coordinator, and one that was started at 20 s."""
    welcomed(relay, 2, 0, begun=20.0, started=True)
    return relay


# An older copy of the store ------------------------------------------------------------------------------------


@pytest.mark.parametrize("incarnation", [1, 2])
def test_agents_join_again_after_an_older_copy_of_the_store(incarnation: int) -> None:
    """Each accepts its incarnation from a welcome alone; over an open stream it ended with a damaged state."""
    relay = running(collecting())
    assert welcomed(relay, incarnation, 0, begun=30.0, started=True) == ["CloseStream", "CloseStream"]
    streams = {each.stream for each in relay.state.fleet.members.sessions.values()}
    assert {each.stream for each in relay.commands if isinstance(each, events.CloseStream)} == streams
    assert all(isinstance(each.error, errors.DrainingError) and each.error.retryable for each in relay.commands)
    assert relay.join("a") == ["CloseStream", "Send Welcome", "agent-back"], "the session is the same"
    welcome = relay.sent(m.Welcome)
    assert (welcome.coordinator_started, welcome.stamp.incarnation) == (30.0, incarnation)


def test_agents_stay_after_a_restart_that_their_stamps_show() -> None:
    relay = running(collecting())
    assert welcomed(relay, 3, 0, begun=30.0, started=True) == []
    assert welcomed(relay, 3, 0, begun=30.0, started=True) == [], "nor after a stream that broke"


def test_who_waits_for_its_welcome_or_is_lost_has_no_stream_to_end() -> None:
    relay = running(collecting())
    relay.step(events.StreamClosed(relay.tokens["a"], 1))
    relay.join("c")
    assert relay.wait(0.06) == ["HostAgents"]
    assert welcomed(relay, 1, 0, begun=30.0, started=True) == ["CloseStream", "Send Welcome"]
    assert relay.commands[0].stream == 2


# Before the first round ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [collecting, closing])
def test_who_comes_after_a_sum_of_the_first_round_is_in_that_if_the_run_waits_for_it(at: object) -> None:
    """The coordinator waited for one more agent, and the relay, with its sum on the way, for the next round."""
    relay = at()  # type: ignore[operator]
    welcomed(relay, 2, 0, begun=20.0, started=False)
    relay.join("c")
    assert relay.wait(0.06) == ["HostAgents"]
    assert relay.hosted() == ("a", "b", "c")
    assert welcomed(relay, 2, 0, begun=20.0, started=False) == ["Send Welcome"]
    assert not relay.sent(m.Welcome).started
    relay.opened(0)
    for agent in "abc":
        relay.gradient(agent, 0)
    assert relay.summed().agent_ids == ("a", "b", "c")
    relay.opened(1)
    assert relay.state.fleet.history.rounds_counted == {"a": 1, "b": 1, "c": 1}


def test_a_round_that_may_be_repeated_stays_with_those_of_its_sum() -> None:
    """After a restart the contributors of the last stored round repeat it alone."""
    relay = closing()
    relay.opened(1)
    relay.gradient("a", 1)
    relay.gradient("b", 1)
    welcomed(relay, 2, 1, begun=20.0, started=False)
    relay.join("c")
    assert relay.wait(0.06) == []


def test_a_gradient_that_comes_before_the_first_round_is_no_fault_of_its_agent() -> None:
    relay = collecting()
    welcomed(relay, 2, 0, begun=20.0, started=False)
    assert relay.gradient("a", 0) == []
    assert relay.opened(0) == ["Broadcast BasisUpdate"]
    assert relay.state.fleet.open_round.awaited == {"a", "b"}
