"""Limits on what one peer, and all peers together, may use of the coordinator: streams, calls and their rate.

The limits follow from the run: `agents` is the number of agents in its specification, or the number that one peer
may host. A certificate names its agents; a peer without one is identified by its host, which may run the whole
fleet. Honest peers stay far below: an agent has one stream, requests the specification once, sends a request every
few seconds while it receives nothing (a whole fleet about 100 per second), and reconnects about once per second.

Pure: an account is a value, and time is an argument.
"""

import math
from dataclasses import dataclass, replace
from enum import Enum

from cospan.wire.errors import RateLimitedError, TooManyStreamsError


class Kind(Enum):
    """What is limited; the value is the noun in error messages."""

    STREAM = "Collaborate streams"
    CALL = "calls"
    LOOK = "calls that read the run"
    WATCH = "calls that watch rounds"


@dataclass(frozen=True, slots=True)
class PeerLimit:
    """Limit on one kind.

    Attributes:
        at_once: most that may be open.
        unjoined: most open streams that have not joined.
        burst: most that may be opened at once after a pause.
        per_second: rate at which the burst is restored.
    """

    at_once: int
    unjoined: int
    burst: float = math.inf
    per_second: float = math.inf


@dataclass(frozen=True, slots=True)
class Account:
    """What a peer uses of one kind.

    Attributes:
        open: number that are open.
        unjoined: number of these that have not joined.
        spent: used part of the burst at time `since`.
        since: seconds.
    """

    open: int = 0
    unjoined: int = 0
    spent: float = 0.0
    since: float = 0.0


def limit_of_peer(kind: Kind, agents: int) -> PeerLimit:
    """The limit of one peer that may host `agents` agents."""
    rate = 8.0 * agents + 64.0, 2.0 * agents + 8.0
    match kind:
        case Kind.STREAM:
            # A broken stream may look open until keepalive detects it, while its agent has reconnected.
            return PeerLimit(2 * agents + 64, agents + 32, *rate)
        case Kind.CALL:
            return PeerLimit(agents + 32, agents + 32, *rate)
        case Kind.LOOK:
            return PeerLimit(16, 16, 64.0, 20.0)
        case Kind.WATCH:
            return PeerLimit(16, 16, 64.0, 8.0)


def limit_of_all(kind: Kind, agents: int) -> PeerLimit:
    """The limit of all peers together, in a run of `agents` agents."""
    most = 2 * agents + 128
    match kind:
        case Kind.STREAM:
            return PeerLimit(2 * most, most)
        case Kind.CALL:
            return PeerLimit(most, most)
        case Kind.LOOK | Kind.WATCH:
            return PeerLimit(64, 64)


def most_connections(agents: int) -> int:
    """Limit on the TCP connections of a run of `agents` agents: above the limit on streams."""
    return 4096 + 8 * agents


def opened(account: Account, kind: Kind, limit: PeerLimit, now: float, whose: str) -> Account:
    """The account with one more open at time `now` (seconds); `whose` is the subject of the error message.

    Raises:
        TooManyStreamsError: the number that are open has reached the limit.
        RateLimitedError: the burst is used up.
    """
    if account.open >= limit.at_once:
        raise TooManyStreamsError(
            f"{whose} has {account.open} {kind.value} open, and may have {limit.at_once}; end some, or try again"
        )
    if account.unjoined >= limit.unjoined and kind is Kind.STREAM:
        raise TooManyStreamsError(
            f"{whose} has {account.unjoined} {kind.value} that have not joined, and may have {limit.unjoined}; "
            "send the Join of each, or try again"
        )
    spent = _spent(account, limit, now)
    if spent + 1.0 > limit.burst:
        raise RateLimitedError(
            f"{whose} has opened too many {kind.value}; {limit.per_second:g} a second are allowed: try again later"
        )
    return Account(account.open + 1, account.unjoined + (kind is Kind.STREAM), spent + 1.0, now)


def joined(account: Account) -> Account:
    """The account after one of its streams has joined."""
    return replace(account, unjoined=account.unjoined - 1)


def closed(account: Account, *, unjoined: bool) -> Account:
    """The account with one less open; `unjoined` if that was a stream that never joined."""
    return replace(account, open=account.open - 1, unjoined=account.unjoined - unjoined)


def is_blank(account: Account, limit: PeerLimit, now: float) -> bool:
    """Whether an account equals a new one, so that it can be deleted."""
    return account.open == 0 and _spent(account, limit, now) == 0.0


def _spent(account: Account, limit: PeerLimit, now: float) -> float:
    if account.spent == 0.0 or limit.per_second == math.inf:
        return 0.0
    return max(0.0, account.spent - limit.per_second * (now - account.since))
