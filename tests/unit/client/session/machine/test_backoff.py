"""How long an agent waits before it tries again, here and far away, and that an attempt is one."""

from pathlib import Path

import pytest

from cospan.client.session import transport
from cospan.client.session.machine.backoff import pause_seconds
from cospan.client.session.transport import AgentStream, is_near
from cospan.core.specification import RunSpecification
from cospan.wire.errors import CospanError
from cospan.wire.limits import client_options
from cospan.wire.security.tls import TlsFiles

MEAN = 0.5
"""The mean of what a jitter is drawn from."""


def test_far_away_the_pause_doubles_up_to_a_second() -> None:
    assert [pause_seconds(n, 1.0) for n in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert [pause_seconds(n, 0.0) for n in (0, 9, 10**6)] == pytest.approx([0.05, 0.5, 0.5])


def test_on_the_same_machine_it_stays_at_a_quarter_for_the_first_ten_seconds() -> None:
    pauses = [pause_seconds(n, MEAN, near_agents=8) for n in range(60)]
    assert max(pauses[:50]) <= 0.25
    assert 8.0 < sum(pauses[:50]) < 12.0
    assert pauses[50:] == [pause_seconds(n, MEAN) for n in range(50, 60)]


@pytest.mark.parametrize("agents", [1, 8, 33, 34, 100, 133, 134, 1000, 10**6])
def test_a_whole_fleet_on_one_machine_asks_as_seldom_as_that_machine_can_bear(agents: int) -> None:
    steady = pause_seconds(40, MEAN, near_agents=agents)
    common = pause_seconds(40, MEAN)
    assert agents / steady <= max(180.0, agents / common)
    assert (steady == common) == (agents >= 134)
    assert all(pause_seconds(n, 1.0, near_agents=agents) <= pause_seconds(n, 1.0) for n in range(60))


class Wrapped:
    """A transport around another, as programs make them."""

    def __init__(self, is_near: object) -> None:
        self.is_near = is_near

    async def describe(self) -> RunSpecification:
        raise CospanError("not here")

    async def open(self, specification: RunSpecification) -> AgentStream:
        raise CospanError(f"not here, of {specification.workload}")


@pytest.mark.parametrize(
    ("address", "near"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("unix:/x", True), ("192.0.2.1:1", False)],
)
def test_which_coordinators_are_near(address: str, near: bool) -> None:
    assert is_near(transport.GrpcTransport(address)) == near
    assert is_near(Wrapped(near)) == near
    assert not is_near(Wrapped("yes"))


def test_with_tls_none_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "TlsSource", lambda files: files)
    files = TlsFiles(Path("a.crt"), Path("a.key"), Path("ca.crt"))
    assert not is_near(transport.GrpcTransport("127.0.0.1:1", tls=files))


def test_grpc_tries_each_time_that_an_agent_asks_it_to() -> None:
    """Until its own backoff, with a jitter of a fifth, is over, gRPC answers with the failure before."""
    options = dict(client_options(1000))
    assert options["grpc.initial_reconnect_backoff_ms"] == options["grpc.max_reconnect_backoff_ms"]
    longest = 1.2 * options["grpc.max_reconnect_backoff_ms"] / 1000.0
    steady = [pause_seconds(n, 0.0, near_agents=near) for n in range(3, 60) for near in (None, 1, 8, 1000)]
    assert longest <= min(steady)
