"""The interceptor's accounts: whose they are, that they are given back, and that their number is bounded."""

import asyncio
import logging
from contextlib import suppress

import pytest
from runs import run

from cospan.server.admission import interceptor
from cospan.server.admission.interceptor import AdmissionInterceptor
from cospan.server.admission.peer_limits import Kind, limit_of_all, limit_of_peer
from cospan.wire.errors import InvalidMessageError, RateLimitedError, TooManyStreamsError
from cospan.wire.security.identity import Identity, of_certificate, without_certificate

AGENTS = 3


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Door:
    """An interceptor, with a clock that the test sets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.keeper = AdmissionInterceptor(AGENTS, own_way=frozenset(), looking=frozenset(), clock=self.clock)

    def enter(self, identity: Identity, kind: Kind = Kind.STREAM) -> interceptor.Entry:
        return self.keeper._enter(kind, identity)


def host(number: int) -> Identity:
    return without_certificate(address=f"ipv4:10.0.{number // 256}.{number % 256}:4242")


def agent(name: str) -> Identity:
    return of_certificate([f"cospan:agent:{name}"], address="ipv4:10.0.0.1:1")


def test_one_peer_that_has_its_share_does_not_keep_another_out() -> None:
    door = Door()
    most = limit_of_peer(Kind.STREAM, 1).at_once
    for _ in range(most):
        door.keeper.joined(door.enter(agent("greedy")))
    with pytest.raises(TooManyStreamsError, match=f"cospan:agent:greedy has {most} Collaborate streams open"):
        door.enter(agent("greedy"))
    door.enter(agent("modest"))


def test_all_together_have_a_limit() -> None:
    door = Door()
    for number in range(limit_of_all(Kind.WATCH, AGENTS).at_once):
        door.enter(host(number), Kind.WATCH)
    with pytest.raises(TooManyStreamsError, match="this run has 64 calls that watch rounds open, and may have 64"):
        door.enter(host(999), Kind.WATCH)
    door.enter(host(999), Kind.LOOK)


def test_what_is_refused_takes_no_place() -> None:
    """Neither in the peer's account where the run is full, nor in that of all where the peer has too many."""
    door = Door()
    entries = [door.enter(host(number), Kind.LOOK) for number in range(64)]
    for _ in range(20):
        with pytest.raises(TooManyStreamsError):
            door.enter(host(999), Kind.LOOK)
    door.keeper._leave(entries.pop())
    entries += [door.enter(host(999), Kind.LOOK)]
    for entry in entries:
        door.keeper._leave(entry)
    for _ in range(16):
        door.enter(host(1), Kind.LOOK)
    with pytest.raises(TooManyStreamsError, match=r"10\.0\.0\.1 without a certificate has 16"):
        door.enter(host(1), Kind.LOOK)
    for number in range(2, 5):
        for _ in range(16):
            door.enter(host(number), Kind.LOOK)


@pytest.mark.parametrize("joins", [True, False])
def test_a_call_that_ends_gives_its_place_back(joins: bool) -> None:
    door = Door()
    for _ in range(limit_of_peer(Kind.STREAM, AGENTS).at_once):
        door.clock.now += 1.0
        with suppress(InvalidMessageError), door.keeper.admitted(Kind.STREAM, host(1)) as entry:
            if joins:
                door.keeper.joined(entry)
            raise InvalidMessageError("it says something wrong")
    door.clock.now += 100.0
    most = limit_of_peer(Kind.STREAM, AGENTS)
    for _ in range(most.unjoined):
        door.enter(host(1))
    with pytest.raises(TooManyStreamsError, match="have not joined"):
        door.enter(host(1))


def test_whoever_opens_and_closes_too_often_has_to_wait() -> None:
    door, limit = Door(), limit_of_peer(Kind.CALL, AGENTS)
    for _ in range(int(limit.burst)):
        with door.keeper.admitted(Kind.CALL, host(1)):
            pass
    with pytest.raises(RateLimitedError):
        door.enter(host(1), Kind.CALL)
    door.clock.now += 1.0 / limit.per_second
    with door.keeper.admitted(Kind.CALL, host(1)):
        pass


def test_accounts_that_say_nothing_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer with many addresses must not fill the memory; one that is here, or has spent, is remembered."""
    monkeypatch.setattr(interceptor, "_SWEEP_FROM", 10)
    door = Door()
    stays = door.enter(host(0))
    for number in range(1, 1000):
        door.clock.now += 1.0
        with door.keeper.admitted(Kind.CALL, host(number)):
            pass
        assert len(door.keeper._accounts) <= interceptor._SWEEP_FROM
    assert door.keeper._accounts[stays.key, Kind.STREAM][0].open == 1


def test_refusals_are_counted_and_a_flood_of_them_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    door = Door()
    for _ in range(100):
        door.clock.now += 0.1
        door.keeper.count(RateLimitedError("too many"), host(1))
    door.keeper.count(InvalidMessageError("nonsense"), host(1))
    assert door.keeper.refused == {"RATE_LIMITED": 100, "INVALID_MESSAGE": 1}
    assert 9 <= len(caplog.records) <= 11
    assert caplog.records[0].getMessage() == (
        "refused a peer at 10.0.0.1 without a certificate: too many (RATE_LIMITED)"
    )


def test_the_end_of_a_coordinator_waits_for_calls_that_are_still_on_their_way_out() -> None:
    door = Door()
    ended = []

    async def call(go: asyncio.Event) -> None:
        door.keeper.accompany()
        await go.wait()  # gRPC still sends the status
        ended.append(True)

    async def all_of_it() -> None:
        go = asyncio.Event()
        task = asyncio.create_task(call(go))
        await door.keeper.calls_ended(0.001)  # there is no call yet
        await asyncio.sleep(0)
        await door.keeper.calls_ended(0.001)
        assert not ended
        go.set()
        await door.keeper.calls_ended(20.0)
        assert ended
        await task

    run(all_of_it())
