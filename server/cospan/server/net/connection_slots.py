"""Which connections a listener of limited size keeps open, and which one a new connection replaces.

Pure: time is part of the values.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class SlotHolder:
    """One connection.

    Attributes:
        peer: its host; for IPv6 the /64 network.
        since: start of its wait, in seconds.
        waiting: whether the server waits for its request; while it is answered it keeps its slot.
    """

    peer: str
    since: float
    waiting: bool = True


@dataclass(frozen=True, slots=True)
class ConnectionSlots:
    """Whether a new connection is admitted, and which one is closed for it."""

    admitted: bool
    leaves: SlotHolder | None = None


def admission(open_slots: Iterable[SlotHolder], peer: str, *, most: int, most_of_peer: int) -> ConnectionSlots:
    """Decides on a new connection of host `peer`, with at most `most` open and `most_of_peer` of one host.

    Only a waiting connection can be closed: of the peer with the most of them, the one that has waited longest. So
    a host that opens connections and sends nothing loses its own, while a request that arrives at once is answered.
    """
    found = list(open_slots)
    of_peer = [slot for slot in found if slot.peer == peer]
    if len(of_peer) >= most_of_peer:
        found = of_peer
    elif len(found) < most:
        return ConnectionSlots(admitted=True)
    waiting = [slot for slot in found if slot.waiting]
    if not waiting:
        return ConnectionSlots(admitted=False)
    counts = Counter(slot.peer for slot in waiting)
    leaves = max(waiting, key=lambda slot: (counts[slot.peer], -slot.since))
    return ConnectionSlots(admitted=True, leaves=leaves)
