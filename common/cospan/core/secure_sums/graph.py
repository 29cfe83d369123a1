"""Between which members of an epoch masks are added: all pairs of a small one, a sparse random graph of others.

Bell, Bonawitz, Gascón, Lepoint and Raykova 2020, "Secure single-server aggregation with (poly)logarithmic
overhead": a Harary graph over a random order of the members. Their bounds are for rounds in which members drop out;
here a round counts only with all members, so the graph has to do one thing: stay connected without the members that
collude with the coordinator. Then what all of them know together is the sum over all honest members, and no more.

**The degree.** The members stand on a ring, in an order drawn from the epoch id, and each is a neighbour of the
k/2 next to it on both sides. Honest members come apart only where colluding members fill two runs of k/2 places or
more. With a share γ of colluding members, k given places are all theirs with a probability of at most γ^k, and
there are fewer than n²/2 pairs of runs. A coordinator may try many memberships before it announces one, so

    n²/2 · γ^k ≤ 2^−80

which leaves it 2^−40 after 2^40 tries. γ = 1/4 is a constant of the protocol.
"""

import hashlib
import math
from functools import lru_cache

COLLUDING_SHARE = 0.25
"""γ: below which share of colluding members the sparse graph stays connected."""
_SECURITY_BITS = 80
_CONTEXT = b"cospan secure sums 1: order"


def degree_of(members: int) -> int:
    """k for an epoch of n members: even, and n − 1 where that is not more."""
    if members < 2:
        return 0
    least = (_SECURITY_BITS + 2.0 * math.log2(members) - 1.0) / -math.log2(COLLUDING_SHARE)
    return min(members - 1, 2 * math.ceil(least / 2.0))


def neighbours_of(epoch_id: bytes, members: int, place: int) -> tuple[int, ...]:
    """The places of one member's neighbours, ascending; j is a neighbour of i exactly where i is one of j.

    Args:
        epoch_id: of the membership.
        members: n.
        place: of the member in the membership, 0 to n − 1.
    """
    degree = degree_of(members)
    if degree >= members - 1:
        return tuple(other for other in range(members) if other != place)
    order = _order(epoch_id, members)
    at = order.index(place)
    half = degree // 2
    steps = [step for step in range(-half, half + 1) if step]
    return tuple(sorted(order[(at + step) % members] for step in steps))


@lru_cache(maxsize=4)
def _order(epoch_id: bytes, members: int) -> tuple[int, ...]:
    """The places in the order of SHA-256(context ‖ epoch id ‖ place), place as 8 little-endian bytes."""
    start = _CONTEXT + epoch_id
    drawn = [hashlib.sha256(start + place.to_bytes(8, "little")).digest() for place in range(members)]
    return tuple(sorted(range(members), key=drawn.__getitem__))
