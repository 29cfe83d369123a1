"""Who has a place at a listener with a bounded number of connections, and who makes room for a newcomer.

Pure: time is part of the values.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class SlotHolder:
    """One connection.

    Attributes:
        peer: the host that it comes from; of IPv6 its /64 network.
        since: since when it waits, in seconds.
        waiting: whether the server waits for a whole request of it. While it is answered it keeps its place.
    """

    peer: str
    since: float
    waiting: bool = True


@dataclass(frozen=True, slots=True)
class ConnectionSlots:
    """Whether a newcomer gets a place, and whose, where none was free."""

    admitted: bool
    leaves: SlotHolder | None = None


def admission(guests: Iterable[SlotHolder], peer: str, *, most: int, most_of_peer: int) -> ConnectionSlots:
    """Finds a place for a newcomer.

    Only a guest that waits can lose its place: of the peer that has the most of those, the one that has waited
    longest. So a host that opens connections and says nothing loses its own, and a request that comes as soon as
    its connection is open is in time.

    Args:
        guests: who is there.
        peer: the host of the newcomer.
        most: how many there may be.
        most_of_peer: how many of one host.
    """
    there = list(guests)
    of_peer = [guest for guest in there if guest.peer == peer]
    if len(of_peer) >= most_of_peer:
        there = of_peer
    elif len(there) < most:
        return ConnectionSlots(admitted=True)
    waiting = [guest for guest in there if guest.waiting]
    if not waiting:
        return ConnectionSlots(admitted=False)
    counts = Counter(guest.peer for guest in waiting)
    leaves = max(waiting, key=lambda guest: (counts[guest.peer], -guest.since))
    return ConnectionSlots(admitted=True, leaves=leaves)
