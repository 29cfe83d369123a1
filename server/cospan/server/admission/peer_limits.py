"""How much of the coordinator one peer may have, and all of them together: the numbers, and the count of them.

The numbers follow from the run: A is the number of agents in its specification, a how many of them a peer may stand
for. That is as many as its certificate names; without a certificate of its own it is told apart by its host alone,
and one host may run the whole fleet. Honest peers stay far below: an agent has one stream, asks once what the run
is, asks again every few seconds while nothing is sent to it (a whole fleet about 100 times a second at most), and
when it is refused or cut off tries again once a second or so.

Pure: an account is a value, and time is an argument.
"""

import math
from dataclasses import dataclass, replace
from enum import Enum

from cospan.wire.errors import RateLimitedError, TooManyStreamsError


class Kind(Enum):
    """What a peer may have several of."""

    STREAM = "Collaborate streams"
    CALL = "calls"
    LOOK = "calls that look at the run"
    WATCH = "calls that go on watching"


@dataclass(frozen=True, slots=True)
class Quota:
    """What may be had of one kind.

    Attributes:
        at_once: how many may be open.
        unjoined: how many of these may be streams that have not joined yet.
        burst: how many may be opened at once by one who has opened none for long.
        per_second: how many more with every second.
    """

    at_once: int
    unjoined: int
    burst: float = math.inf
    per_second: float = math.inf


@dataclass(frozen=True, slots=True)
class Account:
    """What somebody has of one kind.

    Attributes:
        open: how many.
        unjoined: how many of them have not joined.
        spent: how much of the burst is used up.
        since: when that was so, in seconds.
    """

    open: int = 0
    unjoined: int = 0
    spent: float = 0.0
    since: float = 0.0


def quota_of_peer(kind: Kind, agents: int) -> Quota:
    """What one peer may have that stands for so many agents."""
    match kind:
        case Kind.STREAM:
            # A stream that broke may seem open until keepalive finds out, while its agent is back.
            return Quota(2 * agents + 64, agents + 32, 8.0 * agents + 64.0, 2.0 * agents + 8.0)
        case Kind.CALL:
            return Quota(agents + 32, agents + 32, 8.0 * agents + 64.0, 2.0 * agents + 8.0)
        case Kind.LOOK:
            return Quota(16, 16, 64.0, 20.0)
        case Kind.WATCH:
            return Quota(16, 16, 64.0, 8.0)


def quota_of_all(kind: Kind, agents: int) -> Quota:
    """What all peers of a run of so many agents may have together."""
    match kind:
        case Kind.STREAM:
            return Quota(4 * agents + 256, 2 * agents + 128)
        case Kind.CALL:
            return Quota(2 * agents + 128, 2 * agents + 128)
        case Kind.LOOK | Kind.WATCH:
            return Quota(64, 64)


def most_connections(agents: int) -> int:
    """How many TCP connections a run of so many agents may have: room for each stream that is allowed, and more."""
    return 4096 + 8 * agents


def opened(account: Account, kind: Kind, quota: Quota, now: float, whose: str) -> Account:
    """The account with one more.

    Args:
        account: before.
        kind: of what.
        quota: what may be had.
        now: the time, in seconds.
        whose: for the sentence that says no.

    Raises:
        TooManyStreamsError: so many are open that there may not be another.
        RateLimitedError: too many were opened of late.
    """
    if account.open >= quota.at_once:
        raise TooManyStreamsError(
            f"{whose} has {account.open} {kind.value} open, and may have {quota.at_once}; end some, or try again"
        )
    if account.unjoined >= quota.unjoined and kind is Kind.STREAM:
        raise TooManyStreamsError(
            f"{whose} has {account.unjoined} {kind.value} that have not joined, and may have {quota.unjoined}; "
            "send the Join of each, or try again"
        )
    spent = _spent(account, quota, now)
    if spent + 1.0 > quota.burst:
        raise RateLimitedError(
            f"{whose} has opened too many {kind.value}; {quota.per_second:g} a second are allowed: try again later"
        )
    unjoined = account.unjoined + (1 if kind is Kind.STREAM else 0)
    return Account(account.open + 1, unjoined, spent + 1.0, now)


def joined(account: Account) -> Account:
    """The account when one of its streams has joined."""
    return replace(account, unjoined=account.unjoined - 1)


def closed(account: Account, *, unjoined: bool) -> Account:
    """The account with one less; `unjoined` where that was a stream that never joined."""
    return replace(account, open=account.open - 1, unjoined=account.unjoined - (1 if unjoined else 0))


def is_blank(account: Account, quota: Quota, now: float) -> bool:
    """Whether an account is worth no more than a new one, and can be forgotten."""
    return account.open == 0 and _spent(account, quota, now) == 0.0


def _spent(account: Account, quota: Quota, now: float) -> float:
    if account.spent == 0.0 or quota.per_second == math.inf:
        return 0.0
    return max(0.0, account.spent - quota.per_second * (now - account.since))
