"""What one peer may have, and all together: counts, rates, and what an honest fleet does at its worst."""

import pytest

from cospan.server.admission.peer_limits import (
    Account,
    Kind,
    PeerLimit,
    closed,
    is_blank,
    joined,
    limit_of_all,
    limit_of_peer,
    most_connections,
    opened,
)
from cospan.wire.errors import RateLimitedError, TooManyStreamsError

SMALL = PeerLimit(at_once=3, unjoined=2, burst=4.0, per_second=2.0)


def open_one(account: Account, now: float = 0.0, limit: PeerLimit = SMALL, kind: Kind = Kind.STREAM) -> Account:
    return opened(account, kind, limit, now, "one host")


def test_streams_at_once_are_counted_and_given_back() -> None:
    account = Account()
    for number in range(3):
        account = joined(open_one(account, float(number)))
    with pytest.raises(TooManyStreamsError, match="one host has 3 Collaborate streams open, and may have 3"):
        open_one(account, 9.0)
    account = closed(account, unjoined=False)
    account = open_one(account, 9.0)
    assert (account.open, account.unjoined) == (3, 1)


def test_streams_that_have_not_joined_have_a_count_of_their_own() -> None:
    account = open_one(open_one(Account()))
    with pytest.raises(TooManyStreamsError, match="2 Collaborate streams that have not joined, and may have 2"):
        open_one(account)
    assert open_one(joined(account)).unjoined == 2
    assert open_one(closed(account, unjoined=True)).unjoined == 2


def test_other_calls_need_no_join() -> None:
    account = Account()
    for _ in range(3):
        account = open_one(account, kind=Kind.CALL)
    assert account.unjoined == 0


def test_openings_are_limited_in_time() -> None:
    account = Account()
    for _ in range(4):
        account = closed(open_one(account), unjoined=True)
    with pytest.raises(RateLimitedError, match="2 a second are allowed"):
        open_one(account, 0.4)
    later = open_one(account, 0.5)
    assert later.open == 1
    assert not is_blank(account, SMALL, 1.9)
    assert is_blank(account, SMALL, 2.0)
    assert not is_blank(later, SMALL, 99.0)


def test_a_refusal_costs_nothing() -> None:
    """A refused peer that waits as long as it should is admitted, however often it has asked meanwhile."""
    account = Account()
    for _ in range(4):
        account = closed(open_one(account), unjoined=True)
    for _ in range(100):
        with pytest.raises(RateLimitedError):
            open_one(account, 0.4)
    assert open_one(account, 0.5).open == 1


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("agents", [0, 1, 200])
def test_an_honest_host_with_a_whole_fleet_never_meets_its_limits(kind: Kind, agents: int) -> None:
    """All agents at once, every stream broken and reopened, and each tries again once a second from then on."""
    limit, account, now = limit_of_peer(kind, agents), Account(), 0.0
    trying = agents if kind in (Kind.STREAM, Kind.CALL) else 4
    for _ in range(trying):
        account = open_one(account, now, limit, kind)
        account = joined(account) if kind is Kind.STREAM else account
    for _ in range(6):
        now += 1.0
        for _ in range(trying):
            account = joined(open_one(account, now, limit, kind)) if kind is Kind.STREAM else account
            account = closed(account, unjoined=False)
            account = account if kind is Kind.STREAM else open_one(account, now, limit, kind)
    assert account.open == trying


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("agents", [1, 200, 2**20])
def test_all_together_may_have_more_than_one(kind: Kind, agents: int) -> None:
    one, everybody = limit_of_peer(kind, agents), limit_of_all(kind, agents)
    assert everybody.at_once >= 1.5 * one.at_once
    assert everybody.unjoined >= 1.5 * one.unjoined
    assert most_connections(agents) > everybody.at_once


def test_a_peer_of_one_agent_cannot_take_the_places_of_a_fleet() -> None:
    for kind in (Kind.STREAM, Kind.CALL):
        assert limit_of_peer(kind, 1).at_once < limit_of_all(kind, 200).at_once / 5
